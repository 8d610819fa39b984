// The CUDA device behind the engine: memory, streams, copies, and which devices there are.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

#include "kernels/cuda/capture.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/range_notes.h"

namespace tandem {
namespace gpu {
namespace {

// CUDA's current device is a property of the thread; switching costs, so it is remembered.
thread_local int current_device = -1;
void use(Device device) {
  if (current_device == device.index) return;
  check(cudaSetDevice(device.index), "cudaSetDevice");
  current_device = device.index;
}

cudaStream_t make_stream() {
  cudaStream_t made = nullptr;
  check(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "making a stream");
  return made;
}

// All threads' work on a device goes to its one stream, so it runs in the order in which it was queued, and memory that is let go
// may be used again at once, whoever does. A recording has a stream of its own: what others launch meanwhile is no part of it.
struct DeviceState {
  cudaStream_t stream = nullptr;
  int multiprocessors = 0;
  std::mutex mutex;
  std::vector<cudaStream_t> for_recordings;  // not in use; never destroyed, as libraries' handles may name them
};

// Streams and properties, made when a device is first used. Never destroyed: tensors in static storage may
// outlive everything else, and the driver frees what is left.
DeviceState& state_of(int index) {
  static std::mutex mutex;
  static auto* const states = new std::vector<DeviceState*>;
  thread_local DeviceState* cached[16] = {};
  if (index < 16 && cached[index]) return *cached[index];
  const std::lock_guard lock(mutex);
  if (states->size() <= size_t(index)) states->resize(size_t(index) + 1);
  DeviceState*& state = (*states)[size_t(index)];
  if (!state) {
    use({DeviceKind::cuda, static_cast<uint8_t>(index)});
    auto* made = new DeviceState;
    made->stream = make_stream();
    check(cudaDeviceGetAttribute(&made->multiprocessors, cudaDevAttrMultiProcessorCount, index),
          "reading device properties");
    make_range_checks({DeviceKind::cuda, static_cast<uint8_t>(index)});
    state = made;
  }
  if (index < 16) cached[index] = state;
  return *state;
}

std::string no_device_reason;

int device_count() {
  static const int count = [] {
    int devices = 0;
    const cudaError_t error = cudaGetDeviceCount(&devices);
    if (error == cudaSuccess && devices > 0) return devices;
    (void)cudaGetLastError();
    no_device_reason =
        error == cudaErrorInsufficientDriver ? "the NVIDIA driver is missing, or older than this build's CUDA"
        : error == cudaErrorNoDevice || error == cudaSuccess ? "the driver finds no GPU"
                                                             : std::string("CUDA says: ") + cudaGetErrorString(error);
    backend(DeviceKind::cuda).unavailable = no_device_reason.c_str();
    return 0;
  }();
  return count;
}

// While one exists, this thread may ask the driver for memory, or give it back, also during a recording: neither is part of it.
class BesideRecording {
 public:
  BesideRecording() { (void)cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~BesideRecording() { (void)cudaThreadExchangeStreamCaptureMode(&mode_); }
  BesideRecording(const BesideRecording&) = delete;
  BesideRecording& operator=(const BesideRecording&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

void* allocate(Device device, size_t bytes) {
  use(device);
  const BesideRecording beside;
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, bytes);
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();  // it is no error of the next launch
    return nullptr;
  }
  check(error, "cudaMalloc");
  return data;
}

/// Raises nothing, as destructors call it: an error of the device is told at the next call.
void release(Device device, void* data, size_t) {
  use(device);
  const BesideRecording beside;
  (void)cudaStreamSynchronize(state_of(device.index).stream);  // kernels that still use it
  (void)cudaFree(data);
}

void refuse_in_recording(const char* what) {
  if (Capture::recording())
    throw KernelError(detail::str(what, ", which a recording of the device's work can't hold"), Where());
}

// What `stream`, of that device, is given from now on runs after all that the other device has been given.
void wait_for(Device other, cudaStream_t stream, Device device) {
  const cudaStream_t first = state_of(other.index).stream;
  use(other);
  cudaEvent_t reached = nullptr;
  check(cudaEventCreateWithFlags(&reached, cudaEventDisableTiming), "making an event");
  cudaError_t error = cudaEventRecord(reached, first);
  use(device);
  if (error == cudaSuccess) error = cudaStreamWaitEvent(stream, reached);
  (void)cudaEventDestroy(reached);
  check(error, "waiting for another device");
}

void copy(void* to, Device to_device, const void* from, Device from_device, size_t bytes) {
  if (bytes == 0) return;
  const bool on_one = to_device == from_device, between = !on_one && to_device.is_cuda() && from_device.is_cuda();
  if (!on_one) refuse_in_recording("a copy between devices");
  const Device device = from_device.is_cuda() ? from_device : to_device;
  const cudaStream_t stream = stream_of(device);
  if (between) wait_for(to_device, stream, device);  // which may still use the memory that is written to
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream), "copy between devices");
  // Pageable host memory has been read when the call returns; what is written to the host has to be waited for,
  // and so has what another device's stream will read.
  if (to_device.is_cpu() || between) {
    check(cudaStreamSynchronize(stream), "copy between devices");
    raise_noted(device);
  }
}

void synchronize(Device device) {
  refuse_in_recording("waiting for the device");
  check(cudaStreamSynchronize(stream_of(device)), "synchronize");
  raise_noted(device);
}

void* stream(Device device) { return stream_of(device); }

}  // namespace

namespace {
std::atomic<bool>& waits_for_each() {
  static std::atomic<bool> waits = [] {
    const char* wish = std::getenv("TANDEM_CUDA_SYNC");
    return wish && std::string_view(wish) == "1";
  }();
  return waits;
}
}  // namespace
bool synchronous() { return waits_for_each(); }
void set_synchronous(bool each_launch) { waits_for_each() = each_launch; }

void raise(cudaError_t error, const char* what) {
  (void)cudaGetLastError();  // it is no error of the next launch
  // What a kernel does wrong while it runs (illegal addresses and instructions, …) is told of at any later call.
  const bool earlier = !synchronous() && (error == cudaErrorIllegalAddress || (int(error) >= 710 && int(error) < 720));
  throw KernelError(
      detail::str("CUDA: ", what, ": ", cudaGetErrorString(error), " (", cudaGetErrorName(error), ")",
                  earlier ? ". A kernel that was launched before may have done it: with TANDEM_CUDA_SYNC=1 in "
                            "the environment the error names it, its op and the line"
                          : ""),
      Where());
}

void check_launch(cudaError_t error, const char* what, cudaStream_t stream) {
  check(error, what);
  if (synchronous() && !Capture::recording()) check(cudaStreamSynchronize(stream), what);
}

void allow_shared(const void* kernel, int bytes) {
  thread_local std::map<std::pair<const void*, int>, int> allowed;  // on each device
  TANDEM_ASSERT(current_device >= 0, "no device is in use");
  int& most = allowed[{kernel, current_device}];
  if (most >= bytes) return;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "shared memory of a kernel");
  most = bytes;
}

