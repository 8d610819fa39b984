// Lbfgs: quasi-Newton steps from the last changes of the gradient.
#include "nn/optim/lbfgs.h"

#include <algorithm>
#include <cmath>

#include "core/dispatch.h"
#include "core/ops/ops.h"

namespace tandem::nn::optim {

namespace {

double number(const Tensor& x) { return x.item<double>(); }
double product(const Tensor& x, const Tensor& y) { return number(dot(x, y)); }
double greatest(const Tensor& x) { return number(max(abs(x))); }

/// Where the cubic through two points with these slopes is least, within [low, high].
double cubic_minimum(double x1, double f1, double g1, double x2, double f2, double g2, double low, double high) {
  const double d1 = g1 + g2 - 3 * (f1 - f2) / (x1 - x2), square = d1 * d1 - g1 * g2;
  if (!(square >= 0 && std::isfinite(square))) return (low + high) / 2;
  const double d2 = std::sqrt(square);
  const double least = x1 <= x2 ? x2 - (x2 - x1) * ((g2 + d2 - d1) / (g2 - g1 + 2 * d2))
                                : x1 - (x1 - x2) * ((g1 + d2 - d1) / (g1 - g2 + 2 * d2));
  return std::min(std::max(least, low), high);
}

}  // namespace

/// What is carried from step to step beside flat tensors.
struct Lbfgs::Numbers {
  double iterations = 0, t = 0, scale = 1, count = 0, next = 0;
  std::vector<double> inverses;  ///< 1 / (change · step) of each row of the history

  static constexpr size_t kOwn = 5;
  explicit Numbers(const Tensor& saved) {
    const std::vector<double> all = saved.to_vector<double>();
    iterations = all[0], t = all[1], scale = all[2], count = all[3], next = all[4];
    inverses.assign(all.begin() + kOwn, all.end());
  }
  Tensor saved() const {
    std::vector<double> all{iterations, t, scale, count, next};
    all.insert(all.end(), inverses.begin(), inverses.end());
    return tensor(all);
  }
  /// The row of entry i of the history, the oldest first.
  int64_t row(int64_t i) const {
    const int64_t size = std::ssize(inverses);
    return (static_cast<int64_t>(next) - static_cast<int64_t>(count) + i + size) % size;
  }
};

Lbfgs::Lbfgs(Tensors parameters, LbfgsOptions options, Where where)
    : GroupedOptimizer("Lbfgs", Groups{{std::move(parameters), options}}, where) {
  const auto positive = [&](int64_t value, const char* name) {
    check(value >= 1, where, name, " is ", value, ", need at least 1");
  };
  positive(options.max_iter, "max_iter");
  positive(options.max_eval.value_or(1), "max_eval");
  positive(options.history_size, "history_size");
  check(options.tolerance_grad >= 0, where, "tolerance_grad is ", options.tolerance_grad, ", need 0 or more");
  check(options.tolerance_change >= 0, where, "tolerance_change is ", options.tolerance_change, ", need 0 or more");
  const DType dtype = this->parameters()[0].dtype();
  int64_t elements = 0;
  for (const Tensor& parameter : this->parameters()) {
    check(parameter.dtype() == dtype, where, "parameters of ", dtype, " and ", parameter.dtype(), ": need one dtype");
    elements = checked_add(elements, parameter.numel(), "nn::optim::Lbfgs", where);
  }
  const NoGrad no_grad;
  const TensorOptions flat{.dtype = size_of(dtype) == 2 ? float32 : dtype, .device = device()};
  steps_ = zeros({options.history_size, elements}, flat, where);
  changes_ = zeros({options.history_size, elements}, flat, where);
  direction_ = zeros({elements}, flat, where);
  gradient_ = zeros({elements}, flat, where);
  numbers_ = zeros({static_cast<int64_t>(Numbers::kOwn) + options.history_size}, {.dtype = float64}, where);
}

void Lbfgs::update(Where where) {
  check(false, where,
        "a step calls a closure, which computes the loss and its gradients: step([&] { … return loss; })");
}

Tensor Lbfgs::flat_gradient() const {
  Tensors parts;
  for (const Tensor& parameter : parameters()) {
    const Tensor gradient = parameter.grad();
    parts.push_back(gradient.defined() ? gradient.reshape({-1}).to(gradient_.dtype())
                                       : zeros({parameter.numel()}, {.dtype = gradient_.dtype(), .device = device()}));
  }
  return concat(parts).clone();
}

void Lbfgs::move(double t, const Tensor& direction, Where where) {
  int64_t at = 0;
  for (Tensor parameter : parameters()) {
    const Tensor change = slice(direction, 0, at, at + parameter.numel()).reshape(parameter.shape());
    parameter.assign((detail::widened(parameter) + change * t).to(parameter.dtype()), where);
    at += parameter.numel();
  }
}

Lbfgs::Point Lbfgs::evaluate(const Closure& closure, Where where) {
  Tensor loss;
  {
    const EnableGrad grad;
    loss = closure();
  }
  check(loss.defined() && loss.numel() == 1, where, "the closure must return the loss, one number");
  return {number(loss), flat_gradient()};
}

/// -H g, by the two loops over the history.
Tensor Lbfgs::direction(const Numbers& numbers, const Tensor& gradient) const {
  const int64_t count = static_cast<int64_t>(numbers.count);
  std::vector<double> weights(static_cast<size_t>(count));
  Tensor q = -gradient;
  for (int64_t i = count - 1; i >= 0; --i) {
    const int64_t row = numbers.row(i);
    double& weight = weights[static_cast<size_t>(i)];
    weight = product(select(steps_, 0, row), q) * numbers.inverses[static_cast<size_t>(row)];
    q = q - select(changes_, 0, row) * weight;
  }
  q = q * numbers.scale;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = numbers.row(i);
    const double other = product(select(changes_, 0, row), q) * numbers.inverses[static_cast<size_t>(row)];
    q = q + select(steps_, 0, row) * (weights[static_cast<size_t>(i)] - other);
  }
  return q;
}

