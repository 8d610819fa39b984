// Ops that move elements, put them in order, or write at positions, on cuda(0) against the CPU: sizes of more than one pack, tile,
// chunk and block, in every order of lanes.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "autograd/autograd.h"
#include "core/ops/composed.h"
#include "tests/cuda/compare.h"

using namespace tandem;

namespace {

constexpr DType sizes[] = {uint8, float16, float32, float64};  // 1, 2, 4 and 8 bytes

Tensor of(const Shape& shape, DType type) {
  return is_floating(type) ? numbers(shape, type) : integers(shape, 100).to(type);
}

/// Numbers with many equals, both zeros, infinities and NaN among them.
Tensor ties(const Shape& shape, DType type, uint32_t seed = 1) {
  if (!is_floating(type)) return integers(shape, type == bool_ ? 2 : 50, seed).to(type);
  Tensor x = (integers(shape, 40, seed).to(float32) - 20) / 4;
  const Tensor place = integers(shape, 30, seed + 1);
  x = where(place == 0, std::numeric_limits<float>::quiet_NaN(), x);
  x = where(place == 1, -std::numeric_limits<float>::infinity(), x);
  x = where((place < 20) & (x == 0), -0.0f, x);
  return x.to(type);
}

}  // namespace

TEST_CASE("cuda: strided copies in words of every width") {
  for (const DType type : sizes) {
    const Tensor x = of({6, 5, 64}, type), odd = of({6, 5, 33}, type);
    compare({x, odd}, [](const Tensors& t) {
      return Tensors{t[0].transpose(0, 1).contiguous(),
                     t[0].slice(1, 1, 4).contiguous(),
                     t[0].slice(2, 2, 34).contiguous(),
                     t[0].slice(2, 1, 33).transpose(0, 1).contiguous(),
                     t[0].slice(1, 0, 1).expand({6, 9, 64}).contiguous(),
                     t[1].transpose(0, 1).contiguous(),
                     concat({t[0], t[1]}, 2),
                     concat({t[0], t[0].slice(1, 0, 3)}, 1),
                     t[0].slice(2, 2, 34).slice(0, 0, 6, 2).contiguous()};
    });
  }
}

TEST_CASE("cuda: pad, flip, triangles and diagonals, in packs and one by one") {
  for (const DType type : sizes) {
    const Tensor image = of({2, 3, 9, 16}, type), last = of({2, 9, 4, 16}, type);
    compare({image, last}, [](const Tensors& t) {
      const Tensor rows = t[0].reshape({54, 16});
      return Tensors{pad(t[0], {1, 2, 0, 3}, {.value = 7}),  // innermost dims first: rows of 19
                     pad(t[0], {0, 0, 2, 1}),                // whole rows
                     pad(t[0], {16, 32, 1, 0}, {.value = 3}),
                     pad(t[1], {0, 0, 1, 1, 2, 2}),  // channels last
                     pad(t[0].permute({0, 2, 3, 1}), {0, 0, 1, 1, 2, 2}, {.value = 1}),
                     pad(t[0].transpose(2, 3), {3, 1}),
                     pad(t[0].slice(3, 0, 0), {2, 2}, {.value = 5}),
                     pad(t[0].reshape({-1}), {5, 6}, {.value = 1}),
                     flip(t[0], {3}),
                     flip(t[0], {2}),
                     flip(t[0], {1, 2, 3}),
                     flip(t[0].transpose(1, 3), {0, 1}),
                     flip(t[1].slice(1, 0, 9, 2), {1}),
                     tril(rows),
                     tril(t[0], 5),
                     triu(t[0], -3),
                     triu(rows.transpose(0, 1), 20),
                     tril(t[0].slice(3, 0, 15), -1)};
    });
  }
  compare({numbers({2, 7, 9})}, [](const Tensors& t) {
    const auto of = [&](int64_t offset, int64_t dim1, int64_t dim2, const Shape& g) {
      return dispatch(find_op("diagonal_grad"), {t[0].reshape({-1}).slice(0, 0, g.numel()).reshape(g)},
                      {{"shape", t[0].shape()}, {"offset", offset}, {"dim1", dim1}, {"dim2", dim2}}, Where::current());
    };
    return Tensors{of(0, 1, 2, {2, 7}), of(3, 1, 2, {2, 6}), of(-2, 2, 1, {2, 7}), of(1, 0, 2, {7, 2})};
  });
}

