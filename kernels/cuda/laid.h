// Operands that a kernel wants to lie in one way: channels-last, or in planes.
#pragma once

#include "kernels/cuda/kernels.h"

namespace tandem::gpu {

/// Equal strides, but for dims of one element.
inline bool lies(const TensorImpl& x, const Shape& strides) {
  for (int d = 0; d < x.shape.size(); ++d)
    if (x.shape[d] != 1 && x.strides[d] != strides[d]) return false;
  return true;
}
inline bool is_channels_last(const TensorImpl& x) { return x.shape[1] > 1 && lies(x, channels_last_strides(x.shape)); }

/// An operand as a kernel reads it: itself where it lies that way and is of that type, else a copy.
class Laid {
 public:
  Laid(const TensorImpl& x, const Shape& strides, DType type, cudaStream_t stream)
      : Laid(x, strides, type, stream, x.shape.numel() == 0 || (x.dtype == type && lies(x, strides))) {}
  template <class T> const T* as() const { return static_cast<const T*>(data_); }

 private:
  Laid(const TensorImpl& x, const Shape& strides, DType type, cudaStream_t stream, bool direct)
      : copy_(direct ? 0 : size_t(x.shape.numel()) * size_of(type), x.device),
        data_(direct ? x.data : copy_.template as<void>()) {
    if (!direct) copy_strided(x, x.shape, copy_.template as<void>(), type, strides, stream);
  }

  const Workspace copy_;
  const void* data_;
};

}  // namespace tandem::gpu
