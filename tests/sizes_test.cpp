// Sizes that no tensor can have, and other numbers out of range that once were taken in silence: each is refused, with the
// reason and the user's line. extremes_test.cpp tries all ops and functions.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "autograd/autograd.h"
#include "autograd/checkpoint.h"
#include "core/custom_op.h"
#include "core/dispatch.h"
#include "data/data.h"
#include "formats/image_grid.h"
#include "graph/trace/compile.h"
#include "nn/nn.h"
#include "raises.h"
#include "support.h"

namespace td = tandem;
using td::Tensor;

namespace {

constexpr int64_t kMax = std::numeric_limits<int64_t>::max(), kMin = std::numeric_limits<int64_t>::min();
constexpr int64_t k32 = int64_t{1} << 32, k62 = int64_t{1} << 62;
constexpr int kMaxInt = std::numeric_limits<int>::max();
constexpr const char* kTooMany = "has more elements than a tensor may have";

Tensor floats(const td::Shape& shape) { return td::ones(shape); }

}  // namespace

TEST_CASE("sizes: products that overflow are refused where shapes are made") {
  float memory[4] = {};
  const Tensor x = floats({2, 3}), image = floats({1, 4, 3, 3}), one = floats({});
  RAISES(ShapeError, td::zeros({k32, k32}), "full: a shape of [4294967296, 4294967296]", kTooMany);
  RAISES(ShapeError, td::empty({k62, 4}), "empty: ", kTooMany);
  RAISES(ShapeError, td::from_blob(memory, {k62, 4}), "from_blob: ", kTooMany);
  RAISES(ShapeError, td::rand({k32, k32}), kTooMany);
  RAISES(ShapeError, floats({0}).reshape({0, k62, 4}), "reshape: ");
  RAISES(ShapeError, x.reshape({k62, 4}), "reshape: ");
  RAISES(ShapeError, one.expand({k32, k32}), "expand: ", kTooMany);
  RAISES(ShapeError, one.expand({k32, 1}) + one.expand({1, k32}), "add: ", kTooMany);
  RAISES(ShapeError, outer(one.expand({k32}), one.expand({k32})), kTooMany);
  RAISES(ShapeError, matmul(floats({1, 2}).expand({k32, 2}), floats({2, 1}).expand({2, k32})), "matmul: ", kTooMany);
  RAISES(ShapeError, x.repeat({k32, k32}), "repeat: ", kTooMany);
  RAISES(ShapeError, x.repeat({k62, k62}), "repeat: a size of 2 * ");
  RAISES(ShapeError, x.repeat_interleave(k62, 0), "repeat_interleave: ", kTooMany);
  const Tensor wide = one.expand({int64_t{1} << 59});
  RAISES(ShapeError, td::concat({wide, wide}), "concat: ", kTooMany);
  RAISES(ShapeError, one_hot(td::arange(3), k62), "one_hot: ", kTooMany);
  RAISES(ShapeError, interpolate(image, {.size = {k32, k32}}), "interpolate2d: ", kTooMany);
  RAISES(ShapeError, interpolate(image, {.scale_factor = 1e300}), kTooMany);
  RAISES(ShapeError, adaptive_avg_pool2d(image, {k32, k32}), kTooMany);
  RAISES(ValueError, adaptive_max_pool2d(image, k62), "can't make 4611686018427387904 windows of dim 3");
  RAISES(ValueError, pixel_shuffle(image, k32), "don't split into squares of 4294967296");
  RAISES(ShapeError, pixel_shuffle(floats({1, 0, 3, 3}), k62), "pixel_shuffle: ");
  RAISES(ShapeError, (td::Shape{k32, k32}.numel()), kTooMany);
  CHECK(floats({0}).reshape({0, k32}).shape() == td::Shape{0, k32});
}

