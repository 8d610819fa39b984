// Ops on cuda(0) against the CPU, emulated or on a GPU: every kernel, in every order of lanes, on shapes that reach
// each of its paths (packed and not, warp, block and long rows, split reductions, transposed and broadcast operands).
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "core/ops/ops.h"
#include "core/random.h"
#include "core/tensor.h"
#include "kernels/cuda/capture.h"
#include "kernels/cuda/conv.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/module.h"
#include "tests/cuda/compare.h"

using namespace tandem;

namespace {

// Against the op's decomposition into simpler ops, where it has one.
void compare_decomposed(const char* name, const Tensors& inputs, const Attributes& attributes,
                        Tolerance tolerance = {-1, -1}) {
  INFO(name);
  const Op& op = find_op(name);
  REQUIRE((op.decompose != nullptr));
  compare(
      inputs,
      [&](const Tensors& x) {
        return x[0].device().is_cpu() ? op.decompose(x, attributes) : dispatch_all(op, x, attributes, Where::current());
      },
      tolerance);
}

}  // namespace

TEST_CASE("cuda: pointwise ops agree with the CPU over dtypes and layouts") {
  for (const DType type : floats) {
    const Tensor x = numbers({5, 37}, type), y = numbers({5, 37}, type, 2);
    compare({x, y}, [](const Tensors& t) {
      const Tensor &x = t[0], &y = t[1];
      const Tensor s = x.transpose(0, 1), u = y.transpose(0, 1), part = x.slice(1, 1, 36, 2);
      return Tensors{x + y,
                     x * y - 2,
                     exp(x),
                     tanh(s),
                     gelu(part),
                     s + u,
                     x + y.slice(0, 2, 3),
                     where(x > y, x, y),
                     maximum(s, 0),
                     x.slice(0, 0, 0) + 1,
                     sigmoid(x[1]),
                     part / (x.slice(1, 0, 1) + 3),
                     pow(abs(x), 1.5),
                     x == y,
                     s.reshape({-1})};
    });
  }
  const Tensor i = integers({4, 9}, 10), j = integers({4, 9}, 10, 2);
  for (const DType type : {int32, int64, int8, uint8}) {
    compare({i.to(type), j.to(type)}, [](const Tensors& t) {
      return Tensors{t[0] + t[1], t[0] * t[1],       maximum(t[0], t[1]),
                     t[0] > t[1], t[0] / (t[1] + 1), where(t[0] > 4, t[0], t[1])};
    });
  }
  compare({(i > 4), (j > 4)}, [](const Tensors& t) {
    return Tensors{t[0] + t[1], t[0] * t[1], maximum(t[0], t[1]), t[0] == t[1]};
  });
}

TEST_CASE("cuda: casts between all dtypes, copies of all layouts") {
  const DType all[] = {float32, float64, float16, bfloat16, int32, int64, int16, int8, uint8, bool_};
  for (const DType from : all) {
    const Tensor x = integers({3, 11}, 5).to(from);
    for (const DType to : all)
      compare({x}, [&](const Tensors& t) { return Tensors{t[0].to(to), t[0].transpose(0, 1).to(to).contiguous()}; });
  }
  compare({numbers({3, 40, 50}), numbers({2, 3, 4, 5})}, [](const Tensors& t) {
    return Tensors{t[0].transpose(1, 2).contiguous(),       t[0].transpose(0, 2).contiguous(),
                   t[0].slice(2, 3, 47, 3).contiguous(),    t[1].permute({0, 2, 3, 1}).contiguous(),
                   t[1].permute({3, 1, 0, 2}).contiguous(), t[0].slice(1, 3, 4).expand({3, 9, 50}).contiguous(),
                   concat({t[0], t[0].slice(1, 0, 7)}, 1),  slice_grad(t[0].slice(1, 0, 5), 1, 2, 3, 16)};
  });
  compare1({numbers({4, 6})}, [](const Tensors& t) {
    Tensor y = zeros_like(t[0]);
    y.slice(1, 1, 4).assign(t[0].slice(1, 0, 3));
    y.slice(0, 3, 4).assign(full({}, 5, {.device = y.device()}));
    return y;
  });
  compare1({numbers({1})},
           [](const Tensors& t) { return arange(3, 50, 7, {.dtype = float32, .device = t[0].device()}); });
}

