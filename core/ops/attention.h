// Scaled dot-product attention.
#pragma once

#include <optional>

#include "../dispatch.h"
#include "../tensor.h"

namespace tandem {

// Attention (Vaswani et al. 2017), by blocks (Dao et al. 2022): no [time, source] matrix is ever in memory.
struct AttentionOptions {
  /// Broadcastable to [batch.., heads, time, source]. bool: true where a query may look; floating: added to the
  /// scores. A gradient for an additive mask is computed with the whole matrix in memory.
  Tensor mask = {};
  double dropout = 0;   ///< probability with which a weight is zeroed, the others scaled by 1 / (1 - dropout)
  bool causal = false;  ///< query i sees sources 0 … i only; together with a mask, what both allow
  std::optional<double> scale = {};  ///< of the scores; 1 / sqrt(d) if not given
  /// Grouped-query attention (Ainslie et al. 2023): k and v have fewer heads than q, whose number theirs divides. Query
  /// head h looks at head h / (heads / key heads).
  bool enable_gqa = false;
};
/// softmax(scale q kᵀ + mask) v for q [batch.., heads, time, d], k [batch.., heads, source, d] and
/// v [batch.., heads, source, width], giving [batch.., heads, time, width] in q's order of dims in memory. Batch dims
/// and heads broadcast; strides are free: transposed views of [batch, time, heads, d] are not copied. A query that may
/// look nowhere gets zeros.
Tensor scaled_dot_product_attention(const Arg& q, const Arg& k, const Arg& v, const AttentionOptions& options = {});
/// The same for q, k and v together in [3, batch.., heads, time, d], as a fused projection makes them; so is the
/// gradient, in one tensor.
Tensor scaled_dot_product_attention(const Arg& qkv, const AttentionOptions& options = {});

}  // namespace tandem
