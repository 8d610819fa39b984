// Compiling, launching and feeding fused kernels on a CUDA device.
#include "graph/run/cuda_step.h"

#include <chrono>
#include <cstdio>
#include <cstring>
#include <deque>
#include <mutex>

#include "core/dispatch.h"
#include "core/ops/ops.h"
#include "graph/native/disk_cache.h"
#include "kernels/cuda/module.h"

namespace tandem::graph {

namespace {
/// Bytes on the device, whoever traces.
Tensor device_bytes(size_t bytes, Device device) {
  const InterceptorScope eager(nullptr);
  return empty({static_cast<int64_t>(bytes)}, {.dtype = uint8, .device = device});
}

/// Puts a binary and its source into the cache. Returns the reason it couldn't.
std::string keep(const std::string& path, const Digest& key, const std::string& source, const std::string& bytes) {
  if (std::string problem = write_file(path + ".cu", source); !problem.empty()) return problem;
  const std::string temporary = temporary_name(path + ".cubin");
  std::string problem = write_file(temporary, bytes);
  if (problem.empty()) problem = store_sealed(temporary, path + ".cubin", key);
  if (!problem.empty()) std::remove(temporary.c_str());
  return problem;
}
}  // namespace

CudaBinary build_cuda_source(const std::string& source, const std::vector<std::string>& names, Device device) {
  CudaBinary result;
  const Digest key = sha256(detail::str("tandem ", TANDEM_VERSION, "\n", gpu::compiler_identity(device), "\n", source));
  const CacheDirectory cache = cache_directory();
  const std::string path = cache.path + "/" + hex(key);
  std::string wrong = cache.problem;
  if (wrong.empty()) {
    const Entry entry = check_sealed(path + ".cubin", key, wrong, &result.bytes);
    result.from_cache = entry == Entry::whole;
    if (result.from_cache) return result;
    if (entry == Entry::damaged) result.note = "damaged cache entry, built again: " + wrong;
  }
  const auto begin = std::chrono::steady_clock::now();
  result.bytes = gpu::compile_source(source, names, device);
  result.compile_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (cache.problem.empty()) {
    wrong = keep(path, key, source, result.bytes);
    limit_cache(cache.path, hex(key));
  }
  if (!wrong.empty()) result.note = "kernels are not cached on disk: " + wrong;
  return result;
}

CudaKernels load_cuda_source(const std::string& source, const std::vector<std::string>& names, Device device) {
  // The few used last, so that a second specialisation or a second run finds them.
  constexpr size_t most = 64;
  struct Entry {
    std::string key;
    std::shared_ptr<gpu::Module> module;
  };
  static std::mutex mutex;
  static auto* const loaded = new std::deque<Entry>;
  const std::string key = to_string(device) + "\n" + source;
  const std::lock_guard lock(mutex);
  for (const Entry& entry : *loaded)
    if (entry.key == key) return {.module = entry.module};
  const CudaBinary binary = build_cuda_source(source, names, device);
  auto module = std::make_shared<gpu::Module>(binary.bytes, device);
  loaded->push_back({key, module});
  if (loaded->size() > most) loaded->pop_front();
  return {module, binary.compile_seconds, binary.from_cache, binary.note};
}

CudaLaunch::CudaLaunch(const CudaKernelCall& call, const gpu::Module& module, Device device)
    : table(call.buffers.size() + 1, nullptr), kernel_(module.kernel(call.name)), blocks_(call.blocks),
      threads_(call.threads), device_(device) {
  if (call.partial_bytes) {
    partials_ = device_bytes(call.partial_bytes, device);
    const std::vector<char> zeros(call.partial_bytes, 0);
    backend(device.kind).copy(partials_.impl()->data, device, zeros.data(), cpu(), zeros.size());
    table.back() = partials_.impl()->data;
  }
  for (void*& entry : table) arguments_.push_back(&entry);
}

void CudaLaunch::run() { gpu::launch(kernel_, {blocks_, 1, 1}, {threads_, 1, 1}, 0, arguments_.data(), device_); }

int HostNumbers::add(size_t bytes) {
  const size_t offset = (bytes_.size() + 15) / 16 * 16;
  offsets_.push_back(offset);
  sizes_.push_back(bytes);
  bytes_.resize(offset + bytes, 0);
  return static_cast<int>(offsets_.size()) - 1;
}

void HostNumbers::allocate(Device device) {
  device_ = device_bytes(bytes_.size(), device);
  changed_ = true;
}

void HostNumbers::set(int index, const void* from) {
  const auto i = static_cast<size_t>(index);
  if (std::memcmp(bytes_.data() + offsets_[i], from, sizes_[i]) == 0) return;
  std::memcpy(bytes_.data() + offsets_[i], from, sizes_[i]);
  changed_ = true;
}

void HostNumbers::upload() {
  if (!changed_ || empty()) return;
  backend(device_.device().kind).copy(device_.impl()->data, device_.device(), bytes_.data(), cpu(), bytes_.size());
  changed_ = false;
}

}  // namespace tandem::graph
