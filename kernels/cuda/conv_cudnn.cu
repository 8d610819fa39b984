// Convolution by cuDNN, where the build has it. Descriptors and the chosen algorithm of a problem are kept.
#include "kernels/cuda/conv.h"

#ifndef TANDEM_WITH_CUDNN

namespace tandem::gpu {
bool library_conv(const ConvProblem&) { return false; }
}  // namespace tandem::gpu

#else

#include <cudnn.h>

#include <array>
#include <map>
#include <mutex>

namespace tandem::gpu {
namespace {

constexpr size_t most_workspace = size_t(256) << 20;

void check_dnn(cudnnStatus_t status, const char* what) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  throw KernelError(detail::str("cuDNN: ", what, ": ", cudnnGetErrorString(status)), Where());
}

struct Plan {
  cudnnTensorDescriptor_t x = nullptr, y = nullptr, bias = nullptr;
  cudnnFilterDescriptor_t w = nullptr;
  cudnnConvolutionDescriptor_t conv = nullptr;
  int algorithm = 0;
  size_t workspace = 0;
  bool found = false;
};

cudnnDataType_t data_type(DType type) {
  switch (type) {
    case DType::float64: return CUDNN_DATA_DOUBLE;
    case DType::float16: return CUDNN_DATA_HALF;
    case DType::bfloat16: return CUDNN_DATA_BFLOAT16;
    default: return CUDNN_DATA_FLOAT;
  }
}

bool fits_int(const Shape& s) {
  for (int64_t v : s)
    if (v > 0x7fffffff) return false;
  return true;
}

cudnnTensorDescriptor_t tensor(cudnnDataType_t type, const Shape& shape, const Shape& strides) {
  cudnnTensorDescriptor_t result = nullptr;
  check_dnn(cudnnCreateTensorDescriptor(&result), "making a description");
  check_dnn(cudnnSetTensor4dDescriptorEx(result, type, int(shape[0]), int(shape[1]), int(shape[2]), int(shape[3]),
                                         int(strides[0]), int(strides[1]), int(strides[2]), int(strides[3])),
            "describing a tensor");
  return result;
}

// The first deterministic algorithm that the heuristics list and that has room.
template <class Performance, size_t n> void take(Plan& plan, const std::array<Performance, n>& candidates, int count) {
  for (int i = 0; i < count && !plan.found; ++i) {
    const Performance& c = candidates[size_t(i)];
    if (c.status != CUDNN_STATUS_SUCCESS || c.determinism != CUDNN_DETERMINISTIC || c.memory > most_workspace) continue;
    plan.algorithm = int(c.algo);
    plan.workspace = c.memory;
    check_dnn(cudnnSetConvolutionMathType(plan.conv, c.mathType), "setting the mathematics");
    plan.found = true;
  }
}

Plan make_plan(cudnnHandle_t handle, const ConvProblem& p, bool filters_last) {
  Plan plan;
  const cudnnDataType_t type = data_type(p.type);
  plan.x = tensor(type, p.x_shape, p.x_strides);
  plan.y = tensor(type, p.y_shape, p.y_strides);
  check_dnn(cudnnCreateFilterDescriptor(&plan.w), "making a description");
  check_dnn(cudnnSetFilter4dDescriptor(plan.w, type, filters_last ? CUDNN_TENSOR_NHWC : CUDNN_TENSOR_NCHW,
                                       int(p.w_shape[0]), int(p.w_shape[1]), int(p.w_shape[2]), int(p.w_shape[3])),
            "describing the filters");
  if (p.bias) plan.bias = tensor(type, {1, p.y_shape[1], 1, 1}, {p.y_shape[1], 1, 1, 1});
  check_dnn(cudnnCreateConvolutionDescriptor(&plan.conv), "making a description");
  check_dnn(
      cudnnSetConvolution2dDescriptor(plan.conv, int(p.padding[0]), int(p.padding[1]), int(p.stride[0]),
                                      int(p.stride[1]), int(p.dilation[0]), int(p.dilation[1]), CUDNN_CROSS_CORRELATION,
                                      p.type == DType::float64 ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT),
      "describing a convolution");
  check_dnn(cudnnSetConvolutionGroupCount(plan.conv, int(p.groups)), "setting groups");
  // Float32 stays float32: FMA is asked for instead of TF32.
  check_dnn(cudnnSetConvolutionMathType(plan.conv, p.type == DType::float32 ? CUDNN_FMA_MATH : CUDNN_TENSOR_OP_MATH),
            "setting the mathematics");
  int count = 0;
  cudnnStatus_t status;
  if (p.pass == ConvPass::forward) {
    std::array<cudnnConvolutionFwdAlgoPerf_t, CUDNN_CONVOLUTION_FWD_ALGO_COUNT> candidates;
    status = cudnnGetConvolutionForwardAlgorithm_v7(handle, plan.x, plan.w, plan.conv, plan.y, int(candidates.size()),
                                                    &count, candidates.data());
    if (status == CUDNN_STATUS_SUCCESS) take(plan, candidates, count);
  } else if (p.pass == ConvPass::input_grad) {
    std::array<cudnnConvolutionBwdDataAlgoPerf_t, CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT> candidates;
    status = cudnnGetConvolutionBackwardDataAlgorithm_v7(handle, plan.w, plan.y, plan.conv, plan.x,
                                                         int(candidates.size()), &count, candidates.data());
    if (status == CUDNN_STATUS_SUCCESS) take(plan, candidates, count);
  } else {
    std::array<cudnnConvolutionBwdFilterAlgoPerf_t, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_COUNT> candidates;
    status = cudnnGetConvolutionBackwardFilterAlgorithm_v7(handle, plan.x, plan.y, plan.conv, plan.w,
                                                           int(candidates.size()), &count, candidates.data());
    if (status == CUDNN_STATUS_SUCCESS) take(plan, candidates, count);
  }
  return plan;
}

cudnnHandle_t handle_of(Device device) {
  static auto* const handles = new std::map<int, cudnnHandle_t>;
  cudnnHandle_t& handle = (*handles)[device.index];
  if (!handle) check_dnn(cudnnCreate(&handle), "creating a handle");
  return handle;
}

}  // namespace

