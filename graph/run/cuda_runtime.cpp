// CUDA's runtime: loop kernels as CUDA C++, compiled when they are needed; a whole step captured into one graph.
#include "graph/run/cuda_runtime.h"

#include <chrono>
#include <deque>
#include <mutex>
#include <optional>

#include "graph/codegen/cuda_source.h"
#include "graph/native/disk_cache.h"
#include "graph/run/run.h"
#include "graph/run/runtime.h"
#include "kernels/cuda/capture.h"
#include "kernels/cuda/host.h"
#include "kernels/cuda/module.h"
#include "kernels/cuda/range_notes.h"

namespace tandem::graph {

namespace {

/// Puts a binary and its source into the cache. Returns the reason it couldn't.
std::string keep(const std::string& path, const Digest& key, const std::string& source, const std::string& bytes) {
  if (std::string problem = write_file(path + ".cu", source); !problem.empty()) return problem;
  return store_sealed(path + ".cubin", bytes, key);
}

/// The module of a source, made once: a second specialisation or a second run of the program finds it. The few used
/// last are held.
std::shared_ptr<gpu::Module> load(const std::string& source, const std::vector<std::string>& names, Device device,
                                  CompileCost& cost) {
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
    if (entry.key == key) return entry.module;
  const CudaBinary binary = build_cuda_source(source, names, device);
  auto module = std::make_shared<gpu::Module>(binary.bytes, device);
  loaded->push_back({key, module});
  if (loaded->size() > most) loaded->pop_front();
  cost = {binary.compile_seconds, binary.from_cache, binary.note};
  return module;
}

/// One fused kernel: one launch, or several where it has too many buffers for one.
class CudaLaunch final : public Launch {
 public:
  CudaLaunch(const std::vector<CudaKernelCall>& calls, const std::vector<ValueCheck>& checks, const gpu::Module& module,
             Device device, const PointTo& point_to)
      : device_(device), parts_(calls.size()) {
    if (!checks.empty()) notes_.emplace(checks, device);
    for (size_t i = 0; i < calls.size(); ++i) {
      const CudaKernelCall& call = calls[i];
      Part& part = parts_[i];
      part.kernel = module.kernel(call.name);
      part.blocks = call.blocks;
      part.threads = call.threads;
      part.table.assign(call.buffers.size() + 1, nullptr);
      for (size_t b = 0; b < call.buffers.size(); ++b) point_to(call.buffers[b], &part.table[b]);
      if (call.partial_bytes) {
        part.partials = Memory(call.partial_bytes, device);
        const std::vector<char> zeros(call.partial_bytes, 0);
        backend(device.kind).copy(part.partials.data(), device, zeros.data(), cpu(), zeros.size());
        part.table.back() = part.partials.data();
      }
      for (size_t b = 0; b < call.buffers.size() + (call.partial_bytes ? 1 : 0); ++b)
        part.arguments.push_back(&part.table[b]);
      if (notes_) part.arguments.push_back(&notes_->note());
    }
  }
  void run() override {
    for (Part& part : parts_)
      gpu::launch(part.kernel, {part.blocks, 1, 1}, {part.threads, 1, 1}, 0, part.arguments.data(), device_);
  }

 private:
  struct Part {
    void* kernel = nullptr;
    unsigned blocks = 1, threads = 1;
    std::vector<void*> table, arguments;
    Memory partials;
  };
  Device device_;
  std::vector<Part> parts_;
  std::optional<gpu::RangeNotes> notes_;
};

class CudaKernels final : public Kernels {
 public:
  int add(const LoopKernel& kernel) override {
    calls_.push_back(source_.add(kernel));
    checks_.push_back(kernel.checks);
    return static_cast<int>(calls_.size()) - 1;
  }
  std::string source() const override { return source_.text(); }
  bool compile(Device device, Where where, std::string*, CompileCost& cost) override {
    device_ = device;
    try {
      module_ = load(source(), source_.kernel_names(), device, cost);
    } catch (const CompileError& error) {  // NVRTC's: it knows no line of the user's
      throw CompileError(error.message(), where);
    } catch (...) { detail::rethrow_named("compile", where); }
    return true;
  }
  std::unique_ptr<Launch> launch(int kernel, const PointTo& point_to) const override {
    return std::make_unique<CudaLaunch>(calls_[kernel], checks_[kernel], *module_, device_, point_to);
  }

 private:
  CudaSource source_;
  std::vector<std::vector<CudaKernelCall>> calls_;
  std::vector<std::vector<ValueCheck>> checks_;  ///< of each
  std::shared_ptr<gpu::Module> module_;
  Device device_;
};

class CudaRecording final : public Recording {
 public:
  explicit CudaRecording(Device device) : capture_(device) {}
  void record(const std::function<void()>& steps) override { capture_.record(steps); }
  void launch() override { capture_.launch(); }

 private:
  gpu::Capture capture_;
};

class CudaRuntime final : public Runtime {
 public:
  const char* tier() const override { return CudaSource::tier; }
  std::unique_ptr<Kernels> kernels() const override { return std::make_unique<CudaKernels>(); }
  bool records() const override { return !gpu::synchronous(); }
  bool can_record(const Op& op) const override { return !gpu::runs_on_host(op); }
  std::unique_ptr<Recording> recording(Device device) const override { return std::make_unique<CudaRecording>(device); }
};

}  // namespace

CudaBinary build_cuda_source(const std::string& source, const std::vector<std::string>& names, Device device) {
  CudaBinary result;
  const Digest key = sha256(detail::str("tandem ", TANDEM_VERSION, "\n", gpu::compiler_identity(device), "\n", source));
  const CacheDirectory cache = cache_directory();
  const std::string path = cache.path + "/" + hex(key);
  std::string wrong = cache.problem;
  if (wrong.empty()) {
    SealedFile file;
    const Entry entry = check_sealed(path + ".cubin", key, wrong, file);
    result.from_cache = entry == Entry::whole;
    if (result.from_cache) {
      result.bytes = std::move(file.contents);
      return result;
    }
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

const Runtime& cuda_runtime() {
  static const CudaRuntime runtime;
  return runtime;
}

}  // namespace tandem::graph
