// The innermost loops of the CPU kernels, as tables of function pointers: one set per instruction set, all of
// them computing the same. Element types are numbered as in core/dtype.h: float32 0, float64 1, float16 2,
// bfloat16 3, int32 4, int64 5, int16 6, int8 7, uint8 8, bool 9. Rows are contiguous unless a stride is given.
#pragma once

#include <stdint.h>

namespace tandem {

inline constexpr int kTypes = 10;

/// `n` elements: output at pointers[0], operands after it, each `strides[i]` bytes apart (0 repeats one).
using Loop = void (*)(int64_t n, char* const* pointers, const int64_t* strides);

/// Sums and the like, of types accumulated in T: float (also for float16, bfloat16), double, int64.
template <class T, class Accumulator> struct FoldLoops {
  /// All of `n` contiguous elements.
  Accumulator (*row)(int64_t n, const T* x);
  /// accumulators[j] folded with x[i][j] for all rows i, `stride` elements apart.
  void (*columns)(int64_t rows, int64_t n, const T* x, int64_t stride, Accumulator* accumulators);
};
struct ReduceLoops {  // in the order of Fold: sum, product, greatest, least
  FoldLoops<float, double> f32[4];
  FoldLoops<double, double> f64[4];
  FoldLoops<int64_t, int64_t> i64[4];
  double (*sum_bf16)(int64_t n, const uint16_t* x);
};

/// A matrix product c = a b (or c += a b). Strides in elements; c's rows are contiguous. a and b are of one type,
/// c of the type that is accumulated in: float for float16 and bfloat16, int64 for integers and bool.
struct GemmArguments {
  int64_t m, n, k;
  const void* a;
  int64_t a_row, a_column;
  const void* b;
  int64_t b_row, b_column;
  void* c;
  int64_t c_row;
  bool accumulate;
  void* scratch;  // kGemmScratch elements of c's type, 64-byte aligned
};
inline constexpr int64_t kGemmDepth = 256, kGemmColumns = 512, kGemmRows = 240;
inline constexpr int64_t kGemmScratch = kGemmDepth * (kGemmColumns + kGemmRows + 32);

/// One row of `n` elements at a time.
template <class T> struct RowLoops {
  void (*softmax)(int64_t n, const T* x, T* out);
  void (*log_softmax)(int64_t n, const T* x, T* out);
  void (*softmax_grad)(int64_t n, const T* g, const T* y, T* out);
  void (*log_softmax_grad)(int64_t n, const T* g, const T* y, T* out);
  T (*log_sum_exp)(int64_t n, const T* x);
  /// out = (exp(x - log_sum_exp) - [i = label]) scale: the gradient of cross-entropy.
  void (*softmax_minus)(int64_t n, const T* x, T log_sum_exp, int64_t label, T scale, T* out);
  void (*layer_norm)(int64_t n, const T* x, const T* weight, const T* bias, double epsilon, T* y, T* mean, T* rstd);
  /// Of rows that follow each other; dw and db are added to.
  void (*layer_norm_grad)(int64_t rows, int64_t n, const T* g, const T* x, const T* weight, const T* mean,
                          const T* rstd, T* dx, T* dw, T* db);
  void (*rms_norm)(int64_t n, const T* x, const T* weight, double epsilon, T* y, T* rstd);
  void (*rms_norm_grad)(int64_t n, const T* g, const T* x, const T* weight, T rstd, T* dx, T* dw);
};

/// Batch and group normalisation. Images lie as rows of all channels (`rows` of them, one after the other), or as planes of
/// `n` elements that belong to one channel. Totals over many elements are double.
template <class T> struct ChannelLoops {
  /// Of each channel: the mean, and the sum of the squared deviations from it.
  void (*statistics_rows)(int64_t rows, int64_t channels, const T* x, double* mean, double* squares);
  void (*statistics_plane)(int64_t n, const T* x, double* mean, double* squares);
  /// y = (x - mean) scale + bias.
  void (*apply_rows)(int64_t rows, int64_t channels, const T* x, const T* mean, const T* scale, const T* bias, T* y);
  void (*apply_plane)(int64_t n, const T* x, T mean, T scale, T bias, T* y);
  /// Sums of g and of g (x - mean).
  void (*grad_sums_rows)(int64_t rows, int64_t channels, const T* g, const T* x, const T* mean, double* g_sum,
                         double* gx_sum);
  void (*grad_sums_plane)(int64_t n, const T* g, const T* x, T mean, double* g_sum, double* gx_sum);
  /// dx = scale g - shift - (x - mean) slope.
  void (*grad_rows)(int64_t rows, int64_t channels, const T* g, const T* x, const T* mean, const T* scale,
                    const T* shift, const T* slope, T* dx);
  void (*grad_plane)(int64_t n, const T* g, const T* x, T mean, T scale, T shift, T slope, T* dx);
};

template <class T> struct SgdArguments {
  const T *param, *grad, *buffer;
  T *new_param, *new_buffer;
  T lr, momentum, damp, weight_decay;
  bool nesterov;
};
template <class T> struct AdamArguments {
  const T *param, *grad, *m, *v;
  T *new_param, *new_m, *new_v;
  T shrink, added_decay, one_minus_beta1, beta2, one_minus_beta2, step_size, correction2, epsilon;
  bool shrinks;
};
struct OptimLoops {
  void (*sgd_f32)(int64_t n, const SgdArguments<float>&);
  void (*sgd_f64)(int64_t n, const SgdArguments<double>&);
  void (*adamw_f32)(int64_t n, const AdamArguments<float>&);
  void (*adamw_f64)(int64_t n, const AdamArguments<double>&);
};

struct RandomKey {
  uint64_t seed, draw;
};
/// Elements [first, first + n) of a draw; `first` is a multiple of 4.
struct RandomLoops {
  void (*uniform_f32)(RandomKey, int64_t first, int64_t n, float* out);
  void (*normal_f32)(RandomKey, int64_t first, int64_t n, float* out);
  void (*uniform_f64)(RandomKey, int64_t first, int64_t n, double* out);
  void (*normal_f64)(RandomKey, int64_t first, int64_t n, double* out);
  void (*words)(RandomKey, int64_t first, int64_t n, uint32_t* out);
  void (*dropout_f32)(RandomKey, int64_t first, int64_t n, const float* x, float p, float scale, float* out);
  void (*dropout_f64)(RandomKey, int64_t first, int64_t n, const double* x, float p, double scale, double* out);
};

/// What attention is made of, on blocks: rows that are padded to a multiple of kAttentionPad columns.
inline constexpr int64_t kAttentionPad = 16;
template <class T> struct AttentionLoops {
  /// c [m, n] = a [m, k] b [k, n], or added to c; n a multiple of kAttentionPad. a has any strides, b and c rows that
  /// lie together.
  void (*product)(int64_t m, int64_t n, int64_t k, const T* a, int64_t a_row, int64_t a_column, const T* b,
                  int64_t b_row, T* c, int64_t c_row, bool accumulate);
  /// s = exp(scale s + bias - greatest), where greatest, the result, is that of all and of `before`; *sum: of the new s.
  /// bias may be null. All s are 0 if the greatest is -inf.
  T (*softmax)(int64_t n, T* s, T scale, const T* bias, T before, T* sum);
  /// s = exp(scale s + bias - log_sum_exp); 0 if that is -inf.
  void (*probabilities)(int64_t n, T* s, T scale, const T* bias, T log_sum_exp);
  /// g = p (g - delta) scale
  void (*score_grad)(int64_t n, const T* p, T delta, T scale, T* g);
  /// out = x scale where u >= p, else 0
  void (*drop)(int64_t n, const float* u, float p, T scale, const T* x, T* out);
  void (*multiply)(int64_t n, T factor, T* x);
  T (*dot)(int64_t n, const T* x, const T* y);
};

/// The places of a pooling window: offsets from the first lane's input, and indices into the plane. From lane to
/// lane (channels, or windows) offsets grow by `lane`, indices by `lane_position`; from pixel to pixel of a row by
/// `pixel` and `pixel_position`, while the other side moves on by all lanes.
struct PoolWindow {
  int taps;
  int64_t pixels, pixel;
  int32_t pixel_position;
  int64_t lanes, lane;
  int32_t lane_position;
  const int64_t* offset;
  const int32_t* position;
};
struct PoolLoops {
  void (*max_f32)(const PoolWindow&, const float* x, float* values, int32_t* indices);
  void (*max_f64)(const PoolWindow&, const double* x, double* values, int32_t* indices);
  void (*unpool_f32)(const PoolWindow&, const float* g, const int32_t* indices, float* out);
  void (*unpool_f64)(const PoolWindow&, const double* g, const int32_t* indices, double* out);
  /// out = the sum of weight[t] * lines[t] over `count` lines of n elements.
  void (*combine_f32)(int64_t count, int64_t n, const float* const* lines, const float* weight, float* out);
  void (*combine_f64)(int64_t count, int64_t n, const double* const* lines, const double* weight, double* out);
};

/// A strip of an image, channels last: `lines` rows of `pixels` outputs, and the steps (in elements) from one to the next
/// in x and in y. A kernel row is `segment` elements of x that lie together: kernel width by in channels.
struct ConvStrip {
  int64_t lines, pixels;
  int64_t kernel_rows, segment;
  int64_t x_line, x_pixel, x_kernel_row;
  int64_t y_line, y_pixel;
};
/// Direct convolutions of a block of `width` out channels, whose weights are [kernel rows, segment, width].
struct ConvLoops {
  int64_t width;
  /// y = bias + x w; bias has `width` elements, y gets `columns` of them.
  void (*forward)(const ConvStrip&, const float* x, const float* weight, const float* bias, int64_t columns, float* y);
  /// dw += x' g; g's pixels have at least `width` elements.
  void (*weight_grad)(const ConvStrip&, const float* x, const float* g, float* dw);
};

/// Runs a loop of a wider type on elements of a narrow one.
using Through = void (*)(Loop loop, int operands, bool returns_bool, bool selects, int64_t n, char* const* pointers,
                         const int64_t* strides);

struct Loops {
  const char* name;

