// TransformerBlock: attention and a two-layer network, each added to what it reads.
#pragma once

#include "attention.h"
#include "dropout.h"
#include "layer_norm.h"

namespace tandem::nn {

struct TransformerBlockOptions {
  double dropout = 0;  ///< of attention weights and of both results, while training
  bool bias = true;    ///< of the linear maps
  bool causal = false;
  int64_t kv_heads = 0;   ///< heads of keys and values; 0: as many as of queries
  int64_t expansion = 4;  ///< width of the network's hidden layer ÷ width
  double epsilon = 1e-5;  ///< of the norms
  DType dtype = DType::float32;
  Device device = {};
};

/// [batch.., time, width] to the same, normalised before each part (Xiong et al. 2020, arXiv:2002.04745; as in GPT-2):
///   x = x + dropout(attention(attention_norm(x)))
///   x = x + dropout(shrink(gelu(expand(mlp_norm(x)))))
class TransformerBlock {
 public:
  TransformerBlock(int64_t width, int64_t heads, TransformerBlockOptions options = {}, Where where = Where::current());
  Tensor operator()(const Tensor& x, Where where = Where::current()) const { return (*this)(x, Tensor(), where); }
  /// The mask is the attention's.
  Tensor operator()(const Tensor& x, const Tensor& mask, Where where = Where::current()) const;
  /// Of new positions, which attend to all in the cache as well: for decoding.
  Tensor operator()(const Tensor& x, KeyValueCache& cache, Where where = Where::current()) const;
  KeyValueCache make_cache(const Shape& batch, int64_t capacity, Where where = Where::current()) const {
    return attention.make_cache(batch, capacity, where);
  }

  template <class V> void visit(V&& v) {
    v("attention_norm", attention_norm);
    v("attention", attention);
    v("mlp_norm", mlp_norm);
    v("expand", expand);
    v("shrink", shrink);
    v("dropout", dropout);
  }

  LayerNorm attention_norm;
  MultiheadAttention attention;
  LayerNorm mlp_norm;
  Linear expand, shrink;
  Dropout dropout;

 private:
  Tensor around(const Tensor& x, const Tensor& attended, Where where) const;
};

}  // namespace tandem::nn
