// The CUDA runtime API on host memory: allocation, copies, streams, events, and graphs as lists of operations.
//
// Device memory lies in a range of addresses that can be read and written only while a kernel, a copy or a fill
// runs: a host program that follows a device pointer crashes here too. TANDEM_EMULATOR_PROTECT=0 switches that off;
// with AddressSanitizer memory comes from malloc instead, so that it has red zones.
#include "cuda_runtime.h"

#include <sys/mman.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "tests/emulator/fiber.h"

struct TandemEmulatorGraphNode {};

struct TandemEmulatorGraph {
  std::vector<std::function<cudaError_t()>> operations;
};

struct TandemEmulatorStream {
  TandemEmulatorGraph* graph = nullptr;  // while it is captured
  bool origin = false;                   // where the capture began, and must end
  bool strict = false;
};

struct TandemEmulatorEvent {
  std::chrono::steady_clock::time_point time;
  TandemEmulatorGraph* graph = nullptr;  // recorded within this capture
};

namespace {

thread_local cudaError_t last_error = cudaSuccess;
thread_local int captures = 0;         // begun by this thread, not ended
thread_local int strict_captures = 0;  // of these, how many forbid calls that can't be recorded, as cudaMalloc

std::mutex mutex;
std::map<const void*, int> dynamic_shared_limit;
constexpr std::size_t device_bytes_total = std::size_t(8) << 30;

class DeviceMemory {
 public:
  DeviceMemory() {
#ifdef TANDEM_EMULATOR_ASAN
    constexpr bool wanted = false;
#else
    const char* wish = std::getenv("TANDEM_EMULATOR_PROTECT");
    const bool wanted = wish == nullptr || std::strcmp(wish, "0") != 0;
#endif
    if (!wanted) return;
    void* range = mmap(nullptr, 2 * device_bytes_total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range != MAP_FAILED) range_ = static_cast<char*>(range);
  }

  void* allocate(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    if (bytes > device_bytes_total - used_) return nullptr;
    void* memory = nullptr;
    if (range_ == nullptr) {
      if (posix_memalign(&memory, 256, bytes) != 0) return nullptr;
    } else {
      const std::size_t pages = (bytes + page - 1) / page * page;
      if (auto found = free_.find(pages); found != free_.end()) {
        memory = found->second;
        free_.erase(found);
      } else if (end_ + pages <= 2 * device_bytes_total) {
        memory = range_ + end_;
        end_ += pages;
        if (open_ > 0) protect(PROT_READ | PROT_WRITE);
      } else {
        return nullptr;
      }
    }
    live_[memory] = bytes;
    used_ += bytes;
    return memory;
  }
  bool release(void* memory) {
    const std::lock_guard lock(mutex_);
    const auto found = live_.find(memory);
    if (found == live_.end()) return false;
    used_ -= found->second;
    if (range_ == nullptr) std::free(memory);
    else free_.emplace((found->second + page - 1) / page * page, memory);
    live_.erase(found);
    return true;
  }
  std::size_t used() const { return used_; }

  void open() {
    if (range_ == nullptr) return;
    const std::lock_guard lock(mutex_);
    if (open_++ == 0) protect(PROT_READ | PROT_WRITE);
  }
  void close() {
    if (range_ == nullptr) return;
    const std::lock_guard lock(mutex_);
    if (--open_ == 0) protect(PROT_NONE);
  }

