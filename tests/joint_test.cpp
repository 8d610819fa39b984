// Gradients through a compiled function: backward() outside gives what it gives eagerly, and says so where it can't.
#include "graph/trace/joint.h"

#include <map>
#include <thread>

#include "autograd/autograd.h"
#include "autograd/checkpoint.h"
#include "autograd/custom_function.h"
#include "core/autocast.h"
#include "core/ops/ops.h"
#include "core/random.h"
#include "graph/trace/control_flow.h"
#include "nn/nn.h"
#include "tests/support.h"

using namespace tandem;

namespace {

struct Net {
  nn::Linear first{6, 16}, second{16, 3};
  Tensor operator()(const Tensor& x) const { return second(tanh(first(x))); }
  Tensor hidden(const Tensor& x) const { return relu(first(x)); }
};

/// The gradients that `use(compiled f)` leaves in `leaves`, and what it returns.
template <class F, class Use> Tensors after(Mode mode, F&& f, Use&& use, const Tensors& leaves) {
  manual_seed(11);
  for (Tensor leaf : leaves) leaf.set_grad({});
  auto compiled = compile(f, {.mode = mode});
  Tensors all;
  for (const Tensor& each : use(compiled)) all.push_back(each.detach().clone());
  for (const Tensor& leaf : leaves) all.push_back(leaf.grad().defined() ? leaf.grad().clone() : Tensor());
  return all;
}

/// Bit for bit in the three modes; to `tolerance` where a fused kernel adds up in another order.
template <class F, class Use> void agree(F&& f, Use&& use, const Tensors& leaves, double tolerance = 0) {
  const Tensors expected = after(Mode::eager, f, use, leaves);
  for (const Mode mode : kGraphModes) {
    CAPTURE(name_of(mode));
    const Tensors got = after(mode, f, use, leaves);
    check_alike(got, expected, mode == Mode::replay ? 0 : tolerance);
  }
}

}  // namespace

TEST_CASE("joint: a compiled model inside an eager loss has eager's gradients") {
  manual_seed(1);
  const Net net;
  const Tensor x = randn({5, 6}).requires_grad(true), y = tensor({0, 2, 1, 1, 0});
  Tensors leaves = nn::parameters(net);
  leaves.push_back(x);
  const auto forward = [&](const Tensor& in) { return net(in); };
  agree(
      forward,
      [&](auto& f) {
        const Tensor loss = cross_entropy(f(x), y);
        loss.backward();
        return Tensors{loss};
      },
      leaves);
  agree(  // accumulated over calls, of which two come before one backward; and no gradient for x at all
      forward,
      [&](auto& f) {
        Tensors losses;
        for (int i = 0; i < 3; ++i) {
          losses.push_back((f(x.detach()) * f(x.detach() + i)).sum());
          losses.back().backward();
        }
        return losses;
      },
      leaves);
  agree(  // eager, compiled, eager, compiled: one tape
      forward,
      [&](auto& f) {
        const Tensor first = f(x * 2), again = f(concat({first, first.exp()}, 1));
        const auto grads = grad<2>((again * first).sum(), {x, net.first.weight});
        return Tensors{grads[0], grads[1]};
      },
      leaves);
}

TEST_CASE("joint: several results, of which some have no gradient or are not used") {
  manual_seed(2);
  const Tensor w = randn({4, 4}).requires_grad(true), x = randn({3, 4}).requires_grad(true);
  agree(
      [&](const Tensor& in) {
        const Tensor h = matmul(in, w);
        return Tensors{h, sigmoid(h), argmax(h, 1), in, w, h.transpose(0, 1), h.detach(), h.slice(0, 1, 3)};
      },
      [&](auto& f) {
        const Tensors out = f(x);
        CHECK(out[1].requires_grad());
        CHECK(out[3].requires_grad());
        CHECK(out[4].requires_grad());
        CHECK(!out[2].requires_grad());
        CHECK(!out[6].requires_grad());
        ((out[1] * out[3]).sum() + (out[4] * out[5].slice(1, 0, 1)).sum() + out[7].sum()).backward();
        return out;
      },
      {w, x});
}

