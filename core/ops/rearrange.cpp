// Elements in other places: what is made of the views, concat and the few ops of shape.cpp that have kernels.
#include "core/dispatch.h"
#include "core/ops/ops.h"

namespace tandem {

namespace {

/// A dim of x in [0, rank); `name` is the function that the user called.
int dim_of(const char* name, int64_t dim, int rank, Where where) {
  if (dim < -rank || dim >= rank)
    throw DimensionError(detail::str(name, ": dim ", dim, " is out of range for rank ", rank,
                                     rank ? detail::str(" (", -rank, " to ", rank - 1, ")") : ""),
                         user_line(where));
  return static_cast<int>(dim < 0 ? dim + rank : dim);
}

/// The same for several, none of which may occur twice.
Shape dims_of(const char* name, const Dims& dims, int rank, Where where) {
  Shape result;
  for (int64_t d : dims) {
    const int dim = dim_of(name, d, rank, where);
    if (result.contains(dim))
      throw DimensionError(detail::str(name, ": dim ", d, " is named twice in ", dims), user_line(where));
    result.push_back(dim);
  }
  return result;
}

}  // namespace

// ---- Views.

Tensor narrow(const Arg& x, int64_t dim, int64_t start, int64_t length) {
  const Tensor& tensor = x.tensor();
  const int d = dim_of("narrow", dim, tensor.rank(), x.where());
  const int64_t extent = tensor.shape()[d], begin = start < 0 ? start + extent : start;
  if (begin < 0 || begin > extent || length < 0 || length > extent - begin)
    throw DimensionError(
        detail::str("narrow: ", length, " elements from ", start, " don't lie within dim ", d, " of ", tensor.shape()),
        user_line(x.where()));
  return slice(x, d, begin, begin + length);
}

Tensor diagonal(const Arg& x, int64_t offset, int64_t dim1, int64_t dim2) {
  static const Op& op = find_op("diagonal");
  const int rank = x.tensor().rank();
  const int d1 = dim_of("diagonal", dim1, rank, x.where()), d2 = dim_of("diagonal", dim2, rank, x.where());
  if (d1 == d2)
    throw DimensionError(detail::str("diagonal: needs two dims, got ", dim1, " and ", dim2), user_line(x.where()));
  return dispatch(op, {x.tensor()}, {{"offset", offset}, {"dim1", d1}, {"dim2", d2}}, x.where());
}

Tensor diagonal_grad(const Arg& x, const Shape& shape, int64_t offset, int64_t dim1, int64_t dim2) {
  static const Op& op = find_op("diagonal_grad");
  return dispatch(op, {x.tensor()}, {{"shape", shape}, {"offset", offset}, {"dim1", dim1}, {"dim2", dim2}}, x.where());
}

Tensor movedim(const Arg& x, const Dims& source, const Dims& destination) {
  const int rank = x.tensor().rank();
  if (source.size() != destination.size())
    throw DimensionError(detail::str("movedim: ", source, " and ", destination, " must be equally long"),
                         user_line(x.where()));
  const Shape from = dims_of("movedim", source, rank, x.where()), to = dims_of("movedim", destination, rank, x.where());
  Shape order = Shape::filled(rank, -1);
  for (int i = 0; i < from.size(); ++i) order[static_cast<int>(to[i])] = from[i];
  int next = 0;
  for (int64_t& d : order) {
    if (d >= 0) continue;
    while (from.contains(next)) ++next;
    d = next++;
  }
  return permute(x, Dims(order));
}

Tensors unbind(const Arg& x, int64_t dim) {
  const int d = dim_of("unbind", dim, x.tensor().rank(), x.where());
  Tensors result;
  for (int64_t i = 0; i < x.tensor().shape()[d]; ++i) result.push_back(select(x, d, i));
  return result;
}

Tensors split(const Arg& x, int64_t size, int64_t dim) {
  const int d = dim_of("split", dim, x.tensor().rank(), x.where());
  const int64_t extent = x.tensor().shape()[d];
  if (size < 1)
    throw ValueError(detail::str("split: pieces of ", size, " elements; at least 1 is needed"), user_line(x.where()));
  size = std::min(size, std::max<int64_t>(extent, 1));
  Tensors result;
  int64_t begin = 0;
  do result.push_back(slice(x, d, begin, std::min(begin + size, extent)));
  while ((begin += size) < extent);
  return result;
}

Tensors split(const Arg& x, const std::vector<int64_t>& sizes, int64_t dim) {
  const int d = dim_of("split", dim, x.tensor().rank(), x.where());
  const int64_t extent = x.tensor().shape()[d];
  int64_t total = 0;
  for (int64_t size : sizes) {
    if (size < 0) throw ValueError(detail::str("split: negative size ", size), user_line(x.where()));
    total = checked_add(total, size, "split", x.where());
  }
  if (total != extent)
    throw ShapeError(
        detail::str("split: the sizes add up to ", total, ", but dim ", d, " of ", x.tensor().shape(), " has ", extent),
        user_line(x.where()));
  Tensors result;
  int64_t begin = 0;
  for (int64_t size : sizes) {
    result.push_back(slice(x, d, begin, begin + size));
    begin += size;
  }
  return result;
}

Tensors chunk(const Arg& x, int64_t chunks, int64_t dim) {
  const int d = dim_of("chunk", dim, x.tensor().rank(), x.where());
  if (chunks < 1)
    throw ValueError(detail::str("chunk: ", chunks, " pieces; at least 1 is needed"), user_line(x.where()));
  const int64_t extent = x.tensor().shape()[d];
  return split(x, std::max<int64_t>(extent / chunks + (extent % chunks != 0), 1), d);
}

// ---- Copies.

Tensor stack(const Tensors& tensors, int64_t dim, Where where) {
  const CallScope scope("stack", where);
  if (tensors.empty()) throw ValueError("stack: needs at least one tensor", user_line(where));
  Tensors wide;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (!tensors[i].defined())
      throw UndefinedError(detail::str("stack: tensor ", i, " is undefined"), user_line(where));
    if (tensors[i].shape() != tensors[0].shape())
      throw ShapeError(detail::str("stack: tensor ", i, " is ", tensors[i].shape(), ", tensor 0 ", tensors[0].shape(),
                                   "; all must have one shape"),
                       user_line(where));
    wide.push_back(unsqueeze(tensors[i], dim_of("stack", dim, tensors[0].rank() + 1, where)));
  }
  return concat(wide, dim_of("stack", dim, tensors[0].rank() + 1, where), where);
}

