// CPU kernels: instruction sets agree, threads don't matter, odd sizes and layouts, against plain loops.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

#include "core/ops/ops.h"
#include "core/random.h"
#include "core/threads.h"
#include "kernels/cpu/support/gemm.h"
#include "kernels/cpu/support/isa.h"

using namespace tandem;

namespace {

/// Runs `make` with each instruction set that this machine has.
void for_each_isa(const std::function<void(Isa)>& make) {
  const Isa before = current_isa();
  for (Isa isa : {Isa::portable, Isa::avx2, Isa::avx512})
    if (set_isa(isa)) make(isa);
  set_isa(before);
}

bool same_bits(const Tensor& a, const Tensor& b) {
  const Tensor x = a.contiguous(), y = b.contiguous();
  return x.dtype() == y.dtype() && x.shape() == y.shape() &&
         (x.numel() == 0 ||
          std::memcmp(x.impl()->data, y.impl()->data, static_cast<size_t>(x.numel() * size_of(x.dtype()))) == 0);
}

Tensor numbers(const Shape& shape, DType type = float32) {
  manual_seed(7);
  return randn(shape).to(type);
}

Tensor call(const char* name, std::vector<Tensor> inputs, const Attributes& attributes = {}) {
  return dispatch_all(find_op(name), inputs, attributes, Where::current())[0];
}

double worst_difference(const Tensor& a, const Tensor& b) {
  const std::vector<double> x = a.to_vector<double>(), y = b.to_vector<double>();
  REQUIRE(a.shape() == b.shape());
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double difference = std::fabs(x[i] - y[i]);
    worst = difference <= worst ? worst : difference;  // NaN sticks
  }
  return worst;
}

}  // namespace

TEST_CASE("cpu: reductions and random draws give the same bits with every instruction set and thread count") {
  const int threads = num_threads();
  const Tensor x = numbers({37, 1031}), wide = numbers({3, 200001});
  const std::function<Tensor()> cases[] = {
      [&] { return sum(x); },
      [&] { return sum(x, 0); },
      [&] { return sum(x, 1); },
      [&] { return sum(wide, 1); },
      [&] { return sum(wide, 0); },
      [&] { return max(wide); },
      [&] { return argmax(wide, 1); },
      [&] { return mean(x.transpose(0, 1), 0); },
      [&] { return x * 2 + 1; },
      [&] { return x.transpose(0, 1).contiguous(); },
      [&] { return numbers({100003}); },
      [&] {
        manual_seed(3);
        return dropout(wide, 0.3);
      },
  };
  for (const auto& make : cases) {
    set_num_threads(1);
    const Tensor expected = make();
    for_each_isa([&](Isa isa) {
      CAPTURE(name_of(isa));
      set_num_threads(1);
      CHECK(same_bits(make(), expected));
      set_num_threads(3);
      CHECK(same_bits(make(), expected));
    });
  }
  set_num_threads(threads);
}

TEST_CASE("cpu: an element's value doesn't depend on where it lies") {
  const Tensor x = numbers({259});
  for (const char* name : {"exp", "tanh", "sigmoid", "gelu", "erf", "log"}) {
    const Tensor whole = call(name, {x});
    for (int64_t begin : {1, 7, 16, 200, 258}) {
      const Tensor part = call(name, {x.slice(0, begin, 259).contiguous()});
      CHECK(same_bits(part, whole.slice(0, begin, 259)));
      const Tensor strided = call(name, {x.slice(0, begin, 259, 3)});
      CHECK(same_bits(strided, whole.slice(0, begin, 259, 3)));
    }
  }
}

TEST_CASE("cpu: instruction sets agree on exp, tanh, softmax and products within a few ULP") {
  const Tensor x = numbers({33, 47}), y = numbers({47, 29});
  set_isa(Isa::portable);
  const Tensor e = exp(x), t = tanh(x), s = softmax(x), p = matmul(x, y);
  for_each_isa([&](Isa) {
    CHECK(allclose(exp(x), e, {.rtol = 5e-7}));
    CHECK(allclose(tanh(x), t, {.rtol = 5e-7}));
    CHECK(allclose(softmax(x), s, {.rtol = 2e-6}));
    CHECK(allclose(matmul(x, y), p, {.rtol = 1e-4, .atol = 1e-5}));
  });
  set_isa(best_isa());
}

