// The emulator itself: right kernels give right results, faulty ones are found out.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "cuda_runtime.h"
#include "kernels/cuda/tensor_core.cuh"
#include "tests/emulator/emulator.h"
#include "tests/emulator/error.h"

#define LAUNCH(kernel, grid, block, shared, stream, ...) \
  tandem_emulator::launch_kernel((kernel), (grid), (block), (shared), (stream)__VA_OPT__(, ) __VA_ARGS__)

using tandem_emulator::Order;

namespace {

constexpr unsigned all = 0xffffffffu;

struct AllOrders {
  template <class F> void operator()(F f) const {
    tandem_emulator::set_order(Order::forward);
    f();
    tandem_emulator::set_order(Order::reverse);
    f();
    for (int seed = 0; seed < 5; ++seed) {
      tandem_emulator::set_order(Order::random, std::uint64_t(seed));
      f();
    }
    tandem_emulator::set_order(Order::forward);
  }
};
constexpr AllOrders in_all_orders;

__global__ void add(float* z, const float* x, const float* y, int n) {
  for (int i = int(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += int(gridDim.x * blockDim.x)) z[i] = x[i] + y[i];
}

// Sums a block's values by shuffles and shared memory. `barrier` false leaves out what it needs to be right.
template <bool barrier> __global__ void block_sum(float* result, const float* x) {
  TANDEM_SHARED(float, partial, [32]);
  float value = x[blockIdx.x * blockDim.x + threadIdx.x];
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(all, value, offset);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  if (barrier) __syncthreads();
  if (threadIdx.x < 32) {
    value = threadIdx.x < blockDim.x / 32 ? partial[threadIdx.x] : 0.0f;
    for (int offset = 16; offset > 0; offset /= 2) value += __shfl_down_sync(all, value, unsigned(offset));
    if (threadIdx.x == 0) result[blockIdx.x] = value;
  }
}

__global__ void reverse(int* x) {
  TANDEM_DYNAMIC_SHARED(int, buffer);
  buffer[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = buffer[blockDim.x - 1 - threadIdx.x];
}

__global__ void read_unwritten(float* result) {
  TANDEM_SHARED(float, never, [4]);
  if (threadIdx.x == 1) never[0] = 1.0f;
  __syncthreads();
  *result = never[2];
}

__global__ void divergent_barrier() {
  if (threadIdx.x < 16) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void half_warp_shuffle(int* x) {
  if (threadIdx.x < 16) *x = __shfl_sync(all, 1, 0);
  __syncthreads();
}

__global__ void outside_its_mask() { __syncwarp(1u << ((threadIdx.x + 1) % 32)); }

__global__ void shuffles(int* out, int width) {
  const int lane = int(threadIdx.x);
  out[0 * 32 + lane] = __shfl_sync(all, lane, 3, width);
  out[1 * 32 + lane] = __shfl_up_sync(all, lane, 2u, width);
  out[2 * 32 + lane] = __shfl_down_sync(all, lane, 2u, width);
  out[3 * 32 + lane] = __shfl_xor_sync(all, lane, 4, width);
}

__global__ void votes(unsigned* out) {
  const unsigned lane = threadIdx.x;
  const unsigned odd = __ballot_sync(all, lane & 1);
  const int any = __any_sync(all, lane == 7), every = __all_sync(all, lane < 31);
  const unsigned total = __reduce_add_sync(all, lane), highest = __reduce_max_sync(all, lane);
  unsigned part = 0;
  if (lane < 8) part = __reduce_add_sync(0xffu, 1u);
  const int count = __syncthreads_count(lane < 5), together = __syncthreads_and(1), or_none = __syncthreads_or(0);
  if (lane == 0) {
    const unsigned values[] = {odd,
                               unsigned(any),
                               unsigned(every),
                               total,
                               highest,
                               part,
                               unsigned(count),
                               unsigned(together),
                               unsigned(or_none)};
    for (unsigned i = 0; i < 9; ++i) out[i] = values[i];
  }
}

__global__ void early_exit(int* out, int n) {
  if (int(threadIdx.x) >= n) return;
  __syncthreads();
  atomicAdd(out, 1);
}

__global__ void past_the_end() {
  TANDEM_DYNAMIC_SHARED(char, bytes);
  bytes[64] = 1;
}

template <class F> std::string error_of(F f) {
  try {
    f();
  } catch (const tandem_emulator::Error& error) { return error.what(); }
  return "";
}

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("emulator: a grid-stride loop covers every element in any order") {
  std::vector<float> x(1000), y(1000), z(1000);
  for (int i = 0; i < 1000; ++i) x[size_t(i)] = float(i), y[size_t(i)] = float(2 * i);
  in_all_orders([&] {
    std::fill(z.begin(), z.end(), 0.0f);
    REQUIRE(LAUNCH(add, dim3(3), dim3(64), 0, nullptr, z.data(), x.data(), y.data(), 1000) == cudaSuccess);
    for (int i = 0; i < 1000; ++i) CHECK(z[size_t(i)] == float(3 * i));
  });
}

TEST_CASE("emulator: shuffles and barriers sum a block, whatever the order of lanes") {
  std::vector<float> x(512), result(2);
  for (int i = 0; i < 512; ++i) x[size_t(i)] = float(i);
  in_all_orders([&] {
    LAUNCH(block_sum<true>, dim3(2), dim3(256), 0, nullptr, result.data(), x.data());
    CHECK(result[0] == 255.0f * 128);
    CHECK(result[1] == 255.0f * 128 + 256 * 256);
  });
}

TEST_CASE("emulator: a missing __syncthreads shows") {
  std::vector<float> x(256, 1.0f), result(1);
  in_all_orders([&] {
    LAUNCH(block_sum<false>, dim3(1), dim3(256), 0, nullptr, result.data(), x.data());
    if (tandem_emulator::order() != Order::random) CHECK(std::isnan(result[0]));  // read before it was written
  });
}

TEST_CASE("emulator: dynamic shared memory") {
  in_all_orders([] {
    std::vector<int> x(100);
    for (int i = 0; i < 100; ++i) x[size_t(i)] = i;
    LAUNCH(reverse, dim3(1), dim3(100), 400, nullptr, x.data());
    for (int i = 0; i < 100; ++i) CHECK(x[size_t(i)] == 99 - i);
  });
  CHECK(
      contains(error_of([] { LAUNCH(past_the_end, dim3(1), dim3(1), 64, nullptr); }), "past the end of its 64 bytes"));
}

TEST_CASE("emulator: shared memory holds NaN at the start of each block") {
  float result = 0;
  LAUNCH(read_unwritten, dim3(1), dim3(2), 0, nullptr, &result);
  CHECK(std::isnan(result));
}

TEST_CASE("emulator: barriers and collectives that lanes don't share are errors that say where") {
  const std::string barrier = error_of([] { LAUNCH(divergent_barrier, dim3(1), dim3(32), 0, nullptr); });
  CHECK(contains(barrier, "different barriers"));
  CHECK(contains(barrier, "emulator_test.cpp:"));
  int value = 0;
  const std::string shuffle = error_of([&] { LAUNCH(half_warp_shuffle, dim3(1), dim3(32), 0, nullptr, &value); });
  CHECK(contains(shuffle, "deadlock"));
  CHECK(contains(shuffle, "16 at the barrier at"));
  CHECK(contains(shuffle, "16 at the warp collective at"));
  CHECK(contains(error_of([] { LAUNCH(outside_its_mask, dim3(1), dim3(32), 0, nullptr); }), "leaves it out"));
  // And the emulator is whole afterwards.
  std::vector<float> x(256, 1.0f), result(1);
  LAUNCH(block_sum<true>, dim3(1), dim3(256), 0, nullptr, result.data(), x.data());
  CHECK(result[0] == 256.0f);
}

TEST_CASE("emulator: the four shuffles, whole warps and segments of eight") {
  in_all_orders([] {
    for (int width : {32, 8}) {
      std::vector<int> out(128);
      LAUNCH(shuffles, dim3(1), dim3(32), 0, nullptr, out.data(), width);
      for (int lane = 0; lane < 32; ++lane) {
        const int base = lane / width * width;
        CHECK(out[size_t(lane)] == base + 3);
        CHECK(out[size_t(32 + lane)] == (lane - 2 >= base ? lane - 2 : lane));
        CHECK(out[size_t(64 + lane)] == (lane + 2 < base + width ? lane + 2 : lane));
        CHECK(out[size_t(96 + lane)] == (lane ^ 4));
      }
    }
  });
}

TEST_CASE("emulator: votes, warp reductions, and barriers that count") {
  in_all_orders([] {
    unsigned out[9] = {};
    LAUNCH(votes, dim3(1), dim3(32), 0, nullptr, out);
    const unsigned expected[] = {0xaaaaaaaau, 1, 0, 496, 31, 8, 5, 1, 0};
    for (int i = 0; i < 9; ++i) CHECK(out[i] == expected[i]);
  });
}

TEST_CASE("emulator: lanes that have ended don't hold a barrier up") {
  in_all_orders([] {
    int count = 0;
    LAUNCH(early_exit, dim3(1), dim3(96), 0, nullptr, &count, 40);
    CHECK(count == 40);
  });
}

TEST_CASE("emulator: float16 and bfloat16 conversions round trip and round to nearest even") {
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const auto h = __ushort_as_half(static_cast<unsigned short>(bits));
    const auto b = __ushort_as_bfloat16(static_cast<unsigned short>(bits));
    if (!std::isnan(float(h))) CHECK(__float2half(float(h)).bits == bits);
    if (!std::isnan(float(b))) CHECK(__float2bfloat16(float(b)).bits == bits);
  }
  CHECK(float(__float2half(2049.0f)) == 2048.0f);
  CHECK(float(__float2half(2051.0f)) == 2052.0f);
  CHECK(std::isinf(float(__float2half(65520.0f))));
  CHECK(float(__float2half(65519.0f)) == 65504.0f);
  CHECK(float(__float2half(2.9802322e-8f)) == 0.0f);  // half of the least subnormal: a tie, to even
  CHECK(std::isnan(float(__float2half(NAN))));
  CHECK(std::isnan(float(__float2bfloat16(NAN))));
}

TEST_CASE("emulator: the fast 2^x has no denormal results, and pairs are packed low half first") {
  using namespace tandem::gpu;
  CHECK(exp2_fast(-3.0f) == 0.125f);
  CHECK(exp2_fast(-126.0f) == 0x1p-126f);
  CHECK(exp2_fast(-127.0f) == 0.0f);
  CHECK(exp2_fast(-INFINITY) == 0.0f);
  CHECK(std::isinf(exp2_fast(128.0f)));
  CHECK(std::isnan(exp2_fast(NAN)));
  CHECK(pack_halves<__half>(1.0f, -2.0f) == 0xc0003c00u);
  CHECK(pack_halves<__nv_bfloat16>(1.0f, -2.0f) == 0xc0003f80u);
}

TEST_CASE("runtime: configurations that a device refuses are refused") {
  CHECK(LAUNCH(divergent_barrier, dim3(0), dim3(32), 0, nullptr) == cudaErrorInvalidConfiguration);
  CHECK(LAUNCH(divergent_barrier, dim3(1), dim3(1025), 0, nullptr) == cudaErrorInvalidConfiguration);
  CHECK(LAUNCH(divergent_barrier, dim3(1, 65536), dim3(32), 0, nullptr) == cudaErrorInvalidConfiguration);
  CHECK(LAUNCH(past_the_end, dim3(1), dim3(1), 64 * 1024, nullptr) == cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(cudaFuncSetAttribute(reverse, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 * 1024) == cudaSuccess);
  std::vector<int> x(4);
  CHECK(LAUNCH(reverse, dim3(1), dim3(4), 64 * 1024, nullptr, x.data()) == cudaSuccess);
}

TEST_CASE("runtime: memory starts as NaN, copies and sets work, foreign pointers are refused") {
  float* memory = nullptr;
  REQUIRE(cudaMalloc(&memory, 16) == cudaSuccess);
  float back[4] = {};
  CHECK(cudaMemcpy(back, memory, 16, cudaMemcpyDeviceToHost) == cudaSuccess);
  CHECK(std::isnan(back[3]));
  const float values[4] = {1, 2, 3, 4};
  CHECK(cudaMemcpy(memory, values, 16, cudaMemcpyHostToDevice) == cudaSuccess);
  CHECK(cudaMemset(memory, 0, 4) == cudaSuccess);
  CHECK(cudaMemcpy(back, memory, 16, cudaMemcpyDeviceToHost) == cudaSuccess);
  CHECK(back[0] == 0.0f);
  CHECK(back[3] == 4.0f);
  CHECK(cudaFree(back) == cudaErrorInvalidValue);
  CHECK(cudaFree(memory) == cudaSuccess);
  cudaGetLastError();
}

TEST_CASE("runtime: a captured graph runs nothing until it is launched, then all of it, in order") {
  cudaStream_t stream = nullptr;
  REQUIRE(cudaStreamCreate(&stream) == cudaSuccess);
  std::vector<float> x(64, 1.0f), y(64, 2.0f), z(64, 0.0f);
  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  LAUNCH(add, dim3(1), dim3(64), 0, stream, z.data(), x.data(), y.data(), 64);
  CHECK(cudaMemcpyAsync(x.data(), z.data(), 256, cudaMemcpyDeviceToDevice, stream) == cudaSuccess);
  void* refused = nullptr;
  CHECK(cudaMalloc(&refused, 16) == cudaErrorStreamCaptureUnsupported);
  CHECK(cudaStreamSynchronize(stream) == cudaErrorStreamCaptureUnsupported);
  CHECK(LAUNCH(add, dim3(1), dim3(64), 0, nullptr, z.data(), x.data(), y.data(), 64) ==
        cudaErrorStreamCaptureUnsupported);
  cudaGraph_t graph = nullptr;
  REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  CHECK(z[0] == 0.0f);
  cudaGraphExec_t executable = nullptr;
  REQUIRE(cudaGraphInstantiate(&executable, graph) == cudaSuccess);
  cudaGraphDestroy(graph);
  CHECK(cudaGraphLaunch(executable, stream) == cudaSuccess);
  CHECK(cudaGraphLaunch(executable, stream) == cudaSuccess);
  CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
  CHECK(z[63] == 5.0f);
  cudaGraphExecDestroy(executable);
  cudaStreamDestroy(stream);
}

namespace {

struct Streams {
  Streams() {
    for (int device = 0; device < 2; ++device) {
      cudaSetDevice(device);
      cudaStreamCreateWithFlags(&at[device], cudaStreamNonBlocking);
      cudaStreamCreateWithFlags(&other[device], cudaStreamNonBlocking);
      cudaMalloc(&memory[device], bytes);
    }
    cudaSetDevice(0);
  }
  ~Streams() {
    for (int device = 0; device < 2; ++device) {
      cudaStreamDestroy(at[device]);
      cudaStreamDestroy(other[device]);
      cudaFree(memory[device]);
    }
    cudaSetDevice(0);
  }
  std::vector<float> read(cudaStream_t stream, const float* from) const {
    std::vector<float> result(16);
    CHECK(cudaMemcpyAsync(result.data(), from, bytes, cudaMemcpyDefault, stream) == cudaSuccess);
    return result;
  }
  static constexpr std::size_t bytes = 16 * sizeof(float);
  cudaStream_t at[2] = {}, other[2] = {};
  float* memory[2] = {};
};

}  // namespace

TEST_CASE("runtime: a stream does its work when it is waited for: another that doesn't wait reads what was there") {
  const Streams streams;
  float* const memory = streams.memory[0];
  std::vector<float> ones(16, 1.0f), threes(16, 3.0f);
  CHECK(cudaMemcpyAsync(memory, ones.data(), streams.bytes, cudaMemcpyDefault, streams.at[0]) == cudaSuccess);
  std::fill(ones.begin(), ones.end(), 7.0f);  // the host's memory has been read
  CHECK(std::isnan(streams.read(streams.other[0], memory)[3]));
  cudaEvent_t event = nullptr;
  REQUIRE(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
  CHECK(cudaEventRecord(event, streams.at[0]) == cudaSuccess);
  CHECK(cudaMemcpyAsync(memory, threes.data(), streams.bytes, cudaMemcpyDefault, streams.at[0]) == cudaSuccess);
  CHECK(cudaStreamWaitEvent(streams.other[0], event) == cudaSuccess);
  cudaEventDestroy(event);
  CHECK(streams.read(streams.other[0], memory)[3] == 1.0f);  // what came before the event, and no more
  CHECK(cudaStreamSynchronize(streams.at[0]) == cudaSuccess);
  CHECK(streams.read(streams.other[0], memory)[3] == 3.0f);
}

TEST_CASE("runtime: two devices, each with its streams, memory and what its kernels may do") {
  const Streams streams;
  CHECK(cudaSetDevice(2) == cudaErrorInvalidDevice);
  CHECK(cudaFuncSetAttribute(outside_its_mask, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 * 1024) == cudaSuccess);
  CHECK(cudaFuncSetAttribute(reverse, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 * 1024) == cudaSuccess);
  int* const there = reinterpret_cast<int*>(streams.memory[1]);
  CHECK(LAUNCH(reverse, dim3(1), dim3(4), 16, streams.at[1], there) == cudaErrorInvalidResourceHandle);
  cudaSetDevice(1);
  CHECK(LAUNCH(reverse, dim3(1), dim3(4), 64 * 1024, streams.at[1], there) == cudaErrorInvalidValue);
  const int values[4] = {1, 2, 3, 4};
  int back[4] = {};
  CHECK(cudaMemcpyAsync(there, values, 16, cudaMemcpyDefault, streams.at[1]) == cudaSuccess);
  CHECK(LAUNCH(reverse, dim3(1), dim3(4), 16, streams.at[1], there) == cudaSuccess);
  // A copy may be given to either device, and is in order with its stream alone.
  CHECK(cudaMemcpyAsync(streams.memory[0], there, 16, cudaMemcpyDefault, streams.at[1]) == cudaSuccess);
  CHECK(cudaMemcpyAsync(back, streams.memory[0], 16, cudaMemcpyDefault, streams.at[1]) == cudaSuccess);
  CHECK(back[0] == 4);
  cudaEvent_t event = nullptr;
  REQUIRE(cudaEventCreate(&event) == cudaSuccess);
  CHECK(cudaEventRecord(event, streams.at[0]) == cudaErrorInvalidResourceHandle);
  cudaEventDestroy(event);
  cudaGetLastError();
}

TEST_CASE("runtime: a capture refuses what it can't hold, to whom its mode says") {
  const Streams streams;
  const auto refused = [] {
    void* memory = nullptr;
    const cudaError_t error = cudaMalloc(&memory, 16);
    if (error == cudaSuccess) CHECK(cudaFree(memory) == cudaSuccess);
    cudaGetLastError();
    return error == cudaErrorStreamCaptureUnsupported;
  };
  for (const auto mode :
       {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed}) {
    REQUIRE(cudaStreamBeginCapture(streams.at[0], mode) == cudaSuccess);
    CHECK(refused() == (mode != cudaStreamCaptureModeRelaxed));
    bool elsewhere = false;
    std::thread([&] { elsewhere = refused(); }).join();
    CHECK(elsewhere == (mode == cudaStreamCaptureModeGlobal));
    cudaStreamCaptureMode relaxed = cudaStreamCaptureModeRelaxed;
    cudaThreadExchangeStreamCaptureMode(&relaxed);
    CHECK_FALSE(refused());
    cudaThreadExchangeStreamCaptureMode(&relaxed);
    CHECK(refused() == (mode != cudaStreamCaptureModeRelaxed));
    cudaGraph_t graph = nullptr;
    REQUIRE(cudaStreamEndCapture(streams.at[0], &graph) == cudaSuccess);
    cudaGraphDestroy(graph);
  }
}

TEST_CASE("runtime: a launch that goes wrong is told of when it is waited for, once") {
  const Streams streams;
  tandem_emulator::fail_launch(2);
  int* const memory = reinterpret_cast<int*>(streams.memory[0]);
  for (int i = 0; i < 3; ++i) CHECK(LAUNCH(reverse, dim3(1), dim3(4), 16, streams.at[0], memory) == cudaSuccess);
  CHECK(cudaStreamSynchronize(streams.at[0]) == cudaErrorIllegalAddress);
  CHECK(cudaStreamSynchronize(streams.at[0]) == cudaSuccess);
  cudaGetLastError();
}
