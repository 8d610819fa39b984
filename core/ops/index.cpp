// Reading and writing at positions that are data: embedding, gather, scatter, index_select, index_add, one_hot, and their
// gradients.
#include "core/dispatch.h"
#include "core/ops/composed.h"
#include "core/ops/fit.h"
#include "core/range_check.h"

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
  check_fit(op, ".. w, ..:int64");
  op.output({op.attributes.integer("count"), op.input(0).shape().back()}, op.input(0).dtype());
}

void infer_gather(Infer& op) {
  const Tensor &x = op.input(0), &index = op.input(1);
  check_index(op, index, "index");
  const int dim = op.dim("dim");
  bool fits = x.rank() == index.rank();
  for (int i = 0; fits && i < x.rank(); ++i) fits = i == dim || index.shape()[i] <= x.shape()[i];
  op.check<ShapeError>(fits, "index ", index.shape(), " must have the rank of x ", x.shape(),
                       " and not exceed it in dims other than ", dim);
  op.output(index.shape(), x.dtype());
}

void infer_scatter_add(Infer& op) {
  const Tensor &x = op.input(0), &index = op.input(1);
  check_index(op, index, "index");
  op.check<ShapeError>(x.shape() == index.shape(), "x ", x.shape(), " and index ", index.shape(),
                       " must have one shape");
  const Shape& shape = op.attributes.integers("shape");
  const int dim = op.dim("dim", shape.size());
  bool fits = x.rank() == shape.size();
  for (int i = 0; fits && i < x.rank(); ++i) fits = i == dim || x.shape()[i] <= shape[i];
  op.check<ShapeError>(fits, "x ", x.shape(), " must have the rank of the result ", shape,
                       " and not exceed it in dims other than ", dim);
  op.output(shape, x.dtype());
}

bool fits_but_for(const Shape& inner, const Shape& whole, int64_t dim) {
  bool fits = inner.size() == whole.size();
  for (int i = 0; fits && i < inner.size(); ++i) fits = i == dim || inner[i] <= whole[i];
  return fits;
}

void infer_scatter(Infer& op) {
  const Tensor &x = op.input(0), &index = op.input(1), &src = op.input(2);
  check_index(op, index, "index");
  op.check<ShapeError>(src.shape() == index.shape() || src.rank() == 0, "src ", src.shape(), " and index ",
                       index.shape(), " must have one shape");
  op.check<DTypeError>(src.dtype() == x.dtype(), "src is ", src.dtype(), ", x is ", x.dtype(), "; cast one with to()");
  op.check<ShapeError>(x.rank() > 0, "x must have at least one dim, got []; unsqueeze it");
  const int dim = op.dim("dim");
  op.check<ShapeError>(fits_but_for(index.shape(), x.shape(), dim), "index ", index.shape(),
                       " must have the rank of x ", x.shape(), " and not exceed it in dims other than ", dim);
  op.output(x.shape(), x.dtype());
}

/// Where src was written and stays, not being overwritten by a later element.
Tensor lasting(const Shape& whole, int64_t dim, const Tensor& index) {
  const TensorOptions options{.dtype = int64, .device = index.device()};
  const Tensor order = reshape(arange(0, index.numel(), 1, options), index.shape());
  return gather(scatter(zeros(whole, options), dim, index, order), dim, index) == order;
}

Tensors scatter_gradient(const OpContext& op) {
  const int64_t dim = op.integer("dim");
  const bool adds = op.attributes().flag("add");
  const Tensor g = op.grad_output(), index = op.input(1);
  Tensors result(3);
  if (op.needs_grad(0)) result[0] = adds ? g : scatter(g, dim, index, 0);
  if (op.needs_grad(2)) {
    const Tensor picked = gather(g, dim, index);
    result[2] = sum_to(adds ? picked : where(lasting(op.input_shape(0), dim, index), picked, 0), op.input_shape(2));
  }
  return result;
}

/// Of a product: what the other factors come to, without division where a factor is 0. With one of src's factors of a place 0
/// that one alone has a gradient, with more of them none.
Tensors scatter_prod_gradient(const OpContext& op) {
  const int64_t dim = op.integer("dim");
  const Tensor g = op.grad_output(), x = op.input(0), index = op.input(1), src = op.input(2);
  Tensors result(3);
  if (op.needs_grad(0)) {
    const Tensor factor = where(x == 0, 1, x);
    result[0] = g * (scatter_prod(factor, dim, index, src) / factor);
  }
  if (op.needs_grad(2)) {
    const Tensor zero = src == 0;
    const Tensor zeros_there = gather(scatter_add(to(zero, int64), dim, index, op.input_shape(0)), dim, index);
    const Tensor only = zero & (zeros_there == 1);
    const Tensor others = scatter_prod(x, dim, index, where(only, 1, src));
    result[2] = where(only, gather(g * others, dim, index),
                      where(zero, 0, gather(g * op.output(), dim, index) / where(zero, 1, src)));
  }
  return result;
}