TEST_CASE("cuda: argmin and argmax of rows and columns, NaN and equals first") {
  for (const DType type : {float32, float64, float16, bfloat16, int64, int32, uint8, bool_}) {
    compare({ties({5, 3000}, type), of({40, 70}, type)}, [](const Tensors& t) {
      return Tensors{argmin(t[0], 1), argmax(t[0], 1), argmin(t[0], 0), argmin(t[1], 0),
                     argmin(t[1].transpose(0, 1), 0)};
    });
  }
}

TEST_CASE("cuda: sort and topk of lines of a few elements, of a tile and of many, with ties, zeros and NaN") {
  for (const DType type : {float32, float64, float16, bfloat16, int64, int32, int16, int8, uint8, bool_}) {
    for (const Shape& shape : {Shape{300, 3}, {7, 16}, {3, 100}, {2, 2048}, {1, 4097}, {2, 9000}}) {
      CAPTURE(type);
      CAPTURE(shape);
      const bool large = shape.numel() > 5000;
      if (large && type != float32 && type != float64 && type != uint8) continue;
      compare({ties(shape, type)},
              [&](const Tensors& t) {
                const int64_t n = t[0].shape()[1];
                const ValuesAndIndices up = sort(t[0], 1), down = sort(t[0], 1, {.descending = true}),
                                       few = topk(t[0], std::min<int64_t>(n, 5), 1),
                                       most = topk(t[0], n - n / 4, 1, {.largest = false});
                return Tensors{up.values,  up.indices,  down.values, down.indices,
                               few.values, few.indices, most.values, most.indices};
              },
              {0, 0});
    }
    compare({ties({3, 40, 5}, type)},
            [](const Tensors& t) {
              const ValuesAndIndices middle = sort(t[0], 1), first = topk(t[0].transpose(0, 2), 2, 0),
                                     none = topk(t[0], 0, 1);
              return Tensors{middle.values, middle.indices, first.values, first.indices, none.values};
            },
            {0, 0});
  }
  // -0 and 0 are equal, and keep their signs.
  const Tensor zeros = sort(tensor({0.0f, -0.0f, 0.0f, -0.0f}).to(cuda(0)), 0).values.cpu();
  std::vector<bool> negative;
  for (const float each : zeros.to_vector<float>()) negative.push_back(std::signbit(each));
  CHECK(negative == std::vector<bool>{false, true, false, true});
}

TEST_CASE("cuda: topk in several rounds, and merges of an odd number of runs") {
  compare({ties({1, 300000}, float32), numbers({1, 30000}, float64)},
          [](const Tensors& t) {
            const ValuesAndIndices few = topk(t[0], 200, 1), some = topk(t[0], 1000, 1), all = sort(t[1], 1);
            return Tensors{few.values, few.indices, some.values, some.indices, all.values, all.indices};
          },
          {0, 0});
}

TEST_CASE("cuda: index_select and one_hot in words of every width") {
  for (const DType type : sizes) {
    compare({of({5, 7, 12}, type), of({9, 64}, type), integers({11}, 5), integers({40}, 7, 2)}, [](const Tensors& t) {
      return Tensors{index_select(t[0], 0, t[2]),
                     index_select(t[0], 1, t[3]),
                     index_select(t[0], 2, t[3]),
                     index_select(t[1].slice(1, 1, 64), 0, t[2]),
                     index_select(t[1], 0, t[3]),
                     index_select(t[0], 2, t[3].slice(0, 0, 40, 3)),
                     one_hot(t[3], 7),
                     one_hot(t[3].reshape({5, 8}), 600)};
    });
  }
}

TEST_CASE("cuda: scatter: the last of several stays") {
  for (const DType type : sizes) {
    compare({of({6, 50}, type), integers({6, 300}, 50), of({6, 300}, type), integers({400, 50}, 6, 3)},
            [](const Tensors& t) {
              const Tensor number = full({}, 3, {.dtype = t[0].dtype(), .device = t[0].device()});
              return Tensors{
                  scatter(t[0], 1, t[1], t[2]),
                  scatter(t[0], 1, t[1].slice(1, 0, 1), t[2].slice(1, 0, 1)),
                  scatter(t[0], 1, t[1].slice(0, 0, 4), number),
                  scatter(t[0], 1, t[1], 9),
                  scatter(t[0], 0, t[3], 2),
                  scatter(t[0].transpose(0, 1), 1, t[3].slice(0, 0, 50), t[3].slice(0, 0, 50).to(t[0].dtype()))};
            });
  }
}