TEST_CASE("sizes: the allocator takes any request or throws") {
  for (const int log : {40, 48, 55, 59}) {
    CAPTURE(log);
    const int64_t extent = int64_t{1} << log;
    td::zeros({1000});  // something is freed
    td::set_memory_limit(td::memory_stats().reserved + 1024);
    RAISES(OutOfMemoryError, td::zeros({extent}), "full of float32[", "no room for");
    td::set_memory_limit(0);
  }
  td::set_memory_limit(td::memory_stats().reserved + 1024);
  for (const size_t bytes : {size_t{1} << 62, size_t{1} << 63, ~size_t{0}, (size_t{1} << 62) - 1})
    CHECK_THROWS_AS(td::Storage::allocate(bytes, {}), td::OutOfMemoryError);
  td::set_memory_limit(0);
  const td::Device absent{td::DeviceKind::cuda, 253};
  RAISES(DeviceError, td::empty({2}, {.device = absent}), "cuda(253)");
  RAISES(DeviceError, td::zeros({2}, {.device = absent}), "cuda(253)");
  RAISES(DeviceError, floats({2}).to(absent), "cuda(253)");
  float memory[2] = {};
  RAISES(DeviceError, td::from_blob(memory, {2}, {.device = absent}), "cuda(253)");
  CHECK_THROWS_AS(td::Storage::allocate(64, absent), td::DeviceError);
}

TEST_CASE("sizes: extents may not be negative, nor be computed beyond an int64") {
  const Tensor x = floats({2, 3}), image = floats({1, 2, 4, 4}), weight = floats({2, 2, 3, 3});
  RAISES(ShapeError, floats({1}).expand({-2}), "expand: negative extent in shape [-2]");
  RAISES(ShapeError, floats({4}).expand({-1, 4}), "expand: negative extent in shape [-1, 4]");
  RAISES(ValueError, conv2d(image, weight, {}, {.dilation = k62}), "conv2d: ", "must be at most 2147483647");
  RAISES(ValueError, conv2d(image, weight, {}, {.padding = kMax}), "conv2d: ", "must be at most 2147483647");
  RAISES(ShapeError, conv2d(image, floats({2, 4, 0, 0}), {}, {}), "conv2d: ");
  RAISES(ShapeError, conv2d(floats({1, 4, 3, 3}), floats({2, 4, 0, 0})), "conv2d: kernel [2, 4, 0, 0] is empty");
  RAISES(ValueError, pad(x, {kMin, kMax}), "pad: ", "cut off more than dim 1");
  RAISES(ShapeError, pad(x, {kMax, kMax}), "pad: a size of");
  RAISES(DimensionError, x.narrow(0, 1, kMax), "narrow: 9223372036854775807 elements from 1 don't lie within dim 0");
  RAISES(ShapeError, x.split({kMax, kMax, 8}), "split: a size of 9223372036854775807 + 9223372036854775807");
  RAISES(ValueError, td::arange(kMin, kMax, -1), "arange: ", "can't be walked");
  RAISES(ValueError, td::arange(0, -1, 2), "arange: ", "can't be walked");
  RAISES(ShapeError, td::arange(kMin, kMax), "arange: ", "18446744073709551615 numbers");
  CHECK(td::arange(kMin, kMax, kMax).to_vector<int64_t>() == std::vector<int64_t>{kMin, -1, kMax - 1});
  CHECK(td::arange(kMax - 3, kMax).to_vector<int64_t>() == std::vector<int64_t>{kMax - 3, kMax - 2, kMax - 1});
  CHECK(td::arange(kMax, kMin, kMin).to_vector<int64_t>() == std::vector<int64_t>{kMax, -1});
  CHECK(x.split(kMax).size() == 1);
  CHECK(x.chunk(kMax).size() == 2);
  CHECK(x.slice(1, 1, 3, kMax).shape() == td::Shape{2, 1});
  CHECK(x.slice(1, 0, 3, kMax).sum().item<float>() == 2);
  for (const int64_t diagonal : {kMax, kMax - 1, k32}) {
    CHECK(same(x.tril(diagonal), x));
    CHECK(x.tril(-diagonal).sum().item<float>() == 0);
    CHECK(x.triu(diagonal).sum().item<float>() == 0);
    CHECK(same(x.triu(-diagonal), x));
    CHECK(x.diagonal(diagonal).numel() == 0);
  }
  CHECK(x.diagonal(kMin).numel() == 0);
  CHECK(same(x.triu(kMin), x));
  RAISES(ValueError, td::nn::Lstm(3, 4, {.layers = int64_t{1} << 40}), "nn::Lstm: layers is 1099511627776");
  RAISES(ShapeError, td::nn::Lstm(3, k62), "a size of 4 * 4611686018427387904");
  RAISES(ValueError, td::randint(0, k32, {2}, {.dtype = td::int32}), "randint: ", "int32");
  CHECK(std::isfinite(td::linspace(-1.7e308, 1.7e308, 3, {.dtype = td::float64})[1].item<double>()));
}