TEST_CASE("cuda: reductions over rows, columns, any dims, few and many results") {
  for (const DType type : {float32, float64, float16, int32, int64, uint8, bool_}) {
    const Tensor x = is_floating(type) ? numbers({6, 5, 33}, type) : integers({6, 5, 33}, 3).to(type);
    compare({x}, [&](const Tensors& t) {
      Tensors result;
      for (const Dims& dims : {Dims{}, Dims{0}, Dims{1}, Dims{2}, Dims{0, 2}, Dims{1, 2}, Dims{0, 1}}) {
        result.push_back(sum(t[0], dims));
        result.push_back(max(t[0], dims, {.keepdim = true}));
        result.push_back(min(t[0], dims));
      }
      result.push_back(sum(t[0].transpose(0, 2), {0}));
      result.push_back(prod(t[0].slice(0, 0, 2), {0}));
      for (int dim : {0, 1, 2}) result.push_back(argmax(t[0], dim));
      result.push_back(argmax(t[0].transpose(0, 2), 1));
      if (is_floating(t[0].dtype())) result.push_back(mean(t[0], {1}));
      result.push_back(sum(t[0].slice(1, 0, 0), {1}));
      return result;
    });
  }
  compare({numbers({40000}), numbers({3, 9001}), numbers({3000, 5}), numbers({700, 64})},
          [](const Tensors& t) {
            return Tensors{sum(t[0]),    max(t[0]),       argmax(t[0], 0), sum(t[1], 1), mean(t[1], 1),
                           sum(t[2], 0), argmax(t[2], 0), sum(t[3], 0),    sum(t[3], 1)};
          },
          {1e-4, 1e-4});
  compare1({tensor({1.0f, NAN, 3.0f})}, [](const Tensors& t) { return max(t[0]); });
}

TEST_CASE("cuda: softmax and its gradients, by warp, block and long rows") {
  for (const DType type : floats) {
    for (const int64_t columns : {1, 10, 100, 256, 777, 1024}) {
      const Tensor x = numbers({5, columns}, type) * 3, g = numbers({5, columns}, type, 2);
      compare_decomposed("softmax", {x}, {});
      compare_decomposed("log_softmax", {x}, {},
                         type == bfloat16  ? Tolerance{2e-2, 5e-2}
                         : type == float16 ? Tolerance{2e-3, 6e-3}
                                           : Tolerance{-1, -1});
      NoGrad guard;
      compare_decomposed("softmax_grad", {g, softmax(x.to(cuda(0))).cpu()}, {});
      compare_decomposed("log_softmax_grad", {g, log_softmax(x.to(cuda(0))).cpu()}, {});
    }
  }
  for (const int64_t columns : {2000, 2048, 5000, 8192, 9000}) {
    const Tensor x = numbers({2, columns}) * 3;
    compare_decomposed("softmax", {x}, {});
    compare_decomposed("log_softmax", {x}, {});
    compare_decomposed("softmax_grad", {numbers({2, columns}, float32, 3), x}, {}, {1e-4, 1e-4});
  }
}

