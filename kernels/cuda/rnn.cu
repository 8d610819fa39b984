// Recurrent layers, forward: a launch for each time step (rnn.cuh). Cells and gradients are in rnn_cells.cu and rnn_grad.cu.
#include "kernels/cuda/rnn.cuh"

namespace tandem {
namespace gpu {
namespace {

/// A step's state: to the result, and to where the next step reads it.
template <class T> struct StateResult {
  T* hidden;
  T* copy;
  int64_t copy_pitch;
  __device__ __forceinline__ void put(unsigned row, unsigned unit, int64_t width, Compute<T> value) const {
    const T result = convert<T>(value);
    hidden[row * width + unit] = result;
    if (copy) copy[row * copy_pitch + unit] = result;
  }
};

template <class T> struct LstmStep {
  using Wide = Compute<T>;
  static constexpr int gates = 4;
  const T *x, *bias;  // bias may be null
  T *kept, *cells;    // kept may be x
  Carried<T> cell;
  StateResult<T> result;
  int64_t width;

  __device__ __forceinline__ void operator()(unsigned row, unsigned unit, const Wide (&sums)[4]) const {
    const int64_t at = row * width + unit, first = row * (4 * width) + unit;
    Wide in[4];
#pragma unroll
    for (int g = 0; g < 4; ++g) {
      in[g] = widen(x[first + g * width]);
      if (bias) in[g] += widen(bias[g * width + unit]);
      in[g] += sums[g];
    }
    const LstmUnit<Wide> y = lstm_unit(in[0], in[1], in[2], in[3], cell.read(at));
    kept[first] = convert<T>(y.i), kept[first + width] = convert<T>(y.f);
    kept[first + 2 * width] = convert<T>(y.g), kept[first + 3 * width] = convert<T>(y.o);
    cells[at] = convert<T>(y.cell);
    cell.write(at, y.cell);
    result.put(row, unit, width, y.hidden);
  }
};

template <class T> struct GruStep {
  using Wide = Compute<T>;
  static constexpr int gates = 3;
  const T *x, *bias;
  T* kept;
  Carried<T> hidden;
  StateResult<T> result;
  int64_t width;

  __device__ __forceinline__ void operator()(unsigned row, unsigned unit, const Wide (&sums)[3]) const {
    const int64_t at = row * width + unit;
    Wide in[3], h[3];
#pragma unroll
    for (int g = 0; g < 3; ++g) {
      in[g] = widen(x[(row * int64_t(3) + g) * width + unit]);
      h[g] = widen(bias[g * width + unit]) + sums[g];
    }
    const GruUnit<Wide> y = gru_unit(in, h, hidden.read(at));
    const Wide keep[4] = {y.r, y.z, y.n, y.product};
#pragma unroll
    for (int g = 0; g < 4; ++g) kept[(row * int64_t(4) + g) * width + unit] = convert<T>(keep[g]);
    hidden.write(at, y.hidden);
    result.put(row, unit, width, y.hidden);
  }
};

template <class T> struct RnnStep {
  static constexpr int gates = 1;
  const T* x;
  StateResult<T> result;
  int64_t width;
  bool relu;

  __device__ __forceinline__ void operator()(unsigned row, unsigned unit, const Compute<T> (&sums)[1]) const {
    const Compute<T> in = widen(x[row * width + unit]) + sums[0];
    result.put(row, unit, width, relu ? td_relu(in) : td_tanh(in));
  }
};

/// Launches all steps: `cell_of(step, place, before, result)` gives the cell of each, where `before` are the states that it reads
/// and `place` says which states are its own.
template <class T, int gates, class F>
void run_steps(const RecurrentLayer& layer, const T* weight, const T* first, T* hiddens, F&& cell_of) {
  const StepWeight<T> lines(weight, gates * layer.width, layer.width, false, layer.device, layer.stream);
  StepRows<T> rows(first, hiddens, layer.batch, layer.width, layer.device, layer.stream);
  for (int64_t step = 0; step < layer.time; ++step) {
    const int64_t place = layer.place(step);
    const T* const before = step > 0 ? hiddens + layer.place(step - 1) : first;
    const auto cell = cell_of(step, place, before, StateResult<T>{hiddens + place, rows.copy(), rows.pitch()});
    launch_step<T>(rows.product(before, lines), cell, layer.batch, layer.width, layer.stream);
    rows.next();
  }
}

void lstm_kernel(KernelContext& op) {
  const RecurrentLayer layer(op, op.out(0).shape);
  if (layer.empty()) return;
  visit_floating(op.out().dtype, [&]<class T>() {
    const T *x = data<T>(op.in(0)), *bias = op.inputs.size() > 4 ? data<T>(op.in(4)) : nullptr;
    T *cells = data<T>(op.out(1)), *kept = data<T>(op.out(2));
    const CarriedStates<T> carried(layer.states(), layer.device);
    run_steps<T, 4>(layer, data<T>(op.in(1)), data<T>(op.in(2)), data<T>(op.out(0)),
                    [&](int64_t step, int64_t place, const T*, const StateResult<T>& result) {
                      const T* const before = step > 0 ? cells + layer.place(step - 1) : data<T>(op.in(3));
                      return LstmStep<T>{
                          x + 4 * place, bias,       kept + 4 * place, cells + place, carried.after(before, step == 0),
                          result,        layer.width};
                    });
  });
}

void gru_kernel(KernelContext& op) {
  const RecurrentLayer layer(op, op.out(0).shape);
  if (layer.empty()) return;
  visit_floating(op.out().dtype, [&]<class T>() {
    const T *x = data<T>(op.in(0)), *bias = data<T>(op.in(2));
    T* kept = data<T>(op.out(1));
    const CarriedStates<T> carried(layer.states(), layer.device);
    run_steps<T, 3>(layer, data<T>(op.in(1)), data<T>(op.in(3)), data<T>(op.out(0)),
                    [&](int64_t step, int64_t place, const T* before, const StateResult<T>& result) {
                      return GruStep<T>{x + 3 * place, bias,       kept + 4 * place, carried.after(before, step == 0),
                                        result,        layer.width};
                    });
  });
}

void rnn_kernel(KernelContext& op) {
  const RecurrentLayer layer(op, op.out(0).shape);
  if (layer.empty()) return;
  const bool relu = op.attributes.flag("relu");
  visit_floating(op.out().dtype, [&]<class T>() {
    const T* x = data<T>(op.in(0));
    run_steps<T, 1>(layer, data<T>(op.in(1)), data<T>(op.in(2)), data<T>(op.out(0)),
                    [&](int64_t, int64_t place, const T*, const StateResult<T>& result) {
                      return RnnStep<T>{x + place, result, layer.width, relu};
                    });
  });
}

}  // namespace
}  // namespace gpu

void add_cuda_rnn_cells(Kernels kernels);  // rnn_cells.cu
void add_cuda_rnn_grad(Kernels kernels);   // rnn_grad.cu

void add_cuda_rnn(Kernels kernels) {
  kernels["lstm"] = gpu::lstm_kernel;
  kernels["gru"] = gpu::gru_kernel;
  kernels["rnn"] = gpu::rnn_kernel;
  add_cuda_rnn_cells(kernels);
  add_cuda_rnn_grad(kernels);
}

}  // namespace tandem
