// Indexing by tensors and masks, and results whose size depends on values.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "pytorch.h"
#include "raises.h"

using namespace tandem;
using namespace pytorch;

namespace {

Tensor box() {
  return numbers({1.88,   0.831, -0.162, 1.683,  0.58,   1.165,  -1.286, -0.596, 0.325,  -0.847, -0.189, -1.293,
                  -0.579, 0.488, -0.073, -0.237, -0.371, -1.178, 0.66,   1.139,  -1.159, 0.707,  -1.561, 0.095},
                 {3, 4, 2});
}

}  // namespace

TEST_CASE("PyTorch's values: indexing by tensors and masks") {
  check(CALL(index(x[0], {x[1]})), {box(), integers({2, 0, -1}, {3})}, {3, 4, 2},
        {-0.371, -1.178, 0.66,   1.139,  -1.159, 0.707,  -1.561, 0.095, 1.88,   0.831, -0.162, 1.683,
         0.58,   1.165,  -1.286, -0.596, -0.371, -1.178, 0.66,   1.139, -1.159, 0.707, -1.561, 0.095},
        {{9, 10, 11, 12, 13, 14, 15, 16, 0, 0, 0, 0, 0, 0, 0, 0, 18, 20, 22, 24, 26, 28, 30, 32}, {}});
  check(CALL(x[0][x[1]]), {box(), integers({1, 1}, {2, 1})}, {2, 1, 4, 2},
        {0.325, -0.847, -0.189, -1.293, -0.579, 0.488, -0.073, -0.237, 0.325, -0.847, -0.189, -1.293, -0.579, 0.488,
         -0.073, -0.237},
        {{0, 0, 0, 0, 0, 0, 0, 0, 10, 12, 14, 16, 18, 20, 22, 24, 0, 0, 0, 0, 0, 0, 0, 0}, {}});
  check(CALL(index(x[0], {{}, x[1]})), {box(), integers({3, -1, 0, 0}, {2, 2})}, {3, 2, 2, 2},
        {-1.286, -0.596, -1.286, -0.596, 1.88,   0.831, 1.88,   0.831, -0.073, -0.237, -0.073, -0.237,
         0.325,  -0.847, 0.325,  -0.847, -1.561, 0.095, -1.561, 0.095, -0.371, -1.178, -0.371, -1.178},
        {{12, 14, 0, 0, 0, 0, 4, 6, 28, 30, 0, 0, 0, 0, 20, 22, 44, 46, 0, 0, 0, 0, 36, 38}, {}});
  check(CALL(index(x[0], {x[1], x[2]})), {box(), integers({2, 0, -1}, {3}), integers({1, -4}, {2, 1})}, {2, 3, 2},
        {0.66, 1.139, -0.162, 1.683, 0.66, 1.139, -0.371, -1.178, 1.88, 0.831, -0.371, -1.178},
        {{9, 10, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 18, 20, 6, 8, 0, 0, 0, 0}, {}, {}});
  check(CALL(index(x[0], {x[1], {}, x[2]})), {box(), integers({2, 0, -1}, {3}), integers({0, 1, 1}, {3})}, {3, 4},
        {-0.371, 0.66, -1.159, -1.561, 0.831, 1.683, 1.165, -0.596, -1.178, 1.139, 0.707, 0.095},
        {{0, 5, 0, 6, 0, 7, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 9, 2, 10, 3, 11, 4, 12}, {}, {}});
  check(CALL(index(x[0], {{}, x[1], x[2]})), {box(), integers({2, 0, -1}, {3}), integers({0, 1, 1}, {3})}, {3, 3},
        {0.58, 0.831, -0.596, -0.579, -0.847, -0.237, -1.159, -1.178, 0.095},
        {{0, 2, 0, 0, 1, 0, 0, 3, 0, 5, 0, 0, 4, 0, 0, 6, 0, 8, 0, 0, 7, 0, 0, 9}, {}, {}});
  check(CALL(take(x[0], x[1], 1)), {box(), integers({-1, 0}, {2})}, {3, 2, 2},
        {-1.286, -0.596, 1.88, 0.831, -0.073, -0.237, 0.325, -0.847, -1.561, 0.095, -0.371, -1.178},
        {{3, 4, 0, 0, 0, 0, 1, 2, 7, 8, 0, 0, 0, 0, 5, 6, 11, 12, 0, 0, 0, 0, 9, 10}, {}});
  check(CALL(index_put(x[0], {x[1], x[2]}, x[3])),
        {box(), integers({2, 0, -1}, {3}), integers({1, -2, 0}, {3}),
         numbers({-1.096, 0.233, 0.35, 0.728, 0.982, -1.089}, {3, 2})},
        {3, 4, 2}, {1.88,   0.831, -0.162, 1.683,  0.35,  0.728,  -1.286, -0.596, 0.325,  -0.847, -0.189, -1.293,
                    -0.579, 0.488, -0.073, -0.237, 0.982, -1.089, -1.096, 0.233,  -1.159, 0.707,  -1.561, 0.095},
        {{1, 2, 3, 4, 0, 0, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0, 0, 0, 0, 21, 22, 23, 24},
         {},
         {},
         {19, 20, 5, 6, 17, 18}});
  check(CALL(index_put(x[0], {x[1], x[2]}, x[3], {.accumulate = true})),
        {box(), integers({2, 0, -1}, {3}), integers({1, -2, 1}, {3}), numbers({1.24, 0.522}, {1, 2})}, {3, 4, 2},
        {1.88,   0.831, -0.162, 1.683,  1.82,   1.687,  -1.286, -0.596, 0.325,  -0.847, -0.189, -1.293,
         -0.579, 0.488, -0.073, -0.237, -0.371, -1.178, 3.14,   2.183,  -1.159, 0.707,  -1.561, 0.095},
        {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24}, {}, {}, {43, 46}});
  check(CALL(index_put(x[0], {{}, x[1]}, x[2])), {box(), integers({2, 0}, {2}), numbers({-1.216, -1.389}, {2, 1})},
        {3, 4, 2}, {-1.389, -1.389, -0.162, 1.683,  -1.216, -1.216, -1.286, -0.596, -1.389, -1.389, -0.189, -1.293,
                    -1.216, -1.216, -0.073, -0.237, -1.389, -1.389, 0.66,   1.139,  -1.216, -1.216, -1.561, 0.095},
        {{0, 0, 3, 4, 0, 0, 7, 8, 0, 0, 11, 12, 0, 0, 15, 16, 0, 0, 19, 20, 0, 0, 23, 24}, {}, {81, 57}}, Kinks::yes);
  check(CALL(index_put(x[0], {x[1]}, 7.0)), {box(), mask({1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0}, {3, 4})}, {3, 4, 2},
        {7, 7, -0.162, 1.683,  7, 7, -1.286, -0.596, 7, 7, -0.189, -1.293,
         7, 7, -0.073, -0.237, 7, 7, 0.66,   1.139,  7, 7, -1.561, 0.095},
        {{0, 0, 3, 4, 0, 0, 7, 8, 0, 0, 11, 12, 0, 0, 15, 16, 0, 0, 19, 20, 0, 0, 23, 24}, {}}, Kinks::yes);
  check(
      CALL(index_copy(x[0], 1, x[1], x[2])),
      {box(), integers({2, 0}, {2}),
       numbers({-0.074, 1.67, 0.288, -0.077, 1.184, -0.528, -0.911, -1.834, 0.995, -0.633, 0.153, -0.135}, {3, 2, 2})},
      {3, 4, 2}, {0.288, -0.077, -0.162, 1.683,  -0.074, 1.67,   -1.286, -0.596, -0.911, -1.834, -0.189, -1.293,
                  1.184, -0.528, -0.073, -0.237, 0.153,  -0.135, 0.66,   1.139,  0.995,  -0.633, -1.561, 0.095},
      {{0, 0, 3, 4, 0, 0, 7, 8, 0, 0, 11, 12, 0, 0, 15, 16, 0, 0, 19, 20, 0, 0, 23, 24},
       {},
       {5, 6, 1, 2, 13, 14, 9, 10, 21, 22, 17, 18}});
  check(CALL(index_fill(x[0], 1, x[1], 3)), {box(), integers({2, 0}, {2})}, {3, 4, 2},
        {3, 3, -0.162, 1.683,  3, 3, -1.286, -0.596, 3, 3, -0.189, -1.293,
         3, 3, -0.073, -0.237, 3, 3, 0.66,   1.139,  3, 3, -1.561, 0.095},
        {{0, 0, 3, 4, 0, 0, 7, 8, 0, 0, 11, 12, 0, 0, 15, 16, 0, 0, 19, 20, 0, 0, 23, 24}, {}}, Kinks::yes);
  check(CALL(take_along_dim(x[0], x[1], 1)),
        {numbers({1.454, -1.836, 1.989, 1.519, 1.052, -0.976, -1.242, 1.951, 1.118, -0.552, 0.263, 0.965}, {3, 4}),
         integers({2, 0, 1, 1, 3, 3}, {3, 2})},
        {3, 2}, {1.989, 1.454, -0.976, -0.976, 0.965, 0.965}, {{2, 0, 1, 0, 0, 7, 0, 0, 0, 0, 0, 11}, {}});
  check(CALL(gather(x[0], 0, x[1])), {numbers({3}, {}), integers({0}, {})}, {}, {3}, {{1}, {}});
  check(CALL(scatter(x[0], 0, x[1], x[2])), {numbers({3}, {}), integers({0}, {}), numbers({5}, {})}, {}, {5},
        {{0}, {}, {1}});
  check(CALL(scatter_add(x[0], 0, x[1], x[2])), {numbers({3}, {}), integers({0}, {}), numbers({5}, {})}, {}, {8},
        {{1}, {}, {1}});
  check(CALL(scatter_reduce(x[0], 1, x[1], x[2], ScatterReduce::sum, {.include_self = true})),
        {numbers({-1.982, 0.334, 0.279, -1.807, -1.348, 1.995, 0.403, -1.403}, {2, 4}),
         integers({0, 1, 1, 3, 3, 3}, {2, 3}), numbers({-0.423, 1.454, -1.555, 1.238, 1.156, 1.191}, {2, 3})},
        {2, 4}, {-2.405, 0.233, 0.279, -1.807, -1.348, 1.995, 0.403, 2.182},
        {{1, 2, 3, 4, 5, 6, 7, 8}, {}, {1, 2, 2, 8, 8, 8}}, Kinks::yes);
  check(CALL(scatter_reduce(x[0], 1, x[1], x[2], ScatterReduce::sum, {.include_self = false})),
        {numbers({-0.373, 0.894, -1.953, -0.974, -1.245, -1.35, -0.019, -1.383}, {2, 4}),
         integers({0, 1, 1, 3, 3, 3}, {2, 3}), numbers({-1.082, -0.358, -0.504, -1.268, -0.401, 0.071}, {2, 3})},
        {2, 4}, {-1.082, -0.862, -1.953, -0.974, -1.245, -1.35, -0.019, -1.598},
        {{0, 0, 3, 4, 5, 6, 7, 0}, {}, {1, 2, 2, 8, 8, 8}}, Kinks::yes);
  check(CALL(scatter_reduce(x[0], 1, x[1], x[2], ScatterReduce::mean, {.include_self = true})),
        {numbers({0.448, -0.439, 0.154, -1.206, -0.283, 1.426, 1.688, -1.848}, {2, 4}),
         integers({0, 1, 1, 3, 3, 3}, {2, 3}), numbers({0.815, -1.296, -1.286, -1.279, 0.677, 0.465}, {2, 3})},
        {2, 4}, {0.6315, -1.007, 0.154, -1.206, -0.283, 1.426, 1.688, -0.49625},
        {{0.5, 0.666666666667, 3, 4, 5, 6, 7, 2}, {}, {0.5, 0.666666666667, 0.666666666667, 2, 2, 2}}, Kinks::yes);
  check(CALL(scatter_reduce(x[0], 1, x[1], x[2], ScatterReduce::mean, {.include_self = false})),
        {numbers({-1.327, 1.905, 0.709, 0.249, -0.214, 1.881, 0.007, 1.888}, {2, 4}),
         integers({0, 1, 1, 3, 3, 3}, {2, 3}), numbers({1.485, -1.08, 0.851, -0.22, 0.134, -1.396}, {2, 3})},
        {2, 4}, {1.485, -0.1145, 0.709, 0.249, -0.214, 1.881, 0.007, -0.494},
        {{0, 0, 3, 4, 5, 6, 7, 0}, {}, {1, 1, 1, 2.66666666667, 2.66666666667, 2.66666666667}}, Kinks::yes);
  check(CALL(scatter_reduce(x[0], 1, x[1], x[2], ScatterReduce::amax, {.include_self = true})),
        {numbers({0.632, -1.825, -0.003, -0.213, 1.176, -0.781, -0.717, 0.849}, {2, 4}),
         integers({0, 1, 1, 3, 3, 3}, {2, 3}), numbers({-1.763, 1.568, -1.779, 1.573, -0.769, 0.501}, {2, 3})},
        {2, 4}, {0.632, 1.568, -0.003, -0.213, 1.176, -0.781, -0.717, 1.573},
        {{1, 0, 3, 4, 5, 6, 7, 0}, {}, {0, 2, 0, 8, 0, 0}}, Kinks::yes);
  check(CALL(scatter_reduce(x[0], 1, x[1], x[2], ScatterReduce::amax, {.include_self = false})),
        {numbers({-1.858, -1.684, 0.782, -1.527, -0.196, 1.529, -0.847, -1.57}, {2, 4}),
         integers({0, 1, 1, 3, 3, 3}, {2, 3}), numbers({-1.128, 1.021, 0.03, 0.18, -1.49, 1.067}, {2, 3})},
        {2, 4}, {-1.128, 1.021, 0.782, -1.527, -0.196, 1.529, -0.847, 1.067},
        {{0, 0, 3, 4, 5, 6, 7, 0}, {}, {1, 2, 0, 0, 0, 8}}, Kinks::yes);
  check(CALL(scatter_reduce(x[0], 1, x[1], x[2], ScatterReduce::amin, {.include_self = true})),
        {numbers({0.605, 0.636, -1.659, 0.255, -0.941, -1.598, 1.065, 0.555}, {2, 4}),
         integers({0, 1, 1, 3, 3, 3}, {2, 3}), numbers({-1.719, 1.689, 1.142, 0.664, 0.333, 0.883}, {2, 3})},
        {2, 4}, {-1.719, 0.636, -1.659, 0.255, -0.941, -1.598, 1.065, 0.333},
        {{0, 2, 3, 4, 5, 6, 7, 0}, {}, {1, 0, 0, 0, 8, 0}}, Kinks::yes);
  check(CALL(scatter_reduce(x[0], 1, x[1], x[2], ScatterReduce::amin, {.include_self = false})),
        {numbers({-0.443, 0.073, 1.646, 0.616, -0.663, 1.422, 1.08, -0.596}, {2, 4}),
         integers({0, 1, 1, 3, 3, 3}, {2, 3}), numbers({1.472, 0.741, 1.962, -1.06, -1.917, -0.01}, {2, 3})},
        {2, 4}, {1.472, 0.741, 1.646, 0.616, -0.663, 1.422, 1.08, -1.917},
        {{0, 0, 3, 4, 5, 6, 7, 0}, {}, {1, 2, 0, 0, 8, 0}}, Kinks::yes);
  check(CALL(masked_scatter(x[0], x[1], x[2])),
        {numbers({-1.668, -0.863, 0.372, 1.731, -0.028, 0.391}, {2, 3}), mask({1, 0, 1, 0, 1, 0}, {2, 3}),
         numbers({-0.879, 0.842, 0.563, -1.176}, {4})},
        {2, 3}, {-0.879, -0.863, 0.842, 1.731, 0.563, 0.391}, {{0, 2, 0, 4, 0, 6}, {}, {1, 3, 5, 0}});
  check(CALL(repeat_interleave(x[0], x[1], 1, 5)),
        {numbers({-0.825, 1.151, -1.343, -1.182, -0.919, -0.391}, {2, 3}), integers({2, 0, 3}, {3})}, {2, 5},
        {-0.825, -0.825, -1.343, -1.343, -1.343, -1.182, -1.182, -0.391, -0.391, -0.391}, {{3, 0, 12, 13, 0, 27}, {}});
  check(CALL(embedding_bag(x[0], x[1])),
        {integers({0, 2, 1, 1}, {2, 2}), numbers({1.904, -1.457, -0.84, 1.453, 0.227, 1.04}, {3, 2})}, {2, 2},
        {1.0655, -0.2085, -0.84, 1.453}, {{}, {0.5, 1, 3, 4, 0.5, 1}});
  check(CALL(embedding_bag(x[0], x[1], {.mode = BagMode::max})),
        {integers({0, 2, 1, 2}, {2, 2}), numbers({-0.707, -1.701, 0.4, -0.161, 0.981, 1.688}, {3, 2})}, {2, 2},
        {0.981, 1.688, 0.981, 1.688}, {{}, {0, 0, 0, 0, 4, 6}}, Kinks::yes);
  check(CALL(embedding_bag(x[0], x[1], {.offsets = x[2]})),
        {integers({0, 2, 1, 1, 0}, {5}), numbers({1.375, 0.741, 0.232, -1.554, 0.543, 1.313}, {3, 2}),
         integers({0, 2, 2}, {3})},
        {3, 2}, {0.959, 1.027, 0, 0, 0.613, -0.789}, {{}, {2.16666666667, 3, 3.33333333333, 4, 0.5, 1}, {}});
  check(CALL(embedding_bag(x[0], x[1], {.mode = BagMode::sum, .offsets = x[2]})),
        {integers({0, 2, 1, 1, 0}, {5}), numbers({0.168, 0.909, -0.414, -1.315, 1.657, -0.469}, {3, 2}),
         integers({0, 2, 2}, {3})},
        {3, 2}, {1.825, 0.44, 0, 0, -0.66, -1.721}, {{}, {6, 8, 10, 12, 1, 2}, {}});
  check(CALL(masked_select(x[0], x[1], 3)),
        {numbers({-1.143, -1.18, 1.937, -0.863, -0.827, -1.362}, {2, 3}), mask({1, 0, 1, 0, 1, 0}, {2, 3})}, {3},
        {-1.143, 1.937, -0.827}, {{1, 0, 2, 0, 3, 0}, {}}, Kinks::yes);
  check(CALL(bincount(x[0], {.size = 5})), {integers({1, 3, 3, 0}, {4})}, {5}, {1, 1, 0, 2, 0}, {}, Kinks::yes);
}