TEST_CASE("cuda: layer_norm and its gradients") {
  for (const DType type : floats) {
    for (const int64_t columns : {1, 10, 96, 300, 1024, 1500, 2048, 9000}) {
      if (columns > 1024 && type != float32) continue;
      const Tensor x = numbers({3, 7, columns}, type), w = numbers({columns}, type, 2), b = numbers({columns}, type, 3);
      const Tolerance loose = type == bfloat16  ? Tolerance{3e-2, 3e-2}
                              : type == float16 ? Tolerance{4e-3, 4e-3}
                              : type == float32 ? Tolerance{1e-4, 1e-4}
                                                : Tolerance{-1, -1};
      compare_decomposed("layer_norm", {x, w, b}, {{"epsilon", 1e-5}}, loose);
      NoGrad guard;
      const Tensors y = find_op("layer_norm").decompose(std::vector<Tensor>{x, w, b}, {{"epsilon", 1e-5}});
      compare_decomposed("layer_norm_grad", {numbers({3, 7, columns}, type, 4), x, w, y[1], y[2]}, {}, loose);
    }
  }
  compare_decomposed("layer_norm_grad",
                     {numbers({700, 40}, float32, 4), numbers({700, 40}), numbers({40}, float32, 2),
                      numbers({700}, float32, 5), numbers({700}, float32, 6)},
                     {}, {1e-4, 1e-4});
}

TEST_CASE("cuda: cross_entropy and its gradient") {
  for (const DType type : floats) {
    for (const int64_t classes : {1, 10, 200, 1000, 5000, 9000}) {
      if (classes > 1000 && type != float32) continue;
      const Tensor x = numbers({9, classes}, type) * 4, labels = integers({9}, classes);
      compare_decomposed("cross_entropy", {x, labels}, {});
      NoGrad guard;
      const Tensors y = find_op("cross_entropy").decompose(std::vector<Tensor>{x, labels}, {});
      compare_decomposed("cross_entropy_grad", {numbers({}, type), x, labels, y[1]}, {});
      if (classes != 10) continue;
      compare_decomposed("cross_entropy", {x, labels}, {{"ignore_index", int64_t{3}}});
      compare_decomposed("cross_entropy_grad", {numbers({}, type), x, labels, y[1]}, {{"ignore_index", int64_t{3}}});
    }
  }
}

TEST_CASE("cuda: embedding, gather and their gradients") {
  for (const DType type : floats) {
    const Tensor ids = integers({6, 50}, 23), weight = numbers({23, 40}, type), g = numbers({6, 50, 40}, type, 2);
    NoGrad guard;
    const Tensor row_of = ids.reshape({-1});
    // By hand: the CPU kernels may be checked against this file one day.
    std::vector<double> w = weight.to_vector<double>(), gs = g.to_vector<double>(), picked(300 * 40),
                        sums(23 * 40, 0.0);
    const std::vector<int64_t> id = ids.to_vector<int64_t>();
    for (size_t p = 0; p < 300; ++p)
      for (size_t c = 0; c < 40; ++c) {
        picked[p * 40 + c] = w[size_t(id[p]) * 40 + c];
        sums[size_t(id[p]) * 40 + c] += gs[p * 40 + c];
      }
    const Tensor y = embedding(ids.to(cuda(0)), weight.to(cuda(0)));
    check_same(y.cpu().reshape({300, 40}), tensor(picked).reshape({300, 40}).to(type), {0, 0});
    const Tensor sum = dispatch(find_op("embedding_grad"), {g.to(cuda(0)), ids.to(cuda(0))}, {{"count", int64_t{23}}},
                                Where::current());
    check_same(sum.cpu(), tensor(sums).reshape({23, 40}).to(type),
               {tolerance_of(type).relative, 10 * tolerance_of(type).absolute});
  }
  NoGrad guard;
  const Tensor wide = numbers({5, 600}), ids = integers({7}, 5);
  check_same(embedding(ids.to(cuda(0)), wide.to(cuda(0))).cpu()[3], wide[ids.to_vector<int64_t>()[3]].contiguous(),
             {0, 0});
  const Tensor sum = dispatch(find_op("embedding_grad"), {ones({7, 600}, {.device = cuda(0)}), ids.to(cuda(0))},
                              {{"count", int64_t{5}}}, Where::current());
  double total = 0;
  for (double v : sum.cpu().to_vector<double>()) total += v;
  CHECK(total == 7 * 600);

  const Tensor x = numbers({4, 6, 5}), index = integers({4, 3, 5}, 6);
  const Tensor got = gather(x.to(cuda(0)), 1, index.to(cuda(0))).cpu();
  const Tensor back = scatter_add(ones({4, 3, 5}, {.device = cuda(0)}), 1, index.to(cuda(0)), {4, 6, 5}).cpu();
  const std::vector<double> xs = x.to_vector<double>(), ys = got.to_vector<double>(), zs = back.to_vector<double>();
  const std::vector<int64_t> is = index.to_vector<int64_t>();
  std::vector<double> counts(4 * 6 * 5, 0.0);
  for (size_t a = 0; a < 4; ++a)
    for (size_t i = 0; i < 3; ++i)
      for (size_t b = 0; b < 5; ++b) {
        const size_t at = (a * 3 + i) * 5 + b, from = (a * 6 + size_t(is[at])) * 5 + b;
        CHECK(ys[at] == xs[from]);
        counts[from] += 1;
      }
  CHECK(zs == counts);
}

