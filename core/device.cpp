// Devices by name, and the CPU's backend.
#include "core/device.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ostream>

#include <sys/mman.h>

#include "core/error.h"
#include "core/op.h"

namespace tandem {

namespace {

constexpr size_t kHugePage = size_t{2} << 20;

void* cpu_allocate(Device, size_t bytes) {
  void* data = nullptr;
  const bool large = bytes >= 2 * kHugePage;
  if (posix_memalign(&data, large ? kHugePage : 64, bytes) != 0) return nullptr;
  if (large) madvise(data, bytes, MADV_HUGEPAGE);  // page faults are what makes a naive engine slow
  return data;
}
void cpu_release(Device, void* data, size_t) { std::free(data); }
void cpu_copy(void* to, Device, const void* from, Device, size_t bytes) { std::memcpy(to, from, bytes); }
int one() { return 1; }
int none() { return 0; }
void nothing(Device) {}
void* no_stream(Device) { return nullptr; }

}  // namespace

Backend& backend(DeviceKind kind) {
  static Backend backends[kDeviceKinds] = {
      {one, cpu_allocate, cpu_release, cpu_copy, nothing, no_stream, nullptr},
      {none, nullptr, nullptr, nullptr, nothing, no_stream,
       "this build of Tandem has no CUDA support; configure it with the preset `cuda` on a "
       "machine with the CUDA toolkit"}};
  return backends[static_cast<int>(kind)];
}

std::string_view name_of(DeviceKind kind) {
  constexpr std::string_view names[kDeviceKinds] = {"cpu", "cuda"};
  return names[static_cast<size_t>(kind)];
}

int cuda_device_count() {
  op_table();  // installs the CUDA backend where there is one
  return backend(DeviceKind::cuda).device_count();
}
bool cuda_is_available() { return cuda_device_count() > 0; }

Device cuda(int index, Where where) {
  const int count = cuda_device_count();
  if (index < 0 || index >= count) {
    const char* why = backend(DeviceKind::cuda).unavailable;
    throw DeviceError(count == 0
                          ? detail::str("cuda(", index, "): no CUDA device: ", why ? why : "the driver finds none",
                                        "; use cpu(), or ask cuda_is_available() first")
                          : detail::str("cuda(", index, "): there are ", count, " CUDA devices, counted from 0"),
                      where);
  }
  return {DeviceKind::cuda, static_cast<uint8_t>(index)};
}

std::string to_string(Device device) {
  const std::string kind(name_of(device.kind));
  return device.is_cpu() ? kind : kind + ":" + std::to_string(device.index);
}

std::optional<Device> read_device(const std::string& text) {
  if (text == name_of(DeviceKind::cpu)) return cpu();
  const std::string kind(name_of(DeviceKind::cuda));
  if (text == kind) return Device{DeviceKind::cuda, 0};
  const std::string index = text.rfind(kind + ":", 0) == 0 ? text.substr(kind.size() + 1) : "";
  if (index.empty() || index.size() > 3 || index.find_first_not_of("0123456789") != std::string::npos)
    return std::nullopt;
  const int number = std::atoi(index.c_str());
  return number < 256 ? std::optional(Device{DeviceKind::cuda, static_cast<uint8_t>(number)}) : std::nullopt;
}

Device parse_device(const std::string& text, Where where) {
  const std::optional<Device> device = read_device(text);
  if (!device) throw ValueError("no device is called \"" + text + "\"; write cpu, cuda or cuda:1", where);
  return device->is_cpu() ? *device : cuda(device->index, where);
}

std::ostream& operator<<(std::ostream& out, Device device) { return out << to_string(device); }

void synchronize(Device device, Where where) {
  try {
    backend(device.kind).synchronize(device);
  } catch (...) { detail::rethrow_named("synchronize", where); }
}

}  // namespace tandem
