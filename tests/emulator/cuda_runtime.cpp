// The CUDA runtime API on host memory: devices, allocation, copies, streams, events, and graphs as lists of operations.
//
// A stream does nothing until somebody waits for it, or for an event in it; then it does all it was given up to there, in order. So
// whoever reads what another stream writes, and doesn't wait for it, reads what was there before: NaN in new memory. The
// default stream waits for all others that are blocking, and runs at once.
//
// Device memory lies in a range of addresses for each device that can be read and written only while one of its kernels, or a
// copy or a fill, runs: a host program that follows a device pointer crashes here too, and so does a kernel that follows
// another device's. TANDEM_EMULATOR_PROTECT=0 switches that off; with AddressSanitizer memory comes from malloc instead, so
// that it has red zones.
#include "cuda_runtime.h"

#include <sys/mman.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "tests/emulator/error.h"
#include "tests/emulator/fiber.h"

namespace {

using Operation = std::function<cudaError_t()>;
constexpr int device_count = 2;

// What a stream was given and hasn't done. Outlives it in the events that were recorded there.
struct Queue {
  std::deque<Operation> waiting;
  std::uint64_t given = 0, done = 0;
  cudaError_t error = cudaSuccess;  // of what it has done, until somebody who waits is told
};

}  // namespace

struct TandemEmulatorGraphNode {};

struct TandemEmulatorGraph {
  std::shared_ptr<std::vector<Operation>> operations = std::make_shared<std::vector<Operation>>();
};

struct TandemEmulatorStream {
  int device = 0;
  bool blocking = true;
  std::shared_ptr<Queue> queue = std::make_shared<Queue>();
  TandemEmulatorGraph* graph = nullptr;  // while it is captured
  bool origin = false;                   // where the capture began, and must end
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
};

struct TandemEmulatorEvent {
  int device = 0;
  std::shared_ptr<Queue> queue;  // where it was recorded, after how many operations
  std::uint64_t position = 0;
  std::shared_ptr<std::chrono::steady_clock::time_point> time =
      std::make_shared<std::chrono::steady_clock::time_point>();
  TandemEmulatorGraph* graph = nullptr;  // recorded within this capture
};

