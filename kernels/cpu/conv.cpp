// conv2d and its two gradients: operands are laid out channels-last, then oneDNN, our direct kernel or patches compute.
#include "kernels/cpu/conv.h"

#include "core/op.h"
#include "kernels/cpu/support/gemm.h"
#include "kernels/cpu/support/isa.h"
#include "kernels/cpu/support/layout.h"

namespace tandem {

namespace {

ConvProblem problem_of(const Attributes& attributes, const Shape& x, const Shape& weight, const Shape& y) {
  ConvProblem p{};
  p.batch = x[0], p.in = x[1], p.in_height = x[2], p.in_width = x[3];
  p.out = y[1], p.out_height = y[2], p.out_width = y[3];
  for (int i = 0; i < 2; ++i) {
    p.kernel[i] = weight[i + 2];
    p.stride[i] = attributes.integers("stride")[i];
    p.padding[i] = attributes.integers("padding")[i];
    p.dilation[i] = attributes.integers("dilation")[i];
  }
  p.groups = attributes.integer("groups");
  return p;
}

/// With AVX-512 oneDNN is fastest, but for the gradient of an image of one channel, which it computes without vectors
/// (LeNet's first layer: 7 to 21 GF/s against 67 by patches). With less our direct kernel is: 170 GF/s against 80 to 120 on
/// two cores of a Zen 3, for 3x3 and 16 to 64 channels.
template <class T> void convolve(ConvPart part, const ConvProblem& p, const ConvOperands& operands) {
  if (p.in == 0) {  // forward: no products, so the bias alone
    const T* bias = static_cast<const T*>(operands.bias);
    T* y = static_cast<T*>(operands.result);
    for (int64_t i = 0; i < p.batch * p.out_height * p.out_width * p.out; ++i) y[i] = bias ? bias[i % p.out] : T(0);
    return;
  }
  if constexpr (sizeof(T) == 4) {
    const bool library = matmul_library() == MatmulLibrary::onednn, few = part == ConvPart::input_grad && p.in <= 2;
    if (library && current_isa() == Isa::avx512 && !few && onednn_convolve(part, p, operands)) return;
    if (direct_convolve(part, p, operands)) return;
    if (library && !few && onednn_convolve(part, p, operands)) return;
  }
  patch_convolve<T>(part, p, operands);
}

template <class T> void conv2d(KernelContext& c) {
  const TensorImpl &x = c.in(0), &weight = c.in(1), &out = c.out();
  if (out.shape.numel() == 0) return;
  const LaidInput<T> image(x, true);
  const WideInput<T> kernel(weight);
  const LaidOutput<T> result(out, true);
  const bool biased = c.inputs.size() > 2;
  const WideInput<T> bias(c.in(biased ? 2 : 1));
  convolve<T>(ConvPart::forward, problem_of(c.attributes, x.shape, weight.shape, out.shape),
              {image.data(), kernel.data(), biased ? bias.data() : nullptr, result.data()});
  result.write_back(out);
}

template <class T> void conv2d_input_grad(KernelContext& c) {
  const TensorImpl &g = c.in(0), &weight = c.in(1), &out = c.out();
  if (out.shape.numel() == 0) return;
  const LaidInput<T> grad(g, true);
  const WideInput<T> kernel(weight);
  const LaidOutput<T> result(out, true);
  if (g.shape.numel() == 0) fill_elements(result.data(), out.shape.numel(), dtype_of<T>, 0);
  else
    convolve<T>(ConvPart::input_grad, problem_of(c.attributes, out.shape, weight.shape, g.shape),
                {grad.data(), kernel.data(), nullptr, result.data()});
  result.write_back(out);
}

template <class T> void conv2d_weight_grad(KernelContext& c) {
  const TensorImpl &g = c.in(0), &x = c.in(1), &out = c.out();
  if (out.shape.numel() == 0) return;
  const LaidInput<T> grad(g, true), image(x, true);
  const WideOutput<T> result(out);
  if (g.shape.numel() == 0 || x.shape.numel() == 0) fill_elements(result.data(), out.shape.numel(), dtype_of<T>, 0);
  else
    convolve<T>(ConvPart::weight_grad, problem_of(c.attributes, x.shape, out.shape, g.shape),
                {grad.data(), image.data(), nullptr, result.data()});
  result.finish();
}

#define TANDEM_CONV_KERNEL(kernel)                          \
  [](KernelContext& c) {                                    \
    if (c.out().dtype == DType::float64) kernel<double>(c); \
    else kernel<float>(c);                                  \
  }

}  // namespace

void add_cpu_conv(Kernels kernels) {
  kernels["conv2d"] = TANDEM_CONV_KERNEL(conv2d);
  kernels["conv2d_input_grad"] = TANDEM_CONV_KERNEL(conv2d_input_grad);
  kernels["conv2d_weight_grad"] = TANDEM_CONV_KERNEL(conv2d_weight_grad);
}

}  // namespace tandem
