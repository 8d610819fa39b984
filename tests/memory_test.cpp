// Memory that tensors share, in a trace: writes through tensors, views and arguments, seen and done as eagerly.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "core/random.h"
#include "core/warning.h"
#include "nn/nn.h"
#include "support.h"
#include "tandem.h"

using namespace tandem;

namespace {

/// A program from its start: makes its state, compiles with these options, calls, and returns all that it has by then.
using Program = std::function<Tensors(CompileOptions)>;

/// Every graph mode, also without memory plan, fusion and generated code, gives what eager mode gives.
void check(const Program& program) {
  const Tensors expected = program({.mode = Mode::eager});
  std::vector<CompileOptions> all = {{.mode = Mode::replay}, {.mode = Mode::compiled}};
  for (const char* without : {"memory_plan", "emit", "fusion"}) all.push_back({.without = {without}});
  all.push_back({.verify = Verify::every});
  for (const CompileOptions& options : all) {
    CAPTURE(name_of(options.mode));
    CAPTURE(options.without.empty() ? std::string() : options.without[0]);
    const Tensors got = program(options);
    REQUIRE(got.size() == expected.size());
    for (size_t i = 0; i < got.size(); ++i) {
      CAPTURE(i);
      CAPTURE(got[i].detach().to_vector<double>());
      CAPTURE(expected[i].detach().to_vector<double>());
      CHECK(same(got[i], expected[i]));
    }
  }
}

/// The function on x, three times, with a state of these values, and the state after each call.
using OnState = std::function<Tensor(Tensor& state, const Tensor& x)>;
void check_state(const Tensor& first, const Tensor& x, const OnState& function) {
  check([&](CompileOptions options) {
    Tensor state = first.clone();
    auto f = compile([&](const Tensor& in) { return function(state, in); }, options);
    Tensors all;
    for (int i = 0; i < 3; ++i) {
      all.push_back(f(x + i));
      all.push_back(state.clone());
    }
    return all;
  });
}

Tensor counting(const Shape& shape) { return arange(0, shape.numel(), 1, {.dtype = float32}).reshape(shape); }

}  // namespace

TEST_CASE("memory: views made in a trace see what is written to what they are views of") {
  const Tensor x = ones({4});
  check_state(zeros({4}), x, [](Tensor& c, const Tensor& in) {
    Tensor v = c.slice(0, 0, 2);
    c += in;
    return v.sum();
  });
  check_state(zeros({4}), x, [](Tensor& c, const Tensor& in) {  // of an intermediate result
    Tensor y = in * 2, v = y.slice(0, 1, 3), w = v[0];
    y += in;
    return w + v.sum() + c.sum();
  });
  check_state(counting({3, 4}), ones({4}), [](Tensor& c, const Tensor& in) {  // of views of views, of every kind
    Tensor t = c.transpose(0, 1), row = t[2], flat = c.reshape({2, 6}), wide = in.expand({3, 4}), d = c.diagonal();
    c.assign(c * 2 + wide);
    c += in;
    return concat(
        {t.contiguous().flatten(), row, flat.flatten(), d, c.unsqueeze(0).squeeze(0).slice(1, 0, 4, 3).flatten()});
  });
  check_state(counting({3, 4}), ones({4}), [](Tensor& c, const Tensor&) {  // detached
    Tensor d = c.detach(), v = d[1];
    d *= 3;
    return v + c[1];
  });
}

TEST_CASE("memory: writes through views reach what they are views of, and every other view") {
  check_state(zeros({4, 3}), ones({3}), [](Tensor& cache, const Tensor& in) {
    cache.slice(0, 1, 2).assign(in);
    cache[3].assign(in * 2);
    return cache.sum({0});
  });
  check_state(counting({4, 3}), ones({2, 3}), [](Tensor& c, const Tensor& in) {
    Tensor t = c.transpose(0, 1), first = c[0], every = c.slice(0, 0, 4, 2);
    every += in;
    t[1].assign(t[0] * 10);
    c.diagonal() *= -1;
    c.reshape({2, 6})[1] += 100;
    return first + t.sum({1});
  });
  check_state(zeros({2, 3}), counting({2, 3}), [](Tensor& c, const Tensor& in) {  // all of it, laid out otherwise
    c.transpose(0, 1).assign(in.transpose(0, 1) + 1);
    c.reshape({3, 2}) += 1;
    return c * in;
  });
  check_state(ones({3}), ones({3}), [](Tensor& c, const Tensor& in) {  // of an intermediate result, twice
    Tensor y = in * 1;
    y.slice(0, 0, 1).assign(c.slice(0, 1, 2) * 7);
    y[2] += 1;
    return y;
  });
  for (const Mode mode : kModes) {
    auto f = compile(
        [](const Tensor& in) {
          Tensor y = in * 1;
          y.expand({2, 3}).assign(zeros({2, 3}));
          return y;
        },
        {.mode = mode});
    CHECK(contains(thrown<InPlaceError>([&] { f(ones({3})); }), "share memory, as those of an expanded tensor do"));
  }
}