TEST_CASE("index: masks, and what is out of range") {
  const Tensor x = arange(12).reshape({3, 4});
  const Tensor hits = remainder(x, 2) == 0;
  CHECK(x[hits].to_vector<int>() == std::vector<int>{0, 2, 4, 6, 8, 10});
  CHECK(index(x, {tensor({true, false, true})}).to_vector<int>() == std::vector<int>{0, 1, 2, 3, 8, 9, 10, 11});
  CHECK(index(x, {tensor({0, 2}), tensor({true, false, false, true})}).to_vector<int>() == std::vector<int>{0, 11});
  CHECK(index_put(x, {hits}, tensor({1, 2, 3, 4, 5, 6})).to_vector<int>() ==
        std::vector<int>{1, 1, 2, 3, 3, 5, 4, 7, 5, 9, 6, 11});
  CHECK(contains(thrown<DimensionError>([&] {
                   index(x, {{}, tensor({0, 4})});
                 }),
                 "index: position 4 is out of range for dim 1 of [3, 4] (-4 to 3)"));
  CHECK(contains(thrown<DimensionError>([&] {
                   index(x, {tensor({-4}), tensor({0})});
                 }),
                 "index: position -4 is out of range"));
  CHECK(contains(thrown<ShapeError>([&] {
                   index(x, {tensor({true, false})});
                 }),
                 "index: mask [2] doesn't fit [3, 4] from dim 0"));
  CHECK(contains(thrown<ShapeError>([&] {
                   index(x, {tensor({0, 1}), tensor({0, 1, 2})});
                 }),
                 "index: shapes don't broadcast"));
  for (const Mode mode : kGraphModes) {
    auto pick = compile(
        [](const Tensor& x, const Tensor& i, const Tensor& j) {
          return index(x, {i, j});
        },
        {.mode = mode});
    CHECK(pick(x, tensor({-1, 0}), tensor({1, -1})).to_vector<int>() == std::vector<int>{9, 3});
    CHECK_THROWS_AS(pick(x, tensor({3, 0}), tensor({1, 1})), DimensionError);
    CHECK_THROWS_AS(pick(x, tensor({0, 0}), tensor({1, 4})), DimensionError);
    auto masked = compile([](const Tensor& x) { return x[x > 3]; }, {.mode = mode});
    CHECK(contains(thrown<TraceError>([&] { masked(x); }), "nonzero(mask, {.size = n})"));
    auto fill = compile([](const Tensor& x) { return index_put(x, {x > 3}, 0); }, {.mode = mode});
    CHECK(fill(x).to_vector<int>() == std::vector<int>{0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0});
  }
}