void check_positions(const Infer& op, const Tensor& x, const Tensor& index) {
  check_index(op, index, "index");
  op.check<ShapeError>(index.rank() == 1, "index must be [count], got ", index.shape(),
                       "; take() has one of any shape");
  op.check<ShapeError>(x.rank() > 0, "x must have at least one dim, got []; unsqueeze it");
}

void infer_index_select(Infer& op) {
  const Tensor &x = op.input(0), &index = op.input(1);
  check_positions(op, x, index);
  Shape shape = x.shape();
  shape[op.dim("dim")] = index.shape()[0];
  op.output(shape, x.dtype());
}

void infer_index_add(Infer& op) {
  const Tensor &x = op.input(0), &index = op.input(1), &src = op.input(2);
  check_positions(op, x, index);
  const int dim = op.dim("dim");
  Shape shape = x.shape();
  shape[dim] = index.shape()[0];
  op.check<ShapeError>(src.shape() == shape, "src is ", src.shape(), ", but x ", x.shape(), " and index ",
                       index.shape(), " along dim ", dim, " need ", shape);
  op.check<DTypeError>(src.dtype() == x.dtype(), "src is ", src.dtype(), ", x is ", x.dtype(), "; cast one with to()");
  op.output(x.shape(), x.dtype());
}

void infer_one_hot(Infer& op) {
  const Tensor& labels = op.input(0);
  check_index(op, labels, "labels");
  const int64_t classes = op.attributes.integer("classes");
  op.check<ValueError>(classes > 0, "needs at least 1 class, got ", classes);
  Shape shape = labels.shape();
  shape.push_back(classes);
  op.output(shape, int64);
}

/// Zeros that take no memory.
Tensor no_values(const Shape& shape, const Tensor& like) {
  return expand(zeros({}, {.dtype = like.dtype(), .device = like.device()}), shape);
}

Tensor embedding_grad(const Tensor& g, const Tensor& ids, int64_t count) {
  return dispatch(find_op("embedding_grad"), {g, ids}, {{"count", count}}, Where::current());
}

int checked_dim(const char* name, int64_t dim, int rank, Where where) {
  if (dim < -rank || dim >= rank)
    throw DimensionError(detail::str(name, ": dim ", dim, " is out of range for rank ", rank), user_line(where));
  return static_cast<int>(dim < 0 ? dim + rank : dim);
}

}  // namespace

void define_index(OpTable& table) {
  using enum AttributeType;
  table.add({.name = "embedding",
             .kind = OpKind::index,
             .inputs = 2,
             .infer = infer_embedding,
             .grad =
                 [](const OpContext& op) {
                   return Tensors{Tensor(), embedding_grad(op.grad_output(), op.input(0), op.input_shape(1)[0])};
                 },
             .saved = in(0),
             .contiguous_inputs = true,
             .onnx = "Gather"});
  table.add({.name = "embedding_grad",
             .kind = OpKind::index,
             .inputs = 2,
             .attributes = {{"count", integer}},
             .infer = infer_embedding_grad,
             .grad =
                 [](const OpContext& op) {
                   return Tensors{embedding(op.input(1), op.grad_output()), Tensor()};
                 },
             .saved = in(1),
             .contiguous_inputs = true});
  table.add(
      {.name = "gather",
       .kind = OpKind::index,
       .inputs = 2,
       .attributes = {{"dim", integer}},
       .infer = infer_gather,
       .grad =
           [](const OpContext& op) {
             return Tensors{scatter_add(op.grad_output(), op.integer("dim"), op.input(1), op.input_shape(0)), Tensor()};
           },
       .saved = in(1),
       .contiguous_inputs = true,
       .onnx = "GatherElements"});
  table.add({.name = "scatter_add",
             .kind = OpKind::index,
             .inputs = 2,
             .attributes = {{"dim", integer}, {"shape", ints}},
             .infer = infer_scatter_add,
             .grad =
                 [](const OpContext& op) {
                   return Tensors{gather(op.grad_output(), op.integer("dim"), op.input(1)), Tensor()};
                 },
             .saved = in(1),
             .contiguous_inputs = true,
             .onnx = "ScatterElements"});
  table.add({.name = "scatter",
             .kind = OpKind::index,
             .inputs = 3,
             .attributes = {{"dim", integer}, {"add", flag, false}},
             .infer = infer_scatter,
             .grad = scatter_gradient,
             .saved = in(1),
             .contiguous_inputs = true,
             .onnx = "ScatterElements"});
  table.add({.name = "scatter_prod",
             .kind = OpKind::index,
             .inputs = 3,
             .attributes = {{"dim", integer}},
             .infer = infer_scatter,
             .grad = scatter_prod_gradient,
             .saved = in(0) | in(1) | in(2) | out(0),
             .contiguous_inputs = true});
  table.add(
      {.name = "index_select",
       .kind = OpKind::index,
       .inputs = 2,
       .attributes = {{"dim", integer}},
       .infer = infer_index_select,
       .grad =
           [](const OpContext& op) {
             const Tensor g = op.grad_output();
             return Tensors{index_add(no_values(op.input_shape(0), g), op.integer("dim"), op.input(1), g), Tensor()};
           },
       .saved = in(1),
       .contiguous_inputs = true,
       .onnx = "Gather"});
  table.add(
      {.name = "index_add",
       .kind = OpKind::index,
       .inputs = 3,
       .attributes = {{"dim", integer}},
       .infer = infer_index_add,
       .grad =
           [](const OpContext& op) {
             const Tensor g = op.grad_output();
             return Tensors{g, Tensor(), op.needs_grad(2) ? index_select(g, op.integer("dim"), op.input(1)) : Tensor()};
           },
       .saved = in(1)});
  table.add({.name = "one_hot",
             .kind = OpKind::index,
             .attributes = {{"classes", integer}},
             .infer = infer_one_hot,
             .contiguous_inputs = true,
             .decompose =
                 [](std::span<const Tensor> inputs, const Attributes& attributes) {
                   const TensorOptions options{.dtype = int64, .device = inputs[0].device()};
                   const int64_t classes = attributes.integer("classes");
                   const Tensor labels = range_checked("one_hot", inputs[0], {.what = "label", .bound = classes});
                   return Tensors{to(unsqueeze(labels, -1) == arange(0, classes, 1, options), int64)};
                 },
             .onnx = "OneHot"});
  table.add(range_checked_op());
}

