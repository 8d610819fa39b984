// What programs write: literals, updates, views, and what must not compile.
#include <doctest/doctest.h>

#include <limits>

#include "support.h"
#include "tandem.h"

using namespace tandem;

TEST_CASE("tensor(): numbers written in a program are int64 and float32") {
  CHECK(tensor({1, 2}).dtype() == int64);
  CHECK(tensor(1).dtype() == int64);
  CHECK(tensor({1.0, 2.0}).dtype() == float32);
  CHECK(tensor(1.0).dtype() == float32);
  CHECK(tensor({1.f}).dtype() == float32);
  CHECK(tensor({true}).dtype() == bool_);
  CHECK(tensor({uint8_t{1}}).dtype() == uint8);
  CHECK(tensor({0.1, 0.2}, {.dtype = float64}).to_vector<double>() == std::vector<double>{0.1, 0.2});
  CHECK(tensor({1, 300}, {.dtype = int32}).dtype() == int32);
  CHECK(tensor(2, {.dtype = float16}).dtype() == float16);
  CHECK(tensor({1.0}, {.requires_grad = true}).requires_grad());
  CHECK(tensor(std::vector<double>{1}).dtype() == float64);  // a vector's elements are as they are
  CHECK(tensor(std::vector<int>{1}).dtype() == int32);
  CHECK(tensor({{{1, 2}, {3, 4}, {5, 6}}}).shape() == Shape{1, 3, 2});
  CHECK(tensor({{{{1.f}, {2.f}}}, {{{3.f}, {4.f}}}}).shape() == Shape{2, 1, 2, 1});
  CHECK(tensor({{{1, 2}, {3, 4}}, {{5, 6}, {7, 8}}}).to_vector<int>() == std::vector<int>{1, 2, 3, 4, 5, 6, 7, 8});
  CHECK(contains(thrown<ShapeError>([] { tensor({{{1, 2}}, {{3}}}); }), "tensor: rows of different lengths: 2 and 1"));
  for (const Mode mode : kGraphModes) {
    auto f = compile([](const Tensor& x) { return x + tensor({1.0, 2.0}); }, {.mode = mode});
    for (int i = 0; i < 3; ++i) CHECK(f(zeros({2})).to_vector<float>() == std::vector<float>{1, 2});
  }
}

TEST_CASE("what would do nothing, or mean nothing, doesn't compile") {
  static_assert(!std::is_assignable_v<Tensor, const Tensor&>);  // x[0] = y
  static_assert(!std::is_assignable_v<Tensor, Tensor>);
  static_assert(!std::is_assignable_v<Tensor, float>);
  static_assert(std::is_assignable_v<Tensor&, const Tensor&>);
  static_assert(std::is_copy_assignable_v<Tensor> && std::is_nothrow_move_assignable_v<Tensor>);
  static_assert(!std::is_constructible_v<bool, Tensor>);  // if (x > 0)
  Tensor x = zeros({2, 2});
  x[0] += 1;  // a view: its memory is x's
  x.slice(1, 0, 1) *= 3;
  CHECK(x.to_vector<float>() == std::vector<float>{3, 1, 0, 0});
  x /= 2;
  CHECK(x.to_vector<float>() == std::vector<float>{1.5, 0.5, 0, 0});
  Tensor whole = tensor({1, 2});
  CHECK(contains(thrown<DTypeError>([&] { whole /= 2; }), "the quotient is floating, the target int64"));
  set_num_threads(num_threads());
}

TEST_CASE("total += loss adds up losses that require gradients") {
  for (const Mode mode : kModes) {
    Tensor w = tensor({2.0, 3.0}, {.requires_grad = true});
    auto step = compile(
        [&] {
          w.set_grad({});
          Tensor total = zeros({}), product = w * 2;
          for (int i = 1; i <= 3; ++i) total += (w * i).sum();
          product *= w;  // a non-leaf that requires a gradient
          product -= 1;
          product /= 2;
          total += product.sum();
          total.backward();
          return total.detach();
        },
        {.mode = mode});
    for (int i = 0; i < 2; ++i) {
      CHECK(step().item<float>() == doctest::Approx(42));
      CHECK(w.grad().to_vector<float>() == std::vector<float>{10, 12});
    }
  }
  const Tensor w = tensor({2.0, 3.0}, {.requires_grad = true});
  Tensor leaf = w;
  CHECK(contains(thrown<InPlaceError>([&] { leaf += 1; }), "the target requires a gradient"));
  Tensor buffer = zeros({2, 2});
  Tensor row = buffer[0];
  CHECK(contains(thrown<InPlaceError>([&] { row += w; }), "write x = x + y"));
  CHECK(contains(thrown<InPlaceError>([&] { buffer[0] += w; }), "assign: not differentiable"));
  CHECK(contains(thrown<ShapeError>([&] {
                   Tensor one = zeros({});
                   one += w;
                 }),
                 "+=: the result is [2], the target []"));
  Tensor half = zeros({2}, {.dtype = float16});
  half += w;
  CHECK(half.dtype() == float16);
  CHECK(half.requires_grad());
  Tensor plain = zeros({2}), same = plain;
  plain += 1;  // no gradient: written in place
  CHECK(same.to_vector<float>() == std::vector<float>{1, 1});
  {
    NoGrad guard;
    plain += w;
  }
  CHECK(same.to_vector<float>() == std::vector<float>{3, 4});
}

