// Medians, quartiles and bootstrap intervals of step times.
#include "lab/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tandem::lab {

namespace {

/// SplitMix64 (Steele, Lea, Flood 2014): the report of a run doesn't depend on the program's own random state.
struct SplitMix {
  uint64_t state = 0x7a6e64656dULL;
  uint64_t next() {
    uint64_t z = (state += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }
};

constexpr int kReplicas = 2000;

}  // namespace

double quantile(std::vector<double> values, double fraction) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::sort(values.begin(), values.end());
  const double at = fraction * static_cast<double>(values.size() - 1);
  const size_t below = static_cast<size_t>(at), above = std::min(below + 1, values.size() - 1);
  return values[below] + (at - static_cast<double>(below)) * (values[above] - values[below]);
}

Spread spread(const std::vector<double>& values) {
  return {.median = quantile(values, 0.5),
          .lower_quartile = quantile(values, 0.25),
          .upper_quartile = quantile(values, 0.75),
          .least = quantile(values, 0),
          .count = static_cast<int>(values.size())};
}

Ratio ratio_of_medians(const std::vector<double>& a, const std::vector<double>& b) {
  Ratio result;
  result.value = result.low = result.high = quantile(b, 0.5) / quantile(a, 0.5);
  const size_t rounds = std::min(a.size(), b.size());
  if (rounds < 2) return result;
  SplitMix random;
  std::vector<double> replicas, drawn_a(rounds), drawn_b(rounds);
  for (int replica = 0; replica < kReplicas; ++replica) {
    for (size_t i = 0; i < rounds; ++i) {
      const size_t round = random.next() % rounds;
      drawn_a[i] = a[round];
      drawn_b[i] = b[round];
    }
    replicas.push_back(quantile(drawn_b, 0.5) / quantile(drawn_a, 0.5));
  }
  result.low = quantile(replicas, 0.025);
  result.high = quantile(replicas, 0.975);
  return result;
}

double break_even(double one_off, double eager_seconds, double graph_seconds) {
  const double saved = eager_seconds - graph_seconds;
  return saved > 0 ? one_off / saved : std::numeric_limits<double>::infinity();
}

}  // namespace tandem::lab
