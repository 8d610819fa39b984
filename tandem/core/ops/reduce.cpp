// Reductions over any set of dims, and argmax.
#include "tandem/core/dispatch.h"
#include "tandem/core/ops.h"

namespace tandem {

namespace {

Shape reduced_shape(const Shape& shape, const Shape& dims, bool keepdim) {
  Shape result;
  for (int i = 0; i < shape.size(); ++i) {
    if (!dims.contains(i)) result.push_back(shape[i]);
    else if (keepdim) result.push_back(1);
  }
  return result;
}

template <bool integers_widen> void infer_reduce(Infer& op) {
  const Tensor& x = op.input(0);
  const DType type = integers_widen && !is_floating(x.dtype()) ? DType::int64 : x.dtype();
  op.output(reduced_shape(x.shape(), op.attributes.integers("dims"), op.attributes.flag("keepdim")), type);
}

void infer_mean(Infer& op) {
  op.check_floating(0);
  infer_reduce<false>(op);
}

void infer_extreme(Infer& op) {
  const Tensor& x = op.input(0);
  for (int64_t d : op.attributes.integers("dims"))
    op.check<ShapeError>(x.rank() == 0 || x.shape()[static_cast<int>(d)] > 0, "dim ", d, " of ", x.shape(),
                         " is empty and has no extreme value");
  infer_reduce<false>(op);
}

void infer_argmax(Infer& op) {
  const Tensor& x = op.input(0);
  const Shape dims{op.attributes.integer("dim")};
  op.check<ShapeError>(x.rank() == 0 || x.shape()[static_cast<int>(dims[0])] > 0, "dim ", dims[0], " of ", x.shape(), " is empty");
  op.output(reduced_shape(x.shape(), dims, op.attributes.flag("keepdim")), DType::int64);
}

/// Puts the reduced dims back with extent 1, and repeats along them.
Tensor broadcast_back(const Tensor& reduced, const OpContext& op) {
  const Shape& shape = op.input_shape(0);
  return expand(reshape(reduced, reduced_shape(shape, op.integers("dims"), true)), shape);
}

int64_t reduced_count(const OpContext& op) {
  int64_t count = 1;
  if (op.input_shape(0).empty()) return 1;
  for (int64_t d : op.integers("dims")) count *= op.input_shape(0)[static_cast<int>(d)];
  return count;
}

/// Shared equally among the elements that attain the extreme, as PyTorch's amax.
Tensors extreme_grad(const OpContext& op) {
  const Tensor x = op.input(0);
  const Tensor hit = x == broadcast_back(op.output(), op);
  const Tensor count = sum(to(hit, op.input_dtype(0)), Dims(op.integers("dims")), {.keepdim = true});
  return {where(hit, broadcast_back(op.grad_output(), op) / count, 0)};
}

/// Product of the other elements: division where no element is zero would lose the zeros, so each
/// zero gets the product of the rest, and others get nothing where there is one.
Tensors prod_grad(const OpContext& op) {
  const Tensor x = op.input(0);
  const Dims dims(op.integers("dims"));
  const Tensor zero = x == 0;
  const Tensor zeros_in_row = sum(to(zero, x.dtype()), dims, {.keepdim = true});
  const Tensor rest = prod(where(zero, 1, x), dims, {.keepdim = true});  // of the non-zero elements
  const Tensor g = broadcast_back(op.grad_output(), op);
  const Tensor of_zero = where(zeros_in_row == 1, rest, 0), of_others = where(zeros_in_row == 0, rest, 0);
  return {g * where(zero, of_zero, of_others / where(zero, 1, x))};
}

Shape normalized_dims(const char* name, const Arg& x, const Dims& dims) {
  const int rank = x.tensor().rank();
  Shape result;
  if (dims.empty()) {
    for (int i = 0; i < rank; ++i) result.push_back(i);
    return result;
  }
  const int bound = std::max(rank, 1);
  for (int64_t d : dims) {
    if (d < -bound || d >= bound)
      throw DimensionError(detail::str(name, ": dim ", d, " is out of range for ", x.tensor().shape(), " (", -bound, " to ", bound - 1, ")"),
                           user_line(x.where()));
    if (d < 0) d += bound;
    if (result.contains(d)) throw DimensionError(detail::str(name, ": dim ", d, " is named twice in ", dims), user_line(x.where()));
    result.push_back(d);
  }
  if (rank == 0) return {};
  std::sort(result.begin(), result.end());
  return result;
}

Tensor reduce(const Op& op, const Arg& x, const Dims& dims, ReduceOptions options) {
  return dispatch(op, {x.tensor()}, {{"dims", normalized_dims(op.name, x, dims)}, {"keepdim", options.keepdim}}, x.where());
}

Tensors decompose_mean(std::span<const Tensor> inputs, const Attributes& attributes) {
  const Tensor& x = inputs[0];
  const Dims dims(attributes.integers("dims"));
  int64_t count = 1;
  for (int64_t d : dims) count *= x.shape()[static_cast<int>(d)];
  if (x.rank() == 0) return {clone(x)};
  const Tensor wide = x.dtype() == float16 || x.dtype() == bfloat16 ? to(x, float32) : x;
  return {to(sum(wide, dims, {.keepdim = attributes.flag("keepdim")}) / static_cast<double>(count), x.dtype())};
}

}  // namespace

void define_reduce(OpTable& table) {
  table.add({.name = "sum", .kind = OpKind::reduce, .infer = infer_reduce<true>,
             .grad = [](const OpContext& op) { return Tensors{broadcast_back(op.grad_output(), op)}; }, .onnx = "ReduceSum"});
  table.add({.name = "prod", .kind = OpKind::reduce, .infer = infer_reduce<true>, .grad = prod_grad, .saved = in(0), .onnx = "ReduceProd"});
  table.add({.name = "mean", .kind = OpKind::reduce, .infer = infer_mean,
             .grad = [](const OpContext& op) {
               return Tensors{broadcast_back(op.grad_output() / static_cast<double>(reduced_count(op)), op)};
             },
             .decompose = decompose_mean, .onnx = "ReduceMean"});
  table.add({.name = "max", .kind = OpKind::reduce, .infer = infer_extreme, .grad = extreme_grad, .saved = in(0) | out(0), .onnx = "ReduceMax"});
  table.add({.name = "min", .kind = OpKind::reduce, .infer = infer_extreme, .grad = extreme_grad, .saved = in(0) | out(0), .onnx = "ReduceMin"});
  table.add({.name = "argmax", .kind = OpKind::reduce, .infer = infer_argmax, .onnx = "ArgMax"});
  for (const char* name : {"sum", "prod", "mean"}) table.at(name).autocast = AutocastRule::widen;
}

Tensor sum(const Arg& x, const Dims& dims, ReduceOptions options) {
  static const Op& op = find_op("sum");
  return reduce(op, x, dims, options);
}
Tensor prod(const Arg& x, const Dims& dims, ReduceOptions options) {
  static const Op& op = find_op("prod");
  return reduce(op, x, dims, options);
}
Tensor mean(const Arg& x, const Dims& dims, ReduceOptions options) {
  static const Op& op = find_op("mean");
  return reduce(op, x, dims, options);
}
Tensor max(const Arg& x, const Dims& dims, ReduceOptions options) {
  static const Op& op = find_op("max");
  return reduce(op, x, dims, options);
}
Tensor min(const Arg& x, const Dims& dims, ReduceOptions options) {
  static const Op& op = find_op("min");
  return reduce(op, x, dims, options);
}
Tensor argmax(const Arg& x, int64_t dim, ReduceOptions options) {
  static const Op& op = find_op("argmax");
  const Shape dims = normalized_dims("argmax", x, Dims(dim));
  return dispatch(op, {x.tensor()}, {{"dim", dims.empty() ? int64_t{0} : dims[0]}, {"keepdim", options.keepdim}}, x.where());
}

}  // namespace tandem