TEST_CASE("views: view and squeeze") {
  CHECK(swapdims(zeros({2, 3, 4}), 0, -1).shape() == Shape{4, 3, 2});
  CHECK(broadcast_to(tensor({1, 2}), {3, 2}).to_vector<int>() == std::vector<int>{1, 2, 1, 2, 1, 2});
  CHECK(argwhere(tensor({{0, 5}, {6, 0}})).to_vector<int>() == std::vector<int>{0, 1, 1, 0});
  const Tensor x = arange(6).reshape({2, 3});
  CHECK(x.view({3, 2}).shares_storage(x));
  CHECK(contains(thrown<ShapeError>([&] { x.transpose(0, 1).view({6}); }), "can't be seen as [6] without a copy"));
  CHECK(ones({1, 2, 1}).squeeze().shape() == Shape{2});
  CHECK(ones({1, 2, 1}).squeeze(0).shape() == Shape{2, 1});
  CHECK(ones({1, 2, 1}).squeeze({0, 1, -1}).shape() == Shape{2});
  CHECK(ones({1}).squeeze().shape() == Shape{});
}

TEST_CASE("errors name the function that the user called") {
  const Tensor x = ones({1, 1, 4});
  CHECK(contains(thrown<ShapeError>([&] { avg_pool1d(x, 9); }), "avg_pool1d: "));
  CHECK(contains(thrown<ValueError>([&] { max_pool1d(x, 2, {.padding = 3}); }), "max_pool1d: "));
  CHECK(contains(thrown<ShapeError>([&] { conv1d(x, ones({1, 1, 9})); }), "conv1d: "));
  CHECK(contains(thrown<ShapeError>([&] { mse_loss(x, ones({2})); }), "mse_loss: "));
  CHECK(contains(thrown<ShapeError>([&] { pairwise_distance(ones({2, 3}), ones({2, 4})); }), "pairwise_distance: "));
  CHECK(contains(thrown<ShapeError>([&] { x + ones({3}); }), "add: "));  // and no name is left behind
}

TEST_CASE("extreme integers are typed errors") {
  struct Limit {  // which says no before the machine has to
    Limit() { set_memory_limit(memory_stats().reserved + (1 << 24)); }
    ~Limit() { set_memory_limit(0); }
  } const limit;
  const Tensor x = ones({2, 3}), image = ones({1, 1, 3, 3}), none = ones({1, 1, 0, 0});
  constexpr int64_t most = std::numeric_limits<int64_t>::max(), least = std::numeric_limits<int64_t>::min();
  for (const int64_t n : {most, least, int64_t{1} << 62, int64_t{1} << 32, int64_t{-1}}) {
    CAPTURE(n);
    CHECK_THROWS_AS(unflatten(x, 1, {n, n, 3}), Error);
    CHECK_THROWS_AS(diag_embed(x, 0, n == -1 ? 7 : n), Error);
    if (n != -1) CHECK_THROWS_AS(diag_embed(x, n), Error);
    CHECK_THROWS_AS(kthvalue(x, n), Error);
    CHECK_THROWS_AS(tensor_split(x, n), Error);
    CHECK_THROWS_AS(unfold(x, 1, n, 1), Error);
    CHECK_THROWS_AS(pixel_unshuffle(none, n), Error);
    CHECK_THROWS_AS(glu(x, n == -1 ? 2 : n), Error);
    CHECK_THROWS_AS(max_pool2d(image, n, {.ceil_mode = true}), Error);
    CHECK_THROWS_AS(max_pool2d(image, 2, {.dilation = n}), Error);
    CHECK_THROWS_AS(avg_pool2d(image, n, {.ceil_mode = true}), Error);
    CHECK_THROWS_AS(conv2d(image, ones({1, 1, 2, 2}), {}, {.padding = Padding::same, .dilation = n}), Error);
    CHECK_THROWS_AS(local_response_norm(image, n < 0 ? n : -n), Error);
    CHECK_THROWS_AS(index(x, {full({1}, static_cast<double>(n == -1 ? least : n), {.dtype = int64})}), DimensionError);
    if (n < 0) CHECK_THROWS_AS(nonzero(x, {.size = n}), Error);
    if (n < 0) CHECK_THROWS_AS(bincount(tensor({1}), {.size = n}), Error);
    CHECK_THROWS_AS(bincount(full({1}, static_cast<double>(n), {.dtype = int64})), Error);
  }
}

TEST_CASE("dropout2d drops whole channels") {
  manual_seed(3);
  const Tensor y = dropout2d(ones({4, 8, 3, 3}), 0.5);
  const std::vector<float> least = y.min({2, 3}).to_vector<float>(), most = y.max({2, 3}).to_vector<float>();
  CHECK(least == most);
  CHECK(y.sum().item<float>() > 0);
}

TEST_CASE("gumbel_softmax: samples that differentiate") {
  manual_seed(5);
  const Tensor logits = tensor({{0.0, 2.0, 1.0}}, {.requires_grad = true}).expand({4000, 3});
  const Tensor soft = gumbel_softmax(logits), hard = gumbel_softmax(logits, {.temperature = 0.5, .hard = true});
  CHECK(allclose(soft.sum(1), ones({4000})));
  CHECK(allclose(hard.max(1), ones({4000}), {.rtol = 1e-5}));
  CHECK(allclose(hard.mean(0), softmax(tensor({0.0, 2.0, 1.0})), {.rtol = 0.1}));  // each as often as its probability
  CHECK(hard.requires_grad());
}