TEST_CASE("joint: results whose gradient ends inside") {
  const Tensor x = tensor({1.f, 2.f});
  agree(
      [](const Tensor& in) {
        const Tensor own = in.detach().requires_grad(true);
        return own * own;
      },
      [&](auto& f) {
        const Tensor y = f(x);
        CHECK(y.requires_grad());
        y.sum().backward();
        return Tensors{y};
      },
      {x});
}

TEST_CASE("joint: a parameter that is returned and not read") {
  const Tensor w = tensor({1.f, 2.f}).requires_grad(true);
  agree(
      [&] {
        return std::pair{w, w.detach() * 2};
      },
      [](auto& f) {
        const auto [same, other] = f();
        (same * other).sum().backward();
        return Tensors{same};
      },
      {w});
}

TEST_CASE("joint: hooks see the whole gradient, once") {
  manual_seed(3);
  const Tensor w = randn({3}).requires_grad(true), x = randn({3}).requires_grad(true);
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    for (Tensor each : {w, x}) each.set_grad({});
    int of_w = 0, of_h = 0;
    auto w_hook = w.register_hook([&](const Tensor& g) { return ++of_w, g * 2; });
    auto f = compile(
        [&](const Tensor& in) {
          const Tensor product = in * w;
          product.register_hook([](const Tensor& g) { return g * 10; });
          return product * w;
        },
        {.mode = mode});
    const Tensor h = x * 1;
    const auto h_hook = h.register_hook([&](const Tensor& g) { return ++of_h, g + 1; });
    f(h).sum().backward();
    CHECK(of_w == 1);
    CHECK(of_h == 1);
    // d/dw of w·w·h, with 10 on one of the two ways and 2 on both.
    CHECK(allclose(w.grad(), 2 * (h.detach() * w.detach() * 11)));
    CHECK(allclose(x.grad(), 10 * w.detach() * w.detach() + 1));
    w_hook.remove();
  }
}

TEST_CASE("joint: checkpoint calls the hooks of what it is given once") {
  const Tensor x = tensor({1.f, 2.f}).requires_grad(true);
  int calls = 0, inner = 0;
  const auto hook = x.register_hook([&](const Tensor& g) { return ++calls, g * 3; });
  const Tensor h = x * 2;
  const auto other = h.register_hook([&](const Tensor& g) { return ++inner, g * 5; });
  (checkpoint([](const Tensor& a, const Tensor& b) { return a * b; }, x, h)).sum().backward();
  CHECK(calls == 1);
  CHECK(inner == 1);
  CHECK(x.grad().to_vector<float>() == std::vector<float>{3 * (2 + 10), 3 * (4 + 20)});
}

TEST_CASE("joint: random draws, normalisation, branches, loops, checkpoints, casts and custom gradients inside") {
  manual_seed(4);
  const Tensor w = randn({4, 4}).requires_grad(true), x = randn({6, 4}).requires_grad(true);
  const auto use = [&](auto& f) {
    Tensors results;
    for (int i = 0; i < 2; ++i) {
      results.push_back(f(x));
      rand({2});  // the mask of backward is that of its call
      (results.back() * results.back()).sum().backward();
    }
    return results;
  };
  agree([&](const Tensor& in) { return dropout(matmul(in, w), 0.5) * rand({6, 4}); }, use, {w, x});
  nn::BatchNorm1d norm(4);
  agree(
      [&](const Tensor& in) {
        norm.running_mean.assign(zeros({4}));
        norm.running_var.assign(ones({4}));
        return norm(matmul(in, w));
      },
      use, {w, x, norm.weight, norm.bias});
  agree(
      [&](const Tensor& in) {
        return checkpoint([&](const Tensor& a) { return dropout(tanh(matmul(a, w)), 0.3); }, in) * 2;
      },
      use, {w, x});
  const CustomFunction doubled =
      custom_function({.forward = [](FunctionContext& c, const Tensors& in) { return c.save(in[0]), in[0] * 2; },
                       .backward = [](const FunctionContext& c, const Tensors& g) { return g[0] * c.saved(0) * 3; }});
  agree([&](const Tensor& in) { return doubled(matmul(in, w)); }, use, {w, x});
  agree(
      [&](const Tensor& in) {
        const Autocast autocast(bfloat16);
        return matmul(in, w).to(float32).exp();
      },
      use, {w, x});
  const auto looped = [&](const Tensor& in) {
    const std::pair<Tensor, Tensor> scanned = scan(
        [&](const Tensor& h, const Tensor& e) {
          const Tensor next = tanh(matmul(h, w) + e);
          return std::pair{next, next * e};
        },
        zeros({4}), in);
    const Tensor last = scanned.first, all = scanned.second;
    return cond(
        last.sum() > 0, [&] { return all * w.sum(); }, [&] { return all - 1; });
  };
  const Tensors expected = after(Mode::eager, looped, use, {w, x});
  for (const Mode mode : kGraphModes) {
    const Tensors got = after(mode, looped, use, {w, x});
    for (size_t i = 0; i < got.size(); ++i) CHECK(allclose(got[i], expected[i], {.rtol = 1e-4, .atol = 1e-5}));
  }
}