Tensor flip(const Arg& x, const Dims& dims) {
  static const Op& op = find_op("flip");
  return dispatch(op, {x.tensor()}, {{"dims", dims_of("flip", dims, x.tensor().rank(), x.where())}}, x.where());
}

Tensor roll(const Arg& x, const Dims& shifts, const Dims& dims) {
  const CallScope scope("roll", x.where());
  const Tensor& tensor = x.tensor();
  if (dims.empty() && shifts.size() == 1 && tensor.rank() != 1)
    return reshape(roll(flatten(tensor), shifts, 0), tensor.shape());
  const Dims along = dims.empty() ? Dims(0) : dims;
  if (along.size() != shifts.size())
    throw DimensionError(detail::str("roll: ", shifts, " and ", dims, " must be equally long: a shift for each dim"),
                         user_line(x.where()));
  Tensor result = tensor;
  for (int i = 0; i < along.size(); ++i) {
    const int d = dim_of("roll", along[i], tensor.rank(), x.where());
    const int64_t extent = tensor.shape()[d];
    if (extent == 0) continue;
    const int64_t shift = (shifts[i] % extent + extent) % extent;
    if (shift) result = concat({slice(result, d, extent - shift, extent), slice(result, d, 0, extent - shift)}, d);
  }
  return result;
}