 private:
  static constexpr std::size_t page = 4096;
  void protect(int how) {
    if (end_ > 0) mprotect(range_, end_, how);
  }
  std::mutex mutex_;
  char* range_ = nullptr;
  std::size_t end_ = 0, used_ = 0;
  int open_ = 0;
  std::map<void*, std::size_t> live_;
  std::multimap<std::size_t, void*> free_;  // by size, in whole pages
};

DeviceMemory& device_memory() {
  static auto* const memory = new DeviceMemory;  // tensors in static storage may outlive everything else
  return *memory;
}

// While one exists, this thread is the device.
struct OnDevice {
  OnDevice() { device_memory().open(); }
  ~OnDevice() { device_memory().close(); }
};

cudaError_t failed(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

// Runs `operation` now, or adds it to the graph that `stream` is captured into.
cudaError_t enqueue(cudaStream_t stream, std::function<cudaError_t()> operation) {
  if (stream != nullptr && stream->graph != nullptr) {
    stream->graph->operations.push_back(std::move(operation));
    return cudaSuccess;
  }
  // The legacy stream waits for every other one, which a capture can't do.
  if (stream == nullptr && captures > 0) return failed(cudaErrorStreamCaptureUnsupported);
  return failed(operation());
}

}  // namespace

namespace tandem_emulator {

cudaError_t launch(const void* kernel, dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream,
                   void (*lane)(void*), const void* call, std::size_t bytes) {
  std::size_t limit = 48 * 1024;
  {
    std::lock_guard lock(mutex);
    if (auto found = dynamic_shared_limit.find(kernel); found != dynamic_shared_limit.end()) {
      limit = std::max(limit, std::size_t(found->second));
    }
  }
  const std::uint64_t threads = std::uint64_t(block.x) * block.y * block.z;
  if (threads == 0 || threads > 1024 || block.z > 64 || grid.x == 0 || grid.y == 0 || grid.z == 0 ||
      grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    return failed(cudaErrorInvalidConfiguration);
  }
  if (shared_bytes > limit) return failed(cudaErrorInvalidValue);
  Launch description{{grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared_bytes};
  if (stream == nullptr || stream->graph == nullptr) {
    if (stream == nullptr && captures > 0) return failed(cudaErrorStreamCaptureUnsupported);
    const OnDevice on_device;
    run(description, lane, const_cast<void*>(call));
    return cudaSuccess;
  }
  const char* first = static_cast<const char*>(call);
  auto copy = std::make_shared<std::vector<char>>(first, first + bytes);
  return enqueue(stream, [description, lane, copy] {
    const OnDevice on_device;
    run(description, lane, copy->data());
    return cudaSuccess;
  });
}

}  // namespace tandem_emulator

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorInsufficientDriver: return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorStreamCaptureUnmatched: return "cudaErrorStreamCaptureUnmatched";
    case cudaErrorIllegalState: return "cudaErrorIllegalState";
  }
  return "unknown error";
}
const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last_error; }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : failed(cudaErrorInvalidDevice); }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return failed(cudaErrorInvalidDevice);
  *properties = cudaDeviceProp{};
  std::snprintf(properties->name, sizeof properties->name, "Tandem emulator");
  properties->totalGlobalMem = device_bytes_total;
  properties->sharedMemPerBlock = 48 * 1024;
  properties->sharedMemPerBlockOptin = 163 * 1024;  // those of sm_80, the smallest that we build for
  properties->sharedMemPerMultiprocessor = 164 * 1024;
  properties->major = 8;
  properties->minor = 0;
  properties->multiProcessorCount = 2;  // few, so that grids which fill a device stay small
  properties->maxThreadsPerBlock = 1024;
  properties->maxThreadsPerMultiProcessor = 2048;
  properties->regsPerBlock = 65536;
  properties->warpSize = 32;
  properties->l2CacheSize = 40 << 20;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return failed(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = 2; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor: *value = 8; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 163 * 1024; return cudaSuccess;
  }
  return failed(cudaErrorInvalidValue);
}
cudaError_t cudaDeviceSynchronize() { return captures > 0 ? failed(cudaErrorStreamCaptureUnsupported) : cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *total = device_bytes_total;
  *free = device_bytes_total - device_memory().used();
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  if (strict_captures > 0) return failed(cudaErrorStreamCaptureUnsupported);
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  *pointer = device_memory().allocate(bytes);
  if (*pointer == nullptr) return failed(cudaErrorMemoryAllocation);
  const OnDevice on_device;
  if (bytes <= (std::size_t(64) << 20)) std::memset(*pointer, 0xFF, bytes);  // whoever reads it unwritten gets NaN
  return cudaSuccess;
}
cudaError_t cudaFree(void* pointer) {
  if (pointer == nullptr) return cudaSuccess;
  if (strict_captures > 0) return failed(cudaErrorStreamCaptureUnsupported);
  return device_memory().release(pointer) ? cudaSuccess : failed(cudaErrorInvalidValue);
}
cudaError_t cudaMallocAsync(void** pointer, std::size_t bytes, cudaStream_t) { return cudaMalloc(pointer, bytes); }
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t) { return cudaFree(pointer); }
cudaError_t cudaMallocHost(void** pointer, std::size_t bytes) {
  *pointer = std::malloc(bytes);
  return *pointer != nullptr || bytes == 0 ? cudaSuccess : failed(cudaErrorMemoryAllocation);
}
cudaError_t cudaHostAlloc(void** pointer, std::size_t bytes, unsigned) { return cudaMallocHost(pointer, bytes); }
cudaError_t cudaHostGetDevicePointer(void** there, void* here, unsigned) {
  *there = here;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* pointer) {
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind) {
  if (captures > 0) return failed(cudaErrorStreamCaptureUnsupported);
  const OnDevice on_device;
  if (bytes > 0) std::memmove(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  return enqueue(stream, [=] {
    const OnDevice on_device;
    if (bytes > 0) std::memmove(to, from, bytes);
    return cudaSuccess;
  });
}
cudaError_t cudaMemset(void* to, int value, std::size_t bytes) { return cudaMemsetAsync(to, value, bytes, nullptr); }
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  return enqueue(stream, [=] {
    const OnDevice on_device;
    if (bytes > 0) std::memset(to, value, bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  *stream = new TandemEmulatorStream;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) { return cudaStreamCreate(stream); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if ((stream != nullptr && stream->graph != nullptr) || (stream == nullptr && captures > 0)) {
    return failed(cudaErrorStreamCaptureUnsupported);
  }
  return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) { return cudaStreamSynchronize(stream); }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (stream != nullptr && event->graph != nullptr) stream->graph = event->graph;  // a fork: it joins the capture
  return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* argument) {
  return enqueue(stream, [=] {
    function(argument);
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = new TandemEmulatorEvent;
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return cudaEventCreate(event); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->graph = stream != nullptr ? stream->graph : nullptr;
  event->time = std::chrono::steady_clock::now();
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return event->graph != nullptr ? failed(cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) { return cudaEventSynchronize(event); }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  if (stream == nullptr) return failed(cudaErrorStreamCaptureUnsupported);
  if (stream->graph != nullptr) return failed(cudaErrorIllegalState);
  stream->graph = new TandemEmulatorGraph;
  stream->origin = true;
  stream->strict = mode != cudaStreamCaptureModeRelaxed;
  ++captures;
  if (stream->strict) ++strict_captures;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  if (stream == nullptr || stream->graph == nullptr) return failed(cudaErrorIllegalState);
  if (!stream->origin) return failed(cudaErrorStreamCaptureUnmatched);
  *graph = std::exchange(stream->graph, nullptr);
  stream->origin = false;
  --captures;
  if (stream->strict) --strict_captures;
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = stream != nullptr && stream->graph != nullptr ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, std::size_t* count) {
  if (nodes != nullptr) return failed(cudaErrorInvalidValue);  // only counting is emulated
  *count = graph->operations.size();
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = new TandemEmulatorGraph(*graph);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  const auto run = [executable] {
    for (const auto& operation : executable->operations) {
      if (const cudaError_t error = operation(); error != cudaSuccess) return error;
    }
    return cudaSuccess;
  };
  return enqueue(stream, run);
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) { return cudaGraphDestroy(executable); }

cudaError_t tandem_emulator_set_function_attribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value > 163 * 1024) return failed(cudaErrorInvalidValue);
  std::lock_guard lock(mutex);
  dynamic_shared_limit[kernel] = value;
  return cudaSuccess;
}