TEST_CASE("cuda: matmul by each of our kernels, transposed and batched") {
  struct Case {
    int64_t batch, m, n, k;
    bool a_transposed, b_transposed;
  };
  for (const DType type : {float32, float64, float16, bfloat16, int32, int64}) {
    for (const Case& c :
         {Case{1, 5, 7, 3, false, false}, Case{1, 70, 65, 40, true, false}, Case{2, 33, 40, 17, false, true},
          Case{1, 48, 56, 600, true, true}, Case{3, 24, 32, 16, false, false}, Case{1, 130, 136, 72, false, true},
          Case{1, 8, 8, 0, false, false}}) {
      INFO(c.m, " ", c.n, " ", c.k);
      const Tensor a = (is_floating(type) ? numbers({c.batch, c.m, c.k}, type)
                                          : integers({c.batch, c.m, c.k}, 7).to(type)),
                   b = (is_floating(type) ? numbers({c.batch, c.k, c.n}, type, 2)
                                          : integers({c.batch, c.k, c.n}, 7, 2).to(type));
      const Tolerance tolerance = type == float64 || !is_floating(type) ? Tolerance{1e-12, 1e-12}
                                  : type == float32                     ? Tolerance{1e-4, 1e-4}
                                                                        : Tolerance{2e-2, 2e-2};
      compare1(
          {c.a_transposed ? a.transpose(1, 2).contiguous() : a, c.b_transposed ? b.transpose(1, 2).contiguous() : b},
          [&](const Tensors& t) {
            return matmul(c.a_transposed ? t[0].transpose(1, 2) : t[0], c.b_transposed ? t[1].transpose(1, 2) : t[1]);
          },
          tolerance);
    }
  }
  compare(
      {numbers({2, 3, 20}), numbers({12, 20}, float32, 2), numbers({12}, float32, 3)},
      [](const Tensors& t) {
        return Tensors{linear(t[0], t[1], t[2]), linear(t[0].transpose(0, 1), t[1]), linear(t[0][1][2], t[1], t[2])};
      },
      {1e-4, 1e-5});
  compare1({numbers({5, 1, 4, 6}), numbers({3, 6, 2}, float32, 2)}, [](const Tensors& t) { return matmul(t[0], t[1]); },
           {1e-4, 1e-5});
}