TEST_CASE("cpu: casts between all dtypes, contiguous and strided") {
  const Tensor values = tensor(std::vector<double>{0, 1, 2, 3, 100, 0.5, 64, 17, 5, 6, 7});
  for (int from = 0; from < kDTypeCount; ++from)
    for (int to = 0; to < kDTypeCount; ++to) {
      const Tensor x = values.to(static_cast<DType>(from));
      const Tensor y = x.to(static_cast<DType>(to));
      CHECK(same_bits(y.slice(0, 1, 11, 2), x.slice(0, 1, 11, 2).to(static_cast<DType>(to))));
      if (static_cast<DType>(to) == bool_) CHECK(y.to(int64).to_vector<int64_t>()[4] == 1);
      else CHECK(y.to_vector<double>()[3] == (static_cast<DType>(from) == bool_ ? 1 : 3));
    }
}

TEST_CASE("cpu: pointwise operands of any layout") {
  const Tensor a = numbers({5, 7, 11}), b = numbers({11, 7, 5}).permute({2, 1, 0}), row = numbers({11}),
               column = numbers({7, 1});
  for (DType type : {float32, float64, float16, bfloat16, int32, int64, int16, int8, uint8}) {
    const auto as = [&](const Tensor& x) { return (x * 8).to(type); };
    const Tensor expected = as(a) + as(b).contiguous();
    CHECK(same_bits(as(a) + as(b), expected));
    CHECK(same_bits(as(a) * as(row), as(a) * as(row).expand({5, 7, 11}).contiguous()));
    CHECK(same_bits(as(a) - as(column), as(a) - as(column).expand({5, 7, 11}).contiguous()));
    CHECK(same_bits(maximum(as(column), as(row)),
                    maximum(as(column).expand({7, 11}).contiguous(), as(row).expand({7, 11}).contiguous())));
    CHECK(same_bits(where(as(a) > as(b), as(a), as(b)), maximum(as(a), as(b))));
    CHECK(same_bits(as(a).slice(2, 1, 10, 2) + 1, (as(a) + 1).slice(2, 1, 10, 2)));
  }
  // Small rows, element sizes that look like another type's.
  const Tensor small = numbers({64, 20});
  const Tensor every_other = small.slice(1, 0, 20, 2), bias = numbers({20}).slice(0, 0, 20, 2);
  CHECK(same_bits(every_other + bias, every_other.contiguous() + bias.contiguous()));
  CHECK(same_bits(every_other.contiguous() + numbers({64, 2}).slice(1, 0, 1),
                  every_other.contiguous() + numbers({64, 2}).slice(1, 0, 1).contiguous()));
}

TEST_CASE("cpu: sums over any dims of any layout, against plain loops") {
  const Tensor x = numbers({4, 3, 5, 6}, float64);
  const Tensor layouts[] = {x, x.permute({0, 2, 3, 1}).contiguous().permute({0, 3, 1, 2}),
                            x.permute({3, 2, 1, 0}).contiguous().permute({3, 2, 1, 0}),
                            numbers({4, 3, 5, 12}, float64).slice(3, 0, 12, 2),
                            numbers({1, 3, 1, 6}, float64).expand({4, 3, 5, 6})};
  for (const Tensor& each : layouts) {
    const std::vector<double> values = each.to_vector<double>();
    for (unsigned mask = 1; mask < 16; ++mask) {
      std::vector<int64_t> dims, kept;
      for (int d = 0; d < 4; ++d) (mask >> d & 1 ? dims : kept).push_back(d);
      Shape shape;
      for (int64_t d : kept) shape.push_back(each.shape()[static_cast<int>(d)]);
      std::vector<double> expected(static_cast<size_t>(shape.numel())), greatest(expected.size(), -INFINITY);
      const Shape strides = contiguous_strides(shape);
      for (int64_t i = 0; i < each.numel(); ++i) {
        int64_t index[4], rest = i, to = 0;
        for (int d = 3; d >= 0; --d) index[d] = rest % each.shape()[d], rest /= each.shape()[d];
        for (size_t k = 0; k < kept.size(); ++k) to += index[kept[k]] * strides[static_cast<int>(k)];
        expected[static_cast<size_t>(to)] += values[static_cast<size_t>(i)];
        greatest[static_cast<size_t>(to)] = std::max(greatest[static_cast<size_t>(to)], values[static_cast<size_t>(i)]);
      }
      for (DType type : {float64, float32, bfloat16, int32}) {
        const Tensor source = type == int32 ? (each * 16).to(int32) : each.to(type);
        const std::vector<double> got = sum(source, dims).to(float64).to_vector<double>();
        const std::vector<double> top = max(source, dims).to(float64).to_vector<double>();
        const double scale = type == int32 ? 1.0 / 16 : 1;
        const double tolerance = type == float64 ? 1e-12 : type == float32 ? 1e-5 : type == int32 ? 10 : 0.5;
        for (size_t i = 0; i < expected.size(); ++i) {
          CHECK(std::fabs(got[i] * scale - expected[i]) < tolerance);
          CHECK(std::fabs(top[i] * scale - greatest[i]) < (type == float64 ? 1e-12 : 0.07));
        }
      }
    }
  }
}

