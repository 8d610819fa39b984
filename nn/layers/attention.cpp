// MultiheadAttention: several attentions over one sequence, side by side.
#include "nn/layers/attention.h"

#include "core/ops/ops.h"

namespace tandem::nn {

namespace {

int64_t checked_width(int64_t width, int64_t heads, double dropout, Where where) {
  if (heads < 1 || width < 1 || width % heads != 0)
    throw ValueError(tandem::detail::str("nn::MultiheadAttention: a width of ", width, " can't be shared by ", heads,
                                         " heads; it must be a multiple of them"),
                     where);
  if (!(dropout >= 0 && dropout < 1))
    throw ValueError(
        tandem::detail::str("nn::MultiheadAttention: dropout is ", dropout, ", need at least 0 and below 1"), where);
  return width;
}

}  // namespace

MultiheadAttention::MultiheadAttention(int64_t width, int64_t heads, MultiheadAttentionOptions options, Where where)
    : heads(heads), dropout(options.dropout), causal(options.causal),
      qkv(checked_width(width, heads, options.dropout, where), checked_mul(3, width, "nn::MultiheadAttention", where),
          {.bias = options.bias, .dtype = options.dtype, .device = options.device}, where),
      output(width, width, {.bias = options.bias, .dtype = options.dtype, .device = options.device}, where) {}

Tensor MultiheadAttention::operator()(const Tensor& x, const Tensor& mask, Where where) const {
  const int64_t width = output.weight.shape()[0];
  if (x.rank() < 2 || x.shape().back() != width)
    throw ShapeError(tandem::detail::str("nn::MultiheadAttention: needs [batch.., time, ", width, "], got ", x.shape()),
                     where);
  // [batch.., time, 3 width] seen as [3, batch.., heads, time, width / heads]: only strides change.
  Shape parts = x.shape();
  parts[parts.size() - 1] = 3;
  parts.push_back(heads);
  parts.push_back(width / heads);
  const int rank = parts.size();
  Dims order{rank - 3};
  for (int d = 0; d < rank - 4; ++d) order.push_back(d);
  for (const int d : {rank - 2, rank - 4, rank - 1}) order.push_back(d);
  const Tensor together = permute({reshape({qkv(x, where), where}, parts), where}, order);
  const Tensor y = scaled_dot_product_attention(Arg(together, where),
                                                {.mask = mask, .dropout = training ? dropout : 0.0, .causal = causal});
  // y lies as [batch.., time, heads, width / heads] in memory already.
  return output(reshape({transpose({y, where}, -3, -2), where}, x.shape()), where);
}

}  // namespace tandem::nn
