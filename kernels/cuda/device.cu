// The CUDA device behind the engine: memory, streams, copies, and which devices there are.
#include <atomic>
#include <cstdlib>
#include <mutex>
#include <vector>

#include "kernels/cuda/capture.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/range_notes.h"

namespace tandem {
namespace gpu {
namespace {

struct DeviceState {
  cudaStream_t stream = nullptr;
  int multiprocessors = 0;
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
    check(cudaSetDevice(index), "cudaSetDevice");
    auto* made = new DeviceState;
    check(cudaStreamCreateWithFlags(&made->stream, cudaStreamNonBlocking), "making a stream");
    check(cudaDeviceGetAttribute(&made->multiprocessors, cudaDevAttrMultiProcessorCount, index),
          "reading device properties");
    make_range_checks({DeviceKind::cuda, static_cast<uint8_t>(index)});
    state = made;
  }
  if (index < 16) cached[index] = state;
  return *state;
}

// CUDA's current device is a property of the thread; switching costs, so it is remembered.
thread_local int current_device = -1;
void use(Device device) {
  if (current_device == device.index) return;
  check(cudaSetDevice(device.index), "cudaSetDevice");
  current_device = device.index;
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

void* allocate(Device device, size_t bytes) {
  use(device);
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, bytes);
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();  // it is no error of the next launch
    return nullptr;
  }
  check(error, "cudaMalloc");
  return data;
}

void release(Device device, void* data, size_t) {
  use(device);
  check(cudaStreamSynchronize(state_of(device.index).stream), "cudaFree");  // kernels that still use it
  check(cudaFree(data), "cudaFree");
}

void copy(void* to, Device to_device, const void* from, Device from_device, size_t bytes) {
  if (bytes == 0) return;
  const Device device = from_device.is_cuda() ? from_device : to_device;
  use(device);
  const cudaStream_t stream = state_of(device.index).stream;
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream), "copy between devices");
  // Pageable host memory has been read when the call returns; what is written to the host has to be waited for,
  // and so has what another device's stream will read.
  if (to_device.is_cpu() || (from_device.is_cuda() && from_device != to_device)) {
    check(cudaStreamSynchronize(stream), "copy between devices");
    raise_noted(device);
  }
}

void synchronize(Device device) {
  use(device);
  check(cudaStreamSynchronize(state_of(device.index).stream), "synchronize");
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

cudaStream_t stream_of(Device device) {
  use(device);
  return state_of(device.index).stream;
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
  std::vector<Storage*> kept;
  std::vector<std::shared_ptr<void>> things;
  cudaGraphExec_t graph = nullptr;
  size_t nodes = 0;
};
namespace {
thread_local std::vector<Storage*>* kept_by_capture = nullptr;
thread_local std::vector<std::shared_ptr<void>>* things_of_capture = nullptr;
}  // namespace

Workspace::Workspace(size_t bytes, Device device) : storage_(bytes > 0 ? Storage::allocate(bytes, device) : nullptr) {}
Workspace::~Workspace() {
  if (!storage_) return;
  if (kept_by_capture) kept_by_capture->push_back(storage_);
  else storage_->release();
}

Capture::Capture(Device device) : state_(new State{device, {}, {}, nullptr, 0}) {}

Capture::~Capture() {
  if (state_->graph) (void)cudaGraphExecDestroy(state_->graph);
  for (Storage* storage : state_->kept) storage->release();
}

void Capture::begin() {
  TANDEM_ASSERT(!state_->graph && !kept_by_capture, "a capture begins twice");
  kept_by_capture = &state_->kept;
  things_of_capture = &state_->things;
  // Relaxed: the allocator may still ask the driver for memory meanwhile, which is no part of the graph.
  check(cudaStreamBeginCapture(stream_of(state_->device), cudaStreamCaptureModeRelaxed), "beginning a capture");
}

void Capture::end() {
  kept_by_capture = nullptr;
  things_of_capture = nullptr;
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(stream_of(state_->device), &graph), "ending a capture");
  (void)cudaGraphGetNodes(graph, nullptr, &state_->nodes);
  const cudaError_t error = cudaGraphInstantiate(&state_->graph, graph, 0);
  (void)cudaGraphDestroy(graph);
  check(error, "instantiating a captured graph");
}

void Capture::abandon() {
  kept_by_capture = nullptr;
  things_of_capture = nullptr;
  cudaGraph_t graph = nullptr;
  (void)cudaStreamEndCapture(stream_of(state_->device), &graph);
  if (graph) (void)cudaGraphDestroy(graph);
  (void)cudaGetLastError();
}

void Capture::launch() {
  TANDEM_ASSERT(state_->graph, "nothing has been captured");
  check(cudaGraphLaunch(state_->graph, stream_of(state_->device)), "launching a captured graph");
}

size_t Capture::nodes() const { return state_->nodes; }

bool Capture::recording() { return kept_by_capture != nullptr; }
void Capture::keep(std::shared_ptr<void> thing) { things_of_capture->push_back(std::move(thing)); }

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
