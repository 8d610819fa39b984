// Where a tensor lives, and what the engine needs of each kind of device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>

#include "error.h"

namespace tandem {

enum class DeviceKind : uint8_t { cpu, cuda };
inline constexpr size_t kDeviceKinds = 2;
std::string_view name_of(DeviceKind kind);  ///< "cpu", "cuda"

struct Device {
  DeviceKind kind = DeviceKind::cpu;
  uint8_t index = 0;

  bool is_cpu() const { return kind == DeviceKind::cpu; }
  bool is_cuda() const { return kind == DeviceKind::cuda; }
  bool operator==(const Device&) const = default;
};

inline Device cpu() { return {}; }
/// The CUDA device of that index; throws DeviceError where this build or machine has none.
Device cuda(int index = 0, Where where = Where::current());
bool cuda_is_available();
int cuda_device_count();

std::string to_string(Device device);  ///< "cpu", "cuda:0"
/// Reads "cpu", "cuda", "cuda:1", whether or not there is such a device; nothing if it is no device's name.
std::optional<Device> read_device(const std::string& text);
/// The same; ValueError for another name, DeviceError where there is none.
Device parse_device(const std::string& text, Where where = Where::current());
std::ostream& operator<<(std::ostream& out, Device device);

/// What a kind of device offers to the engine. The CPU's is built in; `kernels/cuda` installs its own.
struct Backend {
  int (*device_count)() = nullptr;
  void* (*allocate)(Device, size_t bytes) = nullptr;  ///< nullptr when out of memory
  void (*release)(Device, void* data, size_t bytes) = nullptr;
  /// Copies between any two places of this backend and the host, in order with the device's kernels.
  /// Returns when the host side may be reused.
  void (*copy)(void* to, Device to_device, const void* from, Device from_device, size_t bytes) = nullptr;
  void (*synchronize)(Device) = nullptr;
  void* (*stream)(Device) = nullptr;  ///< the stream that kernels are launched on (cudaStream_t)
  const char* unavailable = nullptr;  ///< why device_count() is 0, for the error text
};
Backend& backend(DeviceKind kind);

/// Waits for all work queued on the device, and raises what went wrong in it.
void synchronize(Device device, Where where = Where::current());

}  // namespace tandem
