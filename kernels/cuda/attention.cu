// attention, attention_qkv and their gradients: what a call is, and which kernels serve it: those of
// attention_cores*.cu for 16-bit floats, which run on the tensor cores, or those of attention_plain.cu.
#include "kernels/cuda/attention.h"

namespace tandem {
namespace gpu {
namespace {

// Part `index` of a packed tensor [3, batch.., heads, rows, columns], or a whole one without a part (-1).
HeadMatrices matrices_of(const TensorImpl& x, Shape strides, void* data, int index = -1) {
  Shape shape = x.shape;
  HeadMatrices result;
  result.dtype = x.dtype;
  result.data = data;
  if (index >= 0) {
    result.data = static_cast<char*>(data) + index * strides[0] * size_of(x.dtype);
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

HeadMatrices matrices_of(const TensorImpl& x, int index = -1) { return matrices_of(x, x.strides, x.data, index); }

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

// Whether the tensor cores can serve operands of this dtype that end in vectors of this length.
bool suits_cores(DType type, int64_t columns) {
  return (type == DType::float16 || type == DType::bfloat16) && columns > 0 && columns <= 128 && columns % 8 == 0;
}

// An operand as the kernels read it: a copy where the tensor cores could serve it but for its strides.
class HeadInput {
 public:
  explicit HeadInput(const TensorImpl& x, bool packed = false)
      : tensor_(x), strides_(x.strides),
        memory_(suits_cores(x.dtype, x.shape.back()) && !fits(packed) ? size_t(x.shape.numel() * size_of(x.dtype)) : 0,
                x.device) {
    if (void* memory = memory_.as<void>()) {
      strides_ = contiguous_strides(x.shape);
      copy_strided(x, x.shape, memory, x.dtype, strides_, stream_of(x.device));
    }
  }
  // The whole, or part `index` of a packed one.
  HeadMatrices matrices(int index = -1) const {
    void* const memory = memory_.as<void>();
    return matrices_of(tensor_, strides_, memory ? memory : tensor_.data, index);
  }

 private:
  bool fits(bool packed) const {
    bool result = true;
    for (int i = 0; i < (packed ? 3 : 1); ++i)
      result = result && is_packed(matrices_of(tensor_, tensor_.strides, tensor_.data, packed ? i : -1));
    return result;
  }
  const TensorImpl& tensor_;
  Shape strides_;
  Workspace memory_;
};

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

// q, k and v, which are operands `first` and on, or parts of the one there.
class Operands {
 public:
  Operands(const KernelContext& op, int first, bool packed)
      : packed_(packed), shape_(op.in(first).shape), q_(op.in(first), packed) {
    if (!packed) k_.emplace(op.in(first + 1)), v_.emplace(op.in(first + 2));
    if (packed) shape_.erase(0);
    shape_.resize(shape_.size() - 2);
  }
  void add_to(AttentionProblem& p) const {
    p.batch = shape_;
    p.heads = shape_.numel();
    p.q = packed_ ? q_.matrices(0) : q_.matrices();
    p.k = packed_ ? q_.matrices(1) : k_->matrices();
    p.v = packed_ ? q_.matrices(2) : v_->matrices();
    p.time = p.q.rows, p.source = p.k.rows, p.depth = p.q.columns, p.width = p.v.columns;
    p.type = p.q.dtype;
  }

 private:
  bool packed_;
  Shape shape_;
  HeadInput q_;
  std::optional<HeadInput> k_, v_;
};

// The call without what it writes. The key comes at `key`.
AttentionProblem problem_of(const KernelContext& op, const Operands& operands, const MaskInput& mask, int key) {
  AttentionProblem p;
  operands.add_to(p);
  mask.add_to(p);
  p.scale = op.attributes.number("scale"), p.dropout = op.attributes.number("p");
  p.causal = op.attributes.flag("causal");
  if (p.dropout > 0) p.key = random_key(op.in(key), op.attributes);
  p.device = op.out().device;
  p.stream = stream_of(op);
  constexpr int64_t most = (int64_t(1) << 31) - 1024;  // also at the end of the last tile
  check_most(op, p.time, most, "queries");
  check_most(op, p.source, most, "sources");
  check_most(op, std::max(p.depth, p.width), most_across * 64, "numbers in a vector");
  check_most(op, p.heads, most_of_int, "heads");
  return p;
}

bool fits_cores(const AttentionProblem& p, std::initializer_list<const HeadMatrices*> written) {
  bool fits = suits_cores(p.type, p.depth) && suits_cores(p.type, p.width);
  for (const HeadMatrices* x : written) fits = fits && is_packed(*x);
  return fits;
}

template <bool packed> void attention_kernel(KernelContext& op) {
  if (op.out(1).shape.numel() == 0) return;
  constexpr int inputs = packed ? 1 : 3;
  const Operands operands(op, 0, packed);
  const MaskInput mask(op, inputs);
  AttentionProblem p = problem_of(op, operands, mask, inputs + op.attributes.flag("masked"));
  p.out = matrices_of(op.out(0));
  p.log_sum_exp = op.out(1).data;
  if (fits_cores(p, {&p.out})) core_attention(p);
  else plain_attention(p);
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
  const Operands operands(op, 1, packed);
  const MaskInput mask(op, inputs + 3);
  const HeadInput g(op.in(0));
  AttentionProblem p = problem_of(op, operands, mask, inputs + 3 + op.attributes.flag("masked"));
  if (p.heads == 0) return;
  const TensorImpl& level = op.in(inputs + 2);
  p.g = g.matrices(), p.out = matrices_of(op.in(inputs + 1));
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
  if (!fits_cores(p, {&p.dq, &p.dk, &p.dv})) return plain_attention_grad(p);
  core_grad_of_queries(p);
  core_grad_of_sources(p);
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
