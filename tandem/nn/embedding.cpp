// Embedding: a table of learned rows, looked up by number.
#include "tandem/nn/embedding.h"

#include "tandem/core/ops.h"
#include "tandem/nn/init.h"

namespace tandem::nn {

Embedding::Embedding(int64_t count, int64_t width, EmbeddingOptions options, Where where) {
  if (count < 1 || width < 1)
    throw ValueError(
        tandem::detail::str("nn::Embedding: need at least 1 row of width 1, got ", count, " of ", width),
        where);
  weight = init::normal({count, width}, 0, 1,
                        {.dtype = options.dtype, .device = options.device, .requires_grad = true}, where);
}

Tensor Embedding::operator()(const Tensor& ids, Where where) const {
  return embedding(Arg(ids, where), weight);
}

}  // namespace tandem::nn