/// A step along `direction` from where the parameters are, where the loss has fallen enough and its slope is small enough;
/// `at` becomes the loss and gradient there. Parameters stay where they are. Tries as many times as `most_evaluations` leaves.
double Lbfgs::search(const Closure& closure, double t, const Tensor& direction, double slope, Point& at,
                     int64_t& evaluations, int64_t most_evaluations, Where where) {
  constexpr double kFall = 1e-4, kSlope = 0.9;
  const int64_t most = most_evaluations - evaluations;
  struct Trial {
    double t;
    Point point;
    double slope;
  };
  Tensors starts;
  for (const Tensor& parameter : parameters()) starts.push_back(parameter.clone());
  const auto attempt = [&](double length) {
    move(length, direction, where);
    const auto back = [&] {
      for (size_t i = 0; i < starts.size(); ++i) Tensor(parameters()[i]).assign(starts[i], where);
    };
    Point point;
    try {
      point = evaluate(closure, where);
    } catch (...) {
      back();
      throw;
    }
    back();
    if (std::isnan(point.loss)) point.loss = INFINITY;  // beyond where the loss is defined: nearer
    ++evaluations;
    const double along = product(point.gradient, direction);
    return Trial{length, std::move(point), along};
  };
  const double tolerance = options().tolerance_change, width = greatest(direction), start = at.loss;
  const Trial origin{0, at, slope};
  Trial before = origin, now = attempt(t);
  std::vector<Trial> bracket;
  bool done = false;
  int64_t tries = 0;
  // Until a minimum lies between two trials.
  for (; tries < most; ++tries) {
    if (now.point.loss > start + kFall * now.t * slope || (tries > 1 && now.point.loss >= before.point.loss)) {
      bracket = {before, now};
      break;
    }
    if (std::fabs(now.slope) <= -kSlope * slope) {
      bracket = {now};
      done = true;
      break;
    }
    if (now.slope >= 0) {
      bracket = {before, now};
      break;
    }
    const double next = cubic_minimum(before.t, before.point.loss, before.slope, now.t, now.point.loss, now.slope,
                                      now.t + 0.01 * (now.t - before.t), now.t * 10);
    before = now;
    now = attempt(next);
  }
  if (tries == most) bracket = {origin, now};
  // Then closer. The better of the two is `low`.
  size_t low = bracket.back().point.loss < bracket.front().point.loss ? 1 : 0;
  bool slow = false;
  while (!done && tries < most) {
    const size_t high = 1 - low;
    const Trial &a = bracket[0], &b = bracket[1];
    if (std::fabs(b.t - a.t) * width < tolerance) break;
    const double left = std::min(a.t, b.t), right = std::max(a.t, b.t), margin = 0.1 * (right - left);
    double next = cubic_minimum(a.t, a.point.loss, a.slope, b.t, b.point.loss, b.slope, left, right);
    if (std::min(right - next, next - left) < margin) {
      // Twice in a row close to an end, or at one: away from it.
      if (slow || next >= right || next <= left) {
        next = std::fabs(next - right) < std::fabs(next - left) ? right - margin : left + margin;
        slow = false;
      } else {
        slow = true;
      }
    } else {
      slow = false;
    }
    Trial trial = attempt(next);
    ++tries;
    if (trial.point.loss > start + kFall * next * slope || trial.point.loss >= bracket[low].point.loss) {
      bracket[high] = std::move(trial);
      low = bracket[1].point.loss < bracket[0].point.loss ? 1 : 0;
    } else {
      if (std::fabs(trial.slope) <= -kSlope * slope) done = true;
      else if (trial.slope * (bracket[high].t - bracket[low].t) >= 0) bracket[high] = bracket[low];
      bracket[low] = std::move(trial);
    }
  }
  at = bracket[low].point;
  return bracket[low].t;
}