namespace {

/// [.., n, ..] as [.., times, n, ..] by a stride of 0, which the caller's reshape copies.
Tensor repeated_dim(const Tensor& x, int d, int64_t times) {
  Shape shape = x.shape(), one{1, 1, 1}, wide;
  for (int i = 0; i < x.rank(); ++i) one[i < d ? 0 : 2] *= shape[i];
  wide = one;
  wide[1] = times;
  shape[d] *= times;
  return reshape(expand(reshape(x, one), wide), shape);
}

}  // namespace

Tensor repeat(const Arg& x, const Shape& repeats) {
  const CallScope scope("repeat", x.where());
  Tensor result = x.tensor();
  if (repeats.size() < result.rank())
    throw ShapeError(detail::str("repeat: needs a number for each dim of ", result.shape(), ", got ", repeats),
                     user_line(x.where()));
  for (int64_t n : repeats)
    if (n < 0) throw ValueError(detail::str("repeat: negative number in ", repeats), user_line(x.where()));
  Shape shape = result.shape(), joined;
  while (shape.size() < repeats.size()) shape.insert(0, 1);
  for (int d = 0; d < shape.size(); ++d) joined.push_back(checked_mul(shape[d], repeats[d], "repeat", x.where()));
  check_extents(joined, "repeat", x.where());
  result = reshape(result, shape);
  // [n, m] becomes [a, n, b, m] by strides of 0, and is copied once. A dim of one element needs no second dim. Where that were
  // more dims than a tensor can have, they are copied one by one.
  int added = 0;
  for (int d = 0; d < shape.size(); ++d) added += repeats[d] != 1 && shape[d] != 1;
  if (shape.size() + added > kMaxRank) {
    for (int d = 0; d < shape.size(); ++d)
      if (repeats[d] != 1) result = repeated_dim(result, d, repeats[d]);
    return contiguous(result);
  }
  Shape one, wide;
  for (int d = 0; d < shape.size(); ++d) {
    if (repeats[d] != 1 && shape[d] != 1) one.push_back(1), wide.push_back(repeats[d]);
    one.push_back(shape[d]);
    wide.push_back(shape[d] == 1 ? repeats[d] : shape[d]);
  }
  check_extents(wide, "repeat", x.where());
  return contiguous(reshape(expand(reshape(result, one), wide), joined));
}

Tensor repeat_interleave(const Arg& x, int64_t repeats, int64_t dim) {
  const CallScope scope("repeat_interleave", x.where());
  const Tensor& tensor = x.tensor();
  const int d = dim_of("repeat_interleave", dim, tensor.rank(), x.where());
  if (repeats < 0) throw ValueError(detail::str("repeat_interleave: negative number ", repeats), user_line(x.where()));
  // As [outer, extent, repeats, inner], which has few dims whatever x has.
  Shape joined = tensor.shape(), expanded{1, tensor.shape()[d], repeats, 1};
  for (int i = 0; i < tensor.rank(); ++i)
    if (i != d) expanded[i < d ? 0 : 3] *= tensor.shape()[i];
  check_extents(expanded, "repeat_interleave", x.where());
  joined[d] *= repeats;
  return contiguous(reshape(expand(reshape(tensor, {expanded[0], expanded[1], 1, expanded[3]}), expanded), joined));
}

/// Beyond the edge, a diagonal is at the edge.
static Tensor triangle(const Op& op, const Arg& x, int64_t diagonal) {
  const Shape& shape = x.tensor().shape();
  if (shape.size() >= 2) diagonal = std::clamp(diagonal, -shape[shape.size() - 2], shape.back());
  return dispatch(op, {x.tensor()}, {{"diagonal", diagonal}}, x.where());
}
Tensor tril(const Arg& x, int64_t diagonal) {
  static const Op& op = find_op("tril");
  return triangle(op, x, diagonal);
}
Tensor triu(const Arg& x, int64_t diagonal) {
  static const Op& op = find_op("triu");
  return triangle(op, x, diagonal);
}

