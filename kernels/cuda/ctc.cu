// ctc_loss, its gradient and that one's; core/ops/ctc.cpp says what they compute. A block walks the time of one sequence, its lanes
// over the states (labels between blanks), in double as the host does: sums of exponents of some thousand steps lose too much
// in float. From step to step states go through shared memory, one barrier a step; a step's log-probabilities are asked
// for before the sums that they are added to. What is read is the column of each label, once a step and direction; the
// gradient is zeroed first and then written at the labels alone.
#include "core/scalar/math.h"
#include "kernels/cuda/kernels.h"

namespace tandem {
namespace gpu {
namespace {

constexpr int ctc_threads = 256;
[[maybe_unused]] constexpr int ctc_blocks = 2;  // those of a multiprocessor: enough registers to keep all in
constexpr double ctc_never = -INFINITY;

__device__ __forceinline__ bool is_infinite(double x) { return x == INFINITY || x == -INFINITY; }

/// log(e^a + e^b). The logarithm of a number in [1, 2] is as exact in its absolute error, which is what counts in a sum, as
/// log1p would be, which divides.
__device__ __forceinline__ double log_add(double a, double b) {
  const double greater = a > b || b != b ? a : b, less = a > b || b != b ? b : a;  // as fmax: NaN is less
  const double sum = greater + td_log(1 + td_exp(less - greater));
  return greater == ctc_never ? a + b : sum;
}
__device__ __forceinline__ double exp_of(double a) { return td_exp(a); }
__device__ __forceinline__ double value_of(double a) { return a; }

/// A number, and its derivative along a direction.
struct Dual {
  double value, along;
};
__device__ __forceinline__ Dual operator+(Dual a, Dual b) { return {a.value + b.value, a.along + b.along}; }
__device__ __forceinline__ Dual operator-(Dual a) { return {-a.value, -a.along}; }
__device__ __forceinline__ Dual log_add(Dual a, Dual b) {
  const double sum = log_add(a.value, b.value);
  const double along = td_exp(a.value - sum) * a.along + td_exp(b.value - sum) * b.along;
  return {sum, sum == ctc_never ? 0 : along};
}
__device__ __forceinline__ Dual exp_of(Dual a) {
  const double e = td_exp(a.value);
  return {e, e * a.along};
}
__device__ __forceinline__ double value_of(Dual a) { return a.value; }
template <class Number> __device__ __forceinline__ Number number(double value) {
  if constexpr (std::is_same_v<Number, Dual>) return {value, 0};
  else return value;
}

/// All sequences, as operands have them.
struct Sequences {
  int64_t time, batch, classes, blank;
  const int64_t *times, *lengths, *targets;
  bool padded;
  int64_t width;  ///< labels of a row, or of all
  bool zero_infinity;
  td_range_note note;
};
constexpr unsigned note_time = 0, note_length = 1, note_end = 2, note_label = 3;

/// The block's own. `first` counts the states before it, so that each has its place in a workspace.
struct Sequence {
  const int64_t* labels;
  int64_t blank;
  int times, states;
  int64_t first;
  __device__ __forceinline__ int64_t symbol(int s) const { return s % 2 == 0 ? blank : labels[s / 2]; }
  /// Whether a path may come to the state from two before it.
  __device__ __forceinline__ bool skips(int s) const { return s % 2 == 1 && s >= 3 && symbol(s) != symbol(s - 2); }
};

/// False where something is out of range, which is noted. For all threads of the block; `scratch` has a place for each warp.
__device__ __forceinline__ bool open(Sequence& sequence, const Sequences& all, int64_t n, int64_t* scratch) {
  int64_t before = 0, wrong = 0;  // whoever is wrong before this one tells it itself
  for (int64_t i = threadIdx.x; i < (all.padded ? 0 : n); i += blockDim.x) {
    const int64_t length = all.lengths[i];
    if (length < 0 || length > all.width) wrong = 1;
    else before += length;
  }
  before = reduce_block(before, Add(), int64_t(0), scratch);
  const int64_t times = all.times[n], length = all.lengths[n], begin = all.padded ? n * all.width : before;
  const bool first = threadIdx.x == 0;
  struct {
    unsigned check;
    int64_t place, value;
  } found{note_label, -1, 0};
  if (times < 0 || times > all.time) found = {note_time, n, times};
  else if (length < 0 || length > all.width) found = {note_length, n, length};
  else if (!all.padded && before + length > all.width) found = {note_end, n, before + length};
  const bool all_know = found.place >= 0;
  if (!all_know) {
    for (int64_t i = threadIdx.x; i < length && found.place < 0; i += blockDim.x) {
      const int64_t label = all.targets[begin + i];
      if (label < 0 || label >= all.classes) found = {note_label, begin + i, label};
    }
  }
  const bool told = wrong != 0 || before > all.width;
  if (found.place >= 0 && !told && (first || !all_know)) td_note_range(all.note, found.check, found.place, found.value);
  if (reduce_block(int64_t(told || found.place >= 0), Add(), int64_t(0), scratch) != 0) return false;
  sequence = {all.targets + begin, all.blank, int(times), int(2 * length + 1),
              all.padded ? n * (2 * all.width + 1) : 2 * before + n};
  return true;
}

/// The log-probabilities of one sequence.
template <class T> struct Steps {
  using Number = double;
  const T* data;
  int64_t stride;
  __device__ __forceinline__ double at(int64_t t, int64_t symbol) const {
    return static_cast<double>(widen(data[t * stride + symbol]));
  }
};
/// The same with a direction.
template <class T> struct DirectedSteps {
  using Number = Dual;
  Steps<T> values, along;
  __device__ __forceinline__ Dual at(int64_t t, int64_t symbol) const {
    return {values.at(t, symbol), along.at(t, symbol)};
  }
};

/// log P(state s at t, and the labels up to there) for all steps; line(t) is where that of t goes. Returns the last one.
template <class Steps, class Line, class Number = typename Steps::Number>
__device__ __forceinline__ const Number* walk_forward(const Sequence& of, const Steps& log_p, const Line& line) {
  Number* now = nullptr;
  for (int t = 0; t < of.times; ++t) {
    const Number* const before = now;
    now = line(t);
    for (int s = int(threadIdx.x); s < of.states; s += int(blockDim.x)) {
      const Number step = log_p.at(t, of.symbol(s));
      Number sum;
      if (t == 0) {
        sum = number<Number>(s < 2 ? 0 : ctc_never);
      } else {
        sum = before[s];
        if (s >= 1) sum = log_add(sum, before[s - 1]);
        if (of.skips(s)) sum = log_add(sum, before[s - 2]);
      }
      now[s] = sum + step;
    }
    __syncthreads();
  }
  return now;
}

template <class Number> __device__ __forceinline__ Number loss_of(const Sequence& of, const Number* last) {
  if (of.times == 0) return number<Number>(of.states == 1 ? 0 : -ctc_never);
  return -(of.states == 1 ? last[0] : log_add(last[of.states - 1], last[of.states - 2]));
}

/// Where a block keeps lines of its states: in shared memory if they fit there, else in a workspace.
template <class Number> struct Lines {
  Number* at;
  int states;
  __device__ __forceinline__ Lines(unsigned char* shared, int shared_bytes, unsigned char* workspace, int bytes_a_state,
                                   const Sequence& of)
      : at(reinterpret_cast<Number*>(
            of.states * int64_t(bytes_a_state) <= shared_bytes ? shared : workspace + of.first * bytes_a_state)),
        states(of.states) {}
  __device__ __forceinline__ Number* line(int i) const { return at + int64_t(i) * states; }
};

constexpr int loss_bytes = 2 * sizeof(double);
template <class Number> constexpr int share_bytes = 4 * sizeof(Number) + sizeof(int64_t);

template <class T>
__global__ void __launch_bounds__(ctc_threads, ctc_blocks)
    ctc_loss(T* losses, const T* x, Sequences all, unsigned char* workspace, int shared_bytes) {
  TANDEM_DYNAMIC_SHARED(unsigned char, shared);
  TANDEM_SHARED(int64_t, scratch, [ctc_threads / 32]);
  const int64_t n = blockIdx.x;
  Sequence of;
  if (!open(of, all, n, scratch)) {
    if (threadIdx.x == 0) losses[n] = convert<T>(static_cast<float>(NAN));
    return;
  }
  const Lines<double> lines(shared, shared_bytes, workspace, loss_bytes, of);
  const Steps<T> log_p{x + n * all.classes, all.batch * all.classes};
  const double* const last = walk_forward(of, log_p, [&](int t) { return lines.line(t % 2); });
  if (threadIdx.x != 0) return;
  const double loss = loss_of(of, last);
  losses[n] = convert<T>(all.zero_infinity && is_infinite(loss) ? 0.0 : loss);
}

/// Calls f(t, symbol, P(symbol at t | labels)) once for each symbol among the labels, and of_state(t, symbol, P(state at t |
/// labels)) for each state. Nothing where the loss is infinite and that counts as zero.
template <class Steps, class F, class OfState, class Number = typename Steps::Number>
__device__ __forceinline__ void each_share(const Sequence& of, const Steps& log_p, bool zero_infinity, Number* alpha,
                                           const Lines<Number>& lines, const F& f, const OfState& of_state) {
  const int states = of.states, first = int(threadIdx.x), threads = int(blockDim.x);
  // The next state of the same label; of all but the first, which collects, that it isn't it.
  int* const next = reinterpret_cast<int*>(lines.line(4));
  int* const collects = next + states;
  for (int s = first; s < states; s += threads) {
    const int64_t symbol = of.symbol(s);
    bool alone = s % 2 == 1 && symbol != of.blank;
#pragma unroll 1
    for (int other = 1; alone && other < s; other += 2) alone = of.symbol(other) != symbol;
    int following = s + 2;
#pragma unroll 1
    while (following < states && of.symbol(following) != symbol) following += 2;
    next[s] = s % 2 == 1 ? following : states, collects[s] = alone ? 1 : 0;
  }
  const Number* const last = walk_forward(of, log_p, [&](int t) { return alpha + int64_t(t) * states; });
  const Number loss = loss_of(of, last);
  if (is_infinite(value_of(loss)) && zero_infinity) return;
  __syncthreads();  // `next` of sequences without steps
  for (int t = of.times - 1; t >= 0; --t) {
    Number* const after = lines.line((t + 1) % 2);  // log P(the labels after, from state s at t + 1), with s itself
    Number *const now = lines.line(t % 2), *const share = lines.line(2 + t % 2);
    for (int s = first; s < states; s += threads) {
      const Number step = log_p.at(t, of.symbol(s));
      Number beta;
      if (t == of.times - 1) {
        beta = number<Number>(s + 2 >= states ? 0 : ctc_never);
      } else {
        beta = after[s];
        if (s + 1 < states) beta = log_add(beta, after[s + 1]);
        if (s + 2 < states && of.skips(s + 2)) beta = log_add(beta, after[s + 2]);
      }
      now[s] = beta + step;
      const Number p = exp_of(alpha[int64_t(t) * states + s] + beta + loss);
      share[s] = p;
      of_state(t, of.symbol(s), p);
    }
    __syncthreads();
    if (first < 32) {  // blanks, and labels that are
      Number sum = number<Number>(0);
      for (int s = first; s < states; s += 32)
        if (of.symbol(s) == of.blank) sum = sum + share[s];
      if constexpr (std::is_same_v<Number, Dual>) {
        sum.value = reduce_lanes(sum.value, Add());
        sum.along = reduce_lanes(sum.along, Add());
      } else {
        sum = reduce_lanes(sum, Add());
      }
      if (first == 0) f(t, of.blank, sum);
    }
    for (int s = first; s < states; s += threads) {
      if (!collects[s]) continue;
      Number sum = share[s];
#pragma unroll 1
      for (int other = next[s]; other < states; other = next[other]) sum = sum + share[other];
      f(t, of.symbol(s), sum);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(ctc_threads, ctc_blocks)
    ctc_loss_grad(T* dx, const T* g, const T* x, Sequences all, double* alpha, unsigned char* workspace,
                  int shared_bytes) {
  TANDEM_DYNAMIC_SHARED(unsigned char, shared);
  TANDEM_SHARED(int64_t, scratch, [ctc_threads / 32]);
  const int64_t n = blockIdx.x, stride = all.batch * all.classes;
  Sequence of;
  if (!open(of, all, n, scratch)) return;
  const Lines<double> lines(shared, shared_bytes, workspace, share_bytes<double>, of);
  T* const to = dx + n * all.classes;
  const double scale = -static_cast<double>(widen(g[n]));
  each_share(
      of, Steps<T>{x + n * all.classes, stride}, all.zero_infinity, alpha + all.time * of.first, lines,
      [&](int64_t t, int64_t k, double share) { to[t * stride + k] = convert<T>(scale * share); },
      [](int64_t, int64_t, double) {});
}

template <class T>
__global__ void __launch_bounds__(ctc_threads, ctc_blocks)
    ctc_loss_second(T* dx, T* dg, const T* g, const T* x, const T* u, Sequences all, Dual* alpha,
                    unsigned char* workspace, int shared_bytes) {
  TANDEM_DYNAMIC_SHARED(unsigned char, shared);
  TANDEM_SHARED(int64_t, scratch, [ctc_threads / 32]);
  TANDEM_SHARED(double, sums, [ctc_threads / 32]);
  const int64_t n = blockIdx.x, stride = all.batch * all.classes, column = n * all.classes;
  Sequence of;
  if (!open(of, all, n, scratch)) {
    if (threadIdx.x == 0) dg[n] = convert<T>(static_cast<float>(NAN));
    return;
  }
  const Lines<Dual> lines(shared, shared_bytes, workspace, share_bytes<Dual>, of);
  const DirectedSteps<T> log_p{{x + column, stride}, {u + column, stride}};
  const double scale = -static_cast<double>(widen(g[n]));
  double product = 0;
  each_share(
      of, log_p, all.zero_infinity, alpha + all.time * of.first, lines,
      [&](int64_t t, int64_t k, Dual share) { dx[column + t * stride + k] = convert<T>(scale * share.along); },
      [&](int64_t t, int64_t k, Dual share) { product -= log_p.along.at(t, k) * share.value; });
  product = reduce_block(product, Add(), 0.0, sums);
  if (threadIdx.x == 0) dg[n] = convert<T>(product);
}

/// From operand `first` on: log-probabilities, targets, two lengths.
Sequences sequences_of(const KernelContext& op, int first) {
  const TensorImpl &x = op.in(first), &targets = op.in(first + 1);
  const bool padded = targets.shape.size() == 2;
  const int64_t time = x.shape[0], batch = x.shape[1], classes = x.shape[2], width = targets.shape.back();
  const auto check = [&](RangeCheck range, const Shape& shape) {
    return ValueCheck{.range = std::move(range), .op = op.op.name, .where = op.where, .shape = shape};
  };
  const td_range_note note =
      range_note(op, {check({.what = "input length", .bound = time, .lengths = true}, {batch}),
                      check({.what = "target length", .bound = width, .lengths = true}, {batch}),
                      check({.what = "the labels' end", .bound = width, .lengths = true}, {batch}),
                      check({.what = "label", .bound = classes}, targets.shape)});
  check_most(op, batch, most_of_int, "sequences");
  check_most(op, time, most_of_int, "steps");
  check_most(op, width, most_of_int / 2 - 1, "labels");
  return {time,
          batch,
          classes,
          op.attributes.integer("blank"),
          data<int64_t>(op.in(first + 2)),
          data<int64_t>(op.in(first + 3)),
          data<int64_t>(targets),
          padded,
          width,
          op.attributes.flag("zero_infinity"),
          note};
}

/// How blocks are launched for sequences of so many states, and where they keep their lines.
struct Blocks {
  int64_t states;  ///< of all sequences
  int threads, shared_bytes;
  Workspace lines;
  Blocks(const Sequences& all, int bytes_a_state, Device device)
      : states(all.batch * (all.padded ? 2 * all.width + 1 : 1) + (all.padded ? 0 : 2 * all.width)),
        threads(int(std::min<int64_t>(ctc_threads, ceil_divide(2 * all.width + 1, int64_t(32)) * 32))),
        shared_bytes(int(std::min<int64_t>(32 * 1024, (2 * all.width + 1) * bytes_a_state))),
        lines((2 * all.width + 1) * bytes_a_state > shared_bytes ? size_t(states * bytes_a_state) : 0, device) {}
};

void ctc_loss_kernel(KernelContext& op) {
  const Sequences all = sequences_of(op, 0);
  if (all.batch == 0) return;
  const Blocks blocks(all, loss_bytes, op.out().device);
  visit_floating(op.out().dtype, [&]<class T>() {
    TANDEM_LAUNCH((ctc_loss<T>), unsigned(all.batch), blocks.threads, size_t(blocks.shared_bytes), stream_of(op),
                  data<T>(op.out()), data<T>(op.in(0)), all, blocks.lines.as<unsigned char>(), blocks.shared_bytes);
  });
}

void clear(TensorImpl& tensor, cudaStream_t stream) {
  const auto bytes = static_cast<size_t>(tensor.shape.numel() * size_of(tensor.dtype));
  if (bytes > 0) check(cudaMemsetAsync(tensor.data, 0, bytes, stream), "clearing a gradient");
}

void ctc_loss_grad_kernel(KernelContext& op) {
  const Sequences all = sequences_of(op, 1);
  clear(op.out(), stream_of(op));
  if (all.batch == 0) return;
  const Blocks blocks(all, share_bytes<double>, op.out().device);
  const Workspace alpha(size_t(all.time * blocks.states) * sizeof(double), op.out().device);
  visit_floating(op.out().dtype, [&]<class T>() {
    TANDEM_LAUNCH((ctc_loss_grad<T>), unsigned(all.batch), blocks.threads, size_t(blocks.shared_bytes), stream_of(op),
                  data<T>(op.out()), data<T>(op.in(0)), data<T>(op.in(1)), all, alpha.as<double>(),
                  blocks.lines.as<unsigned char>(), blocks.shared_bytes);
  });
}

void ctc_loss_second_kernel(KernelContext& op) {
  const Sequences all = sequences_of(op, 1);
  clear(op.out(0), stream_of(op));
  if (all.batch == 0) return;
  const Blocks blocks(all, share_bytes<Dual>, op.out().device);
  const Workspace alpha(size_t(all.time * blocks.states) * sizeof(Dual), op.out().device);
  visit_floating(op.out().dtype, [&]<class T>() {
    TANDEM_LAUNCH((ctc_loss_second<T>), unsigned(all.batch), blocks.threads, size_t(blocks.shared_bytes), stream_of(op),
                  data<T>(op.out(0)), data<T>(op.out(1)), data<T>(op.in(0)), data<T>(op.in(1)), data<T>(op.in(5)), all,
                  alpha.as<Dual>(), blocks.lines.as<unsigned char>(), blocks.shared_bytes);
  });
}

}  // namespace
}  // namespace gpu

void add_cuda_ctc(Kernels kernels) {
  kernels["ctc_loss"] = gpu::ctc_loss_kernel;
  kernels["ctc_loss_grad"] = gpu::ctc_loss_grad_kernel;
  kernels["ctc_loss_second"] = gpu::ctc_loss_second_kernel;
}

}  // namespace tandem
