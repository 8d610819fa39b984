// matmul and linear: batches, transposed operands and biases around gemm().
#include <algorithm>
#include <optional>
#include <type_traits>

#include "core/op.h"
#include "kernels/cpu/support/copy.h"
#include "kernels/cpu/support/gemm.h"
#include "kernels/cpu/support/parallel.h"

namespace tandem {

namespace {

/// Contiguous results in the type that gemm computes in: the output itself, or memory that is cast to it after.
class Result {
 public:
  Result(const TensorImpl& out, DType type) : out_(out) {
    const DType wide = gemm_result(type);
    if (out.dtype == wide) return;
    scratch_.emplace(out.shape.numel() * size_of(wide));
    header_.emplace(scratch_->as<void>(), wide, out.shape);
  }
  const TensorImpl& target() const { return header_ ? header_->impl : out_; }
  char* data() const { return static_cast<char*>(target().data); }
  int64_t element_size() const { return size_of(target().dtype); }
  void finish() const {
    if (header_) copy_elements(header_->impl, out_);
  }

 private:
  const TensorImpl& out_;
  std::optional<Scratch> scratch_;
  std::optional<Header> header_;
};

Matrix last_two(const TensorImpl& x) {
  const int rank = x.shape.size();
  return {x.data, x.strides[rank - 2], x.strides[rank - 1]};
}

/// The strides of x's batch dims against the output's, 0 where it repeats.
Shape batch_strides(const TensorImpl& x, const Shape& batch) {
  Shape result = Shape::filled(batch.size(), 0);
  const int own = x.shape.size() - 2, missing = batch.size() - own;
  for (int d = 0; d < own; ++d)
    if (x.shape[d] != 1) result[d + missing] = x.strides[d];
  return result;
}

/// The stride with which x walks through all batch dims as if they were one, or -1.
int64_t uniform_stride(const Shape& strides, const Shape& batch) {
  int64_t expected = -1, step = 0;
  for (int d = batch.size() - 1; d >= 0; --d) {
    if (batch[d] == 1) continue;
    if (expected < 0) step = strides[d];
    else if (strides[d] != expected) return -1;
    expected = strides[d] * batch[d];
  }
  return step;
}

/// c = a b for float matrices of at most 16 x 16, of which a batch has many: a library's call costs more than such a product
/// (0.2 µs against 0.04 for 8 x 8 x 8). False where it is another case.
bool tiny_product(int64_t m, int64_t n, int64_t k, const Matrix& a, const Matrix& b, float* c) {
  constexpr int64_t kMost = 16;
  if (m > kMost || n > kMost || k > kMost || b.column != 1) return false;
  const auto* left = static_cast<const float*>(a.data);
  const auto* right = static_cast<const float*>(b.data);
  const auto rows = [&](auto width) {
    for (int64_t i = 0; i < m; ++i, c += n) {
      float row[kMost] = {};
      for (int64_t l = 0; l < k; ++l) {
        const float x = left[i * a.row + l * a.column];
        for (int64_t j = 0; j < static_cast<int64_t>(width); ++j) row[j] += x * right[l * b.row + j];
      }
      for (int64_t j = 0; j < static_cast<int64_t>(width); ++j) c[j] = row[j];
    }
  };
  switch (n) {  // widths known to the compiler become a few vectors
    case 4: rows(std::integral_constant<int64_t, 4>()); break;
    case 8: rows(std::integral_constant<int64_t, 8>()); break;
    case 16: rows(std::integral_constant<int64_t, 16>()); break;
    default: rows(n);
  }
  return true;
}

void matmul_kernel(KernelContext& c) {
  const TensorImpl &a = c.in(0), &b = c.in(1), &out = c.out();
  if (out.shape.numel() == 0) return;
  const int rank = out.shape.size();
  const int64_t m = out.shape[rank - 2], n = out.shape[rank - 1], k = a.shape.back();
  const Matrix left = last_two(a), right = last_two(b);
  const DType type = a.dtype;
  if (rank == 2 && gemm_result(type) == out.dtype) {  // nearly always
    gemm(type, m, n, k, left, right, out.data, n, false);
    return;
  }
  const Result result(out, type);
  const int64_t size = size_of(type), result_size = result.element_size();

  Shape batch = out.shape;
  batch.resize(rank - 2);
  const int64_t count = batch.numel();
  const Shape a_strides = batch_strides(a, batch), b_strides = batch_strides(b, batch);
  // One b for all: the batch is more rows of a, if these follow each other.
  if (count == 1 ||
      (uniform_stride(b_strides, batch) == 0 && (m == 1 || uniform_stride(a_strides, batch) == m * left.row))) {
    const int64_t row = m == 1 && count > 1 ? uniform_stride(a_strides, batch) : left.row;
    if (count == 1 || row >= 0) {
      gemm(type, count * m, n, k, {left.data, row, left.column}, right, result.data(), n, false);
      result.finish();
      return;
    }
  }
  const auto product = [&](int64_t i) {
    int64_t a_offset = 0, b_offset = 0, rest = i;
    for (int d = rank - 3; d >= 0; --d) {
      a_offset += rest % batch[d] * a_strides[d];
      b_offset += rest % batch[d] * b_strides[d];
      rest /= batch[d];
    }
    const Matrix own_left{static_cast<const char*>(left.data) + a_offset * size, left.row, left.column};
    const Matrix own_right{static_cast<const char*>(right.data) + b_offset * size, right.row, right.column};
    char* const to = result.data() + i * m * n * result_size;
    if (type != DType::float32 || !tiny_product(m, n, k, own_left, own_right, reinterpret_cast<float*>(to)))
      gemm(type, m, n, k, own_left, own_right, to, n, false);
  };
  // Few large products are each spread over the threads; many go one to a thread.
  if (count < 2 * num_threads() && m * n * k > 256 * 256 * 256) {
    for (int64_t i = 0; i < count; ++i) product(i);
  } else {
    const int64_t work = std::max<int64_t>(m * n * k, 1);
    parallel_for(count, std::max<int64_t>(1, 300000 / work), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) product(i);
    });
  }
  result.finish();
}