TEST_CASE("memory: views of the outside, and the memory that they share") {
  check([](CompileOptions options) {  // the view is read before and after, the whole is written
    Tensor c = counting({4, 3});
    Tensor row = c[1], column = c.transpose(0, 1)[2];
    auto f = compile(
        [&](const Tensor& in) {
          Tensor before = row * 1;
          c += in;
          return before + row + column.sum();
        },
        options);
    return Tensors{f(ones({3})), f(ones({3})), c};
  });
  check([](CompileOptions options) {  // only views are known, and both are written
    Tensor c = counting({4, 3});
    Tensor row = c[1], column = c.transpose(0, 1)[2];
    auto f = compile(
        [&](const Tensor& in) {
          row.assign(in * 2);
          column += row[0];
          row *= 2;
          return column.sum() + row;
        },
        options);
    return Tensors{f(ones({3})), f(full({3}, 4)), c};
  });
  check([](CompileOptions options) {  // the whole is met after the view was written
    Tensor c = counting({2, 3});
    Tensor half = c.slice(1, 0, 2), again = c.detach();
    auto f = compile(
        [&](const Tensor& in) {
          half += in;
          Tensor total = c.sum() + again.sum();
          again -= 1;
          return total + half.sum();
        },
        options);
    return Tensors{f(ones({2, 2})), f(ones({2, 2})), c};
  });
  check([](CompileOptions options) {  // a part of a storage alone: what lies beside it stays
    Tensor c = counting({6});
    Tensor middle = c.slice(0, 2, 4);
    auto f = compile([&](const Tensor& in) { middle.assign(middle * 2 + in); }, options);
    f(ones({2}));
    f(ones({2}));
    return Tensors{c, middle};
  });
}

TEST_CASE("memory: state keeps its strides, whatever is assigned to it") {
  const Tensor x = counting({3, 3});
  check_state(zeros({3, 3}), x, [](Tensor& s, const Tensor& in) {
    s.assign(in.transpose(0, 1));
    return matmul(s.transpose(0, 1), in) + s.reshape({9}).sum();
  });
  check_state(zeros({3, 3}), x, [](Tensor& s, const Tensor& in) {
    s.assign(in[1].expand({3, 3}));  // a broadcast row
    return matmul(s, in) + s.reshape({9})[2];
  });
  check_state(zeros({2, 3, 4, 4}), counting({2, 3, 4, 4}), [](Tensor& s, const Tensor& in) {
    s.assign(conv2d(in, ones({3, 3, 1, 1})));  // channels last
    return s.reshape({2, 48}).sum({1});
  });
  check_state(zeros({3, 3}), x, [](Tensor& s, const Tensor&) {
    s.assign(full({}, 2.5));
    s.reshape({9}).slice(0, 0, 3).assign(zeros({}));
    return s.transpose(0, 1).contiguous();
  });
}

TEST_CASE("memory: what is assigned before a read is seen, and after isn't") {
  check_state(counting({3}), ones({3}), [](Tensor& s, const Tensor& in) {
    Tensor v = s.slice(0, 0, 2), before = v * 1;
    s.assign(in * 10);
    return before + v;
  });
  check([](CompileOptions options) {
    Tensor a = ones({2}), b = zeros({2});
    auto swap = compile(
        [&] {
          Tensor old = a * 1;
          a.assign(b);
          b.assign(old);
          a[0].assign(b[1]);
        },
        options);
    Tensors all;
    for (int i = 0; i < 3; ++i) swap(), all.push_back(a.clone()), all.push_back(b.clone());
    return all;
  });
  check([](CompileOptions options) {  // one value for two states, one of which goes on
    Tensor a = ones({2}), b = zeros({2});
    auto f = compile(
        [&](const Tensor& x) {
          Tensor v = x * 3;
          a.assign(v);
          b.assign(v);
          a[1] += 1;
          return a + b;
        },
        options);
    return Tensors{f(ones({2})), a, b};
  });
}

