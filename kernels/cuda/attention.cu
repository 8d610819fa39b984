// attention, attention_qkv and their gradients: what a call is, and which kernels serve it. attention_plain.cu has
// those for the ordinary cores.
#include "kernels/cuda/attention.h"

namespace tandem {
namespace gpu {
namespace {

// Part `index` of a packed tensor [3, batch.., heads, rows, columns], or a whole one without a part (-1).
HeadMatrices matrices_of(const TensorImpl& x, int index = -1) {
  Shape shape = x.shape, strides = x.strides;
  HeadMatrices result;
  result.dtype = x.dtype;
  result.data = x.data;
  if (index >= 0) {
    result.data = static_cast<char*>(x.data) + index * strides[0] * size_of(x.dtype);
    shape.erase(0);
    strides.erase(0);
  }
  const int rank = shape.size();
  result.rows = shape[rank - 2], result.columns = shape[rank - 1];
  result.row = strides[rank - 2], result.column = strides[rank - 1];
  strides.resize(rank - 2);
  result.strides = strides;
  return result;
}

// Broadcast to [batch.., rows, columns].
HeadMatrices broadcast_matrices(const TensorImpl& x, const Shape& strides, const Shape& batch, int64_t rows,
                                int64_t columns) {
  const int rank = x.shape.size();
  const auto stride = [&](int from_end) {
    const int d = rank - from_end;
    return d >= 0 && x.shape[d] != 1 ? strides[d] : 0;
  };
  HeadMatrices result{x.data, x.dtype, Shape::filled(batch.size(), 0), rows, columns, stride(2), stride(1)};
  for (int d = 0; d < batch.size(); ++d) result.strides[d] = stride(batch.size() - d + 2);
  return result;
}

// The mask as the kernels read it: a copy where it is of another floating type than is computed in.
class MaskInput {
 public:
  MaskInput(const KernelContext& op, int at)
      : tensor_(op.attributes.flag("masked") ? &op.in(at) : nullptr),
        type_(op.out().dtype == DType::float64 ? DType::float64 : DType::float32), copies_(tensor_ && copies()),
        memory_(copies_ ? size_t(tensor_->shape.numel() * size_of(type_)) : 0, op.out().device) {
    if (void* memory = memory_.as<void>())
      copy_strided(*tensor_, tensor_->shape, memory, type_, contiguous_strides(tensor_->shape), stream_of(op));
  }
  void add_to(AttentionProblem& p) const {
    if (!tensor_) return;
    const Shape strides = copies_ ? contiguous_strides(tensor_->shape) : tensor_->strides;
    p.mask = broadcast_matrices(*tensor_, strides, p.batch, p.time, p.source);
    if (!copies_) return;
    p.mask->data = memory_.as<void>();
    p.mask->dtype = type_;
  }

