// Between the engine's tensors and launchers: streams, dtypes as device types, workspaces.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "core/error.h"
#include "core/op.h"
#include "kernels/cuda/device.cuh"

namespace tandem::gpu {

/// The stream that this op's kernels are launched on: the device's, or that of the recording that this thread makes. The device
/// becomes the thread's current one.
cudaStream_t stream_of(Device device);
inline cudaStream_t stream_of(const KernelContext& op) { return stream_of(op.outputs[0].device()); }

template <class T> const T* data(const TensorImpl& tensor) { return static_cast<const T*>(tensor.data); }
template <class T> T* data(TensorImpl& tensor) { return static_cast<T*>(tensor.data); }

/// Calls `f.template operator()<T>()` with the device's type for `type`.
template <class F> void visit_floating(DType type, F&& f) {
  switch (type) {
    case DType::float32: return f.template operator()<float>();
    case DType::float64: return f.template operator()<double>();
    case DType::float16: return f.template operator()<__half>();
    case DType::bfloat16: return f.template operator()<__nv_bfloat16>();
    default: TANDEM_ASSERT(false, "a floating dtype is needed, got ", name_of(type));
  }
}
template <class F> void visit_any(DType type, F&& f) {
  switch (type) {
    case DType::int32: return f.template operator()<int32_t>();
    case DType::int64: return f.template operator()<int64_t>();
    case DType::int16: return f.template operator()<int16_t>();
    case DType::int8: return f.template operator()<int8_t>();
    case DType::uint8: return f.template operator()<uint8_t>();
    case DType::bool_: return f.template operator()<bool>();
    default: return visit_floating(type, f);
  }
}
/// For what only moves elements: an unsigned integer of the same size stands for the type.
template <class F> void visit_size(DType type, F&& f) {
  switch (size_of(type)) {
    case 1: return f.template operator()<uint8_t>();
    case 2: return f.template operator()<uint16_t>();
    case 4: return f.template operator()<uint32_t>();
    default: return f.template operator()<uint64_t>();
  }
}

/// A C++ number as an element on the device, as the CPU's casts have it.
template <class T> T number_as(double value) {
  if constexpr (std::is_same_v<T, bool>) return value != 0;
  else if constexpr (is_half<T>) return T(static_cast<float>(value));
  else if constexpr (std::is_integral_v<T>) return whole<T>(value);
  else return static_cast<T>(value);
}

/// A tensor's elements; a C++ number that became an operand lies on the host and goes by value.
template <class T> Operand<T> operand(const TensorImpl& tensor) {
  if (tensor.is_scalar) return {nullptr, *static_cast<const T*>(tensor.data)};
  Operand<T> result{};
  result.data = static_cast<const T*>(tensor.data);
  return result;
}

/// Lets a kernel have more than 48 KiB of dynamic shared memory on the current device: the driver keeps that for each.
void allow_shared(const void* kernel, int bytes);
template <class... Parameters> void allow_shared(void (*kernel)(Parameters...), int bytes) {
  allow_shared(reinterpret_cast<const void*>(kernel), bytes);
}

/// Device memory for one launch. It may be let go as soon as the launch is queued: whoever gets it next queues
/// behind. While a graph is captured it stays with the graph instead, whose replays need it.
class Workspace {
 public:
  Workspace(size_t bytes, Device device);
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  template <class T> T* as() const { return storage_ ? static_cast<T*>(storage_->data) : nullptr; }

 private:
  Storage* storage_ = nullptr;
};

}  // namespace tandem::gpu