TEST_CASE("cpu: products of any layout, batched and broadcast, by both libraries") {
  const MatmulLibrary before = matmul_library();
  for (MatmulLibrary library : {MatmulLibrary::onednn, MatmulLibrary::own}) {
    set_matmul_library(library);
    for (auto [m, n, k] : {std::array<int64_t, 3>{1, 1, 1},
                           {3, 5, 7},
                           {13, 33, 300},
                           {64, 10, 256},
                           {1, 40, 65},
                           {129, 1, 17},
                           {121, 1100, 40},
                           {6, 9, 1700},
                           {70, 5, 203},
                           {251, 47, 300},
                           {37, 20, 1024}}) {
      const Tensor a = numbers({m, k}, float64), b = numbers({k, n}, float64);
      std::vector<double> expected(static_cast<size_t>(m * n));
      const std::vector<double> av = a.to_vector<double>(), bv = b.to_vector<double>();
      for (int64_t i = 0; i < m; ++i)
        for (int64_t p = 0; p < k; ++p)
          for (int64_t j = 0; j < n; ++j)
            expected[static_cast<size_t>(i * n + j)] +=
                av[static_cast<size_t>(i * k + p)] * bv[static_cast<size_t>(p * n + j)];
      const Tensor reference = tensor(expected).reshape({m, n});
      for (DType type : {float64, float32, float16, bfloat16}) {
        const Tensor x = a.to(type), y = b.to(type);
        const double tolerance = (type == float64   ? 1e-12
                                  : type == float32 ? 1e-5
                                  : type == float16 ? 0.02
                                                    : 0.15) *
                                     std::sqrt(static_cast<double>(k)) +
                                 1e-6;
        const Tensor xt = x.transpose(0, 1).contiguous().transpose(0, 1),
                     yt = y.transpose(0, 1).contiguous().transpose(0, 1);
        CHECK(worst_difference(matmul(x, y), reference) < tolerance);
        CHECK(worst_difference(matmul(xt, y), reference) < tolerance);
        CHECK(worst_difference(matmul(x, yt), reference) < tolerance);
        CHECK(worst_difference(matmul(xt, yt), reference) < tolerance);
        const Tensor gaps = concat({unsqueeze(x, 2), unsqueeze(x, 2)}, 2).slice(2, 0, 1).squeeze(2);
        CHECK(worst_difference(matmul(gaps, y), reference) < tolerance);
        const Tensor bias = numbers({n}, type);
        CHECK(worst_difference(linear(x, yt.transpose(0, 1), bias), reference + bias.to(float64)) < 2 * tolerance);
      }
    }
    const Tensor a = numbers({2, 1, 5, 4}), b = numbers({3, 4, 6});
    const Tensor product = matmul(a, b);
    REQUIRE(product.shape() == Shape{2, 3, 5, 6});
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < 3; ++j) CHECK(allclose(product[i][j], matmul(a[i][0], b[j]), {.rtol = 1e-4, .atol = 1e-6}));
    const Tensor heads = numbers({6, 70, 40}, bfloat16), keys = numbers({6, 40, 90}, bfloat16);
    CHECK(worst_difference(matmul(heads, keys), matmul(heads.to(float64), keys.to(float64))) < 0.3);
    const Tensor integers = (numbers({6, 9}) * 10).to(int32), others = (numbers({9, 4}) * 10).to(int32);
    CHECK(same_bits(matmul(integers, others), matmul(integers.to(float64), others.to(float64)).to(int32)));
    CHECK(sum(matmul(numbers({3, 0}), numbers({0, 4}))).item<float>() == 0);
  }
  set_matmul_library(before);
}