TEST_CASE("sizes: positions that a shape doesn't have") {
  const Tensor x = floats({2, 3});
  RAISES(DimensionError, (void)x.shape()[9], "no position 9 in [2, 3], only 0 to 1", "size(-1)");
  RAISES(DimensionError, (void)x.shape()[-1], "no position -1 in [2, 3]");
  RAISES(DimensionError, (void)x.shape()[k32], "no position 4294967296");
  RAISES(DimensionError, (void)x.strides()[2], "no position 2");
  RAISES(DimensionError, (void)floats({}).shape().back(), "no position -1 in [], which is empty");
  td::Shape shape = x.shape();
  RAISES(DimensionError, shape[2] = 1, "no position 2");
  RAISES(DimensionError, shape.erase(2), "no position 2");
  RAISES(ShapeError, shape.resize(9), "at most 8 dimensions; got 9");
  RAISES(ShapeError, matmul(floats({}), x), "matmul: needs vectors or matrices");
  RAISES(ShapeError, td::dispatch(td::find_op("matmul"), {floats({}), x}, {}, td::Where::current()),
         "matmul: needs matrices, got [] and [2, 3]");
  const Tensor ids = td::zeros({1, 1, 1, 1, 1, 1, 1, 1}, {.dtype = td::int64});
  RAISES(ShapeError, embedding(ids, x), "embedding: a tensor has at most 8 dimensions; got 9");
}

TEST_CASE("sizes: operands that a user's op doesn't have") {
  static const td::Op too_far = td::custom_op(
      "sizes_too_far",
      {.infer = [](td::Infer& op) { op.output(op.input(7)); }, .grad = td::not_differentiable, .inputs = 1});
  static const td::Op kernel_too_far =
      td::custom_op("sizes_kernel_too_far", {.infer = [](td::Infer& op) { op.output(op.input(0)); },
                                             .cpu = [](td::KernelContext& op) { (void)op.in(7); },
                                             .grad = td::not_differentiable,
                                             .inputs = 1});
  static const td::Op too_many = td::custom_op("sizes_too_many", {.infer =
                                                                      [](td::Infer& op) {
                                                                        op.output(op.input(0));
                                                                        op.output(op.input(0));
                                                                      },
                                                                  .grad = td::not_differentiable,
                                                                  .inputs = 1});
  static const td::Op too_large = td::custom_op("sizes_too_large", {.infer =
                                                                        [](td::Infer& op) {
                                                                          op.output({k32, k32}, td::float32);
                                                                        },
                                                                    .grad = td::not_differentiable,
                                                                    .inputs = 1});
  static const td::Op gradient_too_far =
      td::custom_op("sizes_gradient_too_far", {.infer = [](td::Infer& op) { op.output(op.input(0)); },
                                               .cpu = [](td::KernelContext&) {},
                                               .grad = [](const td::OpContext& op) { return td::Tensors{op.input(7)}; },
                                               .inputs = 1});
  const Tensor x = floats({2});
  RAISES(ValueError, too_far(x), "sizes_too_far: infer asks for operand 7 of 1");
  RAISES(ValueError, kernel_too_far(x), "sizes_kernel_too_far: the kernel asks for operand 7 of 1");
  RAISES(ValueError, too_many(x), "sizes_too_many: infer makes more than the 1 results");
  RAISES(ShapeError, too_large(x), "sizes_too_large: ", kTooMany);
  Tensor leaf = floats({2}).requires_grad(true);
  CHECK_THROWS_AS(gradient_too_far(leaf).sum().backward(), td::ValueError);
}