TEST_CASE("sizes that depend on values: eager, or given") {
  const Tensor x = tensor({{0, 3}, {5, 0}});
  CHECK(nonzero(x).to_vector<int>() == std::vector<int>{0, 1, 1, 0});
  CHECK(nonzero(zeros({2, 3})).shape() == Shape{0, 2});
  CHECK(nonzero(tensor(3)).shape() == Shape{1, 0});
  CHECK(masked_select(x, x > 3).to_vector<int>() == std::vector<int>{5});
  CHECK(masked_select(x, tensor({true, false})).to_vector<int>() == std::vector<int>{0, 5});
  const Unique found = unique(tensor({{3, 1}, {3, 2}}));
  CHECK(found.values.to_vector<int>() == std::vector<int>{1, 2, 3});
  CHECK(found.inverse.to_vector<int>() == std::vector<int>{2, 0, 2, 1});
  CHECK(found.inverse.shape() == Shape{2, 2});
  CHECK(found.counts.to_vector<int>() == std::vector<int>{1, 1, 2});
  CHECK(unique(zeros({0})).values.numel() == 0);
  CHECK(one_hot(tensor({0, 2})).shape() == Shape{2, 3});
  CHECK(bincount(tensor({1, 3, 3})).to_vector<int>() == std::vector<int>{0, 1, 0, 2});
  CHECK(bincount(tensor({1, 0}), {.weights = tensor({0.5, 2.0})}).to_vector<float>() == std::vector<float>{2, 0.5});
  CHECK(repeat_interleave(tensor({1, 2}), tensor({2, 1}), 0).to_vector<int>() == std::vector<int>{1, 1, 2});
  for (const Mode mode : kModes) {
    auto f = compile([](const Tensor& x) { return nonzero(x, {.size = 3, .fill = -1}); }, {.mode = mode});
    CHECK(f(x).to_vector<int>() == std::vector<int>{0, 1, 1, 0, -1, -1});
    CHECK(f(tensor({{1, 1}, {1, 1}})).to_vector<int>() == std::vector<int>{0, 0, 0, 1, 1, 0});
    auto g = compile([](const Tensor& x) { return masked_select(x, x > 3, 2); }, {.mode = mode});
    CHECK(g(x).to_vector<int>() == std::vector<int>{5, 0});
  }
  for (const Mode mode : kGraphModes) {
    const auto refused = [&](const std::function<Tensor(const Tensor&)>& f, const char* part) {
      auto traced = compile([&](const Tensor& x) { return f(x); }, {.mode = mode});
      CHECK(contains(thrown<TraceError>([&] { traced(x); }), part));
    };
    refused([](const Tensor& x) { return nonzero(x); }, "give it: nonzero(x, {.size = n})");
    refused([](const Tensor& x) { return masked_select(x, x > 3); }, "masked_select(x, mask, n)");
    refused([](const Tensor& x) { return unique(x).values; }, "unique: the size of the result depends on values");
    refused([](const Tensor& x) { return one_hot(x); }, "one_hot(labels, n)");
    refused([](const Tensor& x) { return bincount(x.flatten()); }, "{.size = n}");
  }
}