TEST_CASE("joint: training with a compiled model gives eager's losses, through checkpoint and modes of a layer too") {
  const auto losses = [](Mode mode, bool checkpointed) {
    manual_seed(5);
    Net net;
    nn::Dropout drop{0.2};
    auto model = compile([&](const Tensor& in) { return drop(net(in)); }, {.mode = mode});
    nn::optim::Sgd optimizer(nn::parameters(net), {.lr = 0.1, .momentum = 0.9});
    const Tensor x = randn({16, 6}), y = randint(0, 3, {16});
    std::vector<double> result;
    for (int step = 0; step < 12; ++step) {
      if (step == 8) nn::eval(drop);
      optimizer.zero_grad();
      const Tensor out = checkpointed ? checkpoint([&](const Tensor& in) { return model(in); }, x) : model(x);
      const Tensor loss = cross_entropy(out, y);
      loss.backward();
      optimizer.step();
      result.push_back(loss.item<double>());
    }
    return result;
  };
  for (const bool checkpointed : {false, true}) {
    CAPTURE(checkpointed);
    const std::vector<double> expected = losses(Mode::eager, checkpointed);
    for (const Mode mode : kGraphModes) CHECK(losses(mode, checkpointed) == expected);
  }
}

TEST_CASE("joint: convolutions with batch norm, an LSTM and a transformer block") {
  manual_seed(9);
  const nn::Conv2d conv(2, 4, 3, {.padding = 1});
  const nn::BatchNorm2d norm(4);
  const nn::Linear output(4, 3);
  const Tensor images = randn({4, 2, 8, 8}).requires_grad(true);
  const auto train = [](const Tensor& in) {
    return [&in](auto& f) {
      const Tensor loss = f(in).square().mean();
      loss.backward();
      return Tensors{loss};
    };
  };
  Tensors leaves{images, conv.weight, conv.bias, norm.weight, norm.bias, output.weight, output.bias};
  agree(
      [&](const Tensor& x) {
        return output(mean(max_pool2d(relu(norm(conv(x))), 2), {2, 3}));
      },
      train(images), leaves, 1e-5);
  const nn::Lstm lstm(5, 6, {.layers = 2});
  const Tensor text = randn({7, 3, 5}).requires_grad(true);
  leaves = nn::parameters(lstm);
  leaves.push_back(text);
  agree([&](const Tensor& x) { return lstm(x).output; }, train(text), leaves, 1e-5);
  nn::TransformerBlock block(8, 2, {.causal = true});
  const Tensor tokens = randn({2, 5, 8}).requires_grad(true);
  leaves = nn::parameters(block);
  leaves.push_back(tokens);
  agree([&](const Tensor& x) { return block(x); }, train(tokens), leaves, 1e-5);
}