bool library_conv(const ConvProblem& p) {
  const bool filters_first = is_contiguous(p.w_shape, p.w_strides),
             filters_last = !filters_first && p.w_strides == channels_last_strides(p.w_shape);
  if (!filters_first && !filters_last) return false;
  if (p.bias && p.bias_stride != 1) return false;
  for (const Shape* s : {&p.x_shape, &p.x_strides, &p.y_shape, &p.y_strides, &p.w_shape})
    if (!fits_int(*s)) return false;
  for (const Shape* s : {&p.x_shape, &p.y_shape, &p.w_shape})  // offsets of these functions have 32 bits
    if (s->numel() > 0x7fffffff) return false;
  // Gradients' strides may be zero where a sum was expanded: such tensors have no description.
  for (const Shape* s : {&p.x_strides, &p.y_strides})
    if (s->contains(0)) return false;

  std::vector<int64_t> key{p.device.index, int64_t(p.pass), int64_t(p.type), p.bias != nullptr, p.groups, filters_last};
  for (const Shape* s : {&p.x_shape, &p.x_strides, &p.w_shape, &p.y_shape, &p.y_strides})
    key.insert(key.end(), s->begin(), s->end());
  for (const int64_t* pair : {p.stride, p.padding, p.dilation}) key.insert(key.end(), pair, pair + 2);

  static std::mutex mutex;
  static auto* const plans = new std::map<std::vector<int64_t>, Plan>;
  const std::lock_guard lock(mutex);  // a handle serves one thread at a time
  const cudnnHandle_t handle = handle_of(p.device);
  auto entry = plans->find(key);
  if (entry == plans->end()) entry = plans->emplace(std::move(key), make_plan(handle, p, filters_last)).first;
  const Plan& plan = entry->second;
  if (!plan.found) return false;
  check_dnn(cudnnSetStream(handle, p.stream), "setting the stream");
  const Workspace workspace(plan.workspace, p.device);
  void* const room = workspace.as<void>();
  const float one = 1, zero = 0;
  const double wide_one = 1, wide_zero = 0;
  const bool wide = p.type == DType::float64;
  const void* alpha = wide ? static_cast<const void*>(&wide_one) : &one;
  const void* beta = wide ? static_cast<const void*>(&wide_zero) : &zero;
  switch (p.pass) {
    case ConvPass::forward:
      check_dnn(
          cudnnConvolutionForward(handle, alpha, plan.x, p.x, plan.w, p.w, plan.conv,
                                  cudnnConvolutionFwdAlgo_t(plan.algorithm), room, plan.workspace, beta, plan.y, p.y),
          "convolving");
      if (p.bias) check_dnn(cudnnAddTensor(handle, alpha, plan.bias, p.bias, alpha, plan.y, p.y), "adding the bias");
      break;
    case ConvPass::input_grad:
      check_dnn(cudnnConvolutionBackwardData(handle, alpha, plan.w, p.w, plan.y, p.y, plan.conv,
                                             cudnnConvolutionBwdDataAlgo_t(plan.algorithm), room, plan.workspace, beta,
                                             plan.x, p.x),
                "differentiating a convolution");
      break;
    case ConvPass::weight_grad:
      check_dnn(cudnnConvolutionBackwardFilter(handle, alpha, plan.x, p.x, plan.y, p.y, plan.conv,
                                               cudnnConvolutionBwdFilterAlgo_t(plan.algorithm), room, plan.workspace,
                                               beta, plan.w, p.w),
                "differentiating a convolution");
      break;
  }
  check_launch(cudaGetLastError(), "a convolution of cuDNN", p.stream);
  return true;
}

}  // namespace tandem::gpu

#endif
