// Functions with a gradient of the user's own: a forward and a backward, written with ordinary ops.
#pragma once

#include <any>
#include <functional>
#include <memory>
#include <string>

#include "../core/tensor.h"

namespace tandem {

class OpContext;

/// One tensor or several, whichever is at hand.
class TensorList {
 public:
  TensorList(Tensor one) : items_{std::move(one)} {}
  TensorList(Tensors several) : items_(std::move(several)) {}
  TensorList(std::initializer_list<Tensor> several) : items_(several) {}
  const Tensors& items() const { return items_; }

 private:
  Tensors items_;
};

/// What passes from a function's forward to its backward.
class FunctionContext {
 public:
  /// In forward: keeps tensors for backward, in that order. Inputs and results of the function may be among them. A tensor
  /// that is overwritten before backward gives an InPlaceError there.
  void save(TensorList tensors);
  /// In backward: the i-th tensor that forward saved.
  Tensor saved(size_t i) const;
  /// Anything else that backward wants to know.
  std::any& data() const;
  /// Whether the gradient of that input is wanted. In forward: whether one can be asked for.
  bool needs_grad(size_t input) const;

  struct State;

 private:
  friend class FunctionCall;
  FunctionContext(std::shared_ptr<State> state, const OpContext* rule) : state_(std::move(state)), rule_(rule) {}
  std::shared_ptr<State> state_;
  const OpContext* rule_;  ///< in backward
};

struct FunctionDefinition {
  /// The results, from the inputs. Runs without a tape.
  std::function<TensorList(FunctionContext&, const Tensors& inputs)> forward;
  /// A gradient for each input (undefined: none), from those of the results (zeros where nothing flowed into one). Written
  /// with public functions, it can be differentiated again, and traced.
  std::function<TensorList(const FunctionContext&, const Tensors& gradients)> backward;
  std::string name = "custom_function";  ///< for errors
};

/// What custom_function() makes; copies are the same function.
class CustomFunction {
 public:
  explicit CustomFunction(std::shared_ptr<const FunctionDefinition> definition) : definition_(std::move(definition)) {}

  /// A function of one result. ValueError if forward gives several.
  template <std::same_as<Tensor>... More> Tensor operator()(const Tensor& first, const More&... more) const {
    return single(all({first, more...}));
  }
  /// All results.
  Tensors all(const Tensors& inputs, Where where = Where::current()) const;

 private:
  Tensor single(const Tensors& results) const;
  std::shared_ptr<const FunctionDefinition> definition_;
};

/// A function whose gradient is not that of its ops but what `backward` says: a gradient that is known in closed form, is
/// more stable, or is meant to be another (straight-through, reversal). Works eagerly and in traces. (For a kernel of your
/// own see custom_op.)
///
///   auto clipped = td::custom_function({
///       .forward = [](td::FunctionContext& context, const td::Tensors& in) { context.save(in[0]); return exp(in[0]); },
///       .backward = [](const td::FunctionContext& context, const td::Tensors& g) {
///         return minimum(g[0] * exp(context.saved(0)), 10);
///       }});
///   y = clipped(x);
CustomFunction custom_function(FunctionDefinition definition, Where where = Where::current());

}  // namespace tandem