TEST_CASE("cpu: neither layouts nor blocks of rows change a bit of a product of fewer than 1,024 terms") {
  const auto turned = [](const Tensor& x) { return x.transpose(0, 1).contiguous().transpose(0, 1); };
  for (auto [m, n, k] : {std::array<int64_t, 3>{300, 70, 100}, {517, 600, 190}, {49, 33, 1}}) {
    const Tensor a = numbers({m, k}), b = numbers({k, n}), whole = matmul(a, b);
    CHECK(worst_difference(whole, matmul(a.to(float64), b.to(float64))) < 1e-3);
    CHECK(same_bits(matmul(turned(a), b), whole));
    CHECK(same_bits(matmul(a, turned(b)), whole));
    CHECK(same_bits(matmul(turned(a), turned(b)), whole));
    CHECK(same_bits(linear(a, turned(b).transpose(0, 1)), whole));
    for (const int64_t rows : {1, 5, 17, 48})
      CHECK(same_bits(matmul(a.slice(0, 1, 1 + rows), b), whole.slice(0, 1, 1 + rows)));
  }
  const Tensor a = numbers({300, 1000}), b = numbers({1000, 70}), whole = matmul(a, b);  // several blocks of terms
  CHECK(same_bits(matmul(turned(a), b), whole));
  CHECK(same_bits(matmul(a.slice(0, 7, 30), b), whole.slice(0, 7, 30)));
}

TEST_CASE("cpu: convolutions and gradients with stride, padding, dilation and groups, against plain loops") {
  struct Case {
    int64_t batch, in, height, width, out, kernel, stride, padding, dilation, groups;
  };
  const MatmulLibrary before = matmul_library();
  for (const Case& c :
       {Case{2, 1, 9, 8, 3, 3, 1, 1, 1, 1},
        {2, 4, 7, 7, 6, 3, 2, 1, 1, 2},
        {1, 3, 10, 9, 4, 2, 1, 0, 2, 1},
        {3, 2, 6, 5, 4, 1, 1, 0, 1, 1},
        {2, 4, 8, 8, 4, 3, 3, 0, 1, 4},
        {2, 8, 14, 14, 16, 5, 1, 0, 1, 1},
        // Those of the direct kernel: whole and cut blocks of channels, strides, a kernel of one with padding,
        // more than one strip, more taps than pass at once, threads' sums that threads add up.
        {3, 16, 9, 11, 16, 3, 1, 1, 1, 1},
        {2, 3, 9, 10, 32, 3, 2, 1, 1, 1},
        {1, 26, 7, 8, 28, 3, 1, 2, 1, 1},
        {2, 16, 5, 6, 16, 1, 1, 1, 1, 1},
        {1, 32, 6, 5, 64, 1, 2, 0, 1, 1},
        {1, 64, 40, 24, 16, 3, 1, 1, 1, 1},
        {1, 176, 4, 5, 28, 3, 1, 1, 1, 1},
        {2, 256, 6, 6, 64, 3, 1, 1, 1, 1}}) {
    const int64_t reach = c.dilation * (c.kernel - 1) + 1;
    const int64_t oh = (c.height + 2 * c.padding - reach) / c.stride + 1,
                  ow = (c.width + 2 * c.padding - reach) / c.stride + 1;
    const Tensor x = numbers({c.batch, c.in, c.height, c.width}, float64),
                 w = numbers({c.out, c.in / c.groups, c.kernel, c.kernel}, float64);
    const Tensor bias = numbers({c.out}, float64), g = numbers({c.batch, c.out, oh, ow}, float64);
    const auto xv = x.to_vector<double>(), wv = w.to_vector<double>(), bv = bias.to_vector<double>(),
               gv = g.to_vector<double>();
    std::vector<double> y(gv.size()), dx(xv.size()), dw(wv.size());
    const int64_t in_group = c.in / c.groups, out_group = c.out / c.groups;
    for (int64_t n = 0; n < c.batch; ++n)
      for (int64_t o = 0; o < c.out; ++o)
        for (int64_t r = 0; r < oh; ++r)
          for (int64_t q = 0; q < ow; ++q) {
            const size_t to = static_cast<size_t>(((n * c.out + o) * oh + r) * ow + q);
            y[to] = bv[static_cast<size_t>(o)];
            for (int64_t i = 0; i < in_group; ++i)
              for (int64_t k = 0; k < c.kernel; ++k)
                for (int64_t l = 0; l < c.kernel; ++l) {
                  const int64_t row = r * c.stride - c.padding + k * c.dilation,
                                column = q * c.stride - c.padding + l * c.dilation;
                  if (row < 0 || row >= c.height || column < 0 || column >= c.width) continue;
                  const size_t from = static_cast<size_t>(
                      ((n * c.in + o / out_group * in_group + i) * c.height + row) * c.width + column);
                  const size_t tap = static_cast<size_t>(((o * in_group + i) * c.kernel + k) * c.kernel + l);
                  y[to] += xv[from] * wv[tap];
                  dx[from] += gv[to] * wv[tap];
                  dw[tap] += gv[to] * xv[from];
                }
          }
    Attributes attributes{{"stride", Shape{c.stride, c.stride}},
                          {"padding", Shape{c.padding, c.padding}},
                          {"dilation", Shape{c.dilation, c.dilation}},
                          {"groups", c.groups}};
    Attributes of_x = attributes, of_w = attributes;
    of_x.set({"shape", x.shape()}), of_w.set({"shape", w.shape()});
    for (MatmulLibrary library : {MatmulLibrary::onednn, MatmulLibrary::own})
      for_each_isa([&](Isa) {
        set_matmul_library(library);
        for (DType type : {float64, float32, bfloat16}) {
          const double tolerance = type == float64   ? 1e-10
                                   : type == float32 ? 2e-3
                                                     : std::max(1.0, std::sqrt(static_cast<double>(gv.size()) / 500));
          const auto as = [&](const Tensor& t) { return t.to(type); };
          const auto channels_last = [](const Tensor& t) {
            return t.permute({0, 2, 3, 1}).contiguous().permute({0, 3, 1, 2});
          };
          CHECK(worst_difference(call("conv2d", {as(x), as(w), as(bias)}, attributes), tensor(y).reshape(g.shape())) <
                tolerance);
          CHECK(worst_difference(call("conv2d", {channels_last(as(x)), as(w), as(bias)}, attributes),
                                 tensor(y).reshape(g.shape())) < tolerance);
          CHECK(worst_difference(call("conv2d_input_grad", {as(g), as(w)}, of_x), tensor(dx).reshape(x.shape())) <
                tolerance);
          CHECK(worst_difference(call("conv2d_weight_grad", {channels_last(as(g)), as(x)}, of_w),
                                 tensor(dw).reshape(w.shape())) < tolerance);
        }
      });
  }
  set_matmul_library(before);
}

