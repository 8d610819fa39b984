// Embedding: a table of learned rows, looked up by number.
#include "nn/layers/embedding.h"

#include "core/ops/ops.h"
#include "nn/init.h"

namespace tandem::nn {

Embedding::Embedding(int64_t count, int64_t width, EmbeddingOptions options, Where where)
    : padding_index(options.padding_index) {
  if (count < 1 || width < 1)
    throw ValueError(tandem::detail::str("nn::Embedding: need at least 1 row of width 1, got ", count, " of ", width),
                     where);
  if (padding_index && (*padding_index < 0 || *padding_index >= count))
    throw ValueError(tandem::detail::str("nn::Embedding: padding_index is ", *padding_index, ", need 0 to ", count - 1),
                     where);
  weight = init::normal({count, width}, 0, 1, {.dtype = options.dtype, .device = options.device, .requires_grad = true},
                        where);
  if (!padding_index) return;
  NoGrad no_grad;
  weight.assign(weight * (arange(count, where).to(options.device) != *padding_index).unsqueeze(1), where);
}

Tensor Embedding::operator()(const Tensor& ids, Where where) const {
  const Tensor rows = embedding(Arg(ids, where), weight);
  if (!padding_index) return rows;
  WhereScope scope(where);
  return tandem::where((ids != *padding_index).unsqueeze(-1), rows, rows.detach());
}

}  // namespace tandem::nn
