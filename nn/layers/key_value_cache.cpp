// KeyValueCache: what attention keeps of the positions that a decoder has seen.
#include "nn/layers/key_value_cache.h"

#include "core/dispatch.h"
#include "core/ops/ops.h"

namespace tandem::nn {

using tandem::detail::str;

Tensor KeyValueCache::attend(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options,
                             Where where) {
  if (options.mask.defined() || options.dropout != 0)
    throw ValueError("nn::KeyValueCache: attends without a mask and dropout", where);
  if (k.requires_grad() || v.requires_grad())
    throw AutogradError("nn::KeyValueCache: no gradient flows through a cache: decode below a NoGrad", where);
  const int64_t time = q.rank() < 2 ? 0 : q.shape()[q.rank() - 2];
  const auto fits = [&](const Tensor& part, const Tensor& all) {
    Shape shape = all.shape();
    shape[all.rank() - 2] = time;
    return shape == part.shape();
  };
  if (q.rank() < 2 || !fits(k, key) || !fits(v, value))
    throw ShapeError(
        str("nn::KeyValueCache: q ", q.shape(), ", k ", k.shape(), " and v ", v.shape(), " don't fit a cache of ",
            key.shape(), " and ", value.shape(), ": [batch.., heads, time, width]"),
        where);
  const NoGrad no_grad;
  const WhereScope scope(where);
  AttentionOptions own = options;
  own.causal = false;
  const auto count = [&](int64_t n) { return arange(0, n, 1, {.dtype = int64, .device = key.device()}); };
  // Which of `sources` positions each query sees, where its own place is `first` + its number.
  const auto seen = [&](int64_t sources, const Arg& first) {
    return count(sources) <= unsqueeze(count(time) + first, 1);
  };
  if (!interceptor()) {
    const int64_t filled = length.item<int64_t>(), all = filled + time;
    if (all > capacity())
      throw ShapeError(
          str("nn::KeyValueCache: ", filled, " of ", capacity(), " positions are filled, which leaves no room for ",
              time, " more: make it larger, or clear() it"),
          where);
    slice(key, -2, filled, all).assign(k, where);
    slice(value, -2, filled, all).assign(v, where);
    if (options.causal && filled == 0) own.causal = true;
    else if (options.causal && time > 1) own.mask = seen(all, filled);
    const Tensor y = scaled_dot_product_attention(q, slice(key, -2, 0, all), slice(value, -2, 0, all), own);
    // Last: a q that doesn't fit has thrown by now.
    length.assign(full({}, all, {.dtype = int64, .device = length.device()}), where);
    return y;
  }
  // In a trace the length is not known: positions are data, and what isn't filled is masked.
  const Tensor filled = length + 0;
  const Tensor places = count(time) + filled;
  key.assign(index_copy(key, -2, places, k), where);
  value.assign(index_copy(value, -2, places, v), where);
  own.mask = options.causal ? seen(capacity(), filled) : count(capacity()) < filled + time;
  length.assign(filled + time, where);
  return scaled_dot_product_attention(q, key, value, own);
}

void KeyValueCache::clear(Where where) {
  const NoGrad no_grad;
  // In a trace all of the memory is read, under a mask, and 0 times a NaN that is left there would not be 0.
  for (Tensor* each : {&key, &value, &length}) each->assign(zeros_like(*each, {}, where), where);
}

}  // namespace tandem::nn