TEST_CASE("joint: what can't be done says so") {
  const Tensor w = tensor({1.f, 2.f}).requires_grad(true), x = tensor({3.f, 4.f}).requires_grad(true);
  for (const Mode mode : kGraphModes) {
    CAPTURE(name_of(mode));
    auto f = compile([&](const Tensor& in) { return in * w * w; }, {.mode = mode});
    CHECK(contains(thrown<AutogradError>([&] { grad<1>(f(x).sum(), {x}, {.create_graph = true}); }),
                   "call grad() with create_graph inside"));
    const Tensor twice = f(x).sum();
    twice.backward({.retain_graph = true});
    twice.backward();
    CHECK(contains(thrown<AutogradError>([&] { twice.backward(); }), "a second time"));
    const Tensor late = f(x).sum();
    {
      const NoGrad no_grad;
      Tensor(w).assign(w * 2);
    }
    const std::string error = thrown<InPlaceError>([&] { late.backward(); });
    CHECK_MESSAGE(contains(error, "saved for backward by the function compiled at"), error);
    CHECK_MESSAGE(contains(error, "joint_test.cpp"), error);
    f(x).sum().backward();  // the next call is well
    auto counted = compile(
        [](const Tensor& in) {
          return std::get<0>(while_loop([](const Tensor& a) { return a.sum() < 100; },
                                        [](const Tensor& a) { return std::tuple{a * 2}; }, in));
        },
        {.mode = mode});
    const Tensor looped = counted(x);
    CHECK(looped.requires_grad());
    CHECK(contains(thrown<AutogradError>([&] { looped.sum().backward(); }), "scan"));
    Tensor seen = zeros({2});
    auto watched = compile(
        [&](const Tensor& in) {
          const Tensor y = in * 2;
          y.register_hook([&](const Tensor& g) {
            seen.assign(g);
            return Tensor();
          });
          return y * y;
        },
        {.mode = mode});
    for (int i = 0; i < 2; ++i)
      CHECK(contains(thrown<AutogradError>([&] { watched(x).sum().backward(); }), "assigns to a tensor"));
    CHECK(contains(watched.explain(), "refused"));
    {
      const NoGrad no_grad;
      CHECK(!f(x).requires_grad());
    }
    auto many = compile([&](const Tensor& in) { return in * w.sum(); }, {.mode = mode, .max_specialisations = 3});
    CHECK(contains(thrown<RetraceError>([&] {
                     for (int64_t size = 2; size < 9; ++size) many(ones({size}));
                   }),
                   "call it under NoGrad"));
    auto few = compile([&](const Tensor& in) { return in * w.sum(); }, {.mode = mode, .max_specialisations = 3});
    const NoGrad no_grad;
    for (int64_t size = 2; size < 9; ++size) CHECK(few(ones({size})).shape() == Shape{size});
  }
}

TEST_CASE("joint: numbers that change, specialisations, tensors that are replaced") {
  const Tensor x = arange(4).to(float32).requires_grad(true);
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    float factor = 1;
    Tensor w = full({4}, 2.f).requires_grad(true);
    auto f = compile([&](const Tensor& in, int power) { return power == 2 ? in * in * factor * w : in * factor; },
                     {.mode = mode, .verify = Verify::every});
    Tensors held;
    for (int i = 0; i < 4; ++i) {
      factor = static_cast<float>(i + 1);
      held.push_back(f(x, i % 2 + 1));
    }
    Tensor(x).set_grad({});
    for (const Tensor& each : held) each.sum().backward();
    // Turns 0 and 2 give the factors 1 and 3, turns 1 and 3 give 2·2·x·2 and 2·2·x·4.
    CHECK(x.grad().to_vector<float>() == std::vector<float>{4, 28, 52, 76});
    const Tensor before = f(x, 2);
    w = full({4}, 5.f).requires_grad(true);
    const Tensor now = f(x, 2);
    now.sum().backward();
    CHECK(w.grad().to_vector<float>() == std::vector<float>{0, 4, 16, 36});
    Tensor(x).set_grad({});
    before.sum().backward();
    CHECK(x.grad().to_vector<float>() == std::vector<float>{0, 16, 32, 48});
  }
}

