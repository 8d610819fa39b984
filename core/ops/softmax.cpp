// softmax and log_softmax along one dim. The ops work on rows (the last dim, contiguous); other dims
// are brought there by a permute.
//   softmax(x)_i = exp(x_i - max x) / sum_j exp(x_j - max x)
#include <limits>

#include "core/dispatch.h"
#include "core/ops/composed.h"
#include "core/ops/fit.h"
#include "core/ops/ops.h"

namespace tandem {

namespace {

void infer_rows(Infer& op) {
  op.check_floating(0);
  op.output(op.input(0).shape(), op.input(0).dtype());
}
void infer_grad(Infer& op) {
  check_fit(op, ".., ..");
  infer_rows(op);
}

Tensor call(const char* name, const Tensor& g, const Tensor& y) {
  return dispatch(find_op(name), {g, y}, {}, Where::current());
}
Tensor row_sum(const Tensor& x) { return sum(x, -1, {.keepdim = true}); }

/// Decompositions compute 16-bit floats in float32, as the kernels do.
Tensor widen(const Tensor& x) { return x.dtype() == float16 || x.dtype() == bfloat16 ? to(x, float32) : x; }

Tensor by_rows(const char* name, const Arg& x, int64_t dim) {
  const Op& op = find_op(name);
  const int rank = x.tensor().rank();
  if (rank == 0) return reshape({dispatch(op, {reshape(x, {1})}, {}, x.where()), x.where()}, {});
  if (dim < -rank || dim >= rank)
    throw DimensionError(detail::str(name, ": dim ", dim, " is out of range for ", x.tensor().shape()),
                         user_line(x.where()));
  if (dim == -1 || dim == rank - 1) return dispatch(op, {x.tensor()}, {}, x.where());
  const Tensor rows = transpose(x, dim, -1);
  return transpose({dispatch(op, {rows}, {}, x.where()), x.where()}, dim, -1);
}

uint32_t rows_of_matrix(std::span<const Tensor> inputs, const Attributes&) {
  if (inputs[0].rank() < 2) return 0;
  return inputs.size() > 1 ? in(0) | in(1) : in(0);
}

}  // namespace

void define_softmax(OpTable& table) {
  table.add({.name = "softmax",
             .kind = OpKind::reduce,
             .infer = infer_rows,
             .grad = [](const OpContext& op) { return Tensors{call("softmax_grad", op.grad_output(), op.output())}; },
             .saved = out(0),
             .contiguous_inputs = true,
             .decompose =
                 [](std::span<const Tensor> inputs, const Attributes&) {
                   const Tensor x = widen(inputs[0]);
                   const Tensor e = exp(x - max(x, -1, {.keepdim = true}));
                   return Tensors{to(e / row_sum(e), inputs[0].dtype())};
                 },
             .onnx = "Softmax",
             .rows = rows_of_matrix});
  // dx = y (g - sum(g y)); its own gradients: d/dg = y (h - sum(h y)), d/dy = h (g - sum(g y)) - g sum(h y).
  table.add({.name = "softmax_grad",
             .kind = OpKind::reduce,
             .inputs = 2,
             .infer = infer_grad,
             .grad =
                 [](const OpContext& op) {
                   const Tensor h = op.grad_output(), g = op.input(0), y = op.input(1);
                   return Tensors{call("softmax_grad", h, y), h * (g - row_sum(g * y)) - g * row_sum(h * y)};
                 },
             .saved = in(0) | in(1),
             .contiguous_inputs = true,
             .decompose =
                 [](std::span<const Tensor> inputs, const Attributes&) {
                   const Tensor g = widen(inputs[0]), y = widen(inputs[1]);
                   return Tensors{to(y * (g - row_sum(g * y)), inputs[0].dtype())};
                 },
             .rows = rows_of_matrix});
  table.add(
      {.name = "log_softmax",
       .kind = OpKind::reduce,
       .infer = infer_rows,
       .grad = [](const OpContext& op) { return Tensors{call("log_softmax_grad", op.grad_output(), op.output())}; },
       .saved = out(0),
       .contiguous_inputs = true,
       .decompose =
           [](std::span<const Tensor> inputs, const Attributes&) {
             const Tensor x = widen(inputs[0]);
             const Tensor shifted = x - max(x, -1, {.keepdim = true});
             return Tensors{to(shifted - log(row_sum(exp(shifted))), inputs[0].dtype())};
           },
       .onnx = "LogSoftmax",
       .rows = rows_of_matrix});
  // dx = g - exp(y) sum(g); d/dg = h - sum(h exp(y)), d/dy = -h exp(y) sum(g).
  table.add({.name = "log_softmax_grad",
             .kind = OpKind::reduce,
             .inputs = 2,
             .infer = infer_grad,
             .grad =
                 [](const OpContext& op) {
                   const Tensor h = op.grad_output(), p = exp(op.input(1));
                   return Tensors{h - row_sum(h * p), -(h * p * row_sum(op.input(0)))};
                 },
             .saved = in(0) | in(1),
             .contiguous_inputs = true,
             .decompose =
                 [](std::span<const Tensor> inputs, const Attributes&) {
                   const Tensor g = widen(inputs[0]);
                   return Tensors{to(g - exp(widen(inputs[1])) * row_sum(g), inputs[0].dtype())};
                 },
             .rows = rows_of_matrix});
  for (const char* name : {"softmax", "log_softmax"}) table.at(name).autocast = AutocastRule::widen;
}

Tensor softmax(const Arg& x, int64_t dim) { return by_rows("softmax", x, dim); }
Tensor log_softmax(const Arg& x, int64_t dim) { return by_rows("log_softmax", x, dim); }

Tensor gumbel_softmax(const Arg& x, GumbelOptions options, int64_t dim) {
  const CallScope scope("gumbel_softmax", x.where());
  check_floating("gumbel_softmax", x);
  const int d = dim_of("gumbel_softmax", x, dim);
  const DType type = x.tensor().dtype();
  // -log of an exponential variate; 1 - u lies in (0, 1].
  const Tensor uniform = rand(x.tensor().shape(), {.dtype = wide_type(type), .device = x.tensor().device()});
  const Tensor noise = -log(-log1p(-uniform) + std::numeric_limits<float>::min());
  const Tensor soft = softmax((to(x, wide_type(type)) + noise) / options.temperature, d);
  if (!options.hard) return to(soft, type);
  const Tensor best = argmax(soft, d, {.keepdim = true});
  const Tensor hard = scatter(zeros_like(soft), d, best, 1);
  return to(hard - soft.detach() + soft, type);
}

}  // namespace tandem
