// ctc_loss, its gradient and that one's. Each sequence is walked by one thread, in double. The states of a sequence are its labels
// between blanks: b l0 b l1 b; from one step of time to the next a path stays, goes on by one state, or skips a blank
// between two labels that differ. For the second gradient each number is walked with its derivative along the incoming one.
#include <cmath>
#include <limits>
#include <vector>

#include "core/range_check.h"
#include "kernels/cpu/support/rows.h"

namespace tandem {

namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

/// log(e^a + e^b)
double log_add(double a, double b) {
  const double greater = std::fmax(a, b);
  if (greater == kNever) return a == a && b == b ? kNever : a + b;
  return greater + std::log1p(std::exp(-std::fabs(a - b)));
}

/// A number, and its derivative along a direction.
struct Dual {
  double value, along;
  Dual(double value = 0, double along = 0) : value(value), along(along) {}
};
Dual operator+(Dual a, Dual b) { return {a.value + b.value, a.along + b.along}; }
Dual& operator+=(Dual& a, Dual b) { return a = a + b; }
Dual operator-(Dual a) { return {-a.value, -a.along}; }
Dual exp(Dual a) {
  const double e = std::exp(a.value);
  return {e, e * a.along};
}
Dual log_add(Dual a, Dual b) {
  const double sum = log_add(a.value, b.value);
  if (sum == kNever) return sum;
  return {sum, std::exp(a.value - sum) * a.along + std::exp(b.value - sum) * b.along};
}
using std::exp;
double value_of(double a) { return a; }
double value_of(Dual a) { return a.value; }

/// The labels of each sequence, and how much of it counts. What is out of range is told before anything is computed.
struct Sequences {
  int64_t time, batch, classes, blank;
  const int64_t *times, *lengths;
  std::vector<const int64_t*> labels;