 private:
  bool copies() const { return tensor_->dtype != DType::bool_ && tensor_->dtype != type_; }
  const TensorImpl* tensor_;
  DType type_;
  bool copies_;
  Workspace memory_;
};

// Operands from `first` on; the key comes at `key`.
AttentionProblem problem_of(const KernelContext& op, int first, bool packed, int key) {
  AttentionProblem p;
  p.q = packed ? matrices_of(op.in(first), 0) : matrices_of(op.in(first));
  p.k = packed ? matrices_of(op.in(first), 1) : matrices_of(op.in(first + 1));
  p.v = packed ? matrices_of(op.in(first), 2) : matrices_of(op.in(first + 2));
  p.batch = op.in(first).shape;
  if (packed) p.batch.erase(0);
  p.batch.resize(p.batch.size() - 2);
  p.heads = p.batch.numel();
  p.time = p.q.rows, p.source = p.k.rows, p.depth = p.q.columns, p.width = p.v.columns;
  p.scale = op.attributes.number("scale"), p.dropout = op.attributes.number("p");
  p.causal = op.attributes.flag("causal");
  if (p.dropout > 0) p.key = random_key(op.in(key), op.attributes);
  p.type = op.in(first).dtype;
  p.device = op.out().device;
  p.stream = stream_of(op);
  constexpr int64_t most = (int64_t(1) << 31) - 1024;  // also at the end of the last tile
  TANDEM_ASSERT(p.time <= most && p.source <= most, "attention of ", p.time, " queries to ",
                p.source, " sources");
  return p;
}

template <bool packed> void attention_kernel(KernelContext& op) {
  if (op.out(1).shape.numel() == 0) return;
  constexpr int inputs = packed ? 1 : 3;
  AttentionProblem p = problem_of(op, 0, packed, inputs + op.attributes.flag("masked"));
  const MaskInput mask(op, inputs);
  mask.add_to(p);
  p.out = matrices_of(op.out(0));
  p.log_sum_exp = op.out(1).data;
  plain_attention(p);
}

// --- backward -------------------------------------------------------------------------------------------------------

// The sums of each row of g out. Eight lanes read a row in packs of N, four rows to a warp: each operand once.
template <class T, int N>
__global__ void __launch_bounds__(threads_per_block)
    attention_row_sums(HeadRows<const T> g, HeadRows<const T> out, Compute<T>* sums, Layout<2> heads, int64_t time,
                       int64_t width, int64_t rows) {
  const int lane = int(threadIdx.x % 8);
  const int64_t step = global_threads() / 8;
  for (int64_t first = 0; first < rows; first += step) {  // lanes stay together: they fold
    const int64_t at = first + global_thread() / 8;
    Compute<T> sum = 0;
    if (at < rows) {
      int64_t offset[2];
      heads.offsets(unsigned(at / time), offset);
      const T* const x = g.data + offset[0] + at % time * g.row;
      const T* const y = out.data + offset[1] + at % time * out.row;
      for (int64_t c = lane * N; c < width; c += 8 * N) {
        if constexpr (N > 1) {
          const auto a = load_pack<N>(x + c), b = load_pack<N>(y + c);
#pragma unroll
          for (int k = 0; k < N; ++k) sum += widen(a.at[k]) * widen(b.at[k]);
        } else {
          sum += widen(x[c * g.column]) * widen(y[c * out.column]);
        }
      }
    }
    sum = reduce_lanes<8>(sum, Add());
    if (lane == 0 && at < rows) sums[at] = sum;
  }
}

void row_sums(const AttentionProblem& p) {
  visit_floating(p.type, [&]<class T>() {
    const int64_t rows = p.heads * p.time;
    const Layout<2> heads = heads_of<2>(p, {&p.g, &p.out});
    const auto launch = [&](auto* kernel) {
      TANDEM_LAUNCH(kernel, blocks_for(rows * 8), threads_per_block, 0, p.stream, rows_to_read<T>(p.g),
                    rows_to_read<T>(p.out), static_cast<Compute<T>*>(p.row_sums), heads, p.time, p.width, rows);
    };
    if (is_packed(p.g) && is_packed(p.out)) launch(attention_row_sums<T, pack_size<T>>);
    else launch(attention_row_sums<T, 1>);
  });
}

template <bool packed> void attention_grad_kernel(KernelContext& op) {
  constexpr int inputs = packed ? 1 : 3;
  AttentionProblem p = problem_of(op, 1, packed, inputs + 3 + op.attributes.flag("masked"));
  if (p.heads == 0) return;
  const MaskInput mask(op, inputs + 3);
  mask.add_to(p);
  const TensorImpl& level = op.in(inputs + 2);
  p.g = matrices_of(op.in(0)), p.out = matrices_of(op.in(inputs + 1));
  p.dq = packed ? matrices_of(op.out(0), 0) : matrices_of(op.out(0));
  p.dk = packed ? matrices_of(op.out(0), 1) : matrices_of(op.out(1));
  p.dv = packed ? matrices_of(op.out(0), 2) : matrices_of(op.out(2));

  const size_t bytes = size_t(p.heads * p.time * size_of(level.dtype));
  const Workspace sums(bytes, p.device), dense(level.contiguous ? 0 : bytes, p.device);
  p.log_sum_exp = level.data;
  if (void* copy = dense.as<void>()) {
    copy_strided(level, level.shape, copy, level.dtype, contiguous_strides(level.shape), p.stream);
    p.log_sum_exp = copy;
  }
  p.row_sums = sums.as<void>();
  if (p.time > 0) row_sums(p);
  plain_attention_grad(p);
}

}  // namespace
}  // namespace gpu

void add_cuda_attention(Kernels kernels) {
  kernels["attention"] = gpu::attention_kernel<false>;
  kernels["attention_qkv"] = gpu::attention_kernel<true>;
  kernels["attention_grad"] = gpu::attention_grad_kernel<false>;
  kernels["attention_qkv_grad"] = gpu::attention_grad_kernel<true>;
}

}  // namespace tandem