unsigned blocks_for(int64_t items, int threads) {
  const int index = current_device < 0 ? 0 : current_device;
  // 2048 threads are resident on a multiprocessor; eight times that, so that the last wave weighs little.
  const int64_t fill = int64_t(state_of(index).multiprocessors) * (2048 / threads) * 8;
  return unsigned(std::max(int64_t(1), std::min(ceil_divide(items, int64_t(threads)), fill)));
}

int64_t multiprocessors() { return state_of(current_device < 0 ? 0 : current_device).multiprocessors; }

Library& chosen_library() {
  static Library chosen = [] {
    const char* wish = std::getenv("TANDEM_MATMUL");
    return wish && std::string_view(wish) == "own" ? Library::own : Library::vendor;
  }();
  return chosen;
}
Library library() { return chosen_library(); }
void set_library(Library which) { chosen_library() = which; }

// --- workspaces and captures ---------------------------------------------------------------------------------

struct Capture::State {
  Device device;
  cudaStream_t stream = nullptr;  // while it is recorded
  // Memory of workspaces. What is recorded runs in order, so a later kernel may use an earlier one's.
  std::vector<Storage*> owned, free;
  std::vector<std::shared_ptr<void>> things;
  cudaGraphExec_t graph = nullptr;
  size_t nodes = 0;

