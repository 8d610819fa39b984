// Embedding: a table of learned rows, looked up by number.
#pragma once

#include <optional>

#include "../../core/tensor.h"

namespace tandem::nn {

struct EmbeddingOptions {
  /// This row starts at zero and gets no gradient: for numbers that only fill up.
  std::optional<int64_t> padding_index = {};
  DType dtype = DType::float32;
  Device device = {};
};

/// Maps integers in [0, count) of any shape [..] to rows [.., width]. Weight [count, width] starts in N(0,
/// 1).
class Embedding {
 public:
  Embedding(int64_t count, int64_t width, EmbeddingOptions options = {}, Where where = Where::current());
  Tensor operator()(const Tensor& ids, Where where = Where::current()) const;

  template <class V> void visit(V&& v) { v("weight", weight); }

  Tensor weight;
  std::optional<int64_t> padding_index;
};

}  // namespace tandem::nn