TEST_CASE("cuda: each matmul kernel by name") {
  NoGrad guard;
  for (const DType type : {float32, float16, bfloat16}) {
    for (const bool a_columns : {false, true}) {
      for (const bool b_columns : {false, true}) {
        const int64_t m = 136, n = 144, k = 104;
        const Tensor a = numbers({m, k}, type), b = numbers({k, n}, type, 2), wanted = matmul(a, b);
        const Tensor da = (a_columns ? a.transpose(0, 1).contiguous() : a).to(cuda(0)),
                     db = (b_columns ? b.transpose(0, 1).contiguous() : b).to(cuda(0));
        for (const auto kernel : {gpu::MatmulKernel::tile_32, gpu::MatmulKernel::tile_64, gpu::MatmulKernel::tile_128,
                                  gpu::MatmulKernel::tensor_cores}) {
          if (type == float32 && kernel == gpu::MatmulKernel::tensor_cores) continue;
          if (type != float32 && kernel == gpu::MatmulKernel::tile_128) continue;
          Tensor c = empty({m, n}, {.dtype = type, .device = cuda(0)});
          gpu::MatmulProblem p{};
          p.type = type, p.m = m, p.n = n, p.k = k;
          p.a = {da.impl()->data, a_columns ? 1 : k, a_columns ? m : 1};
          p.b = {db.impl()->data, b_columns ? 1 : n, b_columns ? k : 1};
          p.c = c.impl()->data, p.c_row = n, p.batch.count = 3, p.device = cuda(0), p.stream = gpu::stream_of(cuda(0));
          gpu::own_matmul(p, kernel);
          INFO(static_cast<int>(kernel), " ", a_columns, " ", b_columns);
          check_same(c.cpu(), wanted, type == float32 ? Tolerance{1e-4, 1e-4} : Tolerance{1e-2, 3e-2});
        }
      }
    }
  }
}

namespace {

// Convolution from its definition.
struct ConvCase {
  int64_t batch, channels, size, filters, kernel, stride, padding, dilation, groups;
};
void check_conv(const ConvCase& c, DType type, bool channels_last) {
  NoGrad guard;
  Tensor x = numbers({c.batch, c.channels, c.size, c.size + 1}, type);
  const Tensor w = numbers({c.filters, c.channels / c.groups, c.kernel, c.kernel}, type, 2),
               bias = numbers({c.filters}, type, 3);
  Tensor dx = x.to(cuda(0));
  if (channels_last) dx = dx.permute({0, 2, 3, 1}).contiguous().permute({0, 3, 1, 2});
  const Conv2dOptions options{.stride = c.stride, .padding = c.padding, .dilation = c.dilation, .groups = c.groups};
  const Tensor y = conv2d(dx, w.to(cuda(0)), bias.to(cuda(0)), options);
  const int64_t oh = y.shape()[2], ow = y.shape()[3], width = c.size + 1, per_group = c.channels / c.groups,
                filters_per_group = c.filters / c.groups;
  const Tensor g = numbers(y.shape(), type, 4);
  const std::vector<double> xs = x.to_vector<double>(), ws = w.to_vector<double>(), bs = bias.to_vector<double>(),
                            gs = g.to_vector<double>();
  std::vector<double> ys(gs.size()), dxs(xs.size()), dws(ws.size());
  for (int64_t n = 0; n < c.batch; ++n)
    for (int64_t f = 0; f < c.filters; ++f)
      for (int64_t i = 0; i < oh; ++i)
        for (int64_t j = 0; j < ow; ++j) {
          const auto at = size_t(((n * c.filters + f) * oh + i) * ow + j);
          ys[at] = bs[size_t(f)];
          for (int64_t ch = 0; ch < per_group; ++ch)
            for (int64_t u = 0; u < c.kernel; ++u)
              for (int64_t v = 0; v < c.kernel; ++v) {
                const int64_t row = i * c.stride - c.padding + u * c.dilation,
                              column = j * c.stride - c.padding + v * c.dilation;
                if (row < 0 || row >= c.size || column < 0 || column >= width) continue;
                const auto xi =
                    size_t(((n * c.channels + f / filters_per_group * per_group + ch) * c.size + row) * width + column);
                const auto wi = size_t(((f * per_group + ch) * c.kernel + u) * c.kernel + v);
                ys[at] += xs[xi] * ws[wi];
                dxs[xi] += gs[at] * ws[wi];
                dws[wi] += gs[at] * xs[xi];
              }
        }
  const Tolerance tolerance = type == float32   ? Tolerance{1e-4, 1e-4}
                              : type == float64 ? Tolerance{1e-11, 1e-11}
                                                : Tolerance{2e-2, 5e-2};
  check_same(y.cpu(), tensor(ys).reshape(y.shape()).to(type), tolerance);
  Attributes attributes{{"stride", Shape{c.stride, c.stride}},
                        {"padding", Shape{c.padding, c.padding}},
                        {"dilation", Shape{c.dilation, c.dilation}},
                        {"groups", c.groups},
                        {"shape", x.shape()}};
  const Tensor got_dx =
      dispatch(find_op("conv2d_input_grad"), {g.to(cuda(0)), w.to(cuda(0))}, attributes, Where::current());
  check_same(got_dx.cpu(), tensor(dxs).reshape(x.shape()).to(type), tolerance);
  attributes.set({"shape", w.shape()});
  const Tensor got_dw = dispatch(find_op("conv2d_weight_grad"), {g.to(cuda(0)), dx}, attributes, Where::current());
  check_same(got_dw.cpu(), tensor(dws).reshape(w.shape()).to(type), tolerance);
}

}  // namespace