TEST_CASE("PyTorch's values: running extremes, modes and products in places") {
  check(CALL(cummax(x[0], 0).values), {numbers({1, 3, 3, 2, 5, 5, 4, -1, -1, 0.5, -2, -2}, {3, 4})}, {3, 4},
        {1, 3, 3, 2, 5, 5, 4, 2, 5, 5, 4, 2}, {{1, 2, 3, 24, 14, 16, 18, 0, 0, 0, 0, 0}}, Kinks::yes);
  check(CALL(cummax(x[0], 0).indices), {numbers({1, 3, 3, 2, 5, 5, 4, -1, -1, 0.5, -2, -2}, {3, 4})}, {3, 4},
        {0, 0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0}, {}, Kinks::yes);
  check(CALL(cummax(x[0], 1).values), {numbers({1, 3, 3, 2, 5, 5, 4, -1, -1, 0.5, -2, -2}, {3, 4})}, {3, 4},
        {1, 3, 3, 3, 5, 5, 5, 5, -1, 0.5, 0.5, 0.5}, {{1, 2, 7, 0, 5, 21, 0, 0, 9, 33, 0, 0}}, Kinks::yes);
  check(CALL(cummax(x[0], 1).indices), {numbers({1, 3, 3, 2, 5, 5, 4, -1, -1, 0.5, -2, -2}, {3, 4})}, {3, 4},
        {0, 1, 2, 2, 0, 1, 1, 1, 0, 1, 1, 1}, {}, Kinks::yes);
  check(CALL(cummin(x[0], 0).values), {numbers({1, 3, 3, 2, 5, 5, 4, -1, -1, 0.5, -2, -2}, {3, 4})}, {3, 4},
        {1, 3, 3, 2, 1, 3, 3, -1, -1, 0.5, -2, -2}, {{6, 8, 10, 4, 0, 0, 0, 8, 9, 10, 11, 12}}, Kinks::yes);
  check(CALL(cummin(x[0], 0).indices), {numbers({1, 3, 3, 2, 5, 5, 4, -1, -1, 0.5, -2, -2}, {3, 4})}, {3, 4},
        {0, 0, 0, 0, 0, 0, 0, 1, 2, 2, 2, 2}, {}, Kinks::yes);
  check(CALL(cummin(x[0], 1).values), {numbers({1, 3, 3, 2, 5, 5, 4, -1, -1, 0.5, -2, -2}, {3, 4})}, {3, 4},
        {1, 1, 1, 1, 5, 5, 4, -1, -1, -1, -2, -2}, {{10, 0, 0, 0, 5, 6, 7, 8, 19, 0, 11, 12}}, Kinks::yes);
  check(CALL(cummin(x[0], 1).indices), {numbers({1, 3, 3, 2, 5, 5, 4, -1, -1, 0.5, -2, -2}, {3, 4})}, {3, 4},
        {0, 0, 0, 0, 0, 1, 2, 3, 0, 0, 2, 3}, {}, Kinks::yes);
  check(CALL(cummax(x[0], 0).values), {numbers({-0.11, 1.138, 0.796, -1.662, 1.857}, {5})}, {5},
        {-0.11, 1.138, 1.138, 1.138, 1.857}, {{1, 9, 0, 0, 5}});
  check(
      CALL(cummin(x[0], -2).values),
      {numbers({-1.813, 0.375, 1.051, -1.222, -0.989, -1.286, 0.662, -0.519, -0.131, -1.3, -1.257, 0.449}, {2, 3, 2})},
      {2, 3, 2}, {-1.813, 0.375, -1.813, -1.222, -1.813, -1.286, 0.662, -0.519, -0.131, -1.3, -1.257, -1.3},
      {{9, 2, 0, 4, 0, 6, 7, 8, 9, 22, 11, 0}});
  check(CALL(cummax(x[0], 0).values), {numbers({1, NAN, 3, 0, INFINITY, NAN, 2}, {7})}, {7},
        {1, NAN, NAN, NAN, NAN, NAN, NAN}, {}, Kinks::yes);
  check(CALL(cummax(x[0], 0).indices), {numbers({1, NAN, 3, 0, INFINITY, NAN, 2}, {7})}, {7}, {0, 1, 1, 1, 1, 5, 5}, {},
        Kinks::yes);
  check(CALL(cummin(x[0], 0).indices), {numbers({1, NAN, 3, 0, INFINITY, NAN, 2}, {7})}, {7}, {0, 1, 1, 1, 1, 5, 5}, {},
        Kinks::yes);
  check(CALL(cummax(x[0], 0).values), {numbers({2.5}, {})}, {}, {2.5}, {{1}});
  check(CALL(mode(x[0]).values), {numbers({2, 1, 2, 1, 3, 5, 5, 5, 0, 0, 1, 2, 3, 4, 5, 7, 7, 1, 1, 1}, {4, 5})}, {4},
        {1, 5, 1, 1}, {{0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 4}}, Kinks::yes);
  check(CALL(mode(x[0]).indices), {numbers({2, 1, 2, 1, 3, 5, 5, 5, 0, 0, 1, 2, 3, 4, 5, 7, 7, 1, 1, 1}, {4, 5})}, {4},
        {3, 2, 0, 4}, {}, Kinks::yes);
  check(CALL(mode(x[0], -1, {.keepdim = true}).values),
        {numbers({2, 1, 2, 1, 3, 5, 5, 5, 0, 0, 1, 2, 3, 4, 5, 7, 7, 1, 1, 1}, {4, 5})}, {4, 1}, {1, 5, 1, 1},
        {{0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 4}}, Kinks::yes);
  check(CALL(mode(x[0], -1, {.keepdim = true}).indices),
        {numbers({2, 1, 2, 1, 3, 5, 5, 5, 0, 0, 1, 2, 3, 4, 5, 7, 7, 1, 1, 1}, {4, 5})}, {4, 1}, {3, 2, 0, 4}, {},
        Kinks::yes);
  check(CALL(mode(x[0], 0).values), {numbers({2, 1, 2, 1, 3, 5, 5, 5, 0, 0, 1, 2, 3, 4, 5, 7, 7, 1, 1, 1}, {4, 5})},
        {5}, {1, 1, 1, 1, 0}, {{0, 2, 0, 0, 0, 0, 0, 0, 0, 5, 1, 0, 0, 0, 0, 0, 0, 3, 4, 0}}, Kinks::yes);
  check(CALL(mode(x[0], 0).indices), {numbers({2, 1, 2, 1, 3, 5, 5, 5, 0, 0, 1, 2, 3, 4, 5, 7, 7, 1, 1, 1}, {4, 5})},
        {5}, {2, 0, 3, 3, 1}, {}, Kinks::yes);
  check(CALL(mode(x[0], 0).values), {mask({1, 0, 0, 1, 1}, {5})}, {}, {1}, {}, Kinks::yes);
  check(CALL(scatter_reduce(x[0], 1, x[1], x[2], ScatterReduce::prod, {.include_self = true})),
        {numbers({-1.27, -0.533, 0.133, -1.579, 1.593, -0.277, 0.054, 1.99}, {2, 4}),
         integers({0, 1, 1, 3, 3, 3}, {2, 3}), numbers({-0.278, 1.667, 0.061, 0.415, -1.215, -1.085}, {2, 3})},
        {2, 4}, {0.35306, -0.054199171, 0.133, -1.579, 1.593, -0.277, 0.054, 1.08869740875},
        {{-0.278, 0.203374, 3, 4, 5, 6, 7, 4.376673},
         {},
         {-1.27, -0.065026, -1.777022, 20.986938, -7.168378, -8.027262}});
  check(CALL(scatter_reduce(x[0], 1, x[1], x[2], ScatterReduce::prod, {.include_self = true})),
        {numbers({-1.27, 0, 0.133, -1.579, 0, -0.277, 0.054, 1.99}, {2, 4}), integers({0, 1, 1, 3, 3, 3}, {2, 3}),
         numbers({-0.278, 0, 0.061, 0, -1.215, -1.085}, {2, 3})},
        {2, 4}, {0.35306, 0, 0.133, -1.579, 0, -0.277, 0.054, 0},
        {{-0.278, 0, 3, 4, 5, 6, 7, 0}, {}, {-1.27, 0, 0, 20.986938, -0.0, -0.0}}, Kinks::yes);
  check(CALL(scatter_reduce(x[0], 1, x[1], x[2], ScatterReduce::prod, {.include_self = true})),
        {numbers({-1.27, -0.533, 0.133, -1.579, 1.593, -0.277, 0.054, 1.99}, {2, 4}),
         integers({0, 1, 1, 3, 3, 3}, {2, 3}), numbers({-0.278, 0, 0.061, 0, 0, -1.085}, {2, 3})},
        {2, 4}, {0.35306, -0.0, 0.133, -1.579, 1.593, -0.277, 0.054, -0.0},
        {{-0.278, 0, 3, 4, 5, 6, 7, -0.0}, {}, {-1.27, -0.065026, -0.0, -0.0, -0.0, 0}}, Kinks::yes);
  check(CALL(scatter_reduce(x[0], 1, x[1], x[2], ScatterReduce::prod, {.include_self = false})),
        {numbers({-1.27, -0.533, 0.133, -1.579, 1.593, -0.277, 0.054, 1.99}, {2, 4}),
         integers({0, 1, 1, 3, 3, 3}, {2, 3}), numbers({-0.278, 1.667, 0.061, 0.415, -1.215, -1.085}, {2, 3})},
        {2, 4}, {-0.278, 0.101687, 0.133, -1.579, 1.593, -0.277, 0.054, 0.547084125},
        {{0, 0, 3, 4, 5, 6, 7, 0}, {}, {1, 0.122, 3.334, 10.5462, -3.6022, -4.0338}});
  check(CALL(scatter_reduce(x[0], 1, x[1], x[2], ScatterReduce::prod, {.include_self = false})),
        {numbers({-1.27, 0, 0.133, -1.579, 0, -0.277, 0.054, 1.99}, {2, 4}), integers({0, 1, 1, 3, 3, 3}, {2, 3}),
         numbers({-0.278, 0, 0.061, 0, -1.215, -1.085}, {2, 3})},
        {2, 4}, {-0.278, 0, 0.133, -1.579, 0, -0.277, 0.054, 0},
        {{0, 0, 3, 4, 5, 6, 7, 0}, {}, {1, 0.122, 0, 10.5462, -0.0, -0.0}}, Kinks::yes);
  check(CALL(scatter_reduce(x[0], 1, x[1], x[2], ScatterReduce::prod, {.include_self = false})),
        {numbers({-1.27, -0.533, 0.133, -1.579, 1.593, -0.277, 0.054, 1.99}, {2, 4}),
         integers({0, 1, 1, 3, 3, 3}, {2, 3}), numbers({-0.278, 0, 0.061, 0, 0, -1.085}, {2, 3})},
        {2, 4}, {-0.278, 0, 0.133, -1.579, 1.593, -0.277, 0.054, -0.0},
        {{0, 0, 3, 4, 5, 6, 7, 0}, {}, {1, 0.122, 0, -0.0, -0.0, 0}}, Kinks::yes);
  check(CALL(scatter_reduce(x[0], 0, x[1], x[2], ScatterReduce::prod)),
        {integers({2, 3, 4}, {3}), integers({0, 0, 2}, {3}), integers({5, 6, 7}, {3})}, {3}, {60, 3, 28}, {},
        Kinks::yes);
  check(CALL(scatter_reduce(x[0], 0, x[1], x[2], ScatterReduce::prod)),
        {numbers({3}, {}), integers({0}, {}), numbers({5}, {})}, {}, {15}, {{5}, {}, {3}});
  RAISES(DimensionError, cummax(ones({2}), 1), "cummax: dim 1 is out of range for [2]");
  RAISES(ShapeError, mode(ones({2, 0})), "mode: dim 1 of [2, 0] is empty");
  CHECK(cummin(tensor({3, 1, 2}), 0).values.dtype() == int64);
}
