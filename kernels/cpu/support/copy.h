// Copies between layouts and types on the CPU, for the kernels that need their input laid out otherwise.
#pragma once

#include <optional>

#include "core/spare_memory.h"
#include "core/tensor.h"

namespace tandem {

/// to = from, broadcast to to's shape and cast to its type; any strides on both sides.
void copy_elements(const TensorImpl& from, const TensorImpl& to);

/// `value` as one element of that type, repeated over `count` elements.
void fill_elements(void* data, int64_t count, DType type, double value);

/// Memory for the length of a scope: spare memory of the plan that runs, or from the caching allocator.
class Scratch {
 public:
  explicit Scratch(int64_t bytes)
      : bytes_(static_cast<size_t>(bytes > 0 ? bytes : 1)), data_(spare_memory.take(bytes_)),
        storage_(data_ ? nullptr : Storage::allocate(bytes_, {})) {
    if (storage_) data_ = storage_->data;
  }
  ~Scratch() {
    if (storage_) storage_->release();
    else spare_memory.give_back(data_, bytes_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  template <class T> T* as() const { return static_cast<T*>(data_); }

 private:
  size_t bytes_;
  void* data_;
  Storage* storage_;
};

/// A header on the stack for contiguous memory that somebody else holds.
struct Header {
  TensorImpl impl;
  Header(void* data, DType type, const Shape& shape) {
    impl.dtype = type;
    impl.data = data;
    impl.set_contiguous_layout(shape);
  }
};

/// A contiguous input's elements as T: where they are, or converted (float16 and bfloat16 to float).
template <class T> class WideInput {
 public:
  explicit WideInput(const TensorImpl& x) : data_(static_cast<const T*>(x.data)) {
    if (x.dtype == dtype_of<T> && x.contiguous) return;
    scratch_.emplace(x.shape.numel() * static_cast<int64_t>(sizeof(T)));
    const Header wide(scratch_->as<void>(), dtype_of<T>, x.shape);
    copy_elements(x, wide.impl);
    data_ = scratch_->as<T>();
  }
  const T* data() const { return data_; }

 private:
  const T* data_;
  std::optional<Scratch> scratch_;
};

/// Memory for an output's elements as T, row-major; finish() converts them where the output is otherwise.
template <class T> class WideOutput {
 public:
  explicit WideOutput(const TensorImpl& out) : out_(out), data_(static_cast<T*>(out.data)) {
    if (out.dtype == dtype_of<T> && out.contiguous) return;
    scratch_.emplace(out.shape.numel() * static_cast<int64_t>(sizeof(T)));
    data_ = scratch_->as<T>();
  }
  T* data() const { return data_; }
  void finish() const {
    if (scratch_) copy_elements(Header(data_, dtype_of<T>, out_.shape).impl, out_);
  }

 private:
  const TensorImpl& out_;
  T* data_;
  std::optional<Scratch> scratch_;
};

}  // namespace tandem
