// MultiheadAttention: several attentions over one sequence, side by side.
#pragma once

#include "../training_flag.h"
#include "linear.h"

namespace tandem::nn {

struct MultiheadAttentionOptions {
  double dropout = 0;  ///< of attention weights, while training
  bool bias = true;
  bool causal = false;  ///< each position sees itself and those before it
  DType dtype = DType::float32;
  Device device = {};
};

/// Self-attention (Vaswani et al. 2017): [batch.., time, width] to the same. One linear map `qkv` gives queries, keys and
/// values of all heads, each of width / heads; `output` maps the heads' results, side by side, back.
/// The mask broadcasts to [batch.., heads, time, time]; see scaled_dot_product_attention.
class MultiheadAttention {
 public:
  MultiheadAttention(int64_t width, int64_t heads, MultiheadAttentionOptions options = {},
                     Where where = Where::current());
  Tensor operator()(const Tensor& x, Where where = Where::current()) const { return (*this)(x, Tensor(), where); }
  Tensor operator()(const Tensor& x, const Tensor& mask, Where where = Where::current()) const;

  template <class V> void visit(V&& v) {
    v("qkv", qkv);
    v("output", output);
    v("training", training);
  }

  int64_t heads;
  double dropout;
  bool causal;
  Linear qkv, output;
  TrainingFlag training;
};

}  // namespace tandem::nn
