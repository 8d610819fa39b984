// Matrix products by cuBLASLt. A problem's descriptors, its algorithm and its workspace size are found once and kept:
// building them costs more than a small product.
#include <cublasLt.h>

#include <map>
#include <mutex>
#include <tuple>

#include "kernels/cuda/matmul.h"

namespace tandem::gpu {
namespace {

constexpr size_t most_workspace = size_t(32) << 20;
constexpr int64_t most_batches = 64;  // calls for one product; beyond that one launch of our own kernel does it

void check_blas(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw KernelError(detail::str("cuBLASLt: ", what, ": ", cublasLtGetStatusString(status)), Where());
}

cublasLtHandle_t handle_of(Device device) {
  static std::mutex mutex;
  static auto* const handles = new std::map<int, cublasLtHandle_t>;
  const std::lock_guard lock(mutex);
  cublasLtHandle_t& handle = (*handles)[device.index];
  if (!handle) check_blas(cublasLtCreate(&handle), "creating a handle");
  return handle;
}

// cuBLAS is column-major, so it computes c' = b' a': its first operand is our b.
struct Operand {
  bool transposed = false;
  int64_t leading = 0;
  auto operator<=>(const Operand&) const = default;
};
// Row-major [rows, columns] memory is a column-major [columns, rows] matrix.
bool operand_of(const Matrix& x, int64_t rows, int64_t columns, Operand& result) {
  if ((x.column == 1 || columns == 1) && (x.row >= columns || rows == 1)) result = {false, std::max(x.row, columns)};
  else if ((x.row == 1 || rows == 1) && (x.column >= rows || columns == 1)) result = {true, std::max(x.column, rows)};
  else return false;
  return true;
}

// Of all matrices of a batch whose first begins there.
int alignment_of(const void* first, int64_t stride, DType type) {
  const auto all = reinterpret_cast<uintptr_t>(first) | uintptr_t(stride * size_of(type));
  return all % 16 == 0 ? 16 : all % 8 == 0 ? 8 : all % 4 == 0 ? 4 : 2;
}

struct Key {
  int device, type;
  int64_t m, n, k, batch, stride_a, stride_b, stride_c, c_row;
  Operand a, b;
  bool bias;
  int align_a, align_b, align_c;
  auto operator<=>(const Key&) const = default;
};

struct Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t left = nullptr, right = nullptr, result = nullptr;
  cublasLtMatmulHeuristicResult_t best{};
  bool found = false;
};

cudaDataType_t data_type(DType type) {
  switch (type) {
    case DType::float64: return CUDA_R_64F;
    case DType::float16: return CUDA_R_16F;
    case DType::bfloat16: return CUDA_R_16BF;
    default: return CUDA_R_32F;
  }
}

cublasLtMatrixLayout_t layout(cudaDataType_t type, int64_t rows, int64_t columns, int64_t leading, int64_t batch,
                              int64_t stride) {
  cublasLtMatrixLayout_t result = nullptr;
  check_blas(cublasLtMatrixLayoutCreate(&result, type, uint64_t(rows), uint64_t(columns), leading), "making a layout");
  const int count = int(batch);
  check_blas(cublasLtMatrixLayoutSetAttribute(result, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count),
             "setting a batch");
  check_blas(
      cublasLtMatrixLayoutSetAttribute(result, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride),
      "setting a batch");
  return result;
}

Plan make_plan(const Key& key, const MatmulProblem& p) {
  Plan plan;
  const cudaDataType_t type = data_type(p.type);
  const bool wide = p.type == DType::float64;
  // Float32 stays float32: TF32 keeps ten bits.
  check_blas(cublasLtMatmulDescCreate(&plan.operation, wide ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F,
                                      wide ? CUDA_R_64F : CUDA_R_32F),
             "making a description");
  const cublasOperation_t left = key.b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                          right = key.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  check_blas(cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, &left, sizeof left),
             "setting a transpose");
  check_blas(cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_TRANSB, &right, sizeof right),
             "setting a transpose");
  if (key.bias) {
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    check_blas(
        cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue),
        "setting the epilogue");
    check_blas(
        cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias, sizeof p.bias),
        "setting the bias");
  }
  plan.left = key.b.transposed ? layout(type, p.k, p.n, key.b.leading, key.batch, key.stride_b)
                               : layout(type, p.n, p.k, key.b.leading, key.batch, key.stride_b);
  plan.right = key.a.transposed ? layout(type, p.m, p.k, key.a.leading, key.batch, key.stride_a)
                                : layout(type, p.k, p.m, key.a.leading, key.batch, key.stride_a);
  plan.result = layout(type, p.n, p.m, key.c_row, key.batch, key.stride_c);
  cublasLtMatmulPreference_t preference = nullptr;
  check_blas(cublasLtMatmulPreferenceCreate(&preference), "making a preference");
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    check_blas(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value),
               "setting a preference");
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t(most_workspace));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, uint32_t(key.align_b));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, uint32_t(key.align_a));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, uint32_t(key.align_c));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, uint32_t(key.align_c));
  // Sums that atomics add up in any order would differ from run to run.
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  int found = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle_of(p.device), plan.operation, plan.left, plan.right, plan.result,
                                     plan.result, preference, 1, &plan.best, &found);
  (void)cublasLtMatmulPreferenceDestroy(preference);
  plan.found = status == CUBLAS_STATUS_SUCCESS && found > 0;
  return plan;
}