TEST_CASE("memory: tensors made from C++ values in the trace start anew at each call") {
  check([](CompileOptions options) {
    auto f = compile(
        [](const Tensor& x) {
          Tensor t = tensor({1.f, 2.f, 3.f});
          Tensor v = t.slice(0, 1, 3);
          t += x;
          v *= 2;
          return t;
        },
        options);
    return Tensors{f(ones({3})), f(ones({3})), f(zeros({3}))};
  });
}

TEST_CASE("memory: arguments that are written to change, as eagerly") {
  check([](CompileOptions options) {
    auto f = compile(
        [](const Tensor& n, const Tensor& x) {
          Tensor c = n;
          c += 1;
          return x * c;
        },
        options);
    const Tensor n = ones({3});
    Tensors all{f(n, full({3}, 2)), n.clone()};
    all.push_back(f(n, full({3}, 2)));
    all.push_back(n);
    return all;
  });
  check([](CompileOptions options) {  // through a view, into a part of a larger tensor
    auto f = compile([](const Tensor& n, const Tensor& x) { n.slice(0, 0, 2).assign(x); }, options);
    const Tensor big = zeros({6}), n = big.slice(0, 2, 5);
    f(n, ones({2}));
    f(n, full({2}, 5));
    return Tensors{big, n};
  });
  check([](CompileOptions options) {  // the same tensor twice
    auto f = compile(
        [](const Tensor& a, const Tensor& b) {
          Tensor(a).assign(b * 2);
          return a + b;
        },
        options);
    const Tensor a = ones({2});
    Tensors all{f(a, a), f(a, a)};
    all.push_back(a);
    return all;
  });
  for (const Mode mode : kGraphModes) {
    auto f = compile([](const Tensor& a, const Tensor& b) { Tensor(a) += b; }, {.mode = mode});
    const Tensor gaps = ones({2, 4}).transpose(0, 1).slice(0, 0, 3);
    CHECK(contains(thrown<TraceError>([&] { f(gaps, gaps); }),
                   "argument 0, float32[3, 2] strides [1, 4], is a view with gaps"));
    const Tensor a = ones({4});
    CHECK(contains(thrown<TraceError>([&] { f(a.slice(0, 0, 2), a.slice(0, 1, 3)); }),
                   "shares its memory with a tensor that the function assigns to"));
    CHECK(same(a, ones({4})));
    Tensor state = ones({4});
    auto g = compile([&](const Tensor& n) { Tensor(n).assign(state.slice(0, 1, 3) * 2); }, {.mode = mode});
    g(zeros({2}));
    CHECK(
        contains(thrown<TraceError>([&] { g(state.slice(0, 0, 2)); }), "shares its memory with a tensor from outside"));
    CHECK(same(state, ones({4})));
  }
}

TEST_CASE("memory: writes into the state go there at once") {
  Tensor cache = zeros({64, 32});
  auto f = compile([&](const Tensor& x) {
    cache.slice(0, 3, 4).assign(x);
    cache[7].assign(x[0] * 2);
    cache.slice(0, 8, 10) += x;
  });
  f(ones({1, 32}));
  CHECK(same(cache.sum({1}).slice(0, 3, 10), tensor({32.f, 0.f, 0.f, 0.f, 64.f, 32.f, 32.f})));
  CHECK(!contains(f.plan(), "late write"));
  CHECK(f.stats().peak_bytes < 64 * 32 * 4);  // no copy of the cache
}

TEST_CASE("memory: an operand that the tape has saved and a trace overwrites is eager's error") {
  for (const Mode mode : kModes) {
    Tensor w = ones({3}, {.requires_grad = true});
    auto f = compile(
        [&](const Tensor& x) {
          Tensor y = w * w * x;
          {
            const NoGrad no_grad;
            w.assign(x * 5);
          }
          y.sum().backward();
        },
        {.mode = mode});
    CHECK(contains(thrown<InPlaceError>([&] { f(ones({3})); }), "was saved for backward"));
    auto g = compile(
        [&](const Tensor& x) {  // through a view of an intermediate result
          Tensor y = x * 2, z = w * y;
          y.slice(0, 0, 1).assign(zeros({1}));
          z.sum().backward();
        },
        {.mode = mode});
    CHECK(contains(thrown<InPlaceError>([&] { g(ones({3})); }), "and then overwritten at"));
    auto h = compile(
        [&](const Tensor& x) {  // after backward it is no error
          (w * x).sum().backward();
          const NoGrad no_grad;
          w.assign(w - w.grad() * 0.5);
        },
        {.mode = mode});
    w.set_grad({});
    {
      const NoGrad no_grad;
      w.assign(ones({3}));
    }
    h(full({3}, 2));
    CHECK(same(w, zeros({3})));
  }
}