TEST_CASE("cuda: scatter_add, scatter_prod and index_add: short lines, lines of a tile, runs over many tiles") {
  const auto factors = [](const Shape& shape, DType type) {  // close to 1, or to the bit
    return is_floating(type) ? numbers(shape, type) / 64 + 1 : integers(shape, 3).to(type);
  };
  for (const DType type : {float32, float64, float16, bfloat16, int64, int32, int8, bool_}) {
    CAPTURE(type);
    const Tolerance loose = type == float32                       ? Tolerance{1e-4, 1e-4}
                            : type == float16 || type == bfloat16 ? Tolerance{2e-2, 2e-1}
                                                                  : Tolerance{1e-10, 1e-10};
    for (const auto& [count, extent] :
         {std::pair<int64_t, int64_t>{20, 7}, {129, 5}, {700, 1000}, {5000, 3}, {9000, 1}}) {
      const int64_t n = count, e = extent;
      CAPTURE(n);
      if (n > 1000 && type != float32 && type != int64) continue;
      compare(
          {of({2, e}, type), integers({2, n}, e), factors({2, n}, type), of({e, 2}, type)},
          [e](const Tensors& t) {
            const Tensor narrow = t[1].slice(0, 0, 1), across = t[1].transpose(0, 1).contiguous();
            Tensors out{
                scatter_add(t[2], 1, t[1], Shape{2, e}),
                scatter_add(t[0], 1, t[1], t[2]),
                scatter_add(t[0], 1, narrow, t[2].slice(0, 1, 2)),
                scatter_add(t[3], 0, across, t[2].transpose(0, 1)),
                scatter_prod(t[0], 1, t[1], t[2]),
                index_add(t[0], 1, t[1][0], t[2]),
                index_add(t[0].expand({40, 2, e}), 2, t[1][1], t[2].slice(0, 0, 1).expand({40, 2, t[2].shape()[1]}))};
            return out;
          },
          loose);
    }
    compare(
        {of({3, 9, 50}, type), integers({200}, 9), of({3, 200, 50}, type), integers({200}, 2, 5) + 3},
        [](const Tensors& t) {
          return Tensors{index_add(t[0], 1, t[1], t[2]), index_add(t[0].slice(0, 0, 0), 1, t[1], t[2].slice(0, 0, 0)),
                         index_add(t[0], 1, t[3], t[2].slice(1, 0, 200)),
                         index_add(t[0], 1, t[1].slice(0, 0, 200, 3), t[2].slice(1, 0, 67)),
                         index_add(t[0].transpose(1, 2), 2, t[1], t[2].transpose(1, 2))};
        },
        loose);
  }
}

TEST_CASE("cuda: what long lines have out of range is noted, and adds nothing") {
  const Tensor x = zeros({1, 5}, {.device = cuda(0)});
  std::vector<int64_t> places(3000, 2);
  places[2500] = 7;
  const Tensor index = tensor(places).reshape({1, 3000}).to(cuda(0)), src = ones({1, 3000}, {.device = cuda(0)});
  const auto told = [](const Tensor& result, const char* what) {
    std::string text;
    try {
      result.cpu();
    } catch (const DimensionError& error) { text = error.message(); }
    CHECK_MESSAGE(text.find(what) != std::string::npos, text);
    CHECK(result.cpu().to_vector<float>()[2] == 2999);
  };
  told(scatter_add(x, 1, index, src), "index 7 at [0, 2500] is out of range for 5");
  told(index_add(x, 1, index[0], src), "index 7 at [2500] is out of range for 5");
}

TEST_CASE("cuda: the key of a turn is the host's, where its key lies") {
  const Tensor key = tensor({int64_t{5}, int64_t{9}}), turn = tensor(int64_t{77});
  const Attributes site{{"site", int64_t{3}}};
  const Tensor wanted = dispatch(find_op("turn_key"), {key, turn}, site, Where::current());
  const Tensor got = dispatch(find_op("turn_key"), {key.to(cuda(0)), turn.to(cuda(0))}, site, Where::current());
  CHECK(wanted.device() == cpu());
  CHECK(got.device() == cuda(0));
  CHECK(got.cpu().to_vector<int64_t>() == wanted.to_vector<int64_t>());
}
