// Order along one dim: sort, argsort, topk, searchsorted.
#include <cmath>

#include "core/dispatch.h"
#include "core/ops/composed.h"
#include "core/ops/reduce_shared.h"

namespace tandem {

namespace {

void infer_sort(Infer& op) {
  op.check<ShapeError>(op.input(0).rank() > 0, "x must have at least one dim, got []; unsqueeze it");
  op.dim("dim");
  op.output(op.input(0).shape(), op.input(0).dtype());
  op.output(op.input(0).shape(), DType::int64);
}

void infer_topk(Infer& op) {
  const Tensor& x = op.input(0);
  const int64_t k = op.attributes.integer("k");
  const int dim = op.dim("dim");
  Shape shape = x.shape();
  op.check<ValueError>(k >= 0 && k <= shape[dim], "k is ", k, ", and dim ", dim, " of ", shape, " has ", shape[dim],
                       " elements");
  shape[dim] = k;
  op.output(shape, x.dtype());
  op.output(shape, DType::int64);
}

void infer_searchsorted(Infer& op) {
  const Tensor &sorted = op.input(0), &values = op.input(1);
  op.check<DTypeError>(sorted.dtype() == values.dtype(), "sorted is ", sorted.dtype(), " and the values are ",
                       values.dtype(), "; cast one of them");
  op.check<ShapeError>(sorted.rank() > 0, "sorted needs at least one dim");
  bool fits = sorted.rank() == 1 || sorted.rank() == values.rank();
  for (int d = 0; fits && sorted.rank() > 1 && d + 1 < sorted.rank(); ++d)
    fits = sorted.shape()[d] == values.shape()[d];
  op.check<ShapeError>(fits, "sorted ", sorted.shape(), " must have one dim, or the shape of the values ",
                       values.shape(), " but for the last");
  op.output(values.shape(), DType::int64);
}

/// Values come from where the indices say.
Tensors order_grad(const OpContext& op) {
  return {scatter_add(op.grad_output(), op.integer("dim"), op.output(1), op.input_shape(0))};
}

/// Runs sort or topk; a number counts as a row of one.
ValuesAndIndices order(const char* name, const Arg& x, int64_t dim, Attributes attributes) {
  const WhereScope scope(x.where());
  const Shape dims = normalized_dims(name, x, Dims(dim));
  attributes.set({"dim", dims.empty() ? int64_t{0} : dims[0]});
  const Tensor row = dims.empty() ? reshape(x, {1}) : x.tensor();
  const Tensors result = dispatch_all(find_op(name), {&row, 1}, attributes, x.where());
  if (!dims.empty()) return {result[0], result[1]};
  if (result[0].numel() == 0) return {result[0], result[1]};
  return {reshape(result[0], {}), reshape(result[1], {})};
}

}  // namespace

void define_sort(OpTable& table) {
  using enum AttributeType;
  table.add({.name = "sort",
             .kind = OpKind::index,
             .outputs = 2,
             .attributes = {{"descending", flag, false}, {"dim", integer}},
             .infer = infer_sort,
             .grad = order_grad,
             .saved = out(1),
             .contiguous_inputs = true});
  table.add({.name = "topk",
             .kind = OpKind::index,
             .outputs = 2,
             .attributes = {{"k", integer}, {"descending", flag, true}, {"dim", integer}},
             .infer = infer_topk,
             .grad = order_grad,
             .saved = out(1),
             .contiguous_inputs = true,
             .onnx = "TopK"});
  table.add({.name = "searchsorted",
             .kind = OpKind::index,
             .inputs = 2,
             .attributes = {{"right", flag, false}},
             .infer = infer_searchsorted,
             .contiguous_inputs = true});
}

ValuesAndIndices sort(const Arg& x, int64_t dim, SortOptions options) {
  return order("sort", x, dim, {{"descending", options.descending}});
}
Tensor argsort(const Arg& x, int64_t dim, SortOptions options) { return sort(x, dim, options).indices; }
ValuesAndIndices topk(const Arg& x, int64_t k, int64_t dim, TopkOptions options) {
  return order("topk", x, dim, {{"k", k}, {"descending", options.largest}});
}
Tensor searchsorted(const Arg& sorted, const Tensor& values, SearchOptions options) {
  static const Op& op = find_op("searchsorted");
  return dispatch(op, {sorted.tensor(), values}, {{"right", options.right}}, sorted.where());
}

Tensor bucketize(const Arg& values, const Tensor& boundaries, SearchOptions options) {
  const CallScope scope("bucketize", values.where());
  if (boundaries.rank(values.where()) != 1)
    throw ShapeError(detail::str("bucketize: boundaries must be a vector, got ", boundaries.shape()),
                     user_line(values.where()));
  const DType type = promote(values.tensor().dtype(), boundaries.dtype());
  return searchsorted(to(boundaries, type), to(values, type), options);
}

namespace {

/// Element `place` of each sorted row, and where it came from; the greatest where that is NaN and NaNs spread.
ValuesAndIndices nth(const char* name, const Arg& x, int64_t place, int64_t dim, ReduceOptions options, bool spreads) {
  const int d = dim_of(name, x, dim);
  if (x.tensor().rank() == 0) return {x.tensor(), zeros({}, {.dtype = int64, .device = x.tensor().device()})};
  const int64_t extent = x.tensor().shape()[d];
  if (place < 0 || place >= extent)
    throw ValueError(
        detail::str(name, ": element ", place + 1, " of dim ", d, " of ", x.tensor().shape(), ", which has ", extent),
        user_line(x.where()));
  const ValuesAndIndices sorted = sort(x, d);
  const Tensor& values = sorted.values;
  const auto pick = [&](const Tensor& from) {
    const Tensor at = slice(from, d, place, place + 1);
    if (!spreads || !is_floating(values.dtype())) return at;
    return where(isnan(slice(values, d, extent - 1, extent)), slice(from, d, extent - 1, extent), at);
  };
  const Tensor value = pick(values), index = pick(sorted.indices);
  if (options.keepdim) return {value, index};
  return {squeeze(value, d), squeeze(index, d)};
}

}  // namespace

ValuesAndIndices kthvalue(const Arg& x, int64_t k, int64_t dim, ReduceOptions options) {
  const CallScope scope("kthvalue", x.where());
  return nth("kthvalue", x, std::max<int64_t>(k, 0) - 1, dim, options, false);
}

ValuesAndIndices median(const Arg& x, int64_t dim, ReduceOptions options) {
  const CallScope scope("median", x.where());
  const int d = dim_of("median", x, dim);
  return nth("median", x, x.tensor().rank() ? (x.tensor().shape()[d] - 1) / 2 : 0, d, options, true);
}
Tensor median(const Arg& x) {
  const CallScope scope("median", x.where());
  return median(flatten(x), 0).values;
}

Tensor quantile(const Arg& x, const std::vector<double>& q, std::optional<int64_t> dim, QuantileOptions options) {
  const CallScope scope("quantile", x.where());
  check_floating("quantile", x);
  for (double each : q)
    if (!(each >= 0 && each <= 1))
      throw ValueError(detail::str("quantile: q ", each, " must be between 0 and 1"), user_line(x.where()));
  const int rank = x.tensor().rank(), d = dim ? dim_of("quantile", x, *dim) : 0;
  const Tensor from = dim && rank ? x.tensor() : flatten(x);
  const int64_t extent = from.shape()[d];
  if (extent == 0)
    throw ValueError(detail::str("quantile: of no elements, x is ", x.tensor().shape()), user_line(x.where()));
  const Tensor sorted = sort(from, d).values, last = slice(sorted, d, extent - 1, extent);
  Tensors results;
  for (double each : q) {
    const double place = each * static_cast<double>(extent - 1);
    const auto element = [&](double at) {
      const auto begin = static_cast<int64_t>(at);
      return slice(sorted, d, begin, begin + 1);
    };
    const double below = std::floor(place), above = std::ceil(place);
    const Tensor value = [&] {
      switch (options.rule) {
        case QuantileRule::lower: return element(below);
        case QuantileRule::higher: return element(above);
        case QuantileRule::nearest: return element(std::nearbyint(place));
        case QuantileRule::midpoint: return lerp(element(below), element(above), 0.5);
        case QuantileRule::linear: break;
      }
      return lerp(element(below), element(above), place - below);
    }();
    const Tensor marked = where(isnan(last), last, value);
    Shape shape = x.tensor().shape();
    for (int i = 0; i < rank; ++i)
      if (!dim || i == d) shape[i] = 1;
    if (!options.keepdim) shape = dim && rank ? squeeze(marked, d).shape() : Shape{};
    results.push_back(reshape(marked, shape));
  }
  return stack(results, 0);
}

Tensor quantile(const Arg& x, double q, std::optional<int64_t> dim, QuantileOptions options) {
  return squeeze({quantile(x, std::vector<double>{q}, dim, options), x.where()}, 0);
}

ValuesAndIndices mode(const Arg& x, int64_t dim, ReduceOptions options) {
  const CallScope scope("mode", x.where());
  const int d = dim_of("mode", x, dim);
  const Tensor& tensor = x.tensor();
  const TensorOptions positions{.dtype = int64, .device = tensor.device()};
  if (tensor.rank() == 0) return {clone(tensor), zeros({}, positions)};
  const int64_t extent = tensor.shape()[d];
  if (extent == 0)
    throw ShapeError(detail::str("mode: dim ", d, " of ", tensor.shape(), " is empty"), user_line(x.where()));
  // Sorted, equals are runs: an element's frequency is how far it is from the last begin of one, and the first of the
  // greatest frequencies is the end of the run of the least number.
  const ValuesAndIndices sorted = sort(tensor.detach(), d);
  Shape line = Shape::filled(tensor.rank(), 1);
  line[d] = extent - 1;
  const Tensor begins = where(slice(sorted.values, d, 1, extent) == slice(sorted.values, d, 0, extent - 1), 0,
                              reshape(arange(1, extent, 1, positions), line));
  Shape first = tensor.shape();
  first[d] = 1;
  line[d] = extent;
  const Tensor begun = cummax(concat({zeros(first, positions), begins}, d), d).values;
  const Tensor last = argmax(reshape(arange(0, extent, 1, positions), line) - begun, d, {.keepdim = true});
  const Tensor index = gather(sorted.indices, d, last), value = gather(tensor, d, index);
  if (options.keepdim) return {value, index};
  return {squeeze(value, d), squeeze(index, d)};
}

Tensor histc(const Arg& x, int64_t bins, double min, double max) {
  const CallScope scope("histc", x.where());
  check_floating("histc", x);
  check_extents({std::max<int64_t>(bins, 0)}, "histc", x.where());
  if (bins < 1 || !(min <= max) || !std::isfinite(min) || !std::isfinite(max))
    throw ValueError(detail::str("histc: ", bins, " bins of [", min, ", ", max, "]"), user_line(x.where()));
  const NoGrad no_grad;
  const Tensor flat = flatten(x.tensor().detach());
  const TensorOptions like{.dtype = flat.dtype(), .device = flat.device()};
  if (flat.numel() == 0) return zeros({bins}, like);
  Tensor low = full({}, min, like), high = full({}, max, like);
  if (min == 0 && max == 0) low = tandem::min(flat), high = tandem::max(flat);
  const Tensor flat_range = low == high;
  low = where(flat_range, low - 1, low), high = where(flat_range, high + 1, high);
  const Tensor inside = (flat >= low) & (flat <= high);
  const Tensor bin = clamp(to(where(inside, (flat - low) / (high - low) * bins, 0), int64), 0, bins - 1);
  return scatter_add(to(inside, flat.dtype()), 0, bin, Shape{bins});
}

}  // namespace tandem
