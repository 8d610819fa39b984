// Matrix products.
#include "core/dispatch.h"
#include "core/ops/ops.h"

namespace tandem {

namespace {

void infer_matmul(Infer& op) {
  const Tensor &a = op.input(0), &b = op.input(1);
  op.check<DTypeError>(a.dtype() == b.dtype(), "operands of different dtypes: ", a.dtype(), " and ", b.dtype(),
                       "; cast one with to()");
  const int ra = a.rank(), rb = b.rank();
  op.check<ShapeError>(ra >= 2 && rb >= 2, "needs matrices, got ", a.shape(), " and ", b.shape());
  const int64_t k = a.shape()[ra - 1], kb = b.shape()[rb - 2];
  op.check<ShapeError>(k == kb, "inner dimensions differ: ", a.shape(), " x ", b.shape(), " (", k, " and ", kb, ")");
  Shape shape;
  const int batch = std::max(ra, rb) - 2;
  for (int i = 0; i < batch; ++i) {
    const int ia = i - (batch - (ra - 2)), ib = i - (batch - (rb - 2));
    const int64_t ea = ia >= 0 ? a.shape()[ia] : 1, eb = ib >= 0 ? b.shape()[ib] : 1;
    op.check<ShapeError>(ea == eb || ea == 1 || eb == 1, "batch dims don't broadcast: ", a.shape(), " x ", b.shape(),
                         " (", ea, " and ", eb, ")");
    shape.push_back(ea == 1 ? eb : ea);
  }
  shape.push_back(a.shape()[ra - 2]);
  shape.push_back(b.shape()[rb - 1]);
  op.output(shape, a.dtype());
}

Tensor transposed(const Tensor& x) { return transpose(x, -2, -1); }

/// All dims but the last as one.
Tensor as_rows(const Tensor& x) {
  int64_t rows = 1;
  for (int d = 0; d + 1 < x.rank(); ++d) rows *= x.shape()[d];
  return x.rank() == 2 ? x : reshape(x, {rows, x.shape().back()});
}

Tensors matmul_grad(const OpContext& op) {
  const Tensor g = op.grad_output();
  Tensors result(2);
  if (op.needs_grad(0)) result[0] = sum_to(matmul(g, transposed(op.input(1))), op.input_shape(0));
  if (!op.needs_grad(1)) return result;
  // One matrix b for a batch of a: their rows make one product, rather than many that are added.
  if (op.input_shape(1).size() == 2) result[1] = matmul(transposed(as_rows(op.input(0))), as_rows(g));
  else result[1] = sum_to(matmul(transposed(op.input(0)), g), op.input_shape(1));
  return result;
}

void infer_linear(Infer& op) {
  const Tensor &x = op.input(0), &w = op.input(1);
  op.check<ShapeError>(x.rank() >= 1 && w.rank() == 2, "needs x [.., in] and weight [out, in], got ", x.shape(),
                       " and ", w.shape());
  op.check<DTypeError>(x.dtype() == w.dtype(), "operands of different dtypes: ", x.dtype(), " and ", w.dtype(),
                       "; cast one with to()");
  op.check_floating(0);
  const int64_t width = x.shape().back();
  op.check<ShapeError>(width == w.shape()[1], "inner dimensions differ: ", x.shape(), " x weight ", w.shape(), " (",
                       width, " and ", w.shape()[1], ")");
  if (op.inputs.size() > 2) {
    op.check<ShapeError>(op.input(2).shape() == Shape{w.shape()[0]}, "bias ", op.input(2).shape(), " for ",
                         w.shape()[0], " outputs");
    op.check<DTypeError>(op.input(2).dtype() == x.dtype(), "bias is ", op.input(2).dtype(), ", x is ", x.dtype());
  }
  Shape shape = x.shape();
  shape[shape.size() - 1] = w.shape()[0];
  op.output(shape, x.dtype());
}

Tensors linear_grad(const OpContext& op) {
  const Tensor g = op.grad_output();
  Tensors result(static_cast<size_t>(op.input_count()));
  if (op.needs_grad(0)) result[0] = matmul(g, op.input(1));
  const Tensor rows = as_rows(g);
  if (op.needs_grad(1)) result[1] = matmul(transposed(rows), as_rows(op.input(0)));
  if (op.input_count() > 2 && op.needs_grad(2)) result[2] = sum(rows, 0);
  return result;
}

/// x W' + b as a product and an addition, which fuses with what follows it.
Tensors decompose_linear(std::span<const Tensor> inputs, const Attributes&) {
  const Tensor& x = inputs[0];
  if (size_of(x.dtype()) == 2) return {};  // the kernel rounds to 16 bits once, after the bias
  Tensor y;
  if (x.rank() == 2) {
    y = matmul(x, transposed(inputs[1]));
  } else {
    Shape shape = x.shape();
    const int64_t width = shape.back();
    shape[shape.size() - 1] = inputs[1].shape()[0];
    y = reshape(matmul(reshape(x, {x.numel() / std::max<int64_t>(width, 1), width}), transposed(inputs[1])), shape);
  }
  return {inputs.size() > 2 ? y + inputs[2] : y};
}

/// Rows of the left operand, or products of a batch.
uint32_t rows_of_matmul(std::span<const Tensor> inputs, const Attributes&) {
  const int rank = std::max(inputs[0].rank(), inputs[1].rank());
  if (rank == 2) return in(0);
  uint32_t batched = 0;
  for (int i = 0; i < 2; ++i)
    if (const Tensor& each = inputs[static_cast<size_t>(i)]; each.rank() == rank && each.size(0) > 1) batched |= in(i);
  return batched;
}
uint32_t rows_of_linear(std::span<const Tensor> inputs, const Attributes&) { return inputs[0].rank() > 1 ? in(0) : 0; }

}  // namespace

void define_matmul(OpTable& table) {
  table.add({.name = "matmul",
             .kind = OpKind::contract,
             .inputs = 2,
             .infer = infer_matmul,
             .grad = matmul_grad,
             .saved = in(0) | in(1),
             .onnx = "MatMul",
             .rows = rows_of_matmul});
  table.add({.name = "linear",
             .kind = OpKind::contract,
             .inputs = kVariadic,
             .infer = infer_linear,
             .grad = linear_grad,
             .saved = in(0) | in(1),
             .decompose = decompose_linear,
             .onnx = "Gemm",
             .rows = rows_of_linear});
  for (const char* name : {"matmul", "linear"}) table.at(name).autocast = AutocastRule::lower;
}

Tensor matmul(const Arg& a, const Arg& b) {
  static const Op& op = find_op("matmul");
  const Tensor &x = a.tensor(), &y = b.tensor();
  const Where where = a.where();
  if (x.rank() == 0 || y.rank() == 0)
    throw ShapeError(
        detail::str("matmul: needs vectors or matrices, got ", x.shape(), " and ", y.shape(), "; use * to scale"),
        user_line(where));
  if (x.rank() > 1 && y.rank() > 1) return dispatch(op, {x, y}, {}, where);
  // Vectors are rows on the left and columns on the right, and their dim is dropped again.
  if (x.shape().back() != y.shape()[std::max(y.rank() - 2, 0)])
    throw ShapeError(detail::str("matmul: inner dimensions differ: ", x.shape(), " x ", y.shape(), " (",
                                 x.shape().back(), " and ", y.shape()[std::max(y.rank() - 2, 0)], ")"),
                     user_line(where));
  const Tensor left = x.rank() == 1 ? unsqueeze(a, 0) : x, right = y.rank() == 1 ? unsqueeze(b, 1) : y;
  Tensor result = dispatch(op, {left, right}, {}, where);
  if (y.rank() == 1) result = squeeze({result, where}, -1);
  if (x.rank() == 1) result = squeeze({result, where}, y.rank() == 1 ? -1 : -2);
  return result;
}

Tensor bmm(const Arg& a, const Arg& b) {
  const Shape &x = a.tensor().shape(), &y = b.tensor().shape();
  if (x.size() != 3 || y.size() != 3 || x[0] != y[0])
    throw ShapeError(
        detail::str("bmm: needs [batch, m, k] and [batch, k, n], got ", x, " and ", y, "; matmul broadcasts batches"),
        user_line(a.where()));
  return matmul(a, b);
}

Tensor dot(const Arg& a, const Arg& b) {
  const Shape &x = a.tensor().shape(), &y = b.tensor().shape();
  if (x.size() != 1 || x != y)
    throw ShapeError(detail::str("dot: needs two vectors of one length, got ", x, " and ", y), user_line(a.where()));
  return matmul(a, b);
}

Tensor outer(const Arg& a, const Arg& b) {
  const Tensor &x = a.tensor(), &y = b.tensor();
  if (x.rank() != 1 || y.rank() != 1)
    throw ShapeError(detail::str("outer: needs two vectors, got ", x.shape(), " and ", y.shape()),
                     user_line(a.where()));
  return mul({unsqueeze(a, 1), a.where()}, b);
}

Tensor linear(const Arg& x, const Tensor& weight, const Tensor& bias) {
  static const Op& op = find_op("linear");
  if (!bias.defined()) return dispatch(op, {x.tensor(), weight}, {}, x.where());
  return dispatch(op, {x.tensor(), weight, bias}, {}, x.where());
}

}  // namespace tandem