  Sequences(const KernelContext& c, int first)
      : time(c.in(first).shape[0]), batch(c.in(first).shape[1]), classes(c.in(first).shape[2]),
        blank(c.attributes.integer("blank")), times(static_cast<const int64_t*>(c.in(first + 2).data)),
        lengths(static_cast<const int64_t*>(c.in(first + 3).data)) {
    const TensorImpl& targets = c.in(first + 1);
    const bool padded = targets.shape.size() == 2;
    const int64_t* const all = static_cast<const int64_t*>(targets.data);
    const int64_t width = targets.shape.back();  // of a row, or of all
    const auto check = [&](const char* what, int64_t value, int64_t n, int64_t bound) {
      const RangeCheck range{.what = what, .bound = bound, .lengths = true};
      if (!range.allows(value)) c.fail<ValueError>(range.text(value, Shape{n}));
    };
    int64_t begin = 0;
    for (int64_t n = 0; n < batch; ++n) {
      check("input length", times[n], n, time);
      check("target length", lengths[n], n, width);
      if (padded) begin = n * width;
      else check("the labels' end", begin + lengths[n], n, width);
      for (int64_t i = begin; i < begin + lengths[n]; ++i)
        if (all[i] < 0 || all[i] >= classes)
          c.fail<DimensionError>(
              RangeCheck{.what = "label", .bound = classes}.text(all[i], padded ? Shape{n, i - begin} : Shape{i}));
      labels.push_back(all + begin);
      begin += lengths[n];
    }
  }
  int64_t states(int64_t n) const { return 2 * lengths[n] + 1; }
  int64_t symbol(int64_t n, int64_t state) const {
    return state % 2 == 0 ? blank : labels[static_cast<size_t>(n)][state / 2];
  }
  /// Whether a path may come to the state from two before it.
  bool skips(int64_t n, int64_t state) const {
    return state % 2 == 1 && state >= 3 && symbol(n, state) != symbol(n, state - 2);
  }
};

/// The log-probabilities of one sequence.
template <class T> struct Steps {
  using Number = double;
  const T* data;
  int64_t stride;
  double operator()(int64_t t, int64_t symbol) const { return static_cast<double>(data[t * stride + symbol]); }
};
/// The same with a direction.
template <class T> struct DirectedSteps {
  using Number = Dual;
  Steps<T> values, along;
  Dual operator()(int64_t t, int64_t symbol) const { return {values(t, symbol), along(t, symbol)}; }
};

/// log P(state s at t, and the labels up to there), for all s; `before` is that of t - 1.
template <class Steps, class Number = typename Steps::Number>
void forward_step(const Sequences& all, int64_t n, const Steps& log_p, int64_t t, const Number* before, Number* now) {
  for (int64_t s = 0; s < all.states(n); ++s) {
    Number sum = t == 0 ? Number(s < 2 ? 0 : kNever) : before[s];
    if (t > 0 && s >= 1) sum = log_add(sum, before[s - 1]);
    if (t > 0 && all.skips(n, s)) sum = log_add(sum, before[s - 2]);
    now[s] = sum + log_p(t, all.symbol(n, s));
  }
}

template <class Number> Number loss_of(const Sequences& all, int64_t n, const Number* last) {
  const int64_t states = all.states(n);
  if (all.times[n] == 0) return Number(states == 1 ? 0 : -kNever);
  return -(states == 1 ? last[0] : log_add(last[states - 1], last[states - 2]));
}

template <class T> void ctc_loss(KernelContext& c) {
  const Sequences all(c, 0);
  const WideInput<T> x(c.in(0));
  const WideOutput<T> loss(c.out());
  const bool zero_infinity = c.attributes.flag("zero_infinity");
  for_rows(all.batch, all.time * 64, [&](int64_t n) {
    const Steps<T> log_p{x.data() + n * all.classes, all.batch * all.classes};
    std::vector<double> now(static_cast<size_t>(all.states(n))), before(now);
    for (int64_t t = 0; t < all.times[n]; ++t) {
      now.swap(before);
      forward_step(all, n, log_p, t, before.data(), now.data());
    }
    const double value = loss_of(all, n, now.data());
    loss.data()[n] = static_cast<T>(zero_infinity && std::isinf(value) ? 0 : value);
  });
  loss.finish();
}

/// P(state k at t | labels) of one sequence: f(t, k, it). Nothing where the loss is infinite and that counts as zero.
template <class Steps, class F>
void each_share(const KernelContext& c, const Sequences& all, int64_t n, const Steps& log_p, F&& f) {
  using Number = typename Steps::Number;
  const int64_t states = all.states(n), times = all.times[n];
  std::vector<Number> alpha(static_cast<size_t>(times * states));
  for (int64_t t = 0; t < times; ++t)
    forward_step(all, n, log_p, t, alpha.data() + (t > 0 ? t - 1 : 0) * states, alpha.data() + t * states);
  const Number loss = loss_of(all, n, alpha.data() + (times > 0 ? times - 1 : 0) * states);
  if (std::isinf(value_of(loss)) && c.attributes.flag("zero_infinity")) return;
  // beta: log P(the labels after, from state s at t).
  std::vector<Number> beta(static_cast<size_t>(states), kNever), after(beta), share(static_cast<size_t>(all.classes));
  beta[static_cast<size_t>(states - 1)] = 0;
  if (states > 1) beta[static_cast<size_t>(states - 2)] = 0;
  for (int64_t t = times - 1; t >= 0; --t) {
    if (t < times - 1) {
      for (int64_t s = 0; s < states; ++s)
        after[static_cast<size_t>(s)] = beta[static_cast<size_t>(s)] + log_p(t + 1, all.symbol(n, s));
      for (int64_t s = 0; s < states; ++s) {
        Number sum = after[static_cast<size_t>(s)];
        if (s + 1 < states) sum = log_add(sum, after[static_cast<size_t>(s + 1)]);
        if (s + 2 < states && all.skips(n, s + 2)) sum = log_add(sum, after[static_cast<size_t>(s + 2)]);
        beta[static_cast<size_t>(s)] = sum;
      }
    }
    std::fill(share.begin(), share.end(), Number(0));
    for (int64_t s = 0; s < states; ++s)
      share[static_cast<size_t>(all.symbol(n, s))] +=
          exp(alpha[static_cast<size_t>(t * states + s)] + beta[static_cast<size_t>(s)] + loss);
    for (int64_t k = 0; k < all.classes; ++k) f(t, k, share[static_cast<size_t>(k)]);
  }
}

template <class T> void ctc_loss_grad(KernelContext& c) {
  const Sequences all(c, 1);
  const WideInput<T> g(c.in(0)), x(c.in(1));
  const WideOutput<T> dx(c.out());
  std::fill_n(dx.data(), c.out().shape.numel(), T(0));
  const int64_t stride = all.batch * all.classes;
  for_rows(all.batch, all.time * 64, [&](int64_t n) {
    T* const to = dx.data() + n * all.classes;
    each_share(c, all, n, Steps<T>{x.data() + n * all.classes, stride}, [&](int64_t t, int64_t k, double share) {
      to[t * stride + k] = static_cast<T>(-static_cast<double>(g.data()[n]) * share);
    });
  });
  dx.finish();
}

/// With H the matrix of second derivatives, which is symmetric: of the log-probabilities g H u, of g the product of u with the
/// gradient.
template <class T> void ctc_loss_second(KernelContext& c) {
  const Sequences all(c, 1);
  const WideInput<T> g(c.in(0)), x(c.in(1)), u(c.in(5));
  const WideOutput<T> dx(c.out(0)), dg(c.out(1));
  std::fill_n(dx.data(), c.out(0).shape.numel(), T(0));
  const int64_t stride = all.batch * all.classes;
  for_rows(all.batch, all.time * 64, [&](int64_t n) {
    const int64_t first = n * all.classes;
    const DirectedSteps<T> log_p{{x.data() + first, stride}, {u.data() + first, stride}};
    double product = 0;
    each_share(c, all, n, log_p, [&](int64_t t, int64_t k, Dual share) {
      dx.data()[first + t * stride + k] = static_cast<T>(-static_cast<double>(g.data()[n]) * share.along);
      product -= log_p.along(t, k) * share.value;
    });
    dg.data()[n] = static_cast<T>(product);
  });
  dx.finish();
  dg.finish();
}

}  // namespace

void add_cpu_ctc(Kernels kernels) {
  kernels["ctc_loss"] = TANDEM_WIDE_KERNEL(ctc_loss);
  kernels["ctc_loss_grad"] = TANDEM_WIDE_KERNEL(ctc_loss_grad);
  kernels["ctc_loss_second"] = TANDEM_WIDE_KERNEL(ctc_loss_second);
}

}  // namespace tandem
