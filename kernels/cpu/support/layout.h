// Images laid out as a kernel wants them: channels-last, or row-major planes.
#pragma once

#include <optional>

#include "kernels/cpu/support/copy.h"

namespace tandem {

/// Equal strides, but for dims of one element.
inline bool lies(const TensorImpl& x, const Shape& strides) {
  for (int d = 0; d < x.shape.size(); ++d)
    if (x.shape[d] != 1 && x.strides[d] != strides[d]) return false;
  return true;
}

/// An operand as T, laid out channels-last or row-major as asked; where it already is so, itself.
enum class Access { read, write };
template <class T, Access access> class Laid {
 public:
  Laid(const TensorImpl& x, bool channels_last) : data_(static_cast<T*>(x.data)) {
    const Shape strides = channels_last ? channels_last_strides(x.shape) : contiguous_strides(x.shape);
    direct_ = x.dtype == dtype_of<T> && lies(x, strides);
    if (direct_) return;
    scratch_.emplace(x.shape.numel() * static_cast<int64_t>(sizeof(T)));
    data_ = scratch_->as<T>();
    copy_.dtype = dtype_of<T>;
    copy_.data = data_;
    copy_.set_layout(x.shape, strides);
    if (access == Access::read) copy_elements(x, copy_);
  }
  void write_back(const TensorImpl& x) const {
    if (!direct_) copy_elements(copy_, x);
  }
  T* data() const { return data_; }

 private:
  T* data_;
  bool direct_;
  std::optional<Scratch> scratch_;
  TensorImpl copy_;
};
template <class T> using LaidInput = Laid<T, Access::read>;
template <class T> using LaidOutput = Laid<T, Access::write>;

inline bool is_channels_last(const TensorImpl& x) { return x.shape[1] > 1 && lies(x, channels_last_strides(x.shape)); }

}  // namespace tandem
