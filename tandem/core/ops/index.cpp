// Reading and writing at positions that are data: embedding, gather, and their gradients.
#include "tandem/core/dispatch.h"
#include "tandem/core/ops.h"

namespace tandem {

namespace {

void check_index(const Infer& op, const Tensor& index, const char* what) {
  op.check<DTypeError>(index.dtype() == int64, what, " must be int64, got ", index.dtype(), "; cast it with to(int64)");
}

void infer_embedding(Infer& op) {
  const Tensor &ids = op.input(0), &weight = op.input(1);
  check_index(op, ids, "ids");
  op.check<ShapeError>(weight.rank() == 2, "weight must be [count, width], got ", weight.shape());
  Shape shape = ids.shape();
  shape.push_back(weight.shape()[1]);
  op.output(shape, weight.dtype());
}

void infer_embedding_grad(Infer& op) {
  op.output({op.attributes.integer("count"), op.input(0).shape().back()}, op.input(0).dtype());
}

void infer_gather(Infer& op) {
  const Tensor &x = op.input(0), &index = op.input(1);
  check_index(op, index, "index");
  const int64_t dim = op.attributes.integer("dim");
  bool fits = x.rank() == index.rank();
  for (int i = 0; fits && i < x.rank(); ++i) fits = i == dim || index.shape()[i] <= x.shape()[i];
  op.check<ShapeError>(fits, "index ", index.shape(), " must have the rank of x ", x.shape(), " and not exceed it in dims other than ", dim);
  op.output(index.shape(), x.dtype());
}

void infer_scatter_add(Infer& op) {
  const Tensor &x = op.input(0), &index = op.input(1);
  check_index(op, index, "index");
  op.check<ShapeError>(x.shape() == index.shape(), "x ", x.shape(), " and index ", index.shape(), " must have one shape");
  const Shape& shape = op.attributes.integers("shape");
  const int64_t dim = op.attributes.integer("dim");
  bool fits = x.rank() == shape.size();
  for (int i = 0; fits && i < x.rank(); ++i) fits = i == dim || x.shape()[i] <= shape[i];
  op.check<ShapeError>(fits, "x ", x.shape(), " must have the rank of the result ", shape, " and not exceed it in dims other than ", dim);
  op.output(shape, x.dtype());
}

Tensor embedding_grad(const Tensor& g, const Tensor& ids, int64_t count) {
  return dispatch(find_op("embedding_grad"), {g, ids}, {{"count", count}}, Where::current());
}

int checked_dim(const char* name, int64_t dim, int rank, Where where) {
  if (dim < -rank || dim >= rank) throw DimensionError(detail::str(name, ": dim ", dim, " is out of range for rank ", rank), user_line(where));
  return static_cast<int>(dim < 0 ? dim + rank : dim);
}

}  // namespace

void define_index(OpTable& table) {
  table.add({.name = "embedding", .kind = OpKind::index, .inputs = 2, .infer = infer_embedding,
             .grad = [](const OpContext& op) { return Tensors{Tensor(), embedding_grad(op.grad_output(), op.input(0), op.input_shape(1)[0])}; },
             .saved = in(0), .contiguous_inputs = true, .onnx = "Gather"});
  table.add({.name = "embedding_grad", .kind = OpKind::index, .inputs = 2, .infer = infer_embedding_grad,
             .grad = [](const OpContext& op) { return Tensors{embedding(op.input(1), op.grad_output()), Tensor()}; },
             .saved = in(1), .contiguous_inputs = true});
  table.add({.name = "gather", .kind = OpKind::index, .inputs = 2, .infer = infer_gather,
             .grad = [](const OpContext& op) {
               return Tensors{scatter_add(op.grad_output(), op.integer("dim"), op.input(1), op.input_shape(0)), Tensor()};
             },
             .saved = in(1), .contiguous_inputs = true, .onnx = "GatherElements"});
  table.add({.name = "scatter_add", .kind = OpKind::index, .inputs = 2, .infer = infer_scatter_add,
             .grad = [](const OpContext& op) { return Tensors{gather(op.grad_output(), op.integer("dim"), op.input(1)), Tensor()}; },
             .saved = in(1), .contiguous_inputs = true, .onnx = "ScatterElements"});
}

Tensor embedding(const Arg& ids, const Tensor& weight) {
  static const Op& op = find_op("embedding");
  return dispatch(op, {ids.tensor(), weight}, {}, ids.where());
}

Tensor gather(const Arg& x, int64_t dim, const Tensor& index) {
  static const Op& op = find_op("gather");
  return dispatch(op, {x.tensor(), index}, {{"dim", checked_dim("gather", dim, x.tensor().rank(), x.where())}}, x.where());
}

Tensor scatter_add(const Arg& x, int64_t dim, const Tensor& index, const Shape& shape) {
  static const Op& op = find_op("scatter_add");
  return dispatch(op, {x.tensor(), index}, {{"dim", checked_dim("scatter_add", dim, shape.size(), x.where())}, {"shape", shape}}, x.where());
}

}  // namespace tandem