  Storage* take(size_t bytes) {
    auto best = free.end();
    for (auto each = free.begin(); each != free.end(); ++each)
      if ((*each)->bytes >= bytes && (best == free.end() || (*each)->bytes < (*best)->bytes)) best = each;
    if (best != free.end()) {
      Storage* const found = *best;
      free.erase(best);
      return found;
    }
    owned.reserve(owned.size() + 1);
    free.reserve(owned.size() + 1);  // so that giving back never allocates
    // Powers of two, so that workspaces which grow from kernel to kernel are at most twice the largest together.
    owned.push_back(Storage::allocate(std::bit_ceil(bytes), device));
    return owned.back();
  }
};
namespace {
thread_local Capture::State* under_way = nullptr;
}  // namespace

cudaStream_t stream_of(Device device) {
  use(device);
  if (!under_way) return state_of(device.index).stream;
  if (under_way->device != device)
    throw KernelError(detail::str("a recording of ", under_way->device, " can't hold what runs on ", device), Where());
  return under_way->stream;
}

Workspace::Workspace(size_t bytes, Device device) {
  if (bytes > 0) storage_ = under_way ? under_way->take(bytes) : Storage::allocate(bytes, device);
}
Workspace::~Workspace() {
  if (!storage_) return;
  if (under_way) under_way->free.push_back(storage_);
  else storage_->release();
}

Capture::Capture(Device device) : state_(new State) { state_->device = device; }

Capture::~Capture() {
  if (state_->graph) (void)cudaGraphExecDestroy(state_->graph);
  for (Storage* storage : state_->owned) storage->release();
}

void Capture::begin() {
  TANDEM_ASSERT(!state_->graph && !under_way, "a capture begins twice");
  use(state_->device);
  DeviceState& device = state_of(state_->device.index);
  {
    const std::lock_guard lock(device.mutex);
    if (device.for_recordings.empty()) device.for_recordings.push_back(make_stream());
    state_->stream = device.for_recordings.back();
    device.for_recordings.pop_back();
  }
  // Other threads may do what they like meanwhile, on the device's stream.
  const cudaError_t error = cudaStreamBeginCapture(state_->stream, cudaStreamCaptureModeThreadLocal);
  if (error != cudaSuccess) give_back();
  check(error, "beginning a capture");
  under_way = state_.get();
}

void Capture::give_back() {
  DeviceState& device = state_of(state_->device.index);
  const std::lock_guard lock(device.mutex);
  device.for_recordings.push_back(std::exchange(state_->stream, nullptr));
}

void Capture::end() {
  under_way = nullptr;
  cudaGraph_t graph = nullptr;
  cudaError_t error = cudaStreamEndCapture(state_->stream, &graph);
  give_back();
  check(error, "ending a capture");
  (void)cudaGraphGetNodes(graph, nullptr, &state_->nodes);
  error = cudaGraphInstantiate(&state_->graph, graph, 0);
  (void)cudaGraphDestroy(graph);
  check(error, "instantiating a captured graph");
}

void Capture::abandon() {
  under_way = nullptr;
  cudaGraph_t graph = nullptr;
  (void)cudaStreamEndCapture(state_->stream, &graph);
  give_back();
  if (graph) (void)cudaGraphDestroy(graph);
  (void)cudaGetLastError();
}

void Capture::launch() {
  TANDEM_ASSERT(state_->graph, "nothing has been captured");
  const cudaStream_t stream = stream_of(state_->device);
  check_launch(cudaGraphLaunch(state_->graph, stream), "launching a captured graph", stream);
}

size_t Capture::nodes() const { return state_->nodes; }

size_t Capture::workspace_bytes() const {
  size_t bytes = 0;
  for (const Storage* storage : state_->owned) bytes += storage->bytes;
  return bytes;
}

bool Capture::recording() { return under_way != nullptr; }
void Capture::keep(std::shared_ptr<void> thing) { under_way->things.push_back(std::move(thing)); }

}  // namespace gpu

void add_cuda_families(Kernels kernels);  // those that have a file here: cmake/library.cmake makes the list
void add_cuda_on_host(Kernels kernels);   // host.cu

void install_cuda_kernels(OpTable& table) {
  add_cuda_families({table, DeviceKind::cuda});
  add_cuda_on_host({table, DeviceKind::cuda});
  Backend& cuda = backend(DeviceKind::cuda);
  cuda.device_count = gpu::device_count;
  cuda.allocate = gpu::allocate;
  cuda.release = gpu::release;
  cuda.copy = gpu::copy;
  cuda.synchronize = gpu::synchronize;
  cuda.stream = gpu::stream;
  cuda.unavailable = nullptr;
}

}  // namespace tandem
