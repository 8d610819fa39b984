// Pointwise ops: finds the loop for op and type, and rows to run it on.
#include <cstring>

#include "core/op.h"
#include "kernels/cpu/support/isa.h"
#include "kernels/cpu/support/iterate.h"
#include "kernels/cpu/support/parallel.h"

namespace tandem {

namespace {

static_assert(kTypes == kDTypeCount);

/// The loop of one op for one type, by way of a wider type where it has none of its own.
struct Row {
  Loop loop;
  Through through;
  int operands;
  bool returns_bool, selects;

  Row(const Pointwise& op, DType type, int operands)
      : operands(operands), returns_bool(op.returns_bool), selects(op.selects) {
    loop = loops().pointwise[static_cast<int>(type)][op.id];
    through = loops().through[static_cast<int>(type)];
  }
  void operator()(int64_t n, char* const* pointers, const int64_t* strides) const {
    if (!through) [[likely]]
      loop(n, pointers, strides);
    else through(loop, operands, returns_bool, selects, n, pointers, strides);
  }
};

void run_parallel(const Row& row, int64_t n, int64_t grain, int operands, char* const* base, const int64_t* strides) {
  parallel_for(
      n, grain,
      [&](int64_t begin, int64_t end) {
        char* pointers[Iteration::kOperands];
        for (int k = 0; k <= operands; ++k) pointers[k] = base[k] + begin * strides[k];
        row(end - begin, pointers, strides);
      },
      64);
}

template <class T> void repeat_elements(const char* from, int64_t step, int64_t rows, int64_t width, char* to) {
  T* out = reinterpret_cast<T*>(to);
  for (int64_t r = 0; r < rows; ++r, from += step) {
    T value;
    std::memcpy(&value, from, sizeof value);
    for (int64_t j = 0; j < width; ++j) *out++ = value;
  }
}

/// [rows, width] with a small width, such as [64, 10] + [10]: a call for each row of ten costs more than
/// writing the broadcast operand out in full, some kilobytes at a time, and computing on flat memory.
bool run_small_rows(const Iteration& it, const Row& row) {
  constexpr int64_t kWidest = 64, kBytes = 4096;
  if (it.rank != 2 || it.extent[1] > kWidest || it.extent[0] < 4) return false;
  const int64_t width = it.extent[1];
  const int64_t* sizes = it.size;
  enum { flat, repeats_row, repeats_element } form[Iteration::kOperands];
  for (int k = 0; k < it.operands; ++k) {
    const int64_t inner = it.stride[1][k], outer = it.stride[0][k];
    if (inner == sizes[k] && outer == inner * width) form[k] = flat;
    else if (k > 0 && inner == sizes[k] && outer == 0) form[k] = repeats_row;
    else if (k > 0 && inner == 0) form[k] = repeats_element;
    else return false;
  }
  const int64_t at_once = std::min(it.extent[0], kBytes / (8 * width));
  alignas(64) char buffers[Iteration::kOperands - 1][kBytes];
  char* pointers[Iteration::kOperands];
  for (int k = 1; k < it.operands; ++k) {
    if (form[k] != repeats_row) continue;
    const int64_t bytes = width * sizes[k], all = at_once * bytes;
    std::memcpy(buffers[k - 1], it.base[k], static_cast<size_t>(bytes));
    for (int64_t have = bytes; have < all; have *= 2)
      std::memcpy(buffers[k - 1] + have, buffers[k - 1], static_cast<size_t>(std::min(have, all - have)));
  }
  for (int64_t r = 0; r < it.extent[0]; r += at_once) {
    const int64_t rows = std::min(at_once, it.extent[0] - r);
    for (int k = 0; k < it.operands; ++k) {
      char* from = it.base[k] + r * it.stride[0][k];
      pointers[k] = form[k] == flat ? from : buffers[k - 1];
      if (form[k] != repeats_element) continue;
      if (sizes[k] == 4) repeat_elements<uint32_t>(from, it.stride[0][k], rows, width, pointers[k]);
      else if (sizes[k] == 8) repeat_elements<uint64_t>(from, it.stride[0][k], rows, width, pointers[k]);
      else if (sizes[k] == 2) repeat_elements<uint16_t>(from, it.stride[0][k], rows, width, pointers[k]);
      else repeat_elements<uint8_t>(from, it.stride[0][k], rows, width, pointers[k]);
    }
    row(rows * width, pointers, sizes);
  }
  return true;
}

void pointwise_kernel(KernelContext& c) {
  const TensorImpl& out = c.out();
  const int operands = static_cast<int>(c.inputs.size());
  const int64_t n = out.shape.numel();
  if (n == 0) return;
  const Row row(c.op.pointwise, c.in(operands - 1).dtype, operands);
  const int64_t grain = c.op.pointwise.domain == Domain::floating ? kPointwiseGrain / 4 : kPointwiseGrain;

  // Most calls: operands of one shape, and single numbers.
  const TensorImpl* inputs[Iteration::kOperands - 1];
  char* base[Iteration::kOperands];
  int64_t strides[Iteration::kOperands];
  base[0] = static_cast<char*>(out.data);
  strides[0] = size_of(out.dtype);
  bool flat = out.contiguous;
  for (int k = 0; k < operands; ++k) {
    const TensorImpl& input = *c.inputs[static_cast<size_t>(k)].impl();
    inputs[k] = &input;
    base[k + 1] = static_cast<char*>(input.data);
    if (input.shape.empty()) strides[k + 1] = 0;
    else if (input.contiguous && input.shape == out.shape) strides[k + 1] = size_of(input.dtype);
    else flat = false;
  }
  if (flat) {
    if (n < 2 * grain) row(n, base, strides);
    else run_parallel(row, n, grain, operands, base, strides);
    return;
  }

  const Iteration it(out, inputs, operands);
  if (n < 2 * grain && run_small_rows(it, row)) return;
  parallel_for(
      n, grain, [&](int64_t begin, int64_t end) { it.rows(begin, end, row); }, 64);
}

}  // namespace

void add_cpu_pointwise(Kernels kernels) {
  for (Op* op : kernels.ops())
    if (op->is_pointwise() && op->pointwise.id >= 0) kernels[*op] = pointwise_kernel;
}

}  // namespace tandem