Tensor Lbfgs::step(const Closure& closure, Where where) {
  if (interceptor())
    throw TraceError(
        "nn::optim::Lbfgs: how often the closure is called is decided by the loss, on the host, which a trace "
        "can't know: call step() outside of the compiled function, which may be the closure",
        where);
  const NoGrad no_grad;
  const WhereScope scope(where);
  const LbfgsOptions& o = options();
  const double rate = number(lr());
  const int64_t most = o.max_eval.value_or(std::max<int64_t>(o.max_iter * 5 / 4, 1));
  Point at = evaluate(closure, where);
  const Tensor first = full({}, at.loss, {.dtype = gradient_.dtype(), .device = device()});
  int64_t evaluations = 1;
  if (greatest(at.gradient) <= o.tolerance_grad) return first;
  Numbers numbers(numbers_);
  numbers_.assign(zeros_like(numbers_), where);  // a closure that throws leaves no half of a history
  for (int64_t iteration = 1; iteration <= o.max_iter; ++iteration) {
    if (++numbers.iterations == 1) {
      numbers.scale = 1;
      direction_.assign(-at.gradient, where);
    } else {
      const Tensor change = at.gradient - gradient_, step = direction_ * numbers.t;
      const double curvature = product(change, step);
      if (curvature > 1e-10) {
        const int64_t row = static_cast<int64_t>(numbers.next);
        select(changes_, 0, row).assign(change, where);
        select(steps_, 0, row).assign(step, where);
        numbers.inverses[static_cast<size_t>(row)] = 1 / curvature;
        numbers.next = static_cast<double>((row + 1) % o.history_size);
        numbers.count = std::min(numbers.count + 1, static_cast<double>(o.history_size));
        numbers.scale = curvature / product(change, change);
      }
      direction_.assign(direction(numbers, at.gradient), where);
    }
    gradient_.assign(at.gradient, where);
    numbers.t = numbers.iterations == 1 ? std::min(1.0, 1 / number(sum(abs(at.gradient)))) * rate : rate;
    const double slope = product(at.gradient, direction_);
    if (!(slope <= -o.tolerance_change)) break;  // nor where it is no number
    const double before = at.loss;
    bool flat = false;
    if (o.line_search == LineSearch::strong_wolfe) {
      numbers.t = search(closure, numbers.t, direction_, slope, at, evaluations, most, where);
      move(numbers.t, direction_, where);
      flat = greatest(at.gradient) <= o.tolerance_grad;
    } else {
      move(numbers.t, direction_, where);
      if (iteration < o.max_iter) {  // else the next step evaluates it
        at = evaluate(closure, where);
        ++evaluations;
        flat = greatest(at.gradient) <= o.tolerance_grad;
      }
    }
    if (evaluations >= most || flat || greatest(direction_) * numbers.t <= o.tolerance_change ||
        std::fabs(at.loss - before) < o.tolerance_change)
      break;
  }
  numbers_.assign(numbers.saved(), where);
  return first;
}

std::vector<NamedTensor> Lbfgs::state() const {
  std::vector<NamedTensor> result = Optimizer::state();
  result.push_back({"steps", steps_});
  result.push_back({"changes", changes_});
  result.push_back({"direction", direction_});
  result.push_back({"gradient", gradient_});
  result.push_back({"numbers", numbers_});
  return result;
}

}  // namespace tandem::nn::optim
