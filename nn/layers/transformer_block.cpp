// TransformerBlock: attention and a two-layer network, each added to what it reads.
#include "nn/layers/transformer_block.h"

#include "core/ops/ops.h"

namespace tandem::nn {

namespace {

LinearOptions linear_options(const TransformerBlockOptions& options) {
  return {.bias = options.bias, .dtype = options.dtype, .device = options.device};
}
LayerNormOptions norm_options(const TransformerBlockOptions& options) {
  return {.epsilon = options.epsilon, .dtype = options.dtype, .device = options.device};
}
int64_t expanded(int64_t width, int64_t expansion, Where where) {
  if (expansion < 1)
    throw ValueError(tandem::detail::str("nn::TransformerBlock: need an expansion of at least 1, got ", expansion),
                     where);
  return checked_mul(expansion, width, "nn::TransformerBlock", where);
}

}  // namespace

TransformerBlock::TransformerBlock(int64_t width, int64_t heads, TransformerBlockOptions options, Where where)
    : attention_norm(width, norm_options(options), where), attention(width, heads,
                                                                     {.dropout = options.dropout,
                                                                      .bias = options.bias,
                                                                      .causal = options.causal,
                                                                      .kv_heads = options.kv_heads,
                                                                      .dtype = options.dtype,
                                                                      .device = options.device},
                                                                     where),
      mlp_norm(width, norm_options(options), where),
      expand(width, expanded(width, options.expansion, where), linear_options(options), where),
      shrink(options.expansion * width, width, linear_options(options), where), dropout(options.dropout, where) {}

Tensor TransformerBlock::operator()(const Tensor& x, const Tensor& mask, Where where) const {
  return around(x, attention(attention_norm(x, where), mask, where), where);
}
Tensor TransformerBlock::operator()(const Tensor& x, KeyValueCache& cache, Where where) const {
  return around(x, attention(attention_norm(x, where), cache, where), where);
}

/// What follows attention.
Tensor TransformerBlock::around(const Tensor& x, const Tensor& attended, Where where) const {
  const auto plus = [&](const Tensor& a, const Tensor& b) { return add({a, where}, {b, where}); };
  const Tensor y = plus(x, dropout(attended, where));
  return plus(y, dropout(shrink(gelu({expand(mlp_norm(y, where), where), where}), where), where));
}

}  // namespace tandem::nn
