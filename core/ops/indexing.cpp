// Indexing by several tensors and masks, results whose size depends on values, and counts: all of them made of gather,
// index_select, index_add, scatter, cumsum and searchsorted, so that gradients and traces come with them.
#include <algorithm>

#include "core/dispatch.h"
#include "core/ops/composed.h"

namespace tandem {

namespace {

constexpr int64_t kMostClasses = int64_t{1} << 40;  // more have no room anywhere

TensorOptions positions_on(const Tensor& like) { return {.dtype = int64, .device = like.device()}; }

/// Negative positions as those that they stand for. Those out of range are told at once where that costs no trace and no
/// transfer; elsewhere the kernel that reads them does.
Tensor wrapped(const char* name, const Tensor& given, int64_t extent, int dim, const Arg& x) {
  const Tensor index = positions_of(name, given, x.where());
  if (!interceptor() && index.device().is_cpu()) {
    const Tensor values = contiguous(index);
    bool negative = false;
    for (const int64_t position : values.data<int64_t>()) {
      negative |= position < 0;
      if (position < -extent || position >= extent)
        throw DimensionError(detail::str(name, ": position ", position, " is out of range for dim ", dim, " of ",
                                         x.tensor().shape(), " (", -extent, " to ", extent - 1, ")"),
                             user_line(x.where()));
    }
    if (!negative) return index;
  }
  return where(index < 0, index + extent, index);
}

/// What indices come to: the dims that they pick from, moved to the front and flattened, and positions there.
struct Picked {
  Dims dims;          ///< of x, ascending
  Tensor rows;        ///< x as [product of their extents, rest..]
  Shape rest;         ///< the other extents
  Dims order;         ///< the permutation that moves the dims to the front
  Tensor positions;   ///< [count]
  Shape index_shape;  ///< what the positions broadcast to
  int index_dim = 0;  ///< where that stands in the result
};

/// Masks as the positions where they are true.
Tensors without_masks(const char* name, const Arg& x, const Tensors& indices) {
  Tensors result;
  const Shape& shape = x.tensor().shape();
  for (const Tensor& index : indices) {
    if (!index.defined() || index.dtype() != bool_) {
      result.push_back(index);
      continue;
    }
    const int at = static_cast<int>(result.size());
    bool fits = index.rank() > 0 && at + index.rank() <= shape.size();
    for (int d = 0; fits && d < index.rank(); ++d) fits = index.shape()[d] == shape[at + d];
    if (!fits)
      throw ShapeError(detail::str(name, ": mask ", index.shape(), " doesn't fit ", shape, " from dim ", at),
                       user_line(x.where()));
    check_not_traced(name, "take positions from nonzero(mask, {.size = n}), or use where or masked_fill", x.where());
    for (const Tensor& column : unbind(nonzero(index), 1)) result.push_back(column);
  }
  if (static_cast<int>(result.size()) > shape.size())
    throw ShapeError(detail::str(name, ": ", result.size(), " indices for ", shape, " of rank ", shape.size()),
                     user_line(x.where()));
  return result;
}

Picked pick(const char* name, const Arg& x, const Tensors& given) {
  const Tensors indices = without_masks(name, x, given);
  const Shape& shape = x.tensor().shape();
  Picked picked;
  Tensors wrapped_indices;
  Shape extents;
  for (int d = 0; d < static_cast<int>(indices.size()); ++d) {
    const Tensor& index = indices[static_cast<size_t>(d)];
    if (!index.defined()) continue;
    picked.dims.push_back(d);
    extents.push_back(shape[d]);
    wrapped_indices.push_back(wrapped(name, index, shape[d], d, x));
  }
  if (picked.dims.empty())
    throw ValueError(detail::str(name, ": needs at least one index that is defined"), user_line(x.where()));
  picked.index_shape = broadcast_shape(name, wrapped_indices, x.where());
  const int first = static_cast<int>(picked.dims[0]);
  const bool neighbours = picked.dims.back() - first + 1 == picked.dims.size();
  picked.index_dim = neighbours ? first : 0;
  // Row-major positions among the dims that are picked from; out of range altogether where one of them is.
  const Shape strides = contiguous_strides(extents);
  for (int i = 0; i < extents.size(); ++i) {
    const Tensor& index = wrapped_indices[static_cast<size_t>(i)];
    if (extents.size() == 1) {
      picked.positions = index;
      break;
    }
    const Tensor inside = where((index >= 0) & (index < extents[i]), index * strides[i], -extents.numel());
    picked.positions = i == 0 ? inside : picked.positions + inside;
  }
  picked.positions = reshape(expand(picked.positions, picked.index_shape), {picked.index_shape.numel()});
  picked.order = picked.dims;
  for (int d = 0; d < shape.size(); ++d)
    if (!picked.dims.contains(d)) picked.order.push_back(d), picked.rest.push_back(shape[d]);
  Shape rows = picked.rest;
  rows.insert(0, extents.numel());
  picked.rows = reshape(permute(x, picked.order), rows);
  return picked;
}

/// The dims of the index moved from the front to where they belong in the result, or back.
Tensor place_index(const Tensor& x, const Picked& picked, bool back) {
  if (picked.index_dim == 0 || picked.index_shape.empty()) return x;
  Dims front, there;
  for (int i = 0; i < picked.index_shape.size(); ++i) front.push_back(i), there.push_back(picked.index_dim + i);
  return back ? movedim(x, there, front) : movedim(x, front, there);
}

Shape joined(const Shape& a, const Shape& b) {
  Shape result = a;
  for (int64_t extent : b) result.push_back(extent);
  return result;
}

/// index [count] as one for each element of slices like x's, for scatter.
Tensor along_slices(const Tensor& index, const Shape& shape, int dim) {
  Shape line = Shape::filled(shape.size(), 1), whole = shape;
  line[dim] = whole[dim] = index.numel();
  return expand(reshape(index, line), whole);
}

}  // namespace

Tensor take(const Arg& x, const Tensor& index, int64_t dim) {
  const CallScope scope("take", x.where());
  const Tensor& tensor = x.tensor();
  const int d = dim_of("take", x, dim);
  const Tensor positions = wrapped("take", index, tensor.rank() ? tensor.shape()[d] : 1, d, x);
  const Tensor picked = index_select(tensor, d, reshape(positions, {index.numel()}));
  if (index.rank() == 1) return picked;
  Shape shape;
  for (int i = 0; i < tensor.rank(); ++i) {
    if (i != d) shape.push_back(tensor.shape()[i]);
    else
      for (int64_t extent : index.shape()) shape.push_back(extent);
  }
  return reshape(picked, shape);
}

Tensor index(const Arg& x, const Tensors& indices) {
  const CallScope scope("index", x.where());
  const Picked picked = pick("index", x, indices);
  const Tensor rows = index_select(picked.rows, 0, picked.positions);
  return place_index(reshape(rows, joined(picked.index_shape, picked.rest)), picked, false);
}

Tensor index_put(const Arg& x, const Tensors& indices, const Arg& values, IndexPutOptions options) {
  const CallScope scope("index_put", x.where());
  const Tensor& tensor = x.tensor();
  Tensor source = values.is_tensor() ? values.tensor() : values.scalar(tensor.dtype());
  if (source.dtype() != tensor.dtype())
    throw DTypeError(
        detail::str("index_put: values are ", source.dtype(), ", x is ", tensor.dtype(), "; cast one with to()"),
        user_line(x.where()));
  if (indices.size() == 1 && indices[0].defined() && indices[0].dtype() == bool_ && source.numel() == 1) {
    const Tensor& mask = indices[0];
    Shape shape = mask.shape();
    if (shape.size() > tensor.rank() || !std::equal(shape.begin(), shape.end(), tensor.shape().begin()))
      throw ShapeError(detail::str("index_put: mask ", shape, " doesn't fit ", tensor.shape()), user_line(x.where()));
    while (shape.size() < tensor.rank()) shape.push_back(1);
    const Tensor value = reshape(source, {}), wide = reshape(mask, shape);
    return where(wide, options.accumulate ? tensor + value : value, tensor);
  }
  const Picked picked = pick("index_put", x, indices);
  // Values broadcast to the result of index(); as rows, the index's dims come first.
  Shape result = picked.rest;
  for (int i = 0; i < picked.index_shape.size(); ++i) result.insert(picked.index_dim + i, picked.index_shape[i]);
  Shape rows = picked.rest;
  rows.insert(0, picked.index_shape.numel());
  const Tensor placed = reshape(place_index(expand(source, result), picked, true), rows);
  const Tensor written = options.accumulate
                             ? index_add(picked.rows, 0, picked.positions, placed)
                             : scatter(picked.rows, 0, along_slices(picked.positions, picked.rows.shape(), 0), placed);
  Shape moved;
  Dims back = picked.order;
  for (int i = 0; i < picked.order.size(); ++i) {
    moved.push_back(tensor.shape()[static_cast<int>(picked.order[i])]);
    back[static_cast<int>(picked.order[i])] = i;
  }
  return permute(reshape(written, moved), back);
}

Tensor index_copy(const Arg& x, int64_t dim, const Tensor& index, const Tensor& src) {
  const CallScope scope("index_copy", x.where());
  const int d = dim_of("index_copy", x, dim);
  const Tensor positions = positions_of("index_copy", index, x.where());
  Shape shape = x.tensor().shape();
  if (positions.rank() != 1 || shape.empty())
    throw ShapeError(detail::str("index_copy: needs x of at least one dim and index [count], got ", shape, " and ",
                                 positions.shape()),
                     user_line(x.where()));
  shape[d] = positions.numel();
  if (src.shape(x.where()) != shape)
    throw ShapeError(detail::str("index_copy: src is ", src.shape(), ", but x ", x.tensor().shape(), " and index ",
                                 positions.shape(), " along dim ", d, " need ", shape),
                     user_line(x.where()));
  return scatter(x, d, along_slices(positions, shape, d), src);
}

Tensor index_fill(const Arg& x, int64_t dim, const Tensor& index, const Arg& value) {
  const CallScope scope("index_fill", x.where());
  const int d = dim_of("index_fill", x, dim);
  const Shape& shape = x.tensor().shape();
  if (index.rank(x.where()) != 1 || shape.empty())
    throw ShapeError(
        detail::str("index_fill: needs x of at least one dim and index [count], got ", shape, " and ", index.shape()),
        user_line(x.where()));
  const Tensor positions = wrapped("index_fill", index, shape[d], d, x);
  return scatter(x, d, along_slices(positions, shape, d),
                 value.is_tensor() ? Arg(value) : Arg(value.scalar(x.tensor().dtype())));
}

Tensor take_along_dim(const Arg& x, const Tensor& index, int64_t dim) {
  const CallScope scope("take_along_dim", x.where());
  const int d = dim_of("take_along_dim", x, dim);
  Tensor from = x.tensor(), at = index;
  if (from.rank() != at.rank(x.where()))
    throw ShapeError(
        detail::str("take_along_dim: x ", from.shape(), " and index ", at.shape(), " must have as many dims"),
        user_line(x.where()));
  if (from.rank() == 0) return gather(from, 0, at);
  Shape of_x = from.shape(), of_index = at.shape();
  of_x[d] = of_index[d] = 1;
  Shape shape = broadcast_shape("take_along_dim",
                                {expand(slice(from, d, 0, 1), of_x), expand(slice(at, d, 0, 1), of_index)}, x.where());
  shape[d] = from.shape()[d];
  from = expand(from, shape);
  shape[d] = at.shape()[d];
  return gather(from, d, wrapped("take_along_dim", expand(at, shape), from.shape()[d], d, x));
}

Tensor scatter_reduce(const Arg& x, int64_t dim, const Tensor& index, const Tensor& src, ScatterReduce reduce,
                      ScatterReduceOptions options) {
  const CallScope scope("scatter_reduce", x.where());
  const int d = dim_of("scatter_reduce", x, dim);
  const Tensor positions = positions_of("scatter_reduce", index, x.where());
  const auto ones_for = [&](const Tensor& like) { return ones_like(like, {.dtype = x.tensor().dtype()}); };
  // x, or what changes nothing where src has something and x takes no part.
  const auto start = [&](int unit = 0) { return options.include_self ? x.tensor() : scatter(x, d, positions, unit); };
  if (reduce == ScatterReduce::sum) return scatter_add(start(), d, positions, src);
  if (reduce == ScatterReduce::prod) return scatter_prod(start(1), d, positions, src);
  if (reduce == ScatterReduce::mean) {
    const Tensor total = scatter_add(start(), d, positions, src);
    const Tensor own = options.include_self ? ones_for(x.tensor()) : scatter(ones_for(x.tensor()), d, positions, 0);
    const Tensor count = scatter_add(own, d, positions, ones_for(positions));
    return is_floating(total.dtype()) ? total / count : floor_divide(total, count);
  }
  // Of equal places the last element that is written wins: written in ascending order, the greatest.
  const bool greatest = reduce == ScatterReduce::amax;
  Tensor values = src;
  for (int i = 0; i < values.rank() && values.rank() == positions.rank(); ++i)
    if (values.shape()[i] > positions.shape()[i]) values = slice(values, i, 0, positions.shape()[i]);
  const auto [sorted, order] = sort(values, d, {.descending = !greatest});
  const Tensor places = gather(positions, d, order), best = scatter(x, d, places, sorted);
  if (!options.include_self) return best;
  const Tensor hit = scatter(zeros_like(x.tensor(), {.dtype = bool_}), d, places, true);
  return where(hit, greatest ? maximum(best, x) : minimum(best, x), x);
}

// ---- Sizes that depend on values.

Tensor nonzero(const Arg& x, NonzeroOptions options) {
  const CallScope scope("nonzero", x.where());
  const NoGrad no_grad;
  const Tensor& tensor = x.tensor();
  const Shape& shape = tensor.shape();
  const Tensor flat = reshape(tensor.dtype() == bool_ ? tensor : tensor != 0, {tensor.numel()});
  Tensor places;  // row-major
  if (!options.size) {
    check_not_traced("nonzero", "give it: nonzero(x, {.size = n})", x.where());
    const Tensor host = contiguous(flat.cpu());
    const std::span<const bool> hits = host.data<bool>();
    std::vector<int64_t> found;
    for (size_t i = 0; i < hits.size(); ++i)
      if (hits[i]) found.push_back(static_cast<int64_t>(i));
    places = tandem::tensor(found, {.device = tensor.device()});
  } else {
    if (*options.size < 0)
      throw ValueError(detail::str("nonzero: size ", *options.size, " is negative"), user_line(x.where()));
    check_extents({*options.size}, "nonzero", x.where());
    // The i-th is where the count first reaches i; beyond the last one that is the end.
    places = flat.numel() == 0 ? full({*options.size}, static_cast<double>(flat.numel()), positions_on(tensor))
                               : searchsorted(cumsum(flat, 0), arange(1, *options.size + 1, 1, positions_on(tensor)));
  }
  const Shape strides = contiguous_strides(shape);
  Tensors columns;
  for (int d = 0; d < shape.size(); ++d) {
    Tensor column = shape.size() == 1 ? places
                                      : remainder(floor_divide(places, std::max<int64_t>(strides[d], 1)),
                                                  std::max<int64_t>(shape[d], 1));
    if (options.size) column = where(places < flat.numel(), column, options.fill);
    columns.push_back(column);
  }
  if (columns.empty()) return zeros({places.numel(), 0}, positions_on(tensor));
  return stack(columns, 1);
}

Tensor masked_select(const Arg& x, const Tensor& mask, std::optional<int64_t> size) {
  const CallScope scope("masked_select", x.where());
  if (mask.dtype(x.where()) != bool_)
    throw DTypeError(detail::str("masked_select: the mask must be bool, got ", mask.dtype(), "; compare it with 0"),
                     user_line(x.where()));
  if (!size)
    check_not_traced("masked_select", "give it: masked_select(x, mask, n); or use where(mask, x, 0)", x.where());
  const Shape shape = broadcast_shape("masked_select", {x.tensor(), mask}, x.where());
  const Tensor flat = reshape(expand(mask, shape), {shape.numel()});
  const Tensor values = reshape(expand(x, shape), {shape.numel()});
  const Tensor places = select(nonzero(flat, {.size = size, .fill = -1}), 1, 0);
  if (!size) return index_select(values, 0, places);
  if (shape.numel() == 0) return zeros({*size}, {.dtype = values.dtype(), .device = values.device()});
  return where(places >= 0, index_select(values, 0, maximum(places, 0)), 0);
}

Tensor masked_scatter(const Arg& x, const Tensor& mask, const Tensor& src) {
  const CallScope scope("masked_scatter", x.where());
  const Tensor& tensor = x.tensor();
  const Tensor flat = reshape(expand({mask, x.where()}, tensor.shape()), {tensor.numel()});
  if (tensor.numel() == 0) return tensor;
  const Tensor order = where(flat, cumsum(flat, 0) - 1, 0);
  if (src.numel(x.where()) == 0) return tensor;
  const Tensor values = index_select(reshape(src, {src.numel()}), 0, order);
  return where(reshape(flat, tensor.shape()), to(reshape(values, tensor.shape()), tensor.dtype()), tensor);
}

Unique unique(const Arg& x) {
  const CallScope scope("unique", x.where());
  check_not_traced("unique", "call it outside", x.where());
  const NoGrad no_grad;
  const Tensor flat = flatten(x.tensor().detach());
  const int64_t count = flat.numel();
  if (count == 0) {
    const Tensor none = zeros({0}, positions_on(flat));
    return {flat, zeros(x.tensor().shape(), positions_on(flat)), none};
  }
  const auto [sorted, order] = sort(flat, 0);
  const Tensor begins = concat({ones({1}, {.dtype = bool_, .device = flat.device()}),
                                slice(sorted, 0, 1, count) != slice(sorted, 0, 0, count - 1)});
  const Tensor group = cumsum(begins, 0) - 1;
  const Tensor inverse = scatter(zeros_like(group), 0, order, group);
  return {masked_select(sorted, begins), reshape(inverse, x.tensor().shape()), bincount(group)};
}

Tensor bincount(const Arg& x, const BincountOptions& options) {
  const CallScope scope("bincount", x.where());
  const Tensor values = positions_of("bincount", x.tensor(), x.where());
  if (values.rank() != 1)
    throw ShapeError(detail::str("bincount: needs a vector, got ", values.shape()), user_line(x.where()));
  if (options.minlength < 0 || options.size.value_or(0) < 0)
    throw ValueError(detail::str("bincount: minlength ", options.minlength, " and size ", options.size.value_or(0),
                                 " must not be negative"),
                     user_line(x.where()));
  if (!options.size) check_not_traced("bincount", "give it: {.size = n}", x.where());
  const int64_t greatest = options.size || values.numel() == 0 ? -1 : max(values).item<int64_t>();
  const int64_t size = options.size ? *options.size : std::max(options.minlength, std::min(greatest, kMostClasses) + 1);
  if (size > kMostClasses)
    throw ValueError(detail::str("bincount: ", std::max(size, greatest), " is too great to count up to"),
                     user_line(x.where()));
  const Tensor weights = options.weights.defined() ? options.weights : ones_like(values);
  if (weights.shape() != values.shape())
    throw ShapeError(detail::str("bincount: weights ", weights.shape(), " for x ", values.shape()),
                     user_line(x.where()));
  return scatter_add(weights, 0, values, Shape{size});
}

Tensor one_hot(const Arg& labels) {
  const CallScope scope("one_hot", labels.where());
  check_not_traced("one_hot", "give the number of classes: one_hot(labels, n)", labels.where());
  const Tensor positions = positions_of("one_hot", labels.tensor(), labels.where(), "labels");
  if (positions.numel() == 0)
    throw ValueError("one_hot: no labels to tell the number of classes from; give it: one_hot(labels, n)",
                     user_line(labels.where()));
  const int64_t greatest = max(positions).item<int64_t>();
  if (greatest >= kMostClasses)
    throw ValueError(detail::str("one_hot: label ", greatest, " is too great to count up to"),
                     user_line(labels.where()));
  return one_hot(positions, std::max<int64_t>(greatest + 1, 1));
}

Tensor repeat_interleave(const Arg& x, const Tensor& repeats, int64_t dim, std::optional<int64_t> size) {
  const CallScope scope("repeat_interleave", x.where());
  const int d = dim_of("repeat_interleave", x, dim);
  Tensor counts = positions_of("repeat_interleave", repeats, x.where(), "repeats");
  const Shape& shape = x.tensor().shape();
  if (shape.empty() || counts.rank() > 1 || (counts.rank() == 1 && counts.numel() != 1 && counts.numel() != shape[d]))
    throw ShapeError(detail::str("repeat_interleave: repeats ", counts.shape(), " for dim ", d, " of ", shape,
                                 " must be one number for each slice, or one for all"),
                     user_line(x.where()));
  if (!size) {
    check_not_traced("repeat_interleave", "give it as the last argument", x.where());
    if (counts.numel() > 0 && min(counts).item<int64_t>() < 0)
      throw ValueError("repeat_interleave: negative repeats", user_line(x.where()));
  }
  counts = expand(reshape(counts, {counts.numel()}), {shape[d]});
  const int64_t total = size ? *size : sum(counts).item<int64_t>();
  if (shape[d] == 0) return x.tensor();
  const Tensor slices = searchsorted(cumsum(counts, 0), arange(0, total, 1, positions_on(counts)), {.right = true});
  return index_select(x, d, slices);
}

Tensor embedding_bag(const Arg& ids, const Tensor& weight, const EmbeddingBagOptions& options) {
  const CallScope scope("embedding_bag", ids.where());
  const Tensor positions = positions_of("embedding_bag", ids.tensor(), ids.where(), "ids");
  const bool flat = options.offsets.defined();
  if (positions.rank() != (flat ? 1 : 2) || (flat && options.offsets.rank() != 1) || weight.rank(ids.where()) != 2)
    throw ShapeError(
        detail::str("embedding_bag: needs ids [bags, length], or ids [count] with offsets [bags], and weight "
                    "[count, width]; got ids ",
                    positions.shape(), " and weight ", weight.shape()),
        user_line(ids.where()));
  const Tensor rows = embedding(positions, weight);
  if (!flat)
    return options.mode == BagMode::sum ? sum(rows, 1) : options.mode == BagMode::mean ? mean(rows, 1) : max(rows, 1);
  if (options.mode == BagMode::max)
    throw ValueError("embedding_bag: BagMode::max has no offsets; give ids as [bags, length]", user_line(ids.where()));
  const Tensor begins = positions_of("embedding_bag", options.offsets, ids.where(), "offsets");
  const int64_t bags = begins.numel(), count = positions.numel();
  const Tensor bag = searchsorted(begins, arange(0, count, 1, positions_on(begins)), {.right = true}) - 1;
  const TensorOptions like{.dtype = rows.dtype(), .device = rows.device()};
  const Tensor total = index_add(zeros({bags, weight.shape()[1]}, like), 0, bag, rows);
  if (options.mode == BagMode::sum) return total;
  const Tensor members = index_add(zeros({bags}, like), 0, bag, ones({count}, like));
  return total / maximum(unsqueeze(members, 1), 1);
}

}  // namespace tandem
