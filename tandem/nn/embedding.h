// Embedding: a table of learned rows, looked up by number.
#pragma once

#include "tandem/core/tensor.h"

namespace tandem::nn {

struct EmbeddingOptions {
  DType dtype = DType::float32;
  Device device = {};
};

/// Maps integers in [0, count) of any shape [..] to rows [.., width]. Weight [count, width] starts in N(0,
/// 1).
class Embedding {
 public:
  Embedding(int64_t count, int64_t width, EmbeddingOptions options = {}, Where where = Where::current());
  Tensor operator()(const Tensor& ids, Where where = Where::current()) const;

  template <class V>
  void visit(V&& v) {
    v("weight", weight);
  }

  Tensor weight;
};

}  // namespace tandem::nn
