// The table of all loops of this instruction set.
#include "kernels/cpu/vector/loops.h"

#ifndef TANDEM_ISA
#define TANDEM_ISA portable
#endif
#define TANDEM_TEXT_OF(x) #x
#define TANDEM_TEXT(x) TANDEM_TEXT_OF(x)

namespace tandem::TANDEM_ISA {

const Loop* pointwise_f32();
const Loop* pointwise_f64();
const Loop* pointwise_bf16();
const Loop* pointwise_i32();
const Loop* pointwise_i64();
const Loop* pointwise_u8();
const Loop* pointwise_bool();
extern const Through through_float, through_i16, through_i8;
const Loop (*cast_table())[kTypes];
void fill8(int64_t n, void* out, int64_t stride, uint64_t pattern);
void fill16(int64_t n, void* out, int64_t stride, uint64_t pattern);
void fill32(int64_t n, void* out, int64_t stride, uint64_t pattern);
void fill64(int64_t n, void* out, int64_t stride, uint64_t pattern);
void transpose8(int64_t rows, int64_t columns, const void* in, int64_t in_stride, void* out, int64_t out_stride);
void transpose16(int64_t rows, int64_t columns, const void* in, int64_t in_stride, void* out, int64_t out_stride);
void transpose32(int64_t rows, int64_t columns, const void* in, int64_t in_stride, void* out, int64_t out_stride);
void transpose64(int64_t rows, int64_t columns, const void* in, int64_t in_stride, void* out, int64_t out_stride);
void arange(int type, int64_t n, void* out, int64_t first, double begin, double step);
void gemm(int type, const GemmArguments& arguments);
void gemm_rows(const GemmArguments& arguments);
const RowLoops<float>* rows_f32();
const RowLoops<double>* rows_f64();
const ChannelLoops<float>* channels_f32();
const ChannelLoops<double>* channels_f64();
extern const ReduceLoops reduce_loops;
extern const OptimLoops optim_loops;
extern const RandomLoops random_loops;
extern const PoolLoops pool_loops;
extern const AttentionLoops<float> attention_f32;
extern const AttentionLoops<double> attention_f64;
extern const ConvLoops conv_loops;

/// Filled at each call, and called once: a static with an initialiser would bring in the C++ runtime's machinery
/// for exceptions, compiled for this instruction set.
const Loops& loops() {
  static Loops all;
  all = {
      .name = TANDEM_TEXT(TANDEM_ISA),
      .pointwise = {pointwise_f32(), pointwise_f64(), pointwise_f32(), pointwise_bf16(), pointwise_i32(),
                    pointwise_i64(), pointwise_i32(), pointwise_i32(), pointwise_u8(), pointwise_bool()},
      .through = {nullptr, nullptr, through_float, nullptr, nullptr, nullptr, through_i16, through_i8, nullptr,
                  nullptr},
      .cast = cast_table(),
      .fill = {fill8, fill16, fill32, fill64},
      .transpose = {transpose8, transpose16, transpose32, transpose64},
      .arange = arange,
      .reduce = &reduce_loops,
      .gemm = gemm,
      .gemm_rows = gemm_rows,
      .rows_f32 = rows_f32(),
      .rows_f64 = rows_f64(),
      .channels_f32 = channels_f32(),
      .channels_f64 = channels_f64(),
      .optim = &optim_loops,
      .random = &random_loops,
      .pool = &pool_loops,
      .attention_f32 = &attention_f32,
      .attention_f64 = &attention_f64,
      .conv = &conv_loops,
  };
  return all;
}

}  // namespace tandem::TANDEM_ISA
