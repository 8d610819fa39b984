// Scans on cuda(0) against the CPU: short lines, lines of several steps and of several pieces, along the innermost dim and across
// others, both ways.
#include <doctest/doctest.h>

#include <limits>

#include "tests/cuda/compare.h"

using namespace tandem;

namespace {

Tensor scanned(const char* name, const Tensors& x, int64_t dim, bool reverse) {
  return dispatch(find_op(name),
                  x.size() == 1 ? std::initializer_list<Tensor>{x[0]} : std::initializer_list<Tensor>{x[0], x[1]},
                  {{"dim", dim}, {"reverse", reverse}}, Where::current());
}

struct Lines {
  Shape shape;
  int64_t dim;
};
const Lines lines[] = {{{70, 3}, 1},    {{9, 17}, 1},     {{3, 1000}, 1},    {{2, 1025}, 1}, {{1, 20000}, 1},
                       {{3, 40, 5}, 1}, {{1030, 300}, 0}, {{2, 600, 17}, 1}, {{5, 0}, 1},    {{4, 7, 1}, 1}};

}  // namespace

TEST_CASE("cuda: running sums, products and recurrences of every length, both ways") {
  for (const DType type : {float32, float64, float16, bfloat16, int64, int32, uint8, bool_}) {
    for (const Lines& each : lines) {
      const Shape& shape = each.shape;
      const int64_t d = each.dim;
      CAPTURE(type);
      CAPTURE(shape);
      if (shape.numel() > 5000 && type != float32 && type != int64) continue;
      const bool floats = is_floating(type);
      const Tensor x = floats ? numbers(shape, type) : integers(shape, 3).to(type);
      const Tensor near = floats ? (numbers(shape, float64, 2) / 64 + 1).to(type) : x + 1;
      compare(
          {x, near},
          [&](const Tensors& t) {
            Tensors results;
            for (const bool reverse : {false, true}) {
              results.push_back(scanned("cumsum", {t[0]}, d, reverse));
              results.push_back(scanned("cumprod", {t[1]}, d, reverse));
              if (is_floating(t[0].dtype())) results.push_back(scanned("linear_recurrence", {t[0], t[1]}, d, reverse));
            }
            return results;
          },
          type == float32   ? Tolerance{1e-6, 1e-6}
          : type == float64 ? Tolerance{1e-12, 1e-12}
                            : Tolerance{-1, -1});
    }
  }
}

TEST_CASE("cuda: products of pieces that leave double's range don't show") {
  // Zero, then factors whose product is infinite: zero all along; a small product that grows again.
  const Tensor place = arange(0, 9000);
  const Tensor zero = where(place == 2, 0, full({9000}, 1000)),
               dip = where(place < 150, 0.01, where(place < 300, 100, 1));
  compare({zero.reshape({1, 9000}), dip.to(float64).reshape({1, 9000}), zero.reshape({9000, 1}).expand({9000, 2})},
          [](const Tensors& t) {
            const Tensor one = t[0] * 0, late = ones_like(t[2]);
            return Tensors{cumprod(t[0].slice(1, 2, 9000), 1), cumprod(t[1], 1), linear_recurrence(t[0], one, 1),
                           cumprod(t[2].slice(0, 2, 9000), 0), linear_recurrence(t[2].contiguous(), late * 0, 0)};
          },
          {1e-9, 0});
}

TEST_CASE("cuda: running extremes: the last of equals, the last NaN once there is one") {
  for (const DType type : {float32, float64, float16, bfloat16, int64, int32, int16, uint8, bool_}) {
    for (const Lines& each : lines) {
      const Shape& shape = each.shape;
      const int64_t d = each.dim;
      if (shape.numel() > 5000 && type != float32 && type != int64) continue;
      CAPTURE(type);
      CAPTURE(shape);
      Tensor x = integers(shape, type == bool_ ? 2 : 30).to(type);
      if (is_floating(type) && shape.numel() > 0) {
        const Tensor place = integers(shape, shape[static_cast<int>(d)] + 40, 3);
        x = where(place == 0, std::numeric_limits<float>::quiet_NaN(), x);
        x = where(place == 1, -std::numeric_limits<float>::infinity(), x).to(type);
      }
      compare({x},
              [&](const Tensors& t) {
                const ValuesAndIndices most = cummax(t[0], d), least = cummin(t[0], d);
                return Tensors{most.values, most.indices, least.values, least.indices};
              },
              {0, 0});
    }
  }
}
