// Running sums, products and extremes along one dim. Each row is a chain of dependent steps, so several rows go side by side:
// where `dim` is the last, four of them; elsewhere the neighbours within the inner dims. Totals are double, int64.
#include <algorithm>

#include "core/op.h"
#include "core/scalar/math.h"
#include "kernels/cpu/support/copy.h"
#include "kernels/cpu/support/parallel.h"

namespace tandem {

namespace {

/// [outer, n, inner], walked along n.
struct Rows {
  int64_t outer = 1, n = 1, inner = 1;
  bool reverse;
  explicit Rows(const KernelContext& c) : Rows(c, c.attributes.flag("reverse")) {}
  Rows(const KernelContext& c, bool reverse) : reverse(reverse) {
    const Shape& shape = c.in(0).shape;
    const int dim = static_cast<int>(c.attributes.integer("dim"));
    for (int d = 0; d < shape.size(); ++d) (d < dim ? outer : d == dim ? n : inner) *= shape[d];
  }
};

/// y[at] = total = step(total, at), from `start`, for `count` rows that begin `apart` elements from each other.
template <class T, class A, class Step>
void walk(const Rows& rows, int64_t first, int64_t apart, int64_t count, A start, T* y, const Step& step) {
  constexpr int64_t kAtOnce = 64;
  A total[kAtOnce];
  for (int64_t begin = 0; begin < count; begin += kAtOnce) {
    const int64_t width = std::min(kAtOnce, count - begin);
    std::fill(total, total + width, start);
    for (int64_t i = 0; i < rows.n; ++i) {
      const int64_t at = first + begin * apart + (rows.reverse ? rows.n - 1 - i : i) * rows.inner;
      for (int64_t j = 0; j < width; ++j) {
        total[j] = step(total[j], at + j * apart);
        y[at + j * apart] = static_cast<T>(total[j]);
      }
    }
  }
}

/// The same for `kSide` whole rows that lie one after the other: that many chains, each in a register.
constexpr int64_t kSide = 4;
template <int64_t side, class T, class A, class Step>
void walk_rows(const Rows& rows, int64_t first, A start, T* y, const Step& step) {
  A total[side];
  for (A& each : total) each = start;
  for (int64_t i = 0; i < rows.n; ++i) {
    const int64_t at = first + (rows.reverse ? rows.n - 1 - i : i);
#pragma GCC unroll 4
    for (int64_t j = 0; j < side; ++j) {
      total[j] = step(total[j], at + j * rows.n);
      y[at + j * rows.n] = static_cast<T>(total[j]);
    }
  }
}

template <class T, class A, class Step> void scan(const Rows& rows, A start, T* y, const Step& step) {
  if (rows.outer * rows.n * rows.inner == 0) return;
  if (rows.inner == 1) {
    parallel_for((rows.outer + kSide - 1) / kSide, std::max<int64_t>(1, kPointwiseGrain / (kSide * rows.n)),
                 [&](int64_t begin, int64_t end) {
                   int64_t row = begin * kSide;
                   for (; row + kSide <= std::min(end * kSide, rows.outer); row += kSide)
                     walk_rows<kSide>(rows, row * rows.n, start, y, step);
                   for (; row < std::min(end * kSide, rows.outer); ++row)
                     walk_rows<1>(rows, row * rows.n, start, y, step);
                 });
    return;
  }
  parallel_for(rows.outer, std::max<int64_t>(1, kPointwiseGrain / (rows.n * rows.inner)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t o = begin; o < end; ++o)
                   walk(rows, o * rows.n * rows.inner, 1, rows.inner, start, y, step);
               });
}

/// Integers wrap: their totals are unsigned.
template <class T> using Total = std::conditional_t<std::is_integral_v<T>, uint64_t, double>;

template <class T> void running(KernelContext& c, bool product) {
  using A = Total<T>;
  const WideInput<T> x(c.in(0));
  const WideOutput<T> y(c.out());
  const T* from = x.data();
  if (product) scan(Rows(c), A{1}, y.data(), [=](A total, int64_t at) { return total * static_cast<A>(from[at]); });
  else scan(Rows(c), A{0}, y.data(), [=](A total, int64_t at) { return total + static_cast<A>(from[at]); });
  y.finish();
}
void running_kernel(KernelContext& c, bool product) {
  switch (c.out().dtype) {
    case DType::float64: return running<double>(c, product);
    case DType::int64: return running<int64_t>(c, product);
    default: return running<float>(c, product);
  }
}

/// The best so far, and how many elements have been seen.
template <class T> struct Best {
  T value = {};
  int64_t place = 0, seen = 0;
  explicit operator T() const { return value; }
};

template <class T> void running_extreme(KernelContext& c, bool greatest) {
  const WideInput<T> x(c.in(0));
  const WideOutput<T> y(c.out());
  int64_t* places = c.output<int64_t>(1).data();
  const T* from = x.data();
  const auto walk_by = [&](auto&& better) {
    scan(Rows(c, false), Best<T>{}, y.data(), [=](Best<T> best, int64_t at) {
      const T next = from[at];
      if (best.seen == 0 || td_isnan(next) || (!td_isnan(best.value) && better(next, best.value)))
        best.value = next, best.place = best.seen;
      ++best.seen;
      places[at] = best.place;
      return best;
    });
  };
  if (greatest) walk_by([](T a, T b) { return a >= b; });
  else walk_by([](T a, T b) { return a <= b; });
  y.finish();
}
void running_extreme_kernel(KernelContext& c, bool greatest) {
  if (c.out().dtype == DType::float64) return running_extreme<double>(c, greatest);
  return is_floating(c.out().dtype) ? running_extreme<float>(c, greatest) : running_extreme<int64_t>(c, greatest);
}

template <class T> void linear_recurrence(KernelContext& c) {
  const WideInput<T> a(c.in(0)), b(c.in(1));
  const WideOutput<T> y(c.out());
  const T *factor = a.data(), *term = b.data();
  scan(Rows(c), 0.0, y.data(), [=](double total, int64_t at) {
    return total * static_cast<double>(factor[at]) + static_cast<double>(term[at]);
  });
  y.finish();
}

}  // namespace

void add_cpu_scan(Kernels kernels) {
  kernels["cumsum"] = [](KernelContext& c) { running_kernel(c, false); };
  kernels["cumprod"] = [](KernelContext& c) { running_kernel(c, true); };
  kernels["cummax"] = [](KernelContext& c) { running_extreme_kernel(c, true); };
  kernels["cummin"] = [](KernelContext& c) { running_extreme_kernel(c, false); };
  kernels["linear_recurrence"] = [](KernelContext& c) {
    c.out().dtype == DType::float64 ? linear_recurrence<double>(c) : linear_recurrence<float>(c);
  };
}

}  // namespace tandem