TEST_CASE("joint: compile takes a model where it stands, and its member functions; trace takes any arguments") {
  manual_seed(6);
  Net net;
  const Tensor x = randn({2, 6});
  auto model = compile(net);
  auto hidden = compile(net, &Net::hidden);
  CHECK(same(model(x), net(x)));
  CHECK(same(hidden(x), net.hidden(x)));
  {
    const NoGrad no_grad;
    net.second.bias.assign(net.second.bias + 1);
  }
  CHECK(same(model(x), net(x)));
  auto named = compile([](const std::map<std::string, Tensor>& in) {
    return std::map<std::string, Tensor>{{"sum", in.at("a") + in.at("b")}, {"product", in.at("a") * in.at("b")}};
  });
  const auto out = named(std::map<std::string, Tensor>{{"a", x}, {"b", x + 1}});
  CHECK(same(out.at("sum"), x + (x + 1)));
  CHECK(same(out.at("product"), x * (x + 1)));
  CHECK_THROWS_AS(named(std::map<std::string, Tensor>{{"a", x}}), std::out_of_range);
  auto own = compile(Net(net));
  CHECK(same(own(x), net(x)));
  const Graph graph =
      trace([](const Tensors& xs, std::pair<Tensor, int> p) { return xs[0] + xs[1] * p.first * p.second; },
            Tensors{x, x}, std::pair{x, 3});
  CHECK(graph.leaves.size() == 2);
  CHECK(trace([] { return ones({2}); }).outputs.size() == 1);
}

TEST_CASE("joint: cheap ops are computed again, and what is there anyway is not kept twice") {
  manual_seed(7);
  const Tensor w = randn({8, 8}).requires_grad(true), x = randn({16, 8});
  auto f = compile([&](const Tensor& in) {
    const Tensor h = matmul(in, w);
    return relu(h * 2 + 1).square() * h;
  });
  f(x);
  CHECK(f.stats().saved_bytes == 16 * 8 * 4);  // h alone, though eager keeps four
  auto g = compile([&](const Tensor& in) { return sigmoid(matmul(in, w)); });
  g(x);
  CHECK(g.stats().saved_bytes == 0);  // the result, the argument and the weight
  CHECK(g.stats().backward_kernels > 0);
  CHECK(contains(g.plan(), "backward:"));
}

TEST_CASE("joint: what backward() alone needs is computed there") {
  // The gradient of a determinant has the inverse, which a singular matrix lacks: eagerly the call is fine.
  const Tensor matrix = ones({3, 3}, {.requires_grad = true});
  const auto f = [&](const Tensor& scale) { return linalg::det(matrix * scale); };
  for (const Mode mode : {Mode::eager, Mode::replay, Mode::compiled}) {
    CAPTURE(mode);
    auto function = compile(f, {.mode = mode});
    for (int call = 0; call < 2; ++call) {
      const Tensor result = function(ones({}));
      CHECK(result.item<float>() == 0);
      CHECK_THROWS_AS(result.backward(), LinAlgError);
    }
  }
}

TEST_CASE("joint: several threads call one function and go back through it") {
  manual_seed(8);
  const Net net;
  auto model = compile([&](const Tensor& in) { return net(in); });
  Tensors xs, expected(4), got(4);
  for (int t = 0; t < 4; ++t) xs.push_back(randn({3, 6}));
  const auto gradient = [&](auto&& f, const Tensor& x) {
    const Tensor own = x.clone().requires_grad(true);
    const auto [g] = grad<1>(f(own).square().sum(), {own});
    return g;
  };
  for (size_t t = 0; t < 4; ++t) expected[t] = gradient(net, xs[t]);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 5; ++i) got[t] = gradient(model, xs[t]);
    });
  for (std::thread& thread : threads) thread.join();
  for (size_t t = 0; t < 4; ++t) CHECK(same(got[t], expected[t]));
}