TEST_CASE("memory: gradients that share memory with state, and gradients of another layout") {
  for (const Mode mode : kGraphModes) {
    Tensor w = ones({4}, {.requires_grad = true}), flat = zeros({8});
    auto f = compile(
        [&](const Tensor& x) {
          flat.assign(flat * 0);
          return w.grad() * x;
        },
        {.mode = mode});
    w.set_grad(full({4}, 3));
    for (int call = 0; call < 2; ++call) CHECK(same(f(ones({4})), full({4}, 3)));
    w.set_grad(flat.slice(0, 0, 4));
    flat.assign(full({8}, 2));
    CHECK(contains(thrown<TraceError>([&] { f(ones({4})); }), "a gradient, float32[4], shares its memory"));
    CHECK(same(flat, full({8}, 2)));
  }
  for (const Mode mode : kGraphModes) {
    Tensor w = ones({4}, {.requires_grad = true});
    w.set_grad(ones({4}));
    const Tensor held = w.grad();
    auto f = compile(
        [&](const Tensor& x) {
          Tensor y = held * x;
          return y + w.grad();
        },
        {.mode = mode});
    CHECK(contains(thrown<TraceError>([&] { f(ones({4})); }), "was read through another handle before"));
    auto g = compile(
        [&](const Tensor& x) {
          Tensor(held) += x;
          return w.grad() * 1;
        },
        {.mode = mode});
    CHECK(contains(thrown<TraceError>([&] { g(ones({4})); }), "was read through another handle before"));
    CHECK(same(held, ones({4})));
  }
  check([](CompileOptions options) {
    Tensor w = ones({2, 3}, {.requires_grad = true});
    auto f = compile([&](const Tensor& x) { return w.grad() * x; }, options);
    Tensors all;
    for (int i = 0; i < 4; ++i) {
      const Tensor g = counting({2, 3}) + i;
      w.set_grad(i % 2 ? counting({3, 2}).transpose(0, 1) : g);
      all.push_back(f(ones({2, 3})));
    }
    return all;
  });
  check([](CompileOptions options) {  // scaled in place, of state and of an argument
    Tensor w = ones({3}, {.requires_grad = true}), v = ones({3}, {.requires_grad = true});
    auto f = compile(
        [&](const Tensor& x) {
          w.grad() *= 0.5;
          x.grad().slice(0, 0, 1).assign(zeros({1}));
        },
        options);
    w.set_grad(full({3}, 8));
    v.set_grad(full({3}, 4));
    f(v);
    f(v);
    return Tensors{w.grad(), v.grad()};
  });
}

TEST_CASE("gradients: each leaf has memory of its own, whatever the gradient was a view of") {
  check([](CompileOptions options) {
    Tensor a = ones({3}, {.requires_grad = true}), b = ones({3}, {.requires_grad = true}),
           c = ones({3, 1}, {.requires_grad = true}), d = ones({1, 3}, {.requires_grad = true});
    auto f = compile(
        [&](const Tensor& x) {
          (a + b + d.reshape({3}) + x).backward(x);  // one gradient for three, and a view of it
          c.sum().backward();                        // a number, expanded
          for (Tensor* leaf : {&a, &c, &d}) {
            Tensor gradient = leaf->grad();
            gradient *= 3;
          }
        },
        options);
    const Tensor x = counting({3});
    f(x);
    Tensors all{x, a.grad().clone(), b.grad().clone(), c.grad().clone(), d.grad().clone()};
    CHECK(same(a.grad(), x * 3));
    CHECK(same(b.grad(), x));
    f(x);
    for (const Tensor* leaf : {&a, &b, &c, &d}) all.push_back(leaf->grad());
    return all;
  });
}