TEST_CASE("cuda: conv2d and both gradients, with stride, padding, dilation and groups") {
  for (const bool channels_last : {false, true}) {
    check_conv({2, 3, 8, 5, 3, 1, 1, 1, 1}, float32, channels_last);
    check_conv({2, 4, 9, 6, 3, 2, 1, 1, 2}, float32, channels_last);
    check_conv({1, 2, 11, 4, 3, 2, 2, 2, 1}, float32, channels_last);
    check_conv({2, 40, 5, 36, 1, 1, 0, 1, 1}, float32, channels_last);
    check_conv({1, 1, 12, 6, 5, 1, 0, 1, 1}, float64, channels_last);
    check_conv({1, 4, 6, 4, 3, 1, 1, 1, 4}, float16, channels_last);
    check_conv({1, 4, 6, 4, 3, 1, 1, 1, 1}, bfloat16, channels_last);
  }
}

TEST_CASE("cuda: max_pool2d, its gradient and that one's") {
  NoGrad guard;
  for (const bool channels_last : {false, true}) {
    const Shape shape{2, 3, 7, 8};
    const Tensor x = numbers(shape);
    Tensor dx = x.to(cuda(0));
    if (channels_last) dx = dx.permute({0, 2, 3, 1}).contiguous().permute({0, 3, 1, 2});
    const Attributes attributes{
        {"kernel", Shape{3, 2}}, {"stride", Shape{2, 1}}, {"padding", Shape{1, 0}}, {"shape", shape}};
    const Tensors y = dispatch_all(find_op("max_pool2d"), std::vector<Tensor>{dx}, attributes, Where::current());
    const Tensor g = numbers(y[0].shape(), float32, 2);
    const std::vector<double> xs = x.to_vector<double>(), ys = y[0].cpu().to_vector<double>(),
                              gs = g.to_vector<double>();
    const std::vector<int64_t> where = y[1].cpu().to_vector<int64_t>();
    std::vector<double> back(xs.size());
    const int64_t oh = y[0].shape()[2], ow = y[0].shape()[3];
    for (int64_t plane = 0; plane < 6; ++plane)
      for (int64_t i = 0; i < oh; ++i)
        for (int64_t j = 0; j < ow; ++j) {
          double best = -INFINITY;
          int64_t best_at = -1;
          for (int64_t r = std::max<int64_t>(0, i * 2 - 1); r < std::min<int64_t>(7, i * 2 + 2); ++r)
            for (int64_t c = j; c < j + 2; ++c)
              if (xs[size_t((plane * 7 + r) * 8 + c)] > best)
                best = xs[size_t((plane * 7 + r) * 8 + c)], best_at = r * 8 + c;
          const auto at = size_t((plane * oh + i) * ow + j);
          CHECK(ys[at] == best);
          CHECK(where[at] == best_at);
          back[size_t(plane * 56 + best_at)] += gs[at];
        }
    const Tensor unpooled = dispatch(find_op("max_unpool2d"), {g.to(cuda(0)), y[1]}, attributes, Where::current());
    check_same(unpooled.cpu(), tensor(back).reshape(shape).to(float32), {1e-6, 1e-6});
    const Tensor selected = dispatch(find_op("max_pool2d_select"), {dx, y[1]}, attributes, Where::current());
    check_same(selected.cpu(), y[0].cpu().contiguous(), {0, 0});
  }
}

