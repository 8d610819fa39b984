// The table of runtimes, by kind of device.
#include "graph/run/runtime.h"

#include <atomic>

namespace tandem::graph {

namespace {
std::atomic<const Runtime*>& entry(DeviceKind kind) {
  static std::atomic<const Runtime*> table[] = {&cpu_runtime(), &cuda_runtime()};  // in the order of DeviceKind
  return table[static_cast<int>(kind)];
}
}  // namespace

const Runtime& runtime_for(Device device) { return *entry(device.kind).load(); }
const Runtime& set_runtime(DeviceKind kind, const Runtime& runtime) { return *entry(kind).exchange(&runtime); }

}  // namespace tandem::graph