TEST_CASE("memory: x += y binds the handle anew where a gradient flows, and is refused where others would not see it") {
  for (const Mode mode : kModes) {
    CAPTURE(name_of(mode));
    Tensor w = ones({3}, {.requires_grad = true});
    const auto run = [&](auto f) { compile(f, {.mode = mode})(full({3}, 2)); };
    const auto refused = [&](auto f) {
      CHECK(contains(thrown<InPlaceError>([&] { run(f); }), "the target is a view, or others are views of it"));
    };
    refused([&](const Tensor& x) {
      Tensor y = x * 1, v = y.slice(0, 0, 2);
      y += w;
    });
    refused([&](const Tensor& x) {
      Tensor y = x * 1, v = y.slice(0, 0, 2);
      v += w.slice(0, 0, 2);
    });
    refused([&](const Tensor& x) {
      Tensor y = x * w, d = y.detach();
      y += w;
    });
    run([&](const Tensor& x) {
      Tensor y = x, z = x * w;  // the caller's tensor stays as it is
      y += w;
      z *= w;
      w.set_grad({});
      (y + z + x).sum().backward();
    });
    CHECK(same(w.grad(), full({3}, 5)));
  }
}

TEST_CASE("specialisation: requires_grad of state is part of the key, both ways") {
  check([](CompileOptions options) {
    Tensor w = ones({3}, {.requires_grad = true}), v = ones({3}, {.requires_grad = true});
    auto f = compile(
        [&](const Tensor& x) {
          w.set_grad({});
          v.set_grad({});
          (w * v * x).sum().backward();
        },
        options);
    const auto gradient = [](const Tensor& t) { return t.grad().defined() ? t.grad().clone() : full({1}, -1); };
    Tensors all;
    for (int i = 0; i < 6; ++i) {
      w.requires_grad(i % 3 != 1);
      f(full({3}, i));
      all.push_back(gradient(w));
      all.push_back(gradient(v));
    }
    return all;
  });
}

TEST_CASE("backward: a graph doesn't go on where its arguments or captured tensors were computed") {
  for (const Mode mode : kGraphModes) {
    Tensor w = ones({3}, {.requires_grad = true});
    auto f = compile([](const Tensor& x) { (x * 2).sum().backward(); }, {.mode = mode});
    CHECK(contains(thrown<TraceError>([&] { f(w * 3); }),
                   "argument 0 of the compiled function was computed from tensors"));
    CHECK(!w.grad().defined());
    Tensor h = w * 3;
    auto g = compile([&](const Tensor& x) { (h * x).sum().backward(); }, {.mode = mode});
    CHECK(contains(thrown<TraceError>([&] { g(ones({3})); }), "backward: it reaches mul, recorded at"));
    CHECK(!w.grad().defined());
    h.sum().backward();  // the tape is as it was
    CHECK(same(w.grad(), full({3}, 3)));
    auto values = compile([&](const Tensor& x) { return h * x; }, {.mode = mode});
    CHECK(same(values(ones({3})), full({3}, 3)));
  }
}

TEST_CASE("tracing: the generator isn't seeded, and the host writes to nothing outside") {
  for (const Mode mode : kGraphModes) {
    auto f = compile(
        [] {
          manual_seed(5);
          return rand({3});
        },
        {.mode = mode});
    CHECK(contains(thrown<TraceError>([&] { f(); }), "manual_seed: not while a function is traced"));
    Tensor state = ones({3});
    auto g = compile(
        [&](const Tensor& x) {
          state.mutable_data<float>()[0] += 1;
          return x + state;
        },
        {.mode = mode});
    CHECK(contains(thrown<TraceError>([&] { g(ones({3})); }), "mutable_data(): the host writes to a tensor [3]"));
    CHECK(same(state, ones({3})));
    auto made = compile(
        [&](const Tensor& x) {
          Tensor t = tensor({1.f, 2.f});
          t.mutable_data<float>()[0] = 7;
          return x + t;
        },
        {.mode = mode});
    CHECK(same(made(zeros({2})), tensor({7.f, 2.f})));
    CHECK(same(made(zeros({2})), tensor({7.f, 2.f})));
  }
}

TEST_CASE("numbers: a step that reads none on the host is traced again at calls 2, 4, 8, … alone") {
  Tensor w = randn({4, 3}, {.requires_grad = true});
  nn::optim::AdamW optimizer({w}, {.lr = 0.01});
  int traces = 0;
  auto step = compile([&](const Tensor& x, const Tensor& labels) {
    ++traces;
    optimizer.zero_grad();
    const Tensor loss = cross_entropy(matmul(x, w), labels);
    loss.backward();
    optimizer.step();
    return loss.detach();
  });
  const Tensor x = randn({2, 4}), labels = tensor<int64_t>({0, 2});
  for (int call = 1; call <= 32; ++call) step(x, labels);
  CHECK(step.stats().traces == 1);
  CHECK(traces == 1 + 5);
}

