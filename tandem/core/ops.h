// The public functions. Each does nothing but call dispatch; arguments that are tensors or
// numbers come as Arg, which also carries the caller's line. Methods of Tensor are the same.
#pragma once

#include <vector>

#include "tandem/core/dispatch.h"
#include "tandem/core/tensor.h"

namespace tandem {

// ---- Pointwise (core/pointwise.def): operands broadcast and promote as in PyTorch.
#define TANDEM_UNARY(name, ...) Tensor name(const Arg& x);
#define TANDEM_BINARY(name, ...) Tensor name(const Arg& x, const Arg& y);
#define TANDEM_COMPARE(name, ...) Tensor name(const Arg& x, const Arg& y);
#define TANDEM_TERNARY(name, ...) Tensor name(const Arg& x, const Arg& y, const Arg& z);
#define TANDEM_SELECT(name, ...) Tensor name(const Arg& condition, const Arg& y, const Arg& z);
#include "tandem/core/pointwise.def"
#undef TANDEM_UNARY
#undef TANDEM_BINARY
#undef TANDEM_COMPARE
#undef TANDEM_TERNARY
#undef TANDEM_SELECT

inline Tensor operator-(const Arg& x) { return neg(x); }
inline Tensor operator+(const Arg& x, const Arg& y) { return add(x, y); }
inline Tensor operator-(const Arg& x, const Arg& y) { return sub(x, y); }
inline Tensor operator*(const Arg& x, const Arg& y) { return mul(x, y); }
inline Tensor operator/(const Arg& x, const Arg& y) { return div(x, y); }
inline Tensor operator==(const Arg& x, const Arg& y) { return equal(x, y); }
inline Tensor operator!=(const Arg& x, const Arg& y) { return not_equal(x, y); }
inline Tensor operator<(const Arg& x, const Arg& y) { return less(x, y); }
inline Tensor operator<=(const Arg& x, const Arg& y) { return less_equal(x, y); }
inline Tensor operator>(const Arg& x, const Arg& y) { return greater(x, y); }
inline Tensor operator>=(const Arg& x, const Arg& y) { return greater_equal(x, y); }

// ---- Creation.
Tensor empty(const Shape& shape, TensorOptions options = {}, Where where = Where::current());
Tensor zeros(const Shape& shape, TensorOptions options = {}, Where where = Where::current());
Tensor ones(const Shape& shape, TensorOptions options = {}, Where where = Where::current());
Tensor full(const Shape& shape, double value, TensorOptions options = {}, Where where = Where::current());
Tensor zeros_like(const Tensor& like, Where where = Where::current());
Tensor ones_like(const Tensor& like, Where where = Where::current());
/// 0, 1, … end-1 as int64; the other form counts from begin by step, as int64 or, for doubles, float32.
Tensor arange(int64_t end, Where where = Where::current());
Tensor arange(int64_t begin, int64_t end, int64_t step = 1, TensorOptions options = {.dtype = DType::int64},
              Where where = Where::current());
/// `count` numbers from begin to end, both included.
Tensor linspace(double begin, double end, int64_t count, TensorOptions options = {},
                Where where = Where::current());
/// A tensor on memory that the caller keeps alive.
Tensor from_blob(void* data, const Shape& shape, TensorOptions options = {}, Where where = Where::current());
/// Copies `count` host elements of `dtype` to a new tensor.
Tensor from_host(const void* data, DType dtype, const Shape& shape, TensorOptions options, Where where);

/// From C++ values: tensor(3.f), tensor({1.f, 2.f}), tensor({{1, 2}, {3, 4}}), tensor(vector).
/// The dtype is that of T; options.dtype is not looked at.
template <class T>
  requires std::is_arithmetic_v<T>
Tensor tensor(T value, TensorOptions options = {}, Where where = Where::current()) {
  return from_host(&value, dtype_of<T>, {}, options, where);
}
template <class T>
Tensor tensor(const std::vector<T>& values, TensorOptions options = {}, Where where = Where::current()) {
  return from_host(values.data(), dtype_of<T>, Shape{static_cast<int64_t>(values.size())}, options, where);
}
template <class T>
Tensor tensor(std::initializer_list<T> values, TensorOptions options = {}, Where where = Where::current()) {
  return from_host(values.begin(), dtype_of<T>, Shape{static_cast<int64_t>(values.size())}, options, where);
}
template <class T>
Tensor tensor(std::initializer_list<std::initializer_list<T>> rows, TensorOptions options = {},
              Where where = Where::current()) {
  std::vector<T> values;
  const size_t width = rows.size() ? rows.begin()->size() : 0;
  for (const auto& row : rows) {
    if (row.size() != width)
      throw ShapeError(detail::str("tensor: rows of different lengths: ", width, " and ", row.size()), where);
    values.insert(values.end(), row.begin(), row.end());
  }
  return from_host(values.data(), dtype_of<T>,
                   Shape{static_cast<int64_t>(rows.size()), static_cast<int64_t>(width)}, options, where);
}

// ---- Random numbers (core/random.h has the generator). The same draws in every mode.
Tensor rand(const Shape& shape, TensorOptions options = {}, Where where = Where::current());   ///< [0, 1)
Tensor randn(const Shape& shape, TensorOptions options = {}, Where where = Where::current());  ///< N(0, 1)
/// Integers in [low, high); int64 unless options say otherwise.
Tensor randint(int64_t low, int64_t high, const Shape& shape, TensorOptions options = {.dtype = DType::int64},
               Where where = Where::current());
Tensor randperm(int64_t n, Where where = Where::current());
/// Zeroes each element with that probability and scales the others by 1 / (1 - probability).
Tensor dropout(const Arg& x, double probability);

// ---- Casts and moves.
Tensor to(const Arg& x, DType dtype);
Tensor to(const Arg& x, Device device);
Tensor clone(const Arg& x);
/// A copy of x that the graph compiler takes for another value than x, not to be made before `after` is: what is computed
/// from it is computed again, and no earlier. checkpoint's means to give memory back; see autograd/checkpoint.h.
Tensor barrier(const Arg& x, const Tensor& after);
/// The tensor itself if its elements lie in row-major order, else a copy where they do.
Tensor contiguous(const Arg& x);

// ---- Views. They share storage; reshape copies where strides don't allow it.
Tensor reshape(const Arg& x, const Shape& shape);  ///< one extent may be -1
Tensor flatten(const Arg& x, int64_t start_dim = 0, int64_t end_dim = -1);
Tensor permute(const Arg& x, const Dims& dims);
Tensor transpose(const Arg& x, int64_t a, int64_t b);
Tensor slice(const Arg& x, int64_t dim, int64_t begin, int64_t end, int64_t step = 1);
Tensor select(const Arg& x, int64_t dim, int64_t index);
Tensor expand(const Arg& x, const Shape& shape);  ///< extents of 1 repeat; -1 keeps
Tensor squeeze(const Arg& x, int64_t dim);
Tensor unsqueeze(const Arg& x, int64_t dim);
/// Joins tensors that agree in every dim but `dim`.
Tensor concat(const Tensors& tensors, int64_t dim = 0, Where where = Where::current());
/// `x` placed at [begin, begin + step, …) of `dim` in zeros of extent `size`: the gradient of slice.
Tensor slice_grad(const Arg& x, int64_t dim, int64_t begin, int64_t step, int64_t size);
/// Sums away what broadcasting added, so that the result has `shape`.
Tensor sum_to(const Arg& x, const Shape& shape);

// ---- Reductions over any dims (none: all). Sums of float16 and bfloat16 accumulate in float32;
// integers and bool sum as int64.
Tensor sum(const Arg& x, const Dims& dims = {}, ReduceOptions options = {});
Tensor prod(const Arg& x, const Dims& dims = {}, ReduceOptions options = {});
Tensor mean(const Arg& x, const Dims& dims = {}, ReduceOptions options = {});
Tensor max(const Arg& x, const Dims& dims = {}, ReduceOptions options = {});
Tensor min(const Arg& x, const Dims& dims = {}, ReduceOptions options = {});
Tensor argmax(const Arg& x, int64_t dim, ReduceOptions options = {});  ///< int64; the first of equals

// ---- Products. matmul: [.., m, k] x [.., k, n] with broadcast batch dims; vectors as in NumPy.
Tensor matmul(const Arg& a, const Arg& b);
/// x [.., in] by weight [out, in] transposed, plus bias [out] if given.
Tensor linear(const Arg& x, const Tensor& weight, const Tensor& bias = {});

// ---- Convolution and pooling on [batch, channels, height, width]; results lie channels-last.
struct Conv2dOptions {
  Pair stride = 1, padding = 0, dilation = 1;
  int64_t groups = 1;
};
Tensor conv2d(const Arg& x, const Tensor& weight, const Tensor& bias = {}, const Conv2dOptions& options = {});
struct Conv1dOptions {
  int64_t stride = 1, padding = 0, dilation = 1, groups = 1;
};
/// x [batch, in, length], weight [out, in / groups, kernel].
Tensor conv1d(const Arg& x, const Tensor& weight, const Tensor& bias = {}, const Conv1dOptions& options = {});
struct ConvTranspose2dOptions {
  Pair stride = 1, padding = 0, output_padding = 0, dilation = 1;
  int64_t groups = 1;
};
/// What conv2d's gradient does to its output's: each pixel of x [batch, in, height, width] spreads weight [in, out / groups,
/// kernel height, kernel width]. The result has (height - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1 rows.
Tensor conv_transpose2d(const Arg& x, const Tensor& weight, const Tensor& bias = {}, const ConvTranspose2dOptions& options = {});
struct ConvTranspose1dOptions {
  int64_t stride = 1, padding = 0, output_padding = 0, dilation = 1, groups = 1;
};
/// x [batch, in, length], weight [in, out / groups, kernel].
Tensor conv_transpose1d(const Arg& x, const Tensor& weight, const Tensor& bias = {}, const ConvTranspose1dOptions& options = {});
struct Pool2dOptions {
  Pair stride = 0;  ///< 0: as the kernel
  Pair padding = 0;
};
Tensor max_pool2d(const Arg& x, Pair kernel, Pool2dOptions options = {});

// ---- Rows: along one dim (the last by default).
Tensor softmax(const Arg& x, int64_t dim = -1);
Tensor log_softmax(const Arg& x, int64_t dim = -1);
/// Mean over the batch of -log softmax(logits)[label]; logits [batch, classes], labels [batch] int64.
Tensor cross_entropy(const Arg& logits, const Tensor& labels);
/// (x - mean) / sqrt(variance + epsilon) over the last dim, times weight, plus bias (both optional).
Tensor layer_norm(const Arg& x, const Tensor& weight = {}, const Tensor& bias = {}, double epsilon = 1e-5);
/// x / sqrt(mean(x²) + epsilon) over the last dim, times weight if given (Zhang & Sennrich 2019).
Tensor rms_norm(const Arg& x, const Tensor& weight = {}, double epsilon = 1e-6);

// ---- Channels: x [batch, channels, …], weight and bias [channels] (both optional) of x's dtype, or float32.
struct BatchNormOptions {
  bool training = false;  ///< by the batch's own statistics; they are also mixed into the running ones
  double momentum = 0.1;  ///< the share of the batch in running = (1 - momentum) running + momentum batch
  double epsilon = 1e-5;
};
/// (x - mean) / sqrt(variance + epsilon) * weight + bias for each channel, by the running statistics [channels] or, in
/// training, by those of the batch (biased variance); running_var is given the unbiased one. In training, undefined
/// running statistics are left out. ValueError where a channel has a single value to train with.
Tensor batch_norm(const Arg& x, const Tensor& running_mean, const Tensor& running_var, const Tensor& weight = {},
                  const Tensor& bias = {}, const BatchNormOptions& options = {});
/// The same over each of `groups` groups of channels of each image on its own (Wu & He 2018).
Tensor group_norm(const Arg& x, int64_t groups, const Tensor& weight = {}, const Tensor& bias = {}, double epsilon = 1e-5);
/// And over each channel of each image (Ulyanov et al. 2016).
Tensor instance_norm(const Arg& x, const Tensor& weight = {}, const Tensor& bias = {}, double epsilon = 1e-5);

// ---- Index.
/// Rows of weight [count, width] at ids (any shape): [ids.., width].
Tensor embedding(const Arg& ids, const Tensor& weight);
/// Elements of x at index along dim; index int64, of x's rank (torch.gather).
Tensor gather(const Arg& x, int64_t dim, const Tensor& index);
/// Zeros of `shape` with x added at index along dim: the gradient of gather, deterministic.
Tensor scatter_add(const Arg& x, int64_t dim, const Tensor& index, const Shape& shape);

// ---- Comparisons of whole tensors, for tests: read values, so not for traces.
struct CloseOptions {
  double rtol = 1e-5, atol = 1e-8;
};
bool allclose(const Tensor& a, const Tensor& b, CloseOptions options = {}, Where where = Where::current());

}  // namespace tandem
