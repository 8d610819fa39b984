// MultiheadAttention: several attentions over one sequence, or from one to another, side by side.
#pragma once

#include <optional>

#include "../training_flag.h"
#include "key_value_cache.h"
#include "linear.h"

namespace tandem::nn {

struct MultiheadAttentionOptions {
  double dropout = 0;  ///< of attention weights, while training
  bool bias = true;
  bool causal = false;   ///< each position sees itself and those before it
  int64_t kv_heads = 0;  ///< heads of keys and values, each shared by heads / kv_heads of queries; 0: as many as heads
  int64_t kdim = 0;      ///< width of what keys are made of; 0: width
  int64_t vdim = 0;      ///< width of what values are made of; 0: width
  DType dtype = DType::float32;
  Device device = {};
};

/// Attention (Vaswani et al. 2017): [batch.., time, width] to the same. One linear map `qkv` gives queries, keys and values
/// of all heads, each of width / heads; `output` maps the heads' results, side by side, back. Where keys or values are made of
/// something of another width, `query`, `key` and `value` are maps of their own. As torch.nn.MultiheadAttention with
/// batch_first; its in_proj_weight is qkv's weight, its q_proj_weight, k_proj_weight and v_proj_weight those of the three.
class MultiheadAttention {
 public:
  MultiheadAttention(int64_t width, int64_t heads, MultiheadAttentionOptions options = {},
                     Where where = Where::current());
  /// Of a sequence to itself. The mask broadcasts to [batch.., heads, time, time]; see scaled_dot_product_attention.
  Tensor operator()(const Tensor& x, Where where = Where::current()) const { return (*this)(x, Tensor(), where); }
  Tensor operator()(const Tensor& x, const Tensor& mask, Where where = Where::current()) const;
  /// Of a sequence [batch.., time, width] to another: keys from [batch.., source, kdim], values from [batch.., source, vdim].
  /// The mask broadcasts to [batch.., heads, time, source].
  Tensor operator()(const Tensor& query, const Tensor& key, const Tensor& value, Where where = Where::current()) const {
    return (*this)(query, key, value, Tensor(), where);
  }
  Tensor operator()(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& mask,
                    Where where = Where::current()) const;
  /// Of new positions [batch.., time, width] to themselves and to all in the cache, where their keys and values are put.
  Tensor operator()(const Tensor& x, KeyValueCache& cache, Where where = Where::current()) const;
  /// A cache for that many positions.
  KeyValueCache make_cache(const Shape& batch, int64_t capacity, Where where = Where::current()) const;

  template <class V> void visit(V&& v) {
    v("qkv", qkv);
    v("query", query);
    v("key", key);
    v("value", value);
    v("output", output);
    v("training", training);
  }

  int64_t heads, kv_heads;
  double dropout;
  bool causal;
  std::optional<Linear> qkv;                ///< without kdim and vdim
  std::optional<Linear> query, key, value;  ///< with one of them
  Linear output;
  TrainingFlag training;

 private:
  struct Heads {
    Tensor q, k, v;  ///< [batch.., heads, time, width / heads]
  };
  int64_t width() const { return output.weight.shape()[0]; }
  Heads project(const Tensor& query, const Tensor& key, const Tensor& value, Where where) const;
  AttentionOptions attention_options(const Tensor& mask) const;
  /// [batch.., heads, time, width / heads], as attention gives it, through `output`.
  Tensor joined(const Tensor& y, Where where) const;
};

}  // namespace tandem::nn