TEST_CASE("cpu: a convolution of no channels is its bias, of no images nothing; one pixel has a padded neighbourhood") {
  for_each_isa([&](Isa) {
    const Tensor none = conv2d(zeros({2, 0, 5, 5}), zeros({16, 0, 3, 3}), full({16}, 3), {.padding = 1});
    CHECK(same_bits(none, full({2, 16, 5, 5}, 3)));
    CHECK(same_bits(conv2d(zeros({2, 0, 5, 5}), zeros({16, 0, 3, 3})), zeros({2, 16, 3, 3})));
    CHECK(conv2d(zeros({0, 16, 8, 8}), zeros({16, 16, 3, 3})).shape() == Shape{0, 16, 6, 6});
    Tensor x = numbers({2, 16, 1, 1}), w = numbers({16, 16, 3, 3});
    const Tensor y = conv2d(x, w, {}, {.padding = 1}),
                 expected = matmul(x.reshape({2, 16}), w.select(2, 1).select(2, 1).transpose(0, 1));
    CHECK(allclose(y.reshape({2, 16}), expected, {.rtol = 1e-5, .atol = 1e-5}));
  });
}

TEST_CASE("cpu: max pooling in both layouts, overlapping and padded, with its gradients") {
  struct Case {
    int64_t channels, height, width, kernel, stride, padding;
  };
  for (const Case& c : {Case{3, 8, 8, 2, 2, 0},
                        {8, 7, 9, 2, 2, 0},
                        {5, 9, 7, 3, 2, 1},
                        {16, 6, 6, 3, 3, 0},
                        {8, 9, 7, 3, 2, 1},
                        {1, 5, 5, 2, 1, 1},
                        {4, 6, 6, 5, 1, 2}}) {
    const Tensor x = numbers({2, c.channels, c.height, c.width});
    const Tensor last = x.permute({0, 2, 3, 1}).contiguous().permute({0, 3, 1, 2});
    const int64_t oh = (c.height + 2 * c.padding - c.kernel) / c.stride + 1,
                  ow = (c.width + 2 * c.padding - c.kernel) / c.stride + 1;
    const Attributes attributes{{"kernel", Shape{c.kernel, c.kernel}},
                                {"stride", Shape{c.stride, c.stride}},
                                {"padding", Shape{c.padding, c.padding}}};
    Attributes with_shape = attributes;
    with_shape.set({"shape", x.shape()});
    const auto xv = x.to_vector<double>();
    std::vector<double> values, grad(xv.size());
    std::vector<int64_t> indices;
    for (int64_t plane = 0; plane < 2 * c.channels; ++plane)
      for (int64_t r = 0; r < oh; ++r)
        for (int64_t q = 0; q < ow; ++q) {
          double best = -INFINITY;
          int64_t at = 0;
          for (int64_t row = std::max<int64_t>(0, r * c.stride - c.padding);
               row < std::min(c.height, r * c.stride - c.padding + c.kernel); ++row)
            for (int64_t column = std::max<int64_t>(0, q * c.stride - c.padding);
                 column < std::min(c.width, q * c.stride - c.padding + c.kernel); ++column) {
              const double v = xv[static_cast<size_t>((plane * c.height + row) * c.width + column)];
              if (v > best) best = v, at = row * c.width + column;
            }
          grad[static_cast<size_t>(plane * c.height * c.width + at)] += static_cast<double>(values.size() % 7);
          values.push_back(best);
          indices.push_back(at);
        }
    std::vector<double> gv(values.size());
    for (size_t i = 0; i < gv.size(); ++i) gv[i] = static_cast<double>(i % 7);
    const Tensor g = tensor(gv).reshape({2, c.channels, oh, ow});
    for (DType type : {float32, float64}) {
      for (const Tensor& input : {x.to(type), last.to(type)}) {
        const std::vector<Tensor> in{input};
        const Tensors out = dispatch_all(find_op("max_pool2d"), in, attributes, Where::current());
        CHECK(out[0].to_vector<double>() == values);
        CHECK(out[1].to_vector<int64_t>() == indices);
        CHECK(call("max_unpool2d", {g.to(type), out[1]}, with_shape).to_vector<double>() == grad);
        CHECK(call("max_pool2d_select", {input, out[1]}, with_shape).to_vector<double>() == values);
      }
    }
  }
}