bool multiply(const MatmulProblem& p) {
  Key key{};
  key.device = p.device.index, key.type = int(p.type);
  key.m = p.m, key.n = p.n, key.k = p.k, key.c_row = p.c_row;
  key.batch = p.batch.numel();
  if (key.batch > 1)
    key.stride_c = p.batch.stride[0][0], key.stride_a = p.batch.stride[1][0], key.stride_b = p.batch.stride[2][0];
  if (!operand_of(p.a, p.m, p.k, key.a) || !operand_of(p.b, p.k, p.n, key.b)) return false;
  key.bias = p.bias != nullptr;
  key.align_a = alignment_of(p.a.data, key.stride_a, p.type),
  key.align_b = alignment_of(p.b.data, key.stride_b, p.type), key.align_c = alignment_of(p.c, key.stride_c, p.type);

  static std::mutex mutex;
  static auto* const plans = new std::map<Key, Plan>;
  const std::lock_guard lock(mutex);  // also for the bias pointer, which lies in the shared description
  auto entry = plans->find(key);
  if (entry == plans->end()) entry = plans->emplace(key, make_plan(key, p)).first;
  Plan& plan = entry->second;
  if (!plan.found) return false;
  if (key.bias) {
    check_blas(
        cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias, sizeof p.bias),
        "setting the bias");
  }
  const Workspace workspace(plan.best.workspaceSize, p.device);
  const float one = 1, zero = 0;
  const double wide_one = 1, wide_zero = 0;
  const bool wide = p.type == DType::float64;
  check_blas(cublasLtMatmul(handle_of(p.device), plan.operation, wide ? static_cast<const void*>(&wide_one) : &one,
                            p.b.data, plan.left, p.a.data, plan.right,
                            wide ? static_cast<const void*>(&wide_zero) : &zero, p.c, plan.result, p.c, plan.result,
                            &plan.best.algo, workspace.as<void>(), plan.best.workspaceSize, p.stream),
             "multiplying");
  check_launch(cudaGetLastError(), "a product of cuBLASLt", p.stream);
  return true;
}

}  // namespace

bool library_matmul(const MatmulProblem& p) {
  if (!is_floating(p.type) || p.batch.numel() > 0x7fffffff) return false;
  const int64_t* const extents = p.batch.extent;
  if (p.batch.rank > 1 && p.batch.numel() / *std::max_element(extents, extents + p.batch.rank) > most_batches)
    return false;
  bool done = true;
  in_strided_batches(p, [&](const MatmulProblem& part) { done = done && multiply(part); });
  return done;
}

}  // namespace tandem::gpu
