// Gradients of recurrent layers: the steps backwards, a launch for each (rnn.cuh), whose product is that of the gradients of the
// step after it. The weight is transposed once, so that the product reads it along its terms, as forward.
#include "kernels/cuda/rnn.cuh"

namespace tandem {
namespace gpu {
namespace {

/// Gradients of a step's gates [rows, gates width]: to the result, and to where the next launch reads them.
template <class T> struct GateResult {
  T* gates;
  T* copy;
  int64_t width, copy_pitch;  // of all gates of a row
  __device__ __forceinline__ void put(unsigned row, int64_t column, Compute<T> value) const {
    const T result = convert<T>(value);
    gates[row * width + column] = result;
    if (copy) copy[row * copy_pitch + column] = result;
  }
};

template <class T> struct LstmStepGrad {
  using Wide = Compute<T>;
  static constexpr int gates = 1;
  const T *d_hidden, *d_cells, *kept, *before, *cells;  // d_cells may be null
  Carried<T> d_cell;
  T* first_d_cell;       // of the step that ends it, if that isn't where d_cell is carried
  GateResult<T> result;  // may be where kept is
  int64_t width;

  __device__ __forceinline__ void operator()(unsigned row, unsigned unit, const Wide (&sums)[1]) const {
    const int64_t at = row * width + unit, first = row * (4 * width) + unit;
    Wide d_next = d_cell.read(at);
    if (d_cells) d_next += widen(d_cells[at]);
    const LstmUnitGrad<Wide> d = lstm_unit_grad<Wide>(
        widen(kept[first]), widen(kept[first + width]), widen(kept[first + 2 * width]), widen(kept[first + 3 * width]),
        widen(before[at]), widen(cells[at]), widen(d_hidden[at]) + sums[0], d_next);
    result.put(row, unit, d.i);
    result.put(row, width + unit, d.f);
    result.put(row, 2 * width + unit, d.g);
    result.put(row, 3 * width + unit, d.o);
    d_cell.write(at, d.cell);
    if (first_d_cell) first_d_cell[at] = convert<T>(d.cell);
  }
};

template <class T> struct GruStepGrad {
  using Wide = Compute<T>;
  static constexpr int gates = 1;
  const T *d_hidden, *kept, *before;
  Carried<T> carried;  // what doesn't flow through the h gates
  T* d_x;
  GateResult<T> result;
  int64_t width;

  __device__ __forceinline__ void operator()(unsigned row, unsigned unit, const Wide (&sums)[1]) const {
    const int64_t at = row * width + unit, first = row * (4 * width) + unit, x = row * (3 * width) + unit;
    const Wide dh = carried.read(at) + sums[0] + widen(d_hidden[at]);
    const GruUnitGrad<Wide> d =
        gru_unit_grad<Wide>(widen(kept[first]), widen(kept[first + width]), widen(kept[first + 2 * width]),
                            widen(kept[first + 3 * width]), widen(before[at]), dh);
    d_x[x] = convert<T>(d.reset), d_x[x + width] = convert<T>(d.update), d_x[x + 2 * width] = convert<T>(d.new_x);
    result.put(row, unit, d.reset);
    result.put(row, width + unit, d.update);
    result.put(row, 2 * width + unit, d.new_h);
    carried.write(at, d.hidden);
  }
};

template <class T> struct RnnStepGrad {
  using Wide = Compute<T>;
  static constexpr int gates = 1;
  const T *d_hidden, *hidden;
  GateResult<T> result;
  int64_t width;
  bool relu;

  __device__ __forceinline__ void operator()(unsigned row, unsigned unit, const Wide (&sums)[1]) const {
    const int64_t at = row * width + unit;
    const Wide d = widen(d_hidden[at]) + sums[0], y = widen(hidden[at]);
    result.put(row, unit, relu ? (y <= Wide(0) ? Wide(0) : d) : d * (Wide(1) - y * y));
  }
};

/// The gradient of the first state: what the first step's gates give, and what was carried past them.
template <class T> struct FirstState {
  static constexpr int gates = 1;
  T* result;
  Carried<T> carried;
  int64_t width;
  __device__ __forceinline__ void operator()(unsigned row, unsigned unit, const Compute<T> (&sums)[1]) const {
    const int64_t at = row * width + unit;
    result[at] = convert<T>(carried.read(at) + sums[0]);
  }
};

/// Launches all steps, last first: `cell_of(step, place, result)` gives the cell of each; then that of the first state.
template <class T, int gates, class F, class First>
void run_steps_back(const RecurrentLayer& layer, const T* weight, T* d_gates, F&& cell_of, First&& first_state) {
  const int64_t all = gates * layer.width;
  const StepWeight<T> lines(weight, all, layer.width, true, layer.device, layer.stream);
  StepRows<T> rows(nullptr, d_gates, layer.batch, all, layer.device, layer.stream);
  StepProduct<T> product{};  // nothing comes after the last step
  for (int64_t step = layer.time - 1; step >= 0; --step) {
    const int64_t place = layer.place(step);
    const auto cell = cell_of(step, place, GateResult<T>{d_gates + gates * place, rows.copy(), all, rows.pitch()});
    launch_step<T>(product, cell, layer.batch, layer.width, layer.stream);
    rows.next();
    product = rows.product(d_gates + gates * place, lines);
  }
  launch_step<T>(product, first_state(), layer.batch, layer.width, layer.stream);
}

void lstm_grad_kernel(KernelContext& op) {
  const RecurrentLayer layer(op, op.in(0).shape);
  if (layer.empty()) return;
  visit_floating(op.out().dtype, [&]<class T>() {
    const T *d_hiddens = data<T>(op.in(0)), *cells = data<T>(op.in(1)), *kept = data<T>(op.in(2));
    const T *first_cell = data<T>(op.in(4)), *d_cells = op.inputs.size() > 5 ? data<T>(op.in(5)) : nullptr;
    T* const d_cell = data<T>(op.out(2));
    const CarriedGradients<T> carried(d_cell, layer.states(), layer.device);
    run_steps_back<T, 4>(
        layer, data<T>(op.in(3)), data<T>(op.out(0)),
        [&](int64_t step, int64_t place, const GateResult<T>& result) {
          return LstmStepGrad<T>{d_hiddens + place,
                                 d_cells ? d_cells + place : nullptr,
                                 kept + 4 * place,
                                 step > 0 ? cells + layer.place(step - 1) : first_cell,
                                 cells + place,
                                 carried.at(step == layer.time - 1),
                                 is_half<T> && step == 0 ? d_cell : nullptr,
                                 result,
                                 layer.width};
        },
        [&] {
          return FirstState<T>{data<T>(op.out(1)), {}, layer.width};
        });
  });
}

void gru_grad_kernel(KernelContext& op) {
  const RecurrentLayer layer(op, op.in(0).shape);
  if (layer.empty()) return;
  visit_floating(op.out().dtype, [&]<class T>() {
    const T *d_hiddens = data<T>(op.in(0)), *hiddens = data<T>(op.in(1)), *kept = data<T>(op.in(2));
    const T* first = data<T>(op.in(4));
    T *d_x = data<T>(op.out(0)), *d_first = data<T>(op.out(2));
    const CarriedGradients<T> carried(d_first, layer.states(), layer.device);
    run_steps_back<T, 3>(
        layer, data<T>(op.in(3)), data<T>(op.out(1)),
        [&](int64_t step, int64_t place, const GateResult<T>& result) {
          return GruStepGrad<T>{d_hiddens + place,
                                kept + 4 * place,
                                step > 0 ? hiddens + layer.place(step - 1) : first,
                                carried.at(step == layer.time - 1),
                                d_x + 3 * place,
                                result,
                                layer.width};
        },
        [&] {
          return FirstState<T>{d_first, carried.at(false), layer.width};
        });
  });
}

void rnn_grad_kernel(KernelContext& op) {
  const RecurrentLayer layer(op, op.in(0).shape);
  if (layer.empty()) return;
  const bool relu = op.attributes.flag("relu");
  visit_floating(op.out().dtype, [&]<class T>() {
    const T *d_hiddens = data<T>(op.in(0)), *hiddens = data<T>(op.in(1));
    run_steps_back<T, 1>(
        layer, data<T>(op.in(2)), data<T>(op.out(0)),
        [&](int64_t, int64_t place, const GateResult<T>& result) {
          return RnnStepGrad<T>{d_hiddens + place, hiddens + place, result, layer.width, relu};
        },
        [&] {
          return FirstState<T>{data<T>(op.out(1)), {}, layer.width};
        });
  });
}

}  // namespace
}  // namespace gpu

void add_cuda_rnn_grad(Kernels kernels) {
  kernels["lstm_grad"] = gpu::lstm_grad_kernel;
  kernels["gru_grad"] = gpu::gru_grad_kernel;
  kernels["rnn_grad"] = gpu::rnn_grad_kernel;
}

}  // namespace tandem
