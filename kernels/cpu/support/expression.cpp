// The CPU kernel of ops that are expressions of the user's (core/custom_op.h): a loop that the system compiler made, or
// the interpreter, over rows of elements.
#include <array>

#include "core/custom_op.h"
#include "core/dispatch.h"
#include "kernels/cpu/support/iterate.h"
#include "kernels/cpu/support/parallel.h"

namespace tandem {

namespace {

constexpr size_t kMostPointers = 9;  // the result and eight operands

double load(DType type, const char* from) {
  switch (type) {
    case DType::float32: return *reinterpret_cast<const float*>(from);
    case DType::float16: return static_cast<double>(static_cast<float>(*reinterpret_cast<const Float16*>(from)));
    case DType::bfloat16: return static_cast<double>(static_cast<float>(*reinterpret_cast<const BFloat16*>(from)));
    default: return *reinterpret_cast<const double*>(from);
  }
}
void store(DType type, double value, char* to) {
  switch (type) {
    case DType::float32: *reinterpret_cast<float*>(to) = static_cast<float>(value); break;
    case DType::float16: *reinterpret_cast<Float16*>(to) = Float16(static_cast<float>(value)); break;
    case DType::bfloat16: *reinterpret_cast<BFloat16*>(to) = BFloat16(static_cast<float>(value)); break;
    default: *reinterpret_cast<double*>(to) = value;
  }
}

/// Runs n elements: compiled, or one by one through the interpreter.
struct Runner {
  const UserOp& op;
  DType type;
  ExpressionLoop loop;
  std::vector<double> attributes;

  void operator()(int64_t n, char* const* pointers, const int64_t* strides) const {
    const size_t inputs = op.inputs.size();
    if (loop) {
      std::array<long, kMostPointers> steps{};
      for (size_t k = 0; k <= inputs; ++k) steps[k] = static_cast<long>(strides[k]);
      return loop(static_cast<long>(n), pointers, steps.data(), attributes.data());
    }
    std::vector<double> values(inputs);
    values.insert(values.end(), attributes.begin(), attributes.end());
    for (int64_t i = 0; i < n; ++i) {
      for (size_t k = 0; k < inputs; ++k) values[k] = load(type, pointers[k + 1] + i * strides[k + 1]);
      store(type, op.expression->evaluate(values), pointers[0] + i * strides[0]);
    }
  }
};

/// The operand in the result's shape and layout.
Tensor laid_out(const Tensor& input, const TensorImpl& out, Where where) {
  TensorImpl* impl = TensorImpl::create();
  impl->dtype = input.dtype();
  impl->set_layout(out.shape, out.strides);
  Tensor copy = Tensor::adopt(impl);
  impl->allocate();
  const NoGrad no_grad;
  const InterceptorScope eager(nullptr);
  static const Op &expand = find_op("expand"), &copy_op = find_op("copy");
  const Tensor wide = dispatch(expand, {input}, {{"shape", out.shape}}, where);
  run_kernel(copy_op, {&wide, 1}, {}, {&copy, 1}, where);
  return copy;
}

}  // namespace

void expression_kernel(KernelContext& c) {
  const TensorImpl& out = c.out();
  const int64_t n = out.shape.numel(), item = size_of(out.dtype);
  if (n == 0) return;
  const size_t inputs = c.inputs.size();
  Runner run{*c.op.user, out.dtype, c.op.user->loop(out.dtype, c.where), {}};
  for (const std::string& name : c.op.user->attributes) run.attributes.push_back(c.attributes.number(name));

  std::array<char*, kMostPointers> base{};
  std::array<int64_t, kMostPointers> strides{};
  base[0] = static_cast<char*>(out.data);
  strides[0] = item;
  bool flat = is_dense(out.shape, out.strides);
  Tensors copies(inputs);  // more operands than Iteration takes: copied where they don't lie as the result does
  for (size_t k = 0; k < inputs; ++k) {
    const TensorImpl* input = &c.in(static_cast<int>(k));
    const bool number = input->shape.numel() == 1, same = input->shape == out.shape && input->strides == out.strides;
    if (!number && !same && inputs >= Iteration::kOperands) {
      copies[k] = laid_out(c.inputs[k], out, c.where);
      input = copies[k].impl();
    } else if (!number && !same) {
      flat = false;
    }
    base[k + 1] = static_cast<char*>(input->data);
    strides[k + 1] = number ? 0 : item;
  }
  const int64_t grain = run.loop ? kPointwiseGrain / 4 : 64;
  if (flat) {
    parallel_for(
        n, grain,
        [&](int64_t begin, int64_t end) {
          std::array<char*, kMostPointers> pointers{};
          for (size_t k = 0; k <= inputs; ++k) pointers[k] = base[k] + begin * strides[k];
          run(end - begin, pointers.data(), strides.data());
        },
        64);
    return;
  }
  const TensorImpl* impls[Iteration::kOperands - 1] = {};
  for (size_t k = 0; k < inputs; ++k) impls[k] = &c.in(static_cast<int>(k));
  const Iteration it(out, impls, static_cast<int>(inputs));
  parallel_for(
      n, grain, [&](int64_t begin, int64_t end) { it.rows(begin, end, run); }, 64);
}

}  // namespace tandem