TEST_CASE("numbers out of range are refused, not taken in silence") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  Tensor x = floats({2, 3});
  RAISES(ValueError, td::bernoulli(td::full({2}, 2)), "bernoulli: a probability is not between 0 and 1");
  RAISES(ValueError, td::bernoulli(td::full({2}, nan)), "bernoulli: ");
  RAISES(ValueError, td::normal(floats({2}), floats({2}) * -1), "normal: a deviation is negative");
  RAISES(ValueError, td::normal(floats({2}), td::full({2}, nan)), "normal: a deviation is negative or not a number");
  for (const double p : {2.0, -0.5, nan}) {
    const Tensor wrong = td::full({2}, p), target = td::zeros({2});
    RAISES(ValueError, binary_cross_entropy(wrong, target),
           "binary_cross_entropy: a probability is not between 0 and 1");
  }
  for (const td::Mode mode : {td::Mode::replay, td::Mode::compiled}) {
    const Tensor target = td::zeros({3});
    const int line = __LINE__ + 1;
    auto drawn = td::compile([](const Tensor& p) { return td::bernoulli(p); }, {.mode = mode});
    auto noise = td::compile([](const Tensor& d) { return td::normal(td::zeros({3}), d * 2); }, {.mode = mode});
    auto loss =
        td::compile([&](const Tensor& p) { return binary_cross_entropy(sigmoid(p) * 2, target); }, {.mode = mode});
    auto picked =
        td::compile([](const Tensor& w) { return td::multinomial(w, 2, {.replacement = true}); }, {.mode = mode});
    const auto refuses = [&](auto& function, const Tensor& x, int from, const char* text, double last = 0) {
      CHECK_NOTHROW(function(td::tensor({0.0, -0.0, last})));
      try {
        function(x);
        FAIL_CHECK("no error: " << std::string(text));
      } catch (const td::ValueError& error) {
        CHECK(std::string(error.message()) == text);
        CHECK(error.where().line() == static_cast<uint32_t>(from));
        CHECK(std::string(error.where().file_name()).ends_with("sizes_test.cpp"));
      }
      CHECK_NOTHROW(function(td::tensor({0.0, -0.0, last})));
    };
    for (const double wrong : {-0.5, nan, 3.0}) {
      const Tensor x = td::tensor({0.0, wrong, 0.0}, {.dtype = td::float32});
      refuses(drawn, x, line, "bernoulli: a probability is not between 0 and 1");
      if (wrong != 3) refuses(noise, x, line + 1, "normal: a deviation is negative or not a number");
      if (wrong != -0.5)
        refuses(loss, x, line + 3,
                "binary_cross_entropy: a probability is not between 0 and 1; "
                "binary_cross_entropy_with_logits takes any number");
      if (wrong != 3) refuses(picked, x, line + 5, "multinomial: a weight is negative or not finite", 1);
    }
    refuses(picked, td::tensor({0.0, -0.0, 0.0}), line + 5,
            "multinomial: a row has fewer than 1 weights above zero, too few to draw 2", 1);
    CHECK_THROWS_AS(drawn(td::full({}, 2)), td::ValueError);
  }
  // Whoever reads what was checked: nobody but the caller, an op with a kernel of its own, a kernel that reads a part, or one of
  // no elements.
  const auto in_unit = [](const Tensor& p) {
    return td::find_op("bounded")(
        p, {{"low", 0.0}, {"high", 1.0}, {"op", std::string("unit")}, {"message", std::string("not in [0, 1]")}});
  };
  Tensor kept = td::zeros({2, 2});
  const std::vector<std::pair<std::string, std::function<Tensor(const Tensor&)>>> readers = {
      {"returned", in_unit},
      {"view", [&](const Tensor& p) { return td::transpose(in_unit(p), 0, 1); }},
      {"cumsum", [&](const Tensor& p) { return td::cumsum(in_unit(p), 0); }},
      {"columns", [&](const Tensor& p) { return td::sum(in_unit(p), 0); }},
      {"product", [&](const Tensor& p) { return td::matmul(in_unit(p), p); }},
      {"part", [&](const Tensor& p) { return td::exp(td::slice(in_unit(p), 0, 1, 2)); }},
      {"one of two", [&](const Tensor& p) { return in_unit(in_unit(p - 1) + 1); }},
      {"of 0-d", [&](const Tensor& p) { return in_unit(td::min(p)); }},
      {"assigned", [&](const Tensor& p) { return kept.assign(in_unit(p)), td::zeros({1}); }},
      {"transposed", [&](const Tensor& p) { return td::cumsum(in_unit(td::transpose(p, 0, 1)), 0); }},
      {"expanded",
       [&](const Tensor& p) {
         return td::cumsum(in_unit(td::expand(p, {3, 2, 2})), 0);
       }},
      {"no elements", [](const Tensor& p) { return td::normal(td::zeros({0}), td::slice(td::flatten(p), 0, 0, 1)); }},
  };
  for (const td::Mode mode : kModes)
    for (const auto& reader : readers) {
      CAPTURE(name_of(mode));
      CAPTURE(reader.first);
      const Tensor fine = td::ones({2, 2}), wrong = td::tensor({-1.0, 1.0, 1.0, 1.0}).reshape({2, 2});
      auto graph = td::compile(reader.second, {.mode = mode});
      CHECK_NOTHROW(graph(fine));
      CHECK_THROWS_AS(graph(wrong), td::ValueError);
      CHECK_NOTHROW(graph(fine));
    }
  Tensor expanded = floats({3}).expand({2, 3});
  RAISES(InPlaceError, expanded.assign(x), "assign: elements of [2, 3] with strides [0, 1] share memory", "clone()");
  RAISES(InPlaceError, expanded += 1, "assign: ");
  Tensor one = floats({1, 3}).expand({1, 3});
  one.assign(td::zeros({3}));
  RAISES(ShapeError, x.masked_fill(td::ones({4, 2, 3}, {.dtype = td::bool_}), 0),
         "masked_fill: the mask [4, 2, 3] doesn't broadcast to x [2, 3]");
  RAISES(ShapeError, floats({1, 3}).masked_fill(td::ones({2, 3}, {.dtype = td::bool_}), 0), "masked_fill: ");
  RAISES(DTypeError, x.set_grad(td::ones({2, 3}, {.dtype = td::float64})),
         "set_grad: the gradient is float64, the tensor float32");
}

