// backward and grad: what a walk over the tape starts from, and every error before it.
#include "autograd/autograd.h"
#include "autograd/walk.h"
#include "core/dispatch.h"
#include "core/ops/ops.h"

namespace tandem {

namespace {

Tensor seed_for(const char* caller, const Tensor& output, const Tensor& gradient, Where where) {
  if (!output.defined()) throw UndefinedError(detail::str(caller, ": the tensor is undefined"), where);
  if (!output.requires_grad() && output.impl()->from_graph)
    throw AutogradError(
        detail::str(caller,
                    ": this tensor is the result of a compiled function that has called backward() "
                    "over it, after which its tape is freed; pass {.retain_graph = true} there to do it "
                    "again outside, or return another result"),
        where);
  if (!output.requires_grad())
    throw AutogradError(
        detail::str(caller,
                    ": this tensor was not computed from one that requires a gradient; mark a leaf with "
                    "requires_grad(true), and check that no NoGrad guard or detach() is in the way"),
        where);
  if (gradient.defined()) {
    if (gradient.shape() != output.shape())
      throw ShapeError(detail::str(caller, ": gradient ", gradient.shape(), " for a tensor ", output.shape()), where);
    return gradient.to(output.dtype(), where);
  }
  if (output.numel() != 1)
    throw ShapeError(detail::str(caller, ": needs a tensor of one element, got ", output.shape(),
                                 "; reduce it with sum() or mean(), or pass a gradient"),
                     where);
  WhereScope scope(where);
  return ones_like(output);
}

}  // namespace

void Tensor::backward(BackwardOptions options, Where where) const { backward(Tensor(), options, where); }

void Tensor::backward(const Tensor& gradient, BackwardOptions options, Where where) const {
  where = user_line(where);
  const Tensor seed = seed_for("backward", *this, gradient, where);
  Walk walk(options.create_graph, options.retain_graph || options.create_graph, where);
  walk.start(*this, seed);
  walk.run();
}

Tensors grad_of(const Tensor& output, const Tensors& inputs, GradOptions options, const Tensor& grad_output,
                Where where) {
  return grad_of(Tensors{output}, inputs, options, Tensors{grad_output}, where);
}

Tensors grad_of(const Tensors& outputs, const Tensors& inputs, GradOptions options, const Tensors& grad_outputs,
                Where where) {
  where = user_line(where);
  if (!grad_outputs.empty() && grad_outputs.size() != outputs.size())
    throw ValueError(detail::str("grad: ", grad_outputs.size(), " gradients for ", outputs.size(), " outputs"), where);
  Tensors seeds;
  for (size_t i = 0; i < outputs.size(); ++i)
    seeds.push_back(seed_for("grad", outputs[i], grad_outputs.empty() ? Tensor() : grad_outputs[i], where));
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].defined()) throw UndefinedError(detail::str("grad: input ", i, " is undefined"), where);
    if (!inputs[i].requires_grad())
      throw AutogradError(detail::str("grad: input ", i, " ", inputs[i].shape(),
                                      " doesn't require a gradient; call requires_grad(true) before using it"),
                          where);
  }
  Walk walk(options.create_graph, options.retain_graph || options.create_graph, where);
  walk.want(inputs);
  for (size_t i = 0; i < outputs.size(); ++i) walk.start(outputs[i], seeds[i]);
  walk.run();
  Tensors result;
  for (size_t i = 0; i < inputs.size(); ++i) {
    result.push_back(walk.result(inputs[i]));
    if (!result.back().defined() && !options.allow_unused)
      throw AutogradError(detail::str("grad: the output doesn't depend on input ", i, " ", inputs[i].shape(),
                                      "; pass {.allow_unused = true} if that is meant"),
                          where);
  }
  return result;
}

}  // namespace tandem
