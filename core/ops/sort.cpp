// Order along one dim: sort, argsort, topk, searchsorted.
#include "core/dispatch.h"
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

}  // namespace tandem