  // Pointwise, by type and then by place in core/pointwise.def; null where an op isn't for that type.
  // float16, int16 and int8 have those of float32 and int32, which `through` runs on widened pieces of them.
  const Loop* pointwise[kTypes];
  Through through[kTypes];  // null where the loops are the type's own

  // Copies. cast[from][to]; fill by log2 of the size; transpose: out[j][i] = in[i][j], strides in elements.
  const Loop (*cast)[kTypes];
  void (*fill[4])(int64_t n, void* out, int64_t stride, uint64_t pattern);
  void (*transpose[4])(int64_t rows, int64_t columns, const void* in, int64_t in_stride, void* out, int64_t out_stride);
  void (*arange)(int type, int64_t n, void* out, int64_t first, double begin, double step);

  const ReduceLoops* reduce;
  void (*gemm)(int type, const GemmArguments&);
  void (*gemm_rows)(const GemmArguments&);  // float; a_column and b_row are 1
  const RowLoops<float>* rows_f32;
  const RowLoops<double>* rows_f64;
  const ChannelLoops<float>* channels_f32;
  const ChannelLoops<double>* channels_f64;
  const OptimLoops* optim;
  const RandomLoops* random;
  const PoolLoops* pool;
  const AttentionLoops<float>* attention_f32;
  const AttentionLoops<double>* attention_f64;
  const ConvLoops* conv;
};

}  // namespace tandem
