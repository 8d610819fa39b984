// Along one dim, each result from the one before it: cumsum, cumprod, cummax, cummin, linear_recurrence. `reverse` walks from
// the end.
#include "core/dispatch.h"
#include "core/ops/reduce_shared.h"

namespace tandem {

namespace {

void infer_scan(Infer& op) {
  const Tensor& x = op.input(0);
  op.dim("dim");
  op.output(x.shape(), is_floating(x.dtype()) ? x.dtype() : DType::int64);
}

void infer_running_extreme(Infer& op) {
  const Tensor& x = op.input(0);
  op.dim("dim");
  op.output(x.shape(), x.dtype());
  op.output(x.shape(), DType::int64);
}

void infer_linear_recurrence(Infer& op) {
  op.check_floating(0);
  op.dim("dim");
  op.check<ShapeError>(op.input(0).shape() == op.input(1).shape(), "a ", op.input(0).shape(), " and b ",
                       op.input(1).shape(), " must have one shape; expand one of them");
  op.check<DTypeError>(op.input(0).dtype() == op.input(1).dtype(), "a is ", op.input(0).dtype(), " and b ",
                       op.input(1).dtype(), "; cast one of them");
  op.output(op.input(0).shape(), op.input(0).dtype());
}

Tensor scan(const char* name, const Tensor& x, int64_t dim, bool reverse, Where where = Where::current()) {
  return dispatch(find_op(name), {x}, {{"dim", dim}, {"reverse", reverse}}, where);
}
Tensor recurrence(const Tensor& a, const Tensor& b, int64_t dim, bool reverse, Where where = Where::current()) {
  return dispatch(find_op("linear_recurrence"), {a, b}, {{"dim", dim}, {"reverse", reverse}}, where);
}

/// Element i moves to i + 1 (or, in reverse, to i - 1); the place left free gets `fill`.
Tensor shifted(const Tensor& x, int64_t dim, bool reverse, double fill) {
  const int64_t size = x.shape()[static_cast<int>(dim)];
  Shape edge = x.shape();
  edge[static_cast<int>(dim)] = 1;
  const Tensor filled = full(edge, fill, {.dtype = x.dtype(), .device = x.device()});
  return reverse ? concat({slice(x, dim, 1, size), filled}, dim) : concat({filled, slice(x, dim, 0, size - 1)}, dim);
}

/// y_i = x_0 … x_i, so x_j gets the sum over i >= j of g_i (x_0 … x_(j-1)) (x_(j+1) … x_i): what comes before j,
/// times s_j = g_j + x_(j+1) s_(j+1). No division, so zeros do no harm.
Tensors cumprod_grad(const OpContext& op) {
  const int64_t dim = op.integer("dim");
  const bool reverse = op.integer("reverse") != 0;
  const Tensor g = op.grad_output(), x = op.input(0);
  if (x.numel() == 0) return {zeros_like(x)};
  const Tensor after = recurrence(shifted(x, dim, !reverse, 0), g, dim, !reverse);
  return {shifted(op.output(), dim, reverse, 1) * after};
}

Tensors linear_recurrence_grad(const OpContext& op) {
  const int64_t dim = op.integer("dim");
  const bool reverse = op.integer("reverse") != 0;
  const Tensor g = op.grad_output(), a = op.input(0);
  if (a.numel() == 0) return {zeros_like(a), zeros_like(a)};
  const Tensor of_b = recurrence(shifted(a, dim, !reverse, 0), g, dim, !reverse);
  return {op.needs_grad(0) ? of_b * shifted(op.output(), dim, reverse, 0) : Tensor(), of_b};
}

Tensor along(const char* name, const Arg& x, int64_t dim) {
  const Shape dims = normalized_dims(name, x, Dims(dim));
  if (dims.empty()) return reshape(scan(name, reshape(x, {1}), 0, false, x.where()), {});
  return scan(name, x.tensor(), dims[0], false, x.where());
}

ValuesAndIndices running_extreme(const char* name, const Arg& x, int64_t dim) {
  const WhereScope scope(x.where());
  const Shape dims = normalized_dims(name, x, Dims(dim));
  const Tensor row = dims.empty() ? reshape(x, {1}) : x.tensor();
  const Tensors result =
      dispatch_all(find_op(name), {&row, 1}, {{"dim", dims.empty() ? int64_t{0} : dims[0]}}, x.where());
  if (!dims.empty()) return {result[0], result[1]};
  return {reshape(result[0], {}), reshape(result[1], {})};
}

}  // namespace

void define_scan(OpTable& table) {
  using enum AttributeType;
  const AttributeSchema along = {{"dim", integer}, {"reverse", flag, false}};
  table.add({.name = "cumsum",
             .kind = OpKind::opaque,
             .attributes = along,
             .infer = infer_scan,
             .grad =
                 [](const OpContext& op) {
                   return Tensors{scan("cumsum", op.grad_output(), op.integer("dim"), op.integer("reverse") == 0)};
                 },
             .contiguous_inputs = true,
             .onnx = "CumSum"});
  table.add({.name = "cumprod",
             .kind = OpKind::opaque,
             .attributes = along,
             .infer = infer_scan,
             .grad = cumprod_grad,
             .saved = in(0) | out(0),
             .contiguous_inputs = true});
  for (const char* name : {"cummax", "cummin"})
    table.add({.name = name,
               .kind = OpKind::opaque,
               .outputs = 2,
               .attributes = {{"dim", integer}},
               .infer = infer_running_extreme,
               .grad =
                   [](const OpContext& op) {
                     return Tensors{scatter_add(op.grad_output(), op.integer("dim"), op.output(1), op.input_shape(0))};
                   },
               .saved = out(1),
               .contiguous_inputs = true});
  table.add({.name = "linear_recurrence",
             .kind = OpKind::opaque,
             .inputs = 2,
             .attributes = along,
             .infer = infer_linear_recurrence,
             .grad = linear_recurrence_grad,
             .saved = in(0) | out(0),
             .contiguous_inputs = true});
  for (const char* name : {"cumsum", "cumprod"}) table.at(name).autocast = AutocastRule::widen;
}

Tensor cumsum(const Arg& x, int64_t dim) { return along("cumsum", x, dim); }
Tensor cumprod(const Arg& x, int64_t dim) { return along("cumprod", x, dim); }

ValuesAndIndices cummax(const Arg& x, int64_t dim) { return running_extreme("cummax", x, dim); }
ValuesAndIndices cummin(const Arg& x, int64_t dim) { return running_extreme("cummin", x, dim); }

Tensor linear_recurrence(const Arg& a, const Tensor& b, int64_t dim) {
  const Shape dims = normalized_dims("linear_recurrence", a, Dims(dim));
  if (dims.empty()) return clone({b, a.where()});
  return recurrence(a.tensor(), b, dims[0], false, a.where());
}

Tensor products_of_others(const Tensor& x, int64_t dim) {
  return shifted(scan("cumprod", x, dim, false), dim, false, 1) * shifted(scan("cumprod", x, dim, true), dim, true, 1);
}

}  // namespace tandem