namespace {

thread_local cudaError_t last_error = cudaSuccess;
thread_local int current_device = 0;
thread_local int captures = 0;         // begun by this thread, not ended
thread_local int strict_captures = 0;  // of these, how many forbid calls that can't be recorded, as cudaMalloc
thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

// Of all that follows, and held while operations run.
std::recursive_mutex mutex;
int global_captures = 0;                                          // that forbid such calls to all threads
std::map<std::pair<const void*, int>, int> dynamic_shared_limit;  // of a kernel on a device
std::uint64_t launches_until_fault = 0;
std::set<TandemEmulatorStream*>& streams() {
  static auto* const all = new std::set<TandemEmulatorStream*>;
  return *all;
}

constexpr std::size_t device_bytes_total = std::size_t(8) << 30;

// Few, so that grids which fill a device stay small.
int multiprocessors() {
  static const int count = [] {
    const char* wish = std::getenv("TANDEM_EMULATOR_MULTIPROCESSORS");
    if (wish == nullptr) return 2;
    const int number = std::atoi(wish);
    if (number < 1 || number > 1024)
      throw tandem_emulator::Error(std::string("TANDEM_EMULATOR_MULTIPROCESSORS is \"") + wish +
                                   "\": say a number from 1 to 1024");
    return number;
  }();
  return count;
}

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
  bool holds(const void* address) {
    const std::lock_guard lock(mutex_);
    auto after = live_.upper_bound(const_cast<void*>(address));
    if (after == live_.begin()) return false;
    const auto& [begin, bytes] = *--after;
    return static_cast<const char*>(address) < static_cast<const char*>(begin) + bytes;
  }

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

DeviceMemory& device_memory(int device) {
  // Never destroyed: tensors in static storage may outlive everything else.
  static auto* const all = new std::array<DeviceMemory, device_count>;
  return (*all)[std::size_t(device)];
}
bool is_on_a_device(const void* address) {
  for (int device = 0; device < device_count; ++device)
    if (device_memory(device).holds(address)) return true;
  return false;
}

// While one exists, this thread is the device, or all of them: a copy.
struct OnDevice {
  explicit OnDevice(int device) : first(device), last(device) { open(); }
  OnDevice() : first(0), last(device_count - 1) { open(); }
  ~OnDevice() {
    for (int device = first; device <= last; ++device) device_memory(device).close();
  }
  void open() {
    for (int device = first; device <= last; ++device) device_memory(device).open();
  }
  const int first, last;
};

cudaError_t failed(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

// Calls that a capture can't hold, and that could wait for what it holds back.
bool unsafe_calls_are_refused() {
  const std::lock_guard lock(mutex);
  if (thread_mode == cudaStreamCaptureModeRelaxed) return false;
  return strict_captures > 0 || (thread_mode == cudaStreamCaptureModeGlobal && global_captures > 0);
}

// Does what the queue was given first, up to that many operations.
cudaError_t run_until(Queue& queue, std::uint64_t position) {
  const std::lock_guard lock(mutex);
  while (queue.done < position) {
    const Operation operation = std::move(queue.waiting.front());
    queue.waiting.pop_front();
    ++queue.done;
    if (const cudaError_t error = operation(); error != cudaSuccess && queue.error == cudaSuccess) queue.error = error;
  }
  return std::exchange(queue.error, cudaSuccess);
}
cudaError_t run_all_of(int device, bool blocking_alone) {
  const std::lock_guard lock(mutex);
  cudaError_t first = cudaSuccess;
  for (TandemEmulatorStream* stream : streams())
    if (stream->device == device && (stream->blocking || !blocking_alone))
      if (const cudaError_t error = run_until(*stream->queue, stream->queue->given); first == cudaSuccess)
        first = error;
  return first;
}

// Gives `operation` to the stream, or adds it to the graph that it is captured into.
cudaError_t enqueue(cudaStream_t stream, Operation operation) {
  const std::lock_guard lock(mutex);
  if (stream == nullptr) {
    // The default stream waits for every other one, which a capture can't do.
    if (captures > 0) return failed(cudaErrorStreamCaptureUnsupported);
    if (const cudaError_t error = run_all_of(current_device, true); error != cudaSuccess) return failed(error);
    return failed(operation());
  }
  if (stream->graph != nullptr) {
    stream->graph->operations->push_back(std::move(operation));
    return cudaSuccess;
  }
  Queue& queue = *stream->queue;
  queue.waiting.push_back(std::move(operation));
  ++queue.given;
  constexpr std::size_t most = 1024;  // as a device's queue is bounded
  if (queue.waiting.size() > most) return failed(run_until(queue, queue.given));
  return cudaSuccess;
}

int device_of(cudaStream_t stream) { return stream != nullptr ? stream->device : current_device; }

}  // namespace

namespace tandem_emulator {

void fail_launch(std::uint64_t which) {
  const std::lock_guard lock(mutex);
  launches_until_fault = which;
}

cudaError_t launch(const void* kernel, dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream,
                   void (*lane)(void*), const void* call, std::size_t bytes) {
  const int device = device_of(stream);
  if (device != current_device) return failed(cudaErrorInvalidResourceHandle);
  std::size_t limit = 48 * 1024;
  {
    std::lock_guard lock(mutex);
    if (auto found = dynamic_shared_limit.find({kernel, device}); found != dynamic_shared_limit.end()) {
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
  const char* first = static_cast<const char*>(call);
  auto copy = std::make_shared<std::vector<char>>(first, first + bytes);
  return enqueue(stream, [description, lane, copy, device] {
    if (launches_until_fault > 0 && --launches_until_fault == 0) return cudaErrorIllegalAddress;
    const OnDevice on_device(device);
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
    case cudaErrorIllegalAddress: return "cudaErrorIllegalAddress";
    case cudaErrorStreamCaptureIsolation: return "cudaErrorStreamCaptureIsolation";
  }
  return "unknown error";
}
const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last_error; }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = device_count;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= device_count) return failed(cudaErrorInvalidDevice);
  current_device = device;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= device_count) return failed(cudaErrorInvalidDevice);
  *properties = cudaDeviceProp{};
  std::snprintf(properties->name, sizeof properties->name, "Tandem emulator");
  properties->totalGlobalMem = device_bytes_total;
  properties->sharedMemPerBlock = 48 * 1024;
  properties->sharedMemPerBlockOptin = 163 * 1024;  // those of sm_80, the smallest that we build for
  properties->sharedMemPerMultiprocessor = 164 * 1024;
  properties->major = 8;
  properties->minor = 0;
  properties->multiProcessorCount = multiprocessors();
  properties->maxThreadsPerBlock = 1024;
  properties->maxThreadsPerMultiProcessor = 2048;
  properties->regsPerBlock = 65536;
  properties->warpSize = 32;
  properties->l2CacheSize = 40 << 20;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device < 0 || device >= device_count) return failed(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = multiprocessors(); return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor: *value = 8; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 163 * 1024; return cudaSuccess;
  }
  return failed(cudaErrorInvalidValue);
}
cudaError_t cudaDeviceSynchronize() {
  return failed(captures > 0 ? cudaErrorStreamCaptureUnsupported : run_all_of(current_device, false));
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *total = device_bytes_total;
  *free = device_bytes_total - device_memory(current_device).used();
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  if (unsafe_calls_are_refused()) return failed(cudaErrorStreamCaptureUnsupported);
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  *pointer = device_memory(current_device).allocate(bytes);
  if (*pointer == nullptr) return failed(cudaErrorMemoryAllocation);
  const OnDevice on_device(current_device);
  if (bytes <= (std::size_t(64) << 20)) std::memset(*pointer, 0xFF, bytes);  // whoever reads it unwritten gets NaN
  return cudaSuccess;
}
// Waits for what the device was given, which may use it.
cudaError_t cudaFree(void* pointer) {
  if (pointer == nullptr) return cudaSuccess;
  if (unsafe_calls_are_refused()) return failed(cudaErrorStreamCaptureUnsupported);
  for (int device = 0; device < device_count; ++device) {
    if (!device_memory(device).holds(pointer)) continue;
    if (const cudaError_t error = run_all_of(device, false); error != cudaSuccess) return failed(error);
    return device_memory(device).release(pointer) ? cudaSuccess : failed(cudaErrorInvalidValue);
  }
  return failed(cudaErrorInvalidValue);
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

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  const bool captured = stream != nullptr && stream->graph != nullptr;
  std::shared_ptr<std::vector<char>> staged;
  if (!captured && bytes > 0 && !is_on_a_device(from)) {  // memory of the host may be reused when the call returns
    const char* first = static_cast<const char*>(from);
    staged = std::make_shared<std::vector<char>>(first, first + bytes);
  }
  const cudaError_t error = enqueue(stream, [=] {
    const OnDevice on_device;
    if (bytes > 0) std::memmove(to, staged ? staged->data() : from, bytes);
    return cudaSuccess;
  });
  if (error != cudaSuccess || stream == nullptr || captured || is_on_a_device(to)) return error;
  return failed(run_until(*stream->queue, stream->queue->given));  // and to the host it has been copied
}
cudaError_t cudaMemset(void* to, int value, std::size_t bytes) { return cudaMemsetAsync(to, value, bytes, nullptr); }
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  if (device_of(stream) != current_device) return failed(cudaErrorInvalidResourceHandle);
  return enqueue(stream, [=] {
    const OnDevice on_device;
    if (bytes > 0) std::memset(to, value, bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  const std::lock_guard lock(mutex);
  *stream = new TandemEmulatorStream;
  (*stream)->device = current_device;
  (*stream)->blocking = flags != cudaStreamNonBlocking;
  streams().insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  const cudaError_t error = run_until(*stream->queue, stream->queue->given);
  streams().erase(stream);
  delete stream;
  return failed(error);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if ((stream != nullptr && stream->graph != nullptr) || (stream == nullptr && captures > 0)) {
    return failed(cudaErrorStreamCaptureUnsupported);
  }
  const std::lock_guard lock(mutex);
  return failed(stream != nullptr ? run_until(*stream->queue, stream->queue->given) : run_all_of(current_device, true));
}
cudaError_t cudaStreamQuery(cudaStream_t stream) { return cudaStreamSynchronize(stream); }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const std::lock_guard lock(mutex);
  if (stream != nullptr && event->graph != nullptr) {
    stream->graph = event->graph;  // a fork: it joins the capture
    return cudaSuccess;
  }
  if (stream != nullptr && stream->graph != nullptr) return failed(cudaErrorStreamCaptureIsolation);
  if (!event->queue) return cudaSuccess;
  return enqueue(stream, [queue = event->queue, position = event->position] { return run_until(*queue, position); });
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* argument) {
  return enqueue(stream, [=] {
    function(argument);
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = new TandemEmulatorEvent;
  (*event)->device = current_device;
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return cudaEventCreate(event); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  if (event->device != device_of(stream)) return failed(cudaErrorInvalidResourceHandle);
  event->graph = stream != nullptr ? stream->graph : nullptr;
  event->queue = nullptr;
  if (event->graph != nullptr) return cudaSuccess;
  const cudaError_t error = enqueue(stream, [time = event->time] {
    *time = std::chrono::steady_clock::now();
    return cudaSuccess;
  });
  if (stream != nullptr) event->queue = stream->queue, event->position = stream->queue->given;
  return error;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (event->graph != nullptr) return failed(cudaErrorStreamCaptureUnsupported);
  return event->queue ? failed(run_until(*event->queue, event->position)) : cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) { return cudaEventSynchronize(event); }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  *milliseconds = std::chrono::duration<float, std::milli>(*end->time - *start->time).count();
  return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, thread_mode);
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  const std::lock_guard lock(mutex);
  if (stream == nullptr) return failed(cudaErrorStreamCaptureUnsupported);
  if (stream->graph != nullptr) return failed(cudaErrorIllegalState);
  stream->graph = new TandemEmulatorGraph;
  stream->origin = true;
  stream->mode = mode;
  ++captures;
  strict_captures += mode != cudaStreamCaptureModeRelaxed;
  global_captures += mode == cudaStreamCaptureModeGlobal;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const std::lock_guard lock(mutex);
  if (stream == nullptr || stream->graph == nullptr) return failed(cudaErrorIllegalState);
  if (!stream->origin) return failed(cudaErrorStreamCaptureUnmatched);
  *graph = std::exchange(stream->graph, nullptr);
  stream->origin = false;
  --captures;
  strict_captures -= stream->mode != cudaStreamCaptureModeRelaxed;
  global_captures -= stream->mode == cudaStreamCaptureModeGlobal;
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = stream != nullptr && stream->graph != nullptr ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, std::size_t* count) {
  if (nodes != nullptr) return failed(cudaErrorInvalidValue);  // only counting is emulated
  *count = graph->operations->size();
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = new TandemEmulatorGraph(*graph);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  return enqueue(stream, [operations = executable->operations] {
    for (const auto& operation : *operations) {
      if (const cudaError_t error = operation(); error != cudaSuccess) return error;
    }
    return cudaSuccess;
  });
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
  dynamic_shared_limit[{kernel, current_device}] = value;
  return cudaSuccess;
}