void linear_kernel(KernelContext& c) {
  const TensorImpl &x = c.in(0), &w = c.in(1), &out = c.out();
  if (out.shape.numel() == 0) return;
  const int64_t n = w.shape[0], k = w.shape[1], rows = out.shape.numel() / n;
  const int rank = x.shape.size();

  // All dims but the last as one, where x's strides allow; else a contiguous copy.
  Shape dims = x.shape, strides = x.strides;
  dims.resize(rank - 1), strides.resize(rank - 1);
  Matrix left{x.data, uniform_stride(strides, dims), x.strides[rank - 1]};
  std::optional<Scratch> scratch;
  if (left.row < 0) {
    scratch.emplace(x.shape.numel() * size_of(x.dtype));
    const Header copy(scratch->as<void>(), x.dtype, x.shape);
    copy_elements(x, copy.impl);
    left = {scratch->as<void>(), k, 1};
  }
  const Result result(out, x.dtype);
  const bool biased = c.inputs.size() > 2;
  // 16-bit results start as the bias, in float32, and are rounded once. Others get it added afterwards, while
  // they are in the cache, which rounds as the product and sum of a compiled graph do.
  const bool starts_as_bias = biased && size_of(x.dtype) == 2;
  if (starts_as_bias) copy_elements(c.in(2), result.target());
  gemm(x.dtype, rows, n, k, left, {w.data, w.strides[1], w.strides[0]}, result.data(), n, starts_as_bias);
  result.finish();
  if (biased && !starts_as_bias) {
    static const Op& add = find_op("add");
    const Tensor operands[] = {c.outputs[0], c.inputs[2]};
    KernelContext addition(add, operands, c.attributes, c.outputs, c.where);
    kernel_for(add, c.outputs[0].device())(addition);
  }
}

}  // namespace

void add_cpu_matmul(Kernels kernels) {
  kernels["matmul"] = matmul_kernel;
  kernels["linear"] = linear_kernel;
}

}  // namespace tandem
