// KeyValueCache: what attention keeps of the positions that a decoder has seen.
#pragma once

#include "../../core/ops/attention.h"

namespace tandem::nn {

/// Keys and values of past positions, in memory for `capacity` of them that is made once: a new position costs its own keys
/// and values, not those of all before it. MultiheadAttention and TransformerBlock make one that fits, and take it in a call.
/// For decoding alone: no gradient flows through it. Copies share the memory.
///
///   nn::KeyValueCache cache = attention.make_cache({batch}, 128);
///   td::NoGrad guard;
///   y = attention(prompt, cache);          // [batch, time, width]: fills `time` positions
///   y = attention(next, cache);            // [batch, 1, width]: the next one, which sees all before it
///
/// The length is a tensor, so that one trace serves all positions.
struct KeyValueCache {
  Tensor key, value;  ///< [batch.., heads, capacity, width of a head]
  Tensor length;      ///< int64, 0-d: how many positions are filled

  int64_t capacity() const { return key.shape()[key.rank() - 2]; }
  /// Writes k and v [batch.., heads, time, ..] behind what is filled, and returns attention of q [batch.., query heads, time,
  /// d] over all of it. With `causal`, query i sees what was filled, and the new positions 0 … i. Eagerly only what is filled is
  /// read; in a trace all of the memory is, under a mask. ShapeError (in a trace DimensionError) where the capacity is
  /// exceeded, AutogradError where k or v need a gradient, ValueError for a mask or dropout.
  Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options = {},
                Where where = Where::current());
  /// Forgets all positions.
  void clear(Where where = Where::current());
};

}  // namespace tandem::nn
