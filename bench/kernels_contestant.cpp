// Tandem as a contestant in bench/peers/kernels.py: one op at a time, as a program calls it eagerly, memory included.
#include <memory>

#include "bench/peers/contestant.h"
#include "core/dispatch.h"
#include "tandem.h"

namespace {

namespace td = tandem;
using td::Tensor;
using td::Tensors;

/// A program that calls `f`, and keeps what it returned last.
template <class F> peers::Program calling(F f) {
  auto last = std::make_shared<Tensor>();
  return {.step = [=] { *last = f(); }, .value = [last] { return last->sum().template item<double>(); }};
}

/// Calls an op that has no public function; what comes first of it.
peers::Program calling_op(const char* name, Tensors inputs, td::Attributes attributes = {}) {
  return calling([=] { return td::dispatch_all(td::find_op(name), inputs, attributes, td::Where::current())[0]; });
}

Tensor rows() { return td::randn({4096, 1024}); }
Tensor labels() { return td::randint(0, 1024, {4096}); }

peers::Program layer_norm_grad() {
  const Tensor x = rows(), weight = td::randn({1024});
  const Tensor inputs[] = {x, weight, td::randn({1024})};
  const Tensors made = td::dispatch_all(td::find_op("layer_norm"), inputs, {{"epsilon", 1e-5}}, td::Where::current());
  return calling_op("layer_norm_grad", {rows(), x, weight, made[1], made[2]});
}

peers::Program cross_entropy_both() {
  const Tensor x = rows().requires_grad(true), y = labels();
  return calling([=] {
    Tensor(x).set_grad({});
    const Tensor loss = cross_entropy(x, y);
    loss.backward();
    return loss;
  });
}

peers::Program attention(td::Shape shape, bool gradients) {
  const auto heads = [&] {
    return transpose(td::randn(shape, {.requires_grad = gradients}), 1, 2);
  };  // [batch, time, heads, d]
  const Tensor q = heads(), k = heads(), v = heads();
  const Tensor g = transpose(td::randn(shape), 1, 2);
  return calling([=] {
    const Tensor y = scaled_dot_product_attention(q, k, v, {.causal = true});
    if (gradients) (void)td::grad_of(y, {q, k, v}, {}, g);
    return y;
  });
}

peers::Program adamw() {
  struct State {
    Tensor p = td::randn({1 << 22}, {.requires_grad = true});
    td::nn::optim::AdamW optimizer{{p}, {.lr = 1e-4}};
  };
  auto state = std::make_shared<State>();
  state->p.set_grad(td::randn({1 << 22}));
  return {.step = [state] { state->optimizer.step(); },
          .value = [state] { return state->p.sum().template item<double>(); }};
}

peers::Table table() {
  peers::Table all;
  const auto add = [&](const char* name, peers::Make make) { all.push_back({name, {{"eager", std::move(make)}}}); };
  add("softmax", [] { return calling([x = rows()] { return softmax(x); }); });
  add("softmax_grad", [] { return calling_op("softmax_grad", {rows(), softmax(rows())}); });
  add("log_softmax", [] { return calling([x = rows()] { return log_softmax(x); }); });
  add("log_softmax_grad", [] { return calling_op("log_softmax_grad", {rows(), log_softmax(rows())}); });
  add("layer_norm", [] {
    return calling([x = rows(), w = td::randn({1024}), b = td::randn({1024})] { return layer_norm(x, w, b); });
  });
  add("layer_norm_grad", layer_norm_grad);
  add("cross_entropy", [] { return calling([x = rows(), y = labels()] { return cross_entropy(x, y); }); });
  add("cross_entropy_both", cross_entropy_both);
  add("gelu", [] { return calling([x = rows()] { return gelu(x); }); });
  add("gelu_grad", [] { return calling([g = rows(), x = rows()] { return gelu_grad(g, x); }); });
  add("tanh", [] { return calling([x = rows()] { return tanh(x); }); });
  add("exp", [] { return calling([x = rows()] { return exp(x); }); });
  add("add", [] { return calling([x = rows(), y = rows()] { return x + y; }); });
  add("sum", [] { return calling([x = rows()] { return sum(x); }); });
  add("sum_rows", [] { return calling([x = rows()] { return sum(x, 1); }); });
  add("sum_columns", [] { return calling([x = rows()] { return sum(x, 0); }); });
  add("transpose", [] { return calling([x = td::randn({2048, 2048}).transpose(0, 1)] { return x.contiguous(); }); });
  add("attention_gpt", [] { return attention({16, 128, 4, 32}, false); });
  add("attention_gpt_both", [] { return attention({16, 128, 4, 32}, true); });
  add("attention_long", [] { return attention({1, 1024, 8, 64}, false); });
  add("attention_long_both", [] { return attention({1, 1024, 8, 64}, true); });
  add("adamw", adamw);
  return all;
}

}  // namespace

int main() {
  td::manual_seed(1);
  return peers::serve("Tandem", "of this tree", 2, table());
}