TEST_CASE("lookups: typed errors with the user's line") {
  Tensor w = floats({2}).requires_grad(true);
  td::nn::optim::Sgd sgd({w}, {.lr = 0.1});
  RAISES(ValueError, sgd.lr(9), "nn::optim::Sgd: there is no group 9: there are 1");
  RAISES(ValueError, sgd.initial_lr(9), "there is no group 9");
  RAISES(ValueError, sgd.options(9), "there is no group 9");
  td::nn::optim::StepSchedule schedule(sgd, {.every = 2});
  RAISES(ValueError, schedule.lr_after(3, 9), "there is no group 9");
  td::nn::optim::PlateauSchedule plateau(sgd);
  RAISES(ValueError, plateau.lr(9), "there is no group 9");
  const td::nn::Rnn rnn(2, 3);
  RAISES(DimensionError, rnn.weights(9), "nn::Rnn: there is no layer 9, only 0 to 0");
  RAISES(DimensionError, rnn.weights(-1), "there is no layer -1");
  RAISES(DimensionError, rnn.weights(0, true), "isn't bidirectional");
  RAISES(ValueError, td::parse_mode("fast"), "no mode is called \"fast\"");
  RAISES(UndefinedError, td::checkpoint([](const Tensor& x) { return x; }, Tensor()), "checkpoint: input 0");
  const td::io::ByteText text = td::io::ByteText::of("some text to read", {.context = 4});
  RAISES(DimensionError, text.get(99), "io::ByteText: there is no window 99");
  const td::io::TensorDataset rows(floats({3, 2}));
  RAISES(DimensionError, rows.get(99), "io::TensorDataset: there is no item 99");
}

TEST_CASE("sizes: of batches, data sets and pictures") {
  const td::io::TensorDataset rows(floats({3, 2}));
  int64_t batches = 0;
  for (const auto& [batch] : td::io::Loader(rows, {.batch_size = kMax, .prefetch = kMaxInt})) {
    CHECK(batch.shape() == td::Shape{3, 2});
    ++batches;
  }
  CHECK(batches == 1);
  RAISES(ValueError, td::io::Loader(rows, {.workers = kMaxInt}), "io::Loader: workers is 2147483647");
  RAISES(ValueError, td::io::SyntheticDigits({.count = kMax}), "io::SyntheticDigits: count is");
  RAISES(ValueError, td::io::SyntheticShapes({.count = k62}), "io::SyntheticShapes: count is");
  RAISES(ValueError, td::io::synthetic_text({.bytes = kMax}), "io::synthetic_text: bytes is");
  RAISES(ValueError, td::io::ByteText::of("some text", {.context = kMax}), "io::ByteText: ");
  RAISES(ValueError, td::io::write_image_grid("never.pgm", floats({1, 1, 2, 2}), {.padding = kMax}), "padding");
}
