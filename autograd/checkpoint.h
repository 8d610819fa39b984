// checkpoint: memory for time. A part of a model keeps nothing for backward, and runs a second time there.
#pragma once

#include <functional>

#include "../core/tensor.h"

namespace tandem {

/// The same for functions of any number of tensors: see checkpoint() below.
Tensors checkpoint_all(std::function<Tensors(const Tensors&)> function, const Tensors& inputs,
                       Where where = Where::current());

namespace detail {
/// An argument, with the line of the call.
struct CheckpointInput {
  const Tensor& tensor;
  Where where;
  CheckpointInput(const Tensor& tensor, Where where = Where::current()) : tensor(tensor), where(where) {}
};
template <size_t... I, class F> auto apply_tensors(F& f, const Tensors& in, std::index_sequence<I...>) {
  return f(in[I]...);
}
}  // namespace detail

/// f(x…), without what its gradient needs: none of the tensors that f makes on its way outlives the call. When backward
/// comes by, f runs again, with the same random draws (dropout drops the same elements) and under the same Autocast, and is
/// differentiated then. Gradients reach the arguments x, and all that f captures and that requires a gradient: parameters,
/// or values computed before. Calls nest. f returns a Tensor or Tensors.
///
///   for (const Block& block : blocks) x = checkpoint([&](const Tensor& x) { return block(x); }, x);
///
/// f must do the same when it runs again. What it holds by reference must live until backward, and what it reads must not
/// be assigned to before (InPlaceError); nor may it assign to anything itself: it would do so twice.
///
/// In a trace both runs are part of the graph. The second reads the arguments, and captured values that require a gradient,
/// through barrier(), which common-subexpression elimination can't see through and which waits for the gradient of the
/// result. So what is computed from those is computed again, and the memory of the first run is free in between. What f
/// computes from parameters and constants alone may be shared by both runs.
template <class F, std::same_as<Tensor>... X> auto checkpoint(F f, detail::CheckpointInput first, const X&... x) {
  using Result = decltype(f(first.tensor, x...));
  using Places = std::make_index_sequence<1 + sizeof...(X)>;
  const auto run = [f = std::move(f)](const Tensors& in) mutable {
    if constexpr (std::is_same_v<Result, Tensor>) return Tensors{detail::apply_tensors(f, in, Places())};
    else return detail::apply_tensors(f, in, Places());
  };
  if constexpr (std::is_same_v<Result, Tensor>) {
    return checkpoint_all(run, {first.tensor, x...}, first.where).at(0);
  } else {
    static_assert(std::is_same_v<Result, Tensors>, "tandem::checkpoint: the function must return a Tensor or Tensors");
    return checkpoint_all(run, {first.tensor, x...}, first.where);
  }
}

}  // namespace tandem