TEST_CASE("numbers: what the host reads of state is read at each call, what it can't see is said") {
  check([](CompileOptions options) {
    Tensor rate = full({}, 0.5);
    auto f = compile([&](const Tensor& x) { return x * rate.item<float>(); }, options);
    Tensors all;
    for (int i = 0; i < 20; ++i) {
      rate.assign(full({}, 0.5 + i));
      all.push_back(f(ones({2})));
    }
    return all;
  });
  for (const Mode mode : kGraphModes) {
    std::vector<std::string> warnings;
    const auto before = set_warning_handler([&](const std::string& text) { warnings.push_back(text); });
    float number = 2;
    auto f = compile([&](const Tensor& x) { return x * number; }, {.mode = mode});
    for (int call = 1; call <= 40; ++call) {
      if (call == 21) number = 3;
      const float got = f(ones({})).item<float>();
      CHECK(got == (call >= 32 ? 3 : 2));
    }
    set_warning_handler(before);
    REQUIRE(warnings.size() == 1);
    CAPTURE(warnings[0]);
    CHECK(contains(warnings[0], "a number, now 3 and 2 before, read at"));
    CHECK(contains(warnings[0], "calls 17 to 31 may have used the old one"));
    CHECK(f.stats().stale.size() == 1);
    CHECK(contains(f.explain(), "stale: a number"));
    float each = 2;
    auto g = compile([&](const Tensor& x) { return x * each; }, {.mode = mode, .verify = Verify::every});
    for (int call = 1; call <= 6; ++call) {
      each = static_cast<float>(call);
      CHECK(g(ones({})).item<float>() == each);
    }
    CHECK(g.stats().stale.empty());
  }
}

TEST_CASE("static arguments: 2 and 2.0 are not the same to a generic function") {
  for (const Mode mode : kModes) {
    auto f = compile([](const Tensor& x, auto number) { return x * (number / 4); }, {.mode = mode});
    CHECK(f(ones({1}), 2).template item<float>() == 0);
    CHECK(f(ones({1}), 2.0).template item<float>() == 0.5);
    CHECK(f(ones({1}), 2).template item<float>() == 0);
  }
}

TEST_CASE("dynamic numbers: given at each call, one trace, and they behave as numbers do") {
  for (const DType dtype : {float32, float64, bfloat16, int32}) {
    check([&](CompileOptions options) {
      auto f = compile(
          [](const Tensor& x, Dynamic<float> rate, Dynamic<int> count, double fixed) {
            return std::tuple(x * rate + 1, x + count, maximum(count, x) * fixed, softmax(x * rate, 0), rate * count);
          },
          options);
      Tensors all;
      for (int i = 0; i < 6; ++i) {
        const auto [a, b, c, d, e] = f((arange(0, 4, 1, {.dtype = float32}) * 0.5).to(dtype),
                                       Dynamic(0.1f * static_cast<float>(i)), Dynamic(i), 0.5);
        for (const Tensor& each : {a, b, c, d, e}) all.push_back(each);
        CHECK(a.dtype() == (is_floating(dtype) ? dtype : float32));
        CHECK(b.dtype() == dtype);
      }
      if (options.mode != Mode::eager) CHECK(f.stats().traces == 1);
      return all;
    });
  }
  check([](CompileOptions options) {  // a learning rate
    Tensor w = ones({3}, {.requires_grad = true});
    auto step = compile(
        [&](const Tensor& x, Dynamic<double> rate) {
          w.set_grad({});
          (w * x).sum().backward();
          const NoGrad no_grad;
          w.assign(w - w.grad() * rate);
        },
        options);
    for (int i = 1; i < 5; ++i) step(full({3}, i), Dynamic(0.25 / i));
    return Tensors{w.detach()};
  });
  for (const Mode mode : kGraphModes) {
    auto f = compile([](const Tensor& x, Dynamic<float> rate) { return rate.value() > 0 ? x : -x; }, {.mode = mode});
    CHECK(
        contains(thrown<TraceError>([&] { f(ones({1}), Dynamic(1.f)); }), "is not known while the function is traced"));
    auto g = compile([](const Tensor& x, const auto& rate) { return x * rate; }, {.mode = mode});
    CHECK(g(ones({2}, {.dtype = bfloat16}), Dynamic(3.f)).dtype() == bfloat16);
    CHECK(g(ones({2}, {.dtype = bfloat16}), full({1}, 3)).dtype() == float32);
    CHECK(g.stats().traces == 2);
  }
  const Dynamic<int> count(3);
  CHECK(count.value() == 3);
}