Tensor embedding(const Arg& ids, const Tensor& weight) {
  static const Op& op = find_op("embedding");
  return dispatch(op, {positions_of("embedding", ids.tensor(), ids.where(), "ids"), weight}, {}, ids.where());
}

Tensor gather(const Arg& x, int64_t dim, const Tensor& index) {
  static const Op& op = find_op("gather");
  return dispatch(op, {x.tensor(), positions_of("gather", index, x.where())}, {{"dim", dim_of("gather", x, dim)}},
                  x.where());
}

Tensor scatter_add(const Arg& x, int64_t dim, const Tensor& index, const Shape& shape) {
  static const Op& op = find_op("scatter_add");
  return dispatch(op, {x.tensor(), index},
                  {{"dim", checked_dim("scatter_add", dim, std::max(shape.size(), 1), x.where())}, {"shape", shape}},
                  x.where());
}

/// x with src in the places, or added or multiplied there.
static Tensor scattered(const char* name, const Op& op, const Arg& x, int64_t dim, const Tensor& given, const Arg& src,
                        const Attributes& more = {}) {
  const CallScope scope(name, x.where());
  const Tensor& tensor = x.tensor();
  const int d = dim_of(name, x, dim);
  const Tensor index = positions_of(name, given, x.where());
  Tensor values = src.is_tensor() ? src.tensor() : src.scalar(tensor.dtype());
  Attributes attributes{{"dim", d}};
  for (const Attribute& each : more) attributes.set(each);
  if (tensor.rank() == 0 && index.rank() == 0)
    return reshape(dispatch(op, {reshape(tensor, {1}), reshape(index, {1}), values}, attributes, x.where()), {});
  // As PyTorch, which leaves the rest of a larger src unread.
  if (values.rank() == index.rank() && values.shape() != index.shape())
    for (int i = 0; i < values.rank(); ++i)
      if (values.shape()[i] > index.shape()[i]) values = slice(values, i, 0, index.shape()[i]);
  return dispatch(op, {tensor, index, values}, attributes, x.where());
}

Tensor scatter(const Arg& x, int64_t dim, const Tensor& index, const Arg& src) {
  static const Op& op = find_op("scatter");
  return scattered("scatter", op, x, dim, index, src, {{"add", false}});
}
Tensor scatter_add(const Arg& x, int64_t dim, const Tensor& index, const Tensor& src) {
  static const Op& op = find_op("scatter");
  return scattered("scatter_add", op, x, dim, index, {src, x.where()}, {{"add", true}});
}
Tensor scatter_prod(const Arg& x, int64_t dim, const Tensor& index, const Tensor& src) {
  static const Op& op = find_op("scatter_prod");
  // One number for all: its gradient tells the elements apart.
  const Tensor factors = src.rank() > 0 ? src : expand(src, index.rank() > 0 ? index.shape() : Shape{1});
  return scattered("scatter_reduce", op, x, dim, index, {factors, x.where()});
}

Tensor index_select(const Arg& x, int64_t dim, const Tensor& index) {
  static const Op& op = find_op("index_select");
  return dispatch(op, {x.tensor(), positions_of("index_select", index, x.where())},
                  {{"dim", dim_of("index_select", x, dim)}}, x.where());
}

Tensor index_add(const Arg& x, int64_t dim, const Tensor& index, const Tensor& src) {
  static const Op& op = find_op("index_add");
  return dispatch(op, {x.tensor(), positions_of("index_add", index, x.where()), src},
                  {{"dim", dim_of("index_add", x, dim)}}, x.where());
}

Tensor one_hot(const Arg& labels, int64_t classes) {
  static const Op& op = find_op("one_hot");
  return dispatch(op, {positions_of("one_hot", labels.tensor(), labels.where(), "labels")}, {{"classes", classes}},
                  labels.where());
}

}  // namespace tandem
