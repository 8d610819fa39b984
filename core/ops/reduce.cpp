// Reductions over any set of dims, argmax and argmin. Those made of others (var, norm, …) are in statistics.cpp.
#include "core/ops/reduce_shared.h"

#include "core/dispatch.h"
#include "core/ops/ops.h"

namespace tandem {

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
      throw DimensionError(detail::str(name, ": dim ", d, " is out of range for ", x.tensor().shape(), " (", -bound,
                                       " to ", bound - 1, ")"),
                           user_line(x.where()));
    if (d < 0) d += bound;
    if (result.contains(d))
      throw DimensionError(detail::str(name, ": dim ", d, " is named twice in ", dims), user_line(x.where()));
    result.push_back(d);
  }
  if (rank == 0) return {};
  std::sort(result.begin(), result.end());
  return result;
}

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
  op.output(reduced_shape(x.shape(), op.dims("dims"), op.attributes.flag("keepdim")), type);
}

void infer_mean(Infer& op) {
  op.check_floating(0);
  infer_reduce<false>(op);
}

void infer_extreme(Infer& op) {
  const Tensor& x = op.input(0);
  for (int64_t d : op.dims("dims"))
    op.check<ShapeError>(x.shape()[d] > 0, "dim ", d, " of ", x.shape(), " is empty and has no extreme value");
  infer_reduce<false>(op);
}

void infer_position(Infer& op) {
  const Tensor& x = op.input(0);
  const Shape dims{op.dim("dim")};
  op.check<ShapeError>(x.rank() == 0 || x.shape()[dims[0]] > 0, "dim ", dims[0], " of ", x.shape(), " is empty");
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

/// Times the product of the other elements, which products_of_others finds without a division: exact where there
/// are zeros, and so are further gradients.
Tensors prod_grad(const OpContext& op) {
  const Tensor x = op.input(0);
  if (x.rank() == 0) return {op.grad_output()};
  if (x.numel() == 0) return {zeros_like(x)};
  const Shape& dims = op.integers("dims");
  Shape order, kept, back = Shape::filled(x.rank(), 0);  // the reduced dims last, and flattened
  for (int d = 0; d < x.rank(); ++d)
    if (!dims.contains(d)) order.push_back(d), kept.push_back(x.shape()[d]);
  for (int64_t d : dims) order.push_back(d);
  for (int d = 0; d < order.size(); ++d) back[static_cast<int>(order[d])] = d;
  kept.push_back(-1);
  const Tensor moved = permute(x, Dims(order));
  const Tensor others = products_of_others(reshape(moved, kept), kept.size() - 1);
  return {broadcast_back(op.grad_output(), op) * permute(reshape(others, moved.shape()), Dims(back))};
}

Tensor reduce(const Op& op, const Arg& x, const Dims& dims, ReduceOptions options) {
  return dispatch(op, {x.tensor()}, {{"dims", normalized_dims(op.name, x, dims)}, {"keepdim", options.keepdim}},
                  x.where());
}

Tensor position(const char* name, const Arg& x, int64_t dim, ReduceOptions options) {
  const Shape dims = normalized_dims(name, x, Dims(dim));
  return dispatch(find_op(name), {x.tensor()},
                  {{"dim", dims.empty() ? int64_t{0} : dims[0]}, {"keepdim", options.keepdim}}, x.where());
}

ValuesAndIndices at_position(const Arg& x, const Tensor& index, int64_t dim, ReduceOptions options) {
  const WhereScope scope(x.where());
  const Tensor& from = x.tensor();
  if (from.rank() == 0) return {clone(from), index};
  const Tensor values = gather(from, dim, index);
  if (options.keepdim) return {values, index};
  return {squeeze(values, dim), squeeze(index, dim)};
}

}  // namespace

void define_reduce(OpTable& table) {
  using enum AttributeType;
  const AttributeSchema over_dims = {{"dims", ints}, {"keepdim", flag, false}};
  const AttributeSchema over_dim = {{"dim", integer}, {"keepdim", flag, false}};
  table.add({.name = "sum",
             .kind = OpKind::reduce,
             .attributes = over_dims,
             .infer = infer_reduce<true>,
             .grad = [](const OpContext& op) { return Tensors{broadcast_back(op.grad_output(), op)}; },
             .onnx = "ReduceSum",
             .fold = Fold::sum});  // keeps no value: 0 + -0 is 0
  table.add({.name = "prod",
             .kind = OpKind::reduce,
             .attributes = over_dims,
             .infer = infer_reduce<true>,
             .grad = prod_grad,
             .saved = in(0),
             .onnx = "ReduceProd",
             .fold = Fold::prod,
             .keeps_values = true});
  table.add({.name = "mean",
             .kind = OpKind::reduce,
             .attributes = over_dims,
             .infer = infer_mean,
             .grad =
                 [](const OpContext& op) {
                   return Tensors{broadcast_back(op.grad_output() / static_cast<double>(reduced_count(op)), op)};
                 },
             .onnx = "ReduceMean",
             .fold = Fold::sum,
             .averages = true});
  table.add({.name = "max",
             .kind = OpKind::reduce,
             .attributes = over_dims,
             .infer = infer_extreme,
             .grad = extreme_grad,
             .saved = in(0) | out(0),
             .onnx = "ReduceMax",
             .fold = Fold::max,
             .keeps_values = true});
  table.add({.name = "min",
             .kind = OpKind::reduce,
             .attributes = over_dims,
             .infer = infer_extreme,
             .grad = extreme_grad,
             .saved = in(0) | out(0),
             .onnx = "ReduceMin",
             .fold = Fold::min,
             .keeps_values = true});
  table.add(
      {.name = "argmax", .kind = OpKind::reduce, .attributes = over_dim, .infer = infer_position, .onnx = "ArgMax"});
  table.add(
      {.name = "argmin", .kind = OpKind::reduce, .attributes = over_dim, .infer = infer_position, .onnx = "ArgMin"});
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
Tensor argmax(const Arg& x, int64_t dim, ReduceOptions options) { return position("argmax", x, dim, options); }
Tensor argmin(const Arg& x, int64_t dim, ReduceOptions options) { return position("argmin", x, dim, options); }

ValuesAndIndices max_with_index(const Arg& x, int64_t dim, ReduceOptions options) {
  return at_position(x, argmax(x, dim, {.keepdim = true}), dim, options);
}
ValuesAndIndices min_with_index(const Arg& x, int64_t dim, ReduceOptions options) {
  return at_position(x, argmin(x, dim, {.keepdim = true}), dim, options);
}

}  // namespace tandem
