// The public functions. Each does nothing but call dispatch; arguments that are tensors or
// numbers come as Arg, which also carries the caller's line. Methods of Tensor are the same.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "tandem/core/dispatch.h"
#include "tandem/core/tensor.h"

namespace tandem {

// ---- Pointwise (core/pointwise.def): operands broadcast and promote as in PyTorch.
#define TANDEM_UNARY(name, ...) Tensor name(const Arg& x);
#define TANDEM_TEST(name, ...) Tensor name(const Arg& x);
#define TANDEM_BINARY(name, ...) Tensor name(const Arg& x, const Arg& y);
#define TANDEM_COMPARE(name, ...) Tensor name(const Arg& x, const Arg& y);
#define TANDEM_TERNARY(name, ...) Tensor name(const Arg& x, const Arg& y, const Arg& z);
#define TANDEM_SELECT(name, ...) Tensor name(const Arg& condition, const Arg& y, const Arg& z);
#include "tandem/core/pointwise.def"
#undef TANDEM_UNARY
#undef TANDEM_TEST
#undef TANDEM_BINARY
#undef TANDEM_COMPARE
#undef TANDEM_TERNARY
#undef TANDEM_SELECT

// The defaults of PyTorch, and forms with options.
inline Tensor leaky_relu(const Arg& x) { return leaky_relu(x, 0.01); }
inline Tensor elu(const Arg& x) { return elu(x, 1.0); }
/// log(1 + exp(beta x)) / beta, and x itself where beta x > threshold.
inline Tensor softplus(const Arg& x, const Arg& beta) { return softplus(x, beta, 20.0); }
inline Tensor softplus(const Arg& x) { return softplus(x, 1.0, 20.0); }
/// With either bound absent: clamp(x, {.min = 0}).
Tensor clamp(const Arg& x, Bounds bounds);
Tensor hardtanh(const Arg& x, double min = -1, double max = 1);  ///< clamp by another name
Tensor relu6(const Arg& x);                                      ///< clamp(x, 0, 6)
Tensor hardsigmoid(const Arg& x);                                ///< clamp(x + 3, 0, 6) / 6
Tensor bitwise_not(const Arg& x);                                ///< of bool: logical_not
/// x with `value` where the mask (bool, broadcast to x) is true.
Tensor masked_fill(const Arg& x, const Arg& mask, const Arg& value);

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
// Of integers and bool: (x > 0) & (x < 1). There are no && and ||, which would lose their short circuit: for other
// dtypes write logical_and, logical_or.
inline Tensor operator&(const Arg& x, const Arg& y) { return bitwise_and(x, y); }
inline Tensor operator|(const Arg& x, const Arg& y) { return bitwise_or(x, y); }
inline Tensor operator^(const Arg& x, const Arg& y) { return bitwise_xor(x, y); }
inline Tensor operator~(const Arg& x) { return bitwise_not(x); }

// ---- Creation.
Tensor empty(const Shape& shape, TensorOptions options = {}, Where where = Where::current());
Tensor zeros(const Shape& shape, TensorOptions options = {}, Where where = Where::current());
Tensor ones(const Shape& shape, TensorOptions options = {}, Where where = Where::current());
Tensor full(const Shape& shape, double value, TensorOptions options = {}, Where where = Where::current());
Tensor zeros_like(const Tensor& like, Where where = Where::current());
Tensor ones_like(const Tensor& like, Where where = Where::current());
Tensor full_like(const Tensor& like, double value, Where where = Where::current());
Tensor empty_like(const Tensor& like, Where where = Where::current());
/// [rows, columns] with ones on the diagonal; columns defaults to rows.
Tensor eye(int64_t rows, std::optional<int64_t> columns = {}, TensorOptions options = {}, Where where = Where::current());
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
Tensor rand_like(const Tensor& like, Where where = Where::current());
Tensor randn_like(const Tensor& like, Where where = Where::current());
/// 1 with the probability given for each element, else 0, in the probabilities' dtype.
Tensor bernoulli(const Tensor& probabilities, Where where = Where::current());
Tensor bernoulli(double probability, const Shape& shape, TensorOptions options = {}, Where where = Where::current());
/// mean + deviation * N(0, 1): one draw for each element of the two broadcast, or `shape` of them.
Tensor normal(const Tensor& mean, const Tensor& deviation, Where where = Where::current());
Tensor normal(double mean, double deviation, const Shape& shape, TensorOptions options = {}, Where where = Where::current());
struct MultinomialOptions {
  bool replacement = false;
};
/// `count` positions of the last dim, drawn by weights that need not sum to one: [classes] or [rows, classes] gives
/// int64 [count] or [rows, count]. ValueError where a weight is negative, not finite, or too few are above zero
/// (told eagerly only: a trace has no numbers to look at).
Tensor multinomial(const Tensor& weights, int64_t count, MultinomialOptions options = {}, Where where = Where::current());
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
Tensor narrow(const Arg& x, int64_t dim, int64_t start, int64_t length);
/// The elements whose positions in dim2 and dim1 differ by `offset`, as a new last dim.
Tensor diagonal(const Arg& x, int64_t offset = 0, int64_t dim1 = 0, int64_t dim2 = 1);
/// Dim source[i] becomes dim destination[i]; the others keep their order.
Tensor movedim(const Arg& x, const Dims& source, const Dims& destination);
inline Tensor swapdims(const Arg& x, int64_t a, int64_t b) { return transpose(x, a, b); }
inline Tensor broadcast_to(const Arg& x, const Shape& shape) { return expand(x, shape); }
/// The slices of `dim`, without it.
Tensors unbind(const Arg& x, int64_t dim = 0);
/// Pieces of `size` along `dim`, the last one smaller where that doesn't divide it; or of the sizes given.
Tensors split(const Arg& x, int64_t size, int64_t dim = 0);
Tensors split(const Arg& x, const std::vector<int64_t>& sizes, int64_t dim = 0);
/// At most `chunks` pieces of one size, ceil(extent / chunks), but for the last.
Tensors chunk(const Arg& x, int64_t chunks, int64_t dim = 0);

// ---- Elements in other places: copies.
/// Joins tensors that agree in every dim but `dim`.
Tensor concat(const Tensors& tensors, int64_t dim = 0, Where where = Where::current());
/// Joins tensors of one shape along a new dim.
Tensor stack(const Tensors& tensors, int64_t dim = 0, Where where = Where::current());
Tensor flip(const Arg& x, const Dims& dims);  ///< in reverse order along these dims
/// Shifts elements along each dim by its shift, those pushed over the end coming back at the start; without dims, as if
/// x were flat.
Tensor roll(const Arg& x, const Dims& shifts, const Dims& dims = {});
/// x over and over, repeats[i] times along dim i; more repeats than dims add leading dims.
Tensor repeat(const Arg& x, const Shape& repeats);
/// Each slice of `dim`, `repeats` times in a row.
Tensor repeat_interleave(const Arg& x, int64_t repeats, int64_t dim);
/// The lower and upper triangle of the last two dims, zeros elsewhere: columns up to (from) row + diagonal.
Tensor tril(const Arg& x, int64_t diagonal = 0);
Tensor triu(const Arg& x, int64_t diagonal = 0);
/// reflect mirrors without repeating the edge (3 2 | 1 2 3 | 2 1), replicate repeats the edge, circular wraps around.
enum class PadMode : uint8_t { constant, reflect, replicate, circular };
struct PadOptions {
  PadMode mode = PadMode::constant;
  double value = 0;  ///< of a constant padding
};
/// Widens dims: `padding` has how much before and after the last dim, then before and after the one ahead of it, and so on, as
/// in PyTorch. Negative numbers cut off.
Tensor pad(const Arg& x, const std::vector<int64_t>& padding, PadOptions options = {});
/// `x` placed at [begin, begin + step, …) of `dim` in zeros of extent `size`: the gradient of slice.
Tensor slice_grad(const Arg& x, int64_t dim, int64_t begin, int64_t step, int64_t size);
/// x along a diagonal of zeros of `shape`: the gradient of diagonal.
Tensor diagonal_grad(const Arg& x, const Shape& shape, int64_t offset, int64_t dim1, int64_t dim2);
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
Tensor argmin(const Arg& x, int64_t dim, ReduceOptions options = {});  ///< int64; the first of equals
struct ValuesAndIndices {
  Tensor values, indices;
};
/// The greatest along one dim and where it is (the first of equals): `auto [values, indices] = max_with_index(x, 1)`.
/// The gradient goes to that element alone.
ValuesAndIndices max_with_index(const Arg& x, int64_t dim, ReduceOptions options = {});
ValuesAndIndices min_with_index(const Arg& x, int64_t dim, ReduceOptions options = {});
Tensor any(const Arg& x, const Dims& dims = {}, ReduceOptions options = {});  ///< bool: is one not zero?
Tensor all(const Arg& x, const Dims& dims = {}, ReduceOptions options = {});  ///< bool: are all not zero?
Tensor var(const Arg& x, const Dims& dims = {}, VarianceOptions options = {});
Tensor std(const Arg& x, const Dims& dims = {}, VarianceOptions options = {});  ///< gradient 0 where it is 0
Tensor logsumexp(const Arg& x, const Dims& dims = {}, ReduceOptions options = {});
/// (sum |x|^p)^(1/p). Its gradient is 0 where the norm is 0.
Tensor norm(const Arg& x, const Dims& dims = {}, NormOptions options = {});

// ---- Along one dim. Running sums and products of integers and bool are int64.
Tensor cumsum(const Arg& x, int64_t dim);   ///< y_i = x_0 + … + x_i
Tensor cumprod(const Arg& x, int64_t dim);  ///< y_i = x_0 … x_i; gradients are exact where there are zeros, too
/// y_i = a_i y_(i-1) + b_i with y_(-1) = 0; a and b have one shape.
Tensor linear_recurrence(const Arg& a, const Tensor& b, int64_t dim);
/// Sorted along dim, and where each element came from (int64). Equals keep their order; NaN counts as the greatest.
ValuesAndIndices sort(const Arg& x, int64_t dim = -1, SortOptions options = {});
Tensor argsort(const Arg& x, int64_t dim = -1, SortOptions options = {});
/// The k greatest (or least) along dim, best first; of equals the first.
ValuesAndIndices topk(const Arg& x, int64_t k, int64_t dim = -1, TopkOptions options = {});
/// Where each value would go in the ascending last dim of `sorted`: int64, of the values' shape. `sorted` is [n], or has
/// the values' shape but for the last dim. The place is before equals, or with `right` after them.
struct SearchOptions {
  bool right = false;
};
Tensor searchsorted(const Arg& sorted, const Tensor& values, SearchOptions options = {});

// ---- Products. matmul: [.., m, k] x [.., k, n] with broadcast batch dims; vectors as in NumPy.
Tensor matmul(const Arg& a, const Arg& b);
Tensor bmm(const Arg& a, const Arg& b);    ///< [batch, m, k] x [batch, k, n], nothing broadcast
Tensor dot(const Arg& a, const Arg& b);    ///< of two vectors
Tensor outer(const Arg& a, const Arg& b);  ///< [m], [n]: [m, n]
/// Sums of products over labelled dims (Einstein's convention): einsum("bij,bjk->bik", {a, b}). Labels are letters, one
/// for each dim; those missing behind the arrow are summed over. A label twice in an operand takes its diagonal, "..."
/// stands for dims that broadcast, and without an arrow the result has all labels that occur once, in alphabetical
/// order. Operands are multiplied from left to right, by matmul where dims are summed.
Tensor einsum(std::string_view equation, const Tensors& operands, Where where = Where::current());
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
struct Pool1dOptions {
  int64_t stride = 0;  ///< 0: as the kernel
  int64_t padding = 0;
};
Tensor max_pool1d(const Arg& x, int64_t kernel, Pool1dOptions options = {});  ///< on [batch, channels, length]
struct AvgPool2dOptions {
  Pair stride = 0;  ///< 0: as the kernel
  Pair padding = 0;
  bool count_include_pad = true;  ///< padding counts as zeros in the average
};
Tensor avg_pool2d(const Arg& x, Pair kernel, AvgPool2dOptions options = {});
struct AvgPool1dOptions {
  int64_t stride = 0;  ///< 0: as the kernel
  int64_t padding = 0;
  bool count_include_pad = true;
};
Tensor avg_pool1d(const Arg& x, int64_t kernel, AvgPool1dOptions options = {});
/// To `size`, by windows as equal as can be; {1, 1} is the mean of each image.
Tensor adaptive_avg_pool2d(const Arg& x, Pair size);
Tensor adaptive_max_pool2d(const Arg& x, Pair size);
enum class Interpolation : uint8_t { nearest, bilinear, bicubic, area };
struct InterpolateOptions {
  Pair size = 0;            ///< height and width of the result, or
  double scale_factor = 0;  ///< what they are multiplied by
  Interpolation mode = Interpolation::nearest;
  bool align_corners = false;  ///< the corner pixels' centres stay where they are, rather than the image's edges
};
/// Images resized as by torch.nn.functional.interpolate.
Tensor interpolate(const Arg& x, const InterpolateOptions& options);
/// [batch, channels factor², height, width] to [batch, channels, height factor, width factor] (Shi et al. 2016).
Tensor pixel_shuffle(const Arg& x, int64_t factor);

// ---- Rows: along one dim (the last by default).
Tensor softmax(const Arg& x, int64_t dim = -1);
Tensor log_softmax(const Arg& x, int64_t dim = -1);
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

// ---- Attention (Vaswani et al. 2017), by blocks (Dao et al. 2022): no [time, source] matrix is ever in memory.
struct AttentionOptions {
  /// Broadcastable to [batch.., heads, time, source]. bool: true where a query may look; floating: added to the
  /// scores. A gradient for an additive mask is computed with the whole matrix in memory.
  Tensor mask = {};
  double dropout = 0;               ///< probability with which a weight is zeroed, the others scaled by 1 / (1 - dropout)
  bool causal = false;              ///< query i sees sources 0 … i only; together with a mask, what both allow
  std::optional<double> scale = {};  ///< of the scores; 1 / sqrt(d) if not given
};
/// softmax(scale q kᵀ + mask) v for q [batch.., heads, time, d], k [batch.., heads, source, d] and
/// v [batch.., heads, source, width], giving [batch.., heads, time, width] in q's order of dims in memory. Batch dims
/// and heads broadcast; strides are free: transposed views of [batch, time, heads, d] are not copied. A query that may
/// look nowhere gets zeros.
Tensor scaled_dot_product_attention(const Arg& q, const Arg& k, const Arg& v, const AttentionOptions& options = {});
/// The same for q, k and v together in [3, batch.., heads, time, d], as a fused projection makes them; so is the
/// gradient, in one tensor.
Tensor scaled_dot_product_attention(const Arg& qkv, const AttentionOptions& options = {});

/// <x, y> / (|x| |y|) along `dim`, each norm at least epsilon.
Tensor cosine_similarity(const Arg& x, const Arg& y, int64_t dim = 1, double epsilon = 1e-8);

// ---- Losses: what torch.nn.functional calls the same, with its defaults.
/// What becomes of the losses of single elements or rows. batchmean, their sum divided by the extent of dim 0, is for kl_div.
enum class Reduction : uint8_t { mean, sum, none, batchmean };
struct LossOptions {
  Reduction reduction = Reduction::mean;
};
struct CrossEntropyOptions {
  Tensor weight = {};                         ///< [classes]; mean is then the weighted mean
  std::optional<int64_t> ignore_index = {};   ///< rows with this label count for nothing (PyTorch: -100, without being asked)
  double label_smoothing = 0;                 ///< this part of each label is spread over all classes (Szegedy 2016)
  Reduction reduction = Reduction::mean;
};
/// -log softmax(logits)[label] of logits [batch, classes, d1..] or [classes] at int64 labels [batch, d1..]. Labels of the
/// logits' own shape and a floating dtype are probabilities: -sum over classes of label log softmax(logits). By default the
/// mean, which without other options is one kernel.
Tensor cross_entropy(const Arg& logits, const Tensor& labels);
Tensor cross_entropy(const Arg& logits, const Tensor& labels, const CrossEntropyOptions& options);
struct NllOptions {
  Tensor weight = {};
  std::optional<int64_t> ignore_index = {};
  Reduction reduction = Reduction::mean;
};
/// -log_probabilities[label], shapes and options as for cross_entropy.
Tensor nll_loss(const Arg& log_probabilities, const Tensor& labels, const NllOptions& options = {});
// Of x and a target of the same shape, element by element, d = x - target.
Tensor mse_loss(const Arg& x, const Arg& target, LossOptions options = {});  ///< d^2
Tensor l1_loss(const Arg& x, const Arg& target, LossOptions options = {});   ///< |d|
struct HuberOptions {
  double delta = 1;
  Reduction reduction = Reduction::mean;
};
/// d^2 / 2 where |d| < delta, else delta (|d| - delta / 2)  (Huber 1964).
Tensor huber_loss(const Arg& x, const Arg& target, HuberOptions options = {});
struct SmoothL1Options {
  double beta = 1;
  Reduction reduction = Reduction::mean;
};
/// d^2 / (2 beta) where |d| < beta, else |d| - beta / 2.
Tensor smooth_l1_loss(const Arg& x, const Arg& target, SmoothL1Options options = {});
struct BinaryCrossEntropyOptions {
  Tensor weight = {};  ///< of each element; broadcasts
  Reduction reduction = Reduction::mean;
};
/// -(target log p + (1 - target) log(1 - p)) of probabilities p; logarithms are at least -100, as in PyTorch.
Tensor binary_cross_entropy(const Arg& p, const Arg& target, const BinaryCrossEntropyOptions& options = {});
struct BceWithLogitsOptions {
  Tensor weight = {};      ///< of each element; broadcasts
  Tensor pos_weight = {};  ///< of the positive part, target log p; broadcasts
  Reduction reduction = Reduction::mean;
};
/// The same of p = sigmoid(logits), exact also where p is all but 0 or 1.
Tensor binary_cross_entropy_with_logits(const Arg& logits, const Arg& target, const BceWithLogitsOptions& options = {});
inline Tensor bce_with_logits(const Arg& logits, const Arg& target, const BceWithLogitsOptions& options = {}) {
  return binary_cross_entropy_with_logits(logits, target, options);
}
struct KlDivOptions {
  bool log_target = false;  ///< the target, too, is log-probabilities
  Reduction reduction = Reduction::mean;
};
/// target (log target - x) of log-probabilities x (Kullback, Leibler 1951); 0 where the target is 0. The divergence of
/// distributions is the sum over each; reduction batchmean gives its mean over the batch.
Tensor kl_div(const Arg& x, const Arg& target, KlDivOptions options = {});

// ---- Index: int64 tensors of positions, checked on the CPU. Positions that occur twice are served in the index's order, so
// results don't depend on the number of threads.
/// Rows of weight [count, width] at ids (any shape): [ids.., width].
Tensor embedding(const Arg& ids, const Tensor& weight);
/// Elements of x at index along dim; index int64, of x's rank (torch.gather).
Tensor gather(const Arg& x, int64_t dim, const Tensor& index);
/// x with src (of index's shape, or a number) in the places that gather(x, dim, index) reads; of equal places the last wins.
Tensor scatter(const Arg& x, int64_t dim, const Tensor& index, const Arg& src);
/// x with src added in those places.
Tensor scatter_add(const Arg& x, int64_t dim, const Tensor& index, const Tensor& src);
/// Slices of dim at index [count].
Tensor index_select(const Arg& x, int64_t dim, const Tensor& index);
/// x with slice i of src added to slice index[i] of dim.
Tensor index_add(const Arg& x, int64_t dim, const Tensor& index, const Tensor& src);
/// Slices of dim at an index of any shape, which takes the place of dim: rows of a matrix, by default (numpy.take).
Tensor take(const Arg& x, const Tensor& index, int64_t dim = 0);
/// [labels.., classes] int64, 1 at each label.
Tensor one_hot(const Arg& labels, int64_t classes);
/// Zeros of `shape` with x added at index along dim: the gradient of gather, deterministic.
Tensor scatter_add(const Arg& x, int64_t dim, const Tensor& index, const Shape& shape);

// ---- Comparisons of whole tensors, for tests: read values, so not for traces.
struct CloseOptions {
  double rtol = 1e-5, atol = 1e-8;
};
bool allclose(const Tensor& a, const Tensor& b, CloseOptions options = {}, Where where = Where::current());

}  // namespace tandem