TEST_CASE("state: another tensor in its place may share memory with what is written") {
  check([](CompileOptions options) {
    Tensor a = counting({8}), b = full({8}, 9).slice(0, 0, 8, 2);
    options.verify = Verify::every;
    auto f = compile(
        [&](const Tensor& x) {
          Tensor sum = b * x;
          a.assign(a + 1);
          return sum * 2;
        },
        options);
    Tensors all{f(ones({4}))};
    b = a.slice(0, 0, 8, 2);
    for (int i = 0; i < 3; ++i) all.push_back(f(ones({4}))), all.push_back(a.clone());
    return all;
  });
}

TEST_CASE("exceptions: a gradient is kept where a call throws") {
  for (const Mode mode : kModes) {
    Tensor w = ones({2, 3}, {.requires_grad = true});
    auto f = compile(
        [&](const Tensor& x, const Tensor& labels) {
          w.set_grad({});
          cross_entropy(matmul(x, w), labels).backward();
        },
        {.mode = mode});
    const Tensor good = tensor<int64_t>({0, 2}), bad = tensor<int64_t>({0, 3});
    for (int i = 0; i < 3; ++i) f(ones({2, 2}), good);
    REQUIRE(w.grad().defined());
    CHECK_THROWS_AS(f(ones({2, 2}), bad), DimensionError);
    if (mode != Mode::eager) CHECK(w.grad().defined());
    f(ones({2, 2}), good);
    CHECK(w.grad().defined());
  }
}

TEST_CASE("as_strided: windows into memory, and what is put back through them") {
  const Tensor x = counting({3, 4});
  CHECK(same(as_strided(x, {2, 2}, {4, 1}, 1), tensor({1.f, 2.f, 5.f, 6.f}).reshape({2, 2})));
  CHECK(same(as_strided(x, {3, 2}, {1, 2}), tensor({0.f, 2.f, 1.f, 3.f, 2.f, 4.f}).reshape({3, 2})));
  CHECK(same(slice_scatter(x, zeros({3, 2}), 1, 0, 4, 2)[1], tensor({0.f, 5.f, 0.f, 7.f})));
  CHECK(same(select_scatter(x, ones({4}), 0, -1)[2], ones({4})));
  CHECK(same(diagonal_scatter(x, zeros({3}), 1).diagonal(1), zeros({3})));
  CHECK(same(x, counting({3, 4})));
  CHECK(contains(thrown<ShapeError>([&] { as_strided(x, {4}, {4}); }), "reaches beyond the 12 elements of [3, 4]"));
  CHECK(contains(thrown<ShapeError>([&] { as_strided(x.transpose(0, 1), {1}, {1}); }), "call contiguous() first"));
  CHECK_THROWS_AS(as_strided(x, {-1}, {1}), ShapeError);
  CHECK_THROWS_AS(as_strided(x, {2}, {-1}, 3), ShapeError);
  CHECK_THROWS_AS(as_strided(x, {2}, {1, 1}), ShapeError);
  CHECK_THROWS_AS(as_strided(x, {2}, {1}, -1), ShapeError);
  CHECK_THROWS_AS(as_strided(x, {int64_t{1} << 62, 4}, {1, 1}), ShapeError);
  CHECK_THROWS_AS(as_strided(x, {2, 2}, {INT64_MAX, INT64_MAX}), ShapeError);
  CHECK(contains(thrown<ValueError>([&] {
                   as_strided_scatter(x, zeros({3, 2}), {3, 2}, {1, 1});
                 }),
                 "lie on one another"));
  CHECK_THROWS_AS(as_strided_scatter(x, zeros({3}), {2}, {1}), ShapeError);
  CHECK_THROWS_AS(as_strided_scatter(x, zeros({2}, {.dtype = float64}), {2}, {1}), DTypeError);
  CHECK(as_strided(x, {0, 5}, {7, 9}).numel() == 0);
}