TEST_CASE("cuda: optimiser updates") {
  for (const DType type : floats) {
    const Tensor p = numbers({7, 9}, type), g = numbers({7, 9}, type, 2), m = numbers({7, 9}, type, 3),
                 v = abs(numbers({7, 9}, type, 4));
    const Tensor rate = full({}, 0.1, {.dtype = type});
    const DType wide = type == float64 ? float64 : float32;
    const Tensor wide_rate = full({}, 0.1, {.dtype = wide}), correction = full({}, 0.5, {.dtype = wide});
    for (const double momentum : {0.0, 0.9}) {
      for (const bool nesterov : {false, true}) {
        compare_decomposed("sgd", {p, g, m, rate},
                           {{"momentum", momentum}, {"weight_decay", 0.01}, {"dampening", 0.1}, {"nesterov", nesterov}},
                           type == float16 || type == bfloat16 ? Tolerance{3e-2, 3e-2} : Tolerance{-1, -1});
      }
    }
    for (const bool decoupled : {false, true}) {
      compare_decomposed(
          "adamw", {p, g, m, v, wide_rate, correction, correction},
          {{"beta1", 0.9}, {"beta2", 0.99}, {"weight_decay", 0.01}, {"epsilon", 1e-3}, {"decoupled", decoupled}},
          type == float16 || type == bfloat16 ? Tolerance{5e-2, 5e-2}
          : type == float64                   ? Tolerance{1e-9, 1e-9}
                                              : Tolerance{1e-4, 1e-5});
    }
  }
}

TEST_CASE("cuda: a captured step runs when it is launched, on the same memory") {
  NoGrad guard;
  Tensor state = zeros({100}, {.device = cuda(0)});
  gpu::Capture step(cuda(0));
  step.record([&] { state.assign(state + sum(ones({3, 5000}, {.device = cuda(0)}), 1).slice(0, 0, 1).expand({100})); });
  CHECK(step.nodes() >= 3);
  CHECK(state.cpu().to_vector<double>()[7] == 0);
  step.launch();
  step.launch();
  CHECK(state.cpu().to_vector<double>()[7] == 10000);
}

TEST_CASE("cuda: generated sources are compiled, loaded and launched") {
  const std::string source = std::string(gpu::source_prelude) + R"(
    extern "C" __global__ void scale_and_sum(float* out, const float* in, float factor, int count) {
      TANDEM_SHARED(float, partial, [64]);
      partial[threadIdx.x] = threadIdx.x < count ? in[threadIdx.x] * factor : 0.0f;
      __syncthreads();
      for (int half = 32; half > 0; half /= 2) {
        if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
        __syncthreads();
      }
      if (threadIdx.x == 0) *out = partial[0];
    })";
  const std::string names[] = {"scale_and_sum"};
  gpu::Module module(gpu::compile_source(source, names, cuda(0)), cuda(0));
  Tensor in = ones({50}, {.device = cuda(0)}), out = zeros({1}, {.device = cuda(0)});
  void *to = out.impl()->data, *from = in.impl()->data;
  float factor = 2;
  int count = 50;
  void* arguments[] = {&to, &from, &factor, &count};
  gpu::launch(module.kernel("scale_and_sum"), {1}, {64}, 0, arguments, cuda(0));
  CHECK(out.cpu().to_vector<double>()[0] == 100);
  CHECK_THROWS_AS(gpu::compile_source("extern \"C\" __global__ void k() { nonsense; }", names, cuda(0)), CompileError);
}
