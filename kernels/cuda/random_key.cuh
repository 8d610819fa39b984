// The key of a draw, as kernels get it.
#pragma once

#include "core/scalar/math.h"
#include "core/scalar/philox.h"
#include "kernels/cuda/kernels.h"

namespace tandem::gpu {

// {seed, draw}: numbers of this call, or two words on the device that a captured step reads at each replay.
struct RandomWords {
  td_u64 seed = 0, draw = 0;
  const td_u64* words = nullptr;
  td_u64 site = 0;
  __device__ __forceinline__ td_u64 get_seed() const { return words ? words[0] : seed; }
  __device__ __forceinline__ td_u64 get_draw() const { return (words ? words[1] : draw) + site; }
};

inline RandomWords random_key(const TensorImpl& tensor, const Attributes& attributes) {
  RandomWords key;
  key.site = td_u64(attributes.integer("site"));
  const auto* words = static_cast<const td_u64*>(tensor.data);
  if (tensor.device.is_cuda()) {
    key.words = words;
  } else {
    key.seed = words[0];
    key.draw = words[1];
  }
  return key;
}

}  // namespace tandem::gpu
