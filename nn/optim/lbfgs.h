// Lbfgs: quasi-Newton steps from the last changes of the gradient, for problems without noise.
#pragma once

#include <functional>
#include <optional>

#include "optimizer.h"

namespace tandem::nn::optim {

enum class LineSearch { none, strong_wolfe };

struct LbfgsOptions {
  double lr = 1;
  int64_t max_iter = 20;                 ///< iterations of one step
  std::optional<int64_t> max_eval = {};  ///< calls of the closure in one step; max_iter 5 / 4 if not given
  double tolerance_grad = 1e-7;          ///< of the greatest element of the gradient
  double tolerance_change = 1e-9;        ///< of the loss, and of the greatest change of an element
  int64_t history_size = 100;            ///< changes that are kept: each is two numbers for each parameter
  LineSearch line_search = LineSearch::none;
};

/// Limited-memory BFGS (J. Nocedal, "Updating quasi-Newton matrices with limited storage", 1980), with a line search for
/// the strong Wolfe conditions by cubic interpolation (J. Nocedal, S. Wright, "Numerical Optimization", 2006, algorithms 3.5
/// and 3.6) if asked for. As torch.optim.LBFGS, whose iterates these are. A step calls the closure several times:
///
///   optimizer.step([&] {
///     optimizer.zero_grad();
///     td::Tensor loss = mse_loss(model(x), y);
///     loss.backward();
///     return loss;
///   });
///
/// How often is decided by the loss, on the host: eager only, TraceError in a trace. (The closure may be a compiled function.)
/// Where a loss isn't a number a line search tries nearer; gradients that aren't end the step, and parameters stay. Where the
/// closure throws, parameters are those of the last whole iteration, and the history is forgotten.
/// One group of parameters of one dtype. Memory for the whole history is made at construction.
class Lbfgs : public GroupedOptimizer<LbfgsOptions> {
 public:
  using Closure = std::function<Tensor()>;
  explicit Lbfgs(Tensors parameters, LbfgsOptions options = {}, Where where = Where::current());
  /// One step of at most max_iter iterations. Returns the loss at its start.
  Tensor step(const Closure& closure, Where where = Where::current());
  std::vector<NamedTensor> state() const override;

 protected:
  /// ValueError: a step needs the closure.
  void update(Where where) override;

 private:
  struct Numbers;
  struct Point {
    double loss = 0;
    Tensor gradient;
  };
  Tensor flat_gradient() const;
  /// Moves the parameters by t along a flat direction.
  void move(double t, const Tensor& direction, Where where);
  Point evaluate(const Closure& closure, Where where);
  Tensor direction(const Numbers& numbers, const Tensor& gradient) const;
  double search(const Closure& closure, double t, const Tensor& direction, double slope, Point& at,
                int64_t& evaluations, int64_t most_evaluations, Where where);

  Tensor steps_, changes_;       ///< [history_size, elements]: of the parameters, and of the gradient
  Tensor direction_, gradient_;  ///< [elements]: the last ones
  Tensor numbers_;               ///< float64: what Numbers holds
};

}  // namespace tandem::nn::optim