TEST_CASE("cpu: softmax, layer norm and cross-entropy against float64, odd widths") {
  for (int64_t width : {1, 2, 10, 63, 64, 65, 1000, 4099}) {
    const Tensor x = numbers({5, width}, float64) * 3, w = numbers({width}, float64), b = numbers({width}, float64);
    const Tensor e = exp(x - max(x, 1, {.keepdim = true}));
    const Tensor p = e / sum(e, 1, {.keepdim = true});
    CHECK(worst_difference(softmax(x), p) < 1e-14);
    CHECK(worst_difference(softmax(x.to(float32)), p) < 1e-6);
    CHECK(worst_difference(log_softmax(x.to(float32)), log(p)) < 1e-5);
    const Tensor centred = x - mean(x, 1, {.keepdim = true});
    const Tensor n = centred * rsqrt(mean(square(centred), 1, {.keepdim = true}) + 1e-5);
    CHECK(worst_difference(layer_norm(x.to(float32), w.to(float32), b.to(float32)), n * w + b) < 1e-4);
    CHECK(worst_difference(layer_norm(x, w, b), n * w + b) < 1e-12);
    const Tensor labels = tensor(std::vector<int64_t>{0, width - 1, width / 2, 0, width / 3});
    const Tensor loss = neg(mean(gather(log(p), 1, unsqueeze(labels, 1))));
    CHECK(worst_difference(cross_entropy(x, labels), loss) < 1e-12);
    CHECK(worst_difference(cross_entropy(x.to(float32), labels), loss) < 1e-5);
  }
  const Tensor rows = softmax(full({2, 3}, -INFINITY));
  CHECK(std::isnan(rows.to_vector<float>()[0]));
}

TEST_CASE("cpu: indices out of range name position and value") {
  const Tensor weight = numbers({4, 3});
  CHECK_THROWS_WITH_AS(embedding(tensor(std::vector<int64_t>{0, 4}), weight),
                       doctest::Contains("id 4 at [1] is out of range for 4"), DimensionError);
  CHECK_THROWS_WITH_AS(cross_entropy(weight, tensor(std::vector<int64_t>{0, 1, -1, 2})),
                       doctest::Contains("label -1 at row 2"), DimensionError);
  CHECK_THROWS_AS(gather(weight, 1, tensor(std::vector<int64_t>{3}).reshape({1, 1})), DimensionError);
}