// ---- Padding.

namespace {

/// What stands before and after the elements of dim d.
Tensor widened(const Tensor& x, int d, int64_t before, int64_t after, PadMode mode, Where where) {
  const int64_t extent = x.shape()[d], widest = std::max(before, after);
  const char* const name = mode == PadMode::reflect ? "reflect" : mode == PadMode::replicate ? "replicate" : "circular";
  const int64_t available = mode == PadMode::reflect    ? extent - 1
                            : mode == PadMode::circular ? extent
                            : extent > 0                ? widest
                                                        : 0;
  if (widest > available)
    throw ValueError(detail::str("pad: ", name, " padding of ", before, " and ", after, " is more than dim ", d, " of ",
                                 x.shape(), " can give: at most ", available),
                     user_line(where));
  const auto edge = [&](int64_t count, bool end) {
    if (mode == PadMode::circular) return end ? slice(x, d, 0, count) : slice(x, d, extent - count, extent);
    if (mode == PadMode::reflect)
      return flip(end ? slice(x, d, extent - 1 - count, extent - 1) : slice(x, d, 1, count + 1), d);
    Shape shape = x.shape();
    shape[d] = count;
    return expand(end ? slice(x, d, extent - 1, extent) : slice(x, d, 0, 1), shape);
  };
  Tensors parts;
  if (before > 0) parts.push_back(edge(before, false));
  parts.push_back(x);
  if (after > 0) parts.push_back(edge(after, true));
  return concat(parts, d);
}

}  // namespace

Tensor pad(const Arg& x, const std::vector<int64_t>& padding, PadOptions options) {
  const CallScope scope("pad", x.where());
  Tensor result = x.tensor();
  const int rank = result.rank();
  if (padding.size() % 2 != 0 || padding.size() > 2 * static_cast<size_t>(rank))
    throw ValueError(
        detail::str("pad: needs two numbers for each of the last dims of ", result.shape(), ", got ", padding.size()),
        user_line(x.where()));
  Shape before = Shape::filled(rank, 0), after = before;
  for (int i = 0; i < static_cast<int>(padding.size() / 2); ++i) {
    before[rank - 1 - i] = padding[2 * static_cast<size_t>(i)];
    after[rank - 1 - i] = padding[2 * static_cast<size_t>(i) + 1];
  }
  Shape wide;
  bool widens = false;
  for (int d = 0; d < rank; ++d) {
    const int64_t extent = result.shape()[d];
    const bool within = before[d] >= -extent && after[d] >= -extent;
    const int64_t begin = within ? std::max<int64_t>(-before[d], 0) : 0,
                  end = within ? extent - std::max<int64_t>(-after[d], 0) : -1;
    if (begin > end)
      throw ValueError(detail::str("pad: ", before[d], " and ", after[d], " cut off more than dim ", d, " of ",
                                   x.tensor().shape(), " has"),
                       user_line(x.where()));
    if (end - begin != extent) result = slice(result, d, begin, end);
    before[d] = std::max<int64_t>(before[d], 0);
    after[d] = std::max<int64_t>(after[d], 0);
    widens |= before[d] > 0 || after[d] > 0;
    wide.push_back(checked_add(end - begin, checked_add(before[d], after[d], "pad", x.where()), "pad", x.where()));
  }
  check_extents(wide, "pad", x.where());
  if (!widens) return result;
  if (options.mode == PadMode::constant) {
    static const Op& op = find_op("pad");
    return dispatch(op, {result}, {{"before", before}, {"after", after}, {"value", options.value}}, x.where());
  }
  for (int d = rank - 1; d >= 0; --d)
    if (before[d] > 0 || after[d] > 0) result = widened(result, d, before[d], after[d], options.mode, x.where());
  return result;
}

}  // namespace tandem
