// Random programs: what the numbers of an instruction mean, and how a program is run.
#include "fuzz/program.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

namespace tandem::fuzz {

using detail::str;

namespace {

/// Whether one shape broadcasts with the other.
bool broadcasts(const Shape& a, const Shape& b) {
  for (int i = 1; i <= std::min(a.size(), b.size()); ++i) {
    const int64_t m = a[a.size() - i], n = b[b.size() - i];
    if (m != n && m != 1 && n != 1) return false;
  }
  return true;
}
bool expands_to(const Shape& a, const Shape& b) {
  if (a.size() > b.size()) return false;
  for (int i = 1; i <= a.size(); ++i)
    if (a[a.size() - i] != b[b.size() - i] && a[a.size() - i] != 1) return false;
  return true;
}

/// What is outside of the traced function.
struct World {
  Tensors state;  ///< whole tensors, and views of them
  Tensors leaves;
};

World make_world(uint64_t seed) {
  manual_seed(seed);
  World world;
  Tensor a = randn({3, 4}), b = randn({4}), c = randn({2, 3, 4}), n = randint(-3, 4, {4}),
         d = randn({4, 4}, {.dtype = float64});
  world.state = {a, b, c, n, d, a.transpose(0, 1), a[1], c.slice(2, 1, 3), c.reshape({6, 4}), b.detach()};
  world.leaves = {randn({4, 4}), randn({4}), randn({3, 1})};
  for (Tensor& leaf : world.leaves) leaf.requires_grad(true);
  return world;
}

Tensors make_arguments(uint64_t seed, int call) {
  std::mt19937_64 draw(seed * 31 + static_cast<uint64_t>(call));
  const auto numbers = [&](const Shape& shape) {
    std::vector<float> values(static_cast<size_t>(shape.numel()));
    for (float& value : values) value = static_cast<float>(static_cast<int64_t>(draw() % 4001) - 2000) / 1000;
    return from_host(values.data(), float32, shape, {}, Where::current());
  };
  return {numbers({3, 4}), numbers({4, 2}), numbers({4})};
}

/// One call: walks the instructions with a pool of tensors.
class Machine {
 public:
  Machine(World& world, const Tensors& arguments, std::vector<std::string>* text) : world_(world), text_(text) {
    for (const Tensor& argument : arguments) add(argument, "argument");
    for (const Tensor& state : world.state) add(state, "state");
    for (const Tensor& leaf : world.leaves) add(leaf, "leaf");
  }

  void step(const Instruction& instruction) {
    r_ = instruction.numbers;
    switch (r_[0] % 27) {
      case 0:
      case 1:
      case 2: return unary();
      case 3:
      case 4:
      case 5:
      case 6: return binary();
      case 7: return select();
      case 8:
      case 9:
      case 10: return view();
      case 11:
      case 12: return fold();
      case 13: return product();
      case 14: return index();
      case 15: return convert();
      case 16: return draw();
      case 17:
      case 18:
      case 19: return assign();
      case 20: return backward();
      case 21: return gradient();
      case 22: return make();
      case 23: return move();
      case 24: return branch();
      case 25: return turns();
      case 26: return scanned();
    }
  }

  /// The last tensors that the program made.
  Tensors results() const {
    Tensors result;
    for (size_t i = pool_.size() > 4 ? pool_.size() - 4 : 0; i < pool_.size(); ++i) result.push_back(pool_[i]);
    return result;
  }

 private:
  static std::string name(size_t i) { return "t" + std::to_string(i); }
  template <class... Parts> void say(const Parts&... parts) {
    if (text_) text_->push_back(str(parts...));
  }
  void add(const Tensor& tensor, const std::string& how) {
    if (tensor.numel() > 4096 || tensor.rank() > 5) return;
    say(name(pool_.size()), ": ", tensor.dtype(), tensor.shape(), " = ", how);
    pool_.push_back(tensor);
  }
  /// A random tensor, one of the last made in half of all cases.
  size_t any(int which) const {
    const uint32_t number = r_[static_cast<size_t>(which)];
    const size_t recent = std::min<size_t>(pool_.size(), 8);
    return number & 0x10000 ? number % pool_.size() : pool_.size() - 1 - number % recent;
  }
  /// The first tensor from a random one on of which this is true; the pool's size if there is none.
  template <class Is> size_t find(int which, Is&& is) const {
    const size_t begin = any(which);
    for (size_t i = 0; i < pool_.size(); ++i)
      if (const size_t at = (begin + i) % pool_.size(); is(pool_[at])) return at;
    return pool_.size();
  }
  static bool floats(const Tensor& x) { return is_floating(x.dtype()); }

  void unary() {
    const size_t i = find(1, floats);
    const Tensor& x = pool_[i];
    switch (r_[2] % 12) {
      case 0: return add(relu(x), str("relu(", name(i), ")"));
      case 1: return add(-x, str("-", name(i)));
      case 2: return add(abs(x), str("abs(", name(i), ")"));
      case 3: return add(tanh(x), str("tanh(", name(i), ")"));
      case 4: return add(exp(clamp(x, {.min = -3, .max = 3})), str("exp(clamp(", name(i), "))"));
      case 5: return add(sqrt(abs(x) + 0.25), str("sqrt(abs(", name(i), ") + 0.25)"));
      case 6: return add(sigmoid(x), str("sigmoid(", name(i), ")"));
      case 7: return add(sin(x), str("sin(", name(i), ")"));
      case 8: return add(x * 0.5 + 1, str(name(i), " * 0.5 + 1"));
      case 9: return add(gelu(x), str("gelu(", name(i), ")"));
      case 10: return add(floor(x), str("floor(", name(i), ")"));
      case 11: return add(1 / (x * x + 1), str("1 / (", name(i), "² + 1)"));
    }
  }
  void binary() {
    const size_t i = any(1);
    const size_t j = find(2, [&](const Tensor& y) { return broadcasts(pool_[i].shape(), y.shape()); });
    const Tensor &x = pool_[i], &y = pool_[j];
    if (x.dtype() == bool_ && y.dtype() == bool_) return add(x | y, str(name(i), " | ", name(j)));
    switch (r_[3] % 6) {
      case 0:
      case 1: return add(x + y, str(name(i), " + ", name(j)));
      case 2:
        if (x.dtype() == bool_ || y.dtype() == bool_) return;
        return add(x - y, str(name(i), " - ", name(j)));
      case 3: return add(x * y, str(name(i), " * ", name(j)));
      case 4: return add(maximum(x, y), str("maximum(", name(i), ", ", name(j), ")"));
      case 5: return add(x < y, str(name(i), " < ", name(j)));
    }
  }
  void select() {
    const size_t i = any(1);
    const size_t j = find(2, [&](const Tensor& y) { return broadcasts(pool_[i].shape(), y.shape()); });
    const size_t c = find(3, [&](const Tensor& y) {
      return y.dtype() == bool_ && broadcasts(y.shape(), pool_[i].shape()) && broadcasts(y.shape(), pool_[j].shape());
    });
    if (c == pool_.size()) return add(pool_[i] > 0, str(name(i), " > 0"));
    add(where(pool_[c], pool_[i], pool_[j]), str("where(", name(c), ", ", name(i), ", ", name(j), ")"));
  }
  void view() {
    const size_t i = find(1, [](const Tensor& x) { return x.rank() > 0; });
    if (i == pool_.size()) return;
    const Tensor& x = pool_[i];
    const int rank = x.rank(), d = static_cast<int>(r_[3] % static_cast<uint32_t>(rank));
    const int e = static_cast<int>(r_[4] % static_cast<uint32_t>(rank));
    const int64_t extent = x.shape()[d];
    switch (r_[2] % 9) {
      case 0: return add(x.transpose(d, e), str(name(i), ".transpose(", d, ", ", e, ")"));
      case 1: {
        if (extent < 2) return;
        const int64_t begin = r_[4] % static_cast<uint32_t>(extent), step = 1 + r_[5] % 2;
        return add(x.slice(d, begin, extent, step),
                   str(name(i), ".slice(", d, ", ", begin, ", ", extent, ", ", step, ")"));
      }
      case 2: {
        if (!extent) return;
        const int64_t at = r_[4] % static_cast<uint32_t>(extent);
        return add(x.select(d, at), str(name(i), ".select(", d, ", ", at, ")"));
      }
      case 3: return add(x.unsqueeze(d), str(name(i), ".unsqueeze(", d, ")"));
      case 4: return add(x.flatten(), str(name(i), ".flatten()"));
      case 5:
        if (x.numel() % 2) return;
        return add(x.reshape({2, -1}), str(name(i), ".reshape({2, -1})"));
      case 6: {
        if (rank > 3) return;
        Shape wide = x.shape();
        wide.insert(0, 2);
        return add(x.expand(wide), str(name(i), ".expand(", wide, ")"));
      }
      case 7:
        if (rank < 2 || d == e) return;
        return add(x.diagonal(0, d, e), str(name(i), ".diagonal(0, ", d, ", ", e, ")"));
      case 8: return add(x.detach(), str(name(i), ".detach()"));
    }
  }
  void fold() {
    const size_t i = find(1, [](const Tensor& x) { return floats(x) && x.numel() > 0; });
    const Tensor& x = pool_[i];
    Dims dims;
    if (x.rank() && r_[3] % 4) dims = Dims(static_cast<int64_t>(r_[4] % static_cast<uint32_t>(x.rank())));
    const ReduceOptions keep{.keepdim = r_[5] % 2 == 0};
    const std::string rest = str("(", name(i), ", ", dims, keep.keepdim ? ", keepdim" : "", ")");
    switch (r_[2] % 6) {
      case 0: return add(sum(x, dims, keep), "sum" + rest);
      case 1: return add(mean(x, dims, keep), "mean" + rest);
      case 2: return add(max(x, dims, keep), "max" + rest);
      case 3: return add(min(x, dims, keep), "min" + rest);
      case 4:
        if (!x.rank()) return;
        return add(softmax(x, static_cast<int>(r_[4] % static_cast<uint32_t>(x.rank()))), "softmax" + rest);
      case 5: return add(logsumexp(x, dims, keep), "logsumexp" + rest);
    }
  }
  void product() {
    const size_t i = find(1, [](const Tensor& x) { return floats(x) && x.rank() == 2; });
    if (i == pool_.size()) return;
    const Tensor& x = pool_[i];
    const size_t j = find(
        2, [&](const Tensor& y) { return y.dtype() == x.dtype() && y.rank() == 2 && y.shape()[0] == x.shape()[1]; });
    if (j == pool_.size()) return;
    add(matmul(x, pool_[j]) * 0.5, str("matmul(", name(i), ", ", name(j), ") * 0.5"));
  }
  void index() {
    const size_t i = find(1, [](const Tensor& x) { return x.rank() > 0 && x.numel() > 0; });
    const Tensor& x = pool_[i];
    const int d = static_cast<int>(r_[3] % static_cast<uint32_t>(x.rank()));
    const int64_t extent = x.shape()[d];
    switch (r_[2] % 6) {
      case 0: {
        const Tensor at = tensor<int64_t>({static_cast<int64_t>(r_[4] % static_cast<uint32_t>(extent)), 0, extent - 1});
        return add(index_select(x, d, at),
                   str("index_select(", name(i), ", ", d, ", {", r_[4] % extent, ", 0, last})"));
      }
      case 1: return add(flip(x, Dims(static_cast<int64_t>(d))), str("flip(", name(i), ", ", d, ")"));
      case 2:
        if (!floats(x)) return;
        return add(cumsum(x, d), str("cumsum(", name(i), ", ", d, ")"));
      case 3: return add(concat({x, x}, d), str("concat({", name(i), ", ", name(i), "}, ", d, ")"));
      case 4:
        if (!floats(x)) return;
        return add(argmax(x, d), str("argmax(", name(i), ", ", d, ")"));
      case 5:
        return add(roll(x, Dims(int64_t{1}), Dims(static_cast<int64_t>(d))), str("roll(", name(i), ", 1, ", d, ")"));
    }
  }
  void convert() {
    const size_t i = any(1);
    constexpr DType types[] = {float32, float64, int32, int64, bool_, float32, bfloat16, uint8, int8, int16};
    const DType to = types[r_[2] % std::size(types)];
    add(pool_[i].to(to), str(name(i), ".to(", to, ")"));
  }
  void draw() {
    const Shape shape = pool_[any(1)].shape();
    if (r_[2] % 2) return add(rand(shape), str("rand(", shape, ")"));
    const size_t i = find(1, floats);
    add(dropout(pool_[i], 0.5), str("dropout(", name(i), ", 0.5)"));
  }
  void make() {
    switch (r_[1] % 3) {
      case 0: return add(tensor({1.f, -2.f, 0.5f, 3.f}), "tensor({1, -2, 0.5, 3})");
      case 1: return add(full({3, 4}, 0.25), "full({3, 4}, 0.25)");
      case 2: return add(arange(0, 4, 1, {.dtype = float32}), "arange(4)");
    }
  }
  void move() {
    const size_t i = any(1);
    if (r_[2] % 2) return add(pool_[i].contiguous(), str(name(i), ".contiguous()"));
    add(pool_[i].clone(), str(name(i), ".clone()"));
  }
  /// One of two computations, which may write to a tensor.
  void branch() {
    const size_t i = find(1, floats), k = any(3);
    if (i == pool_.size()) return;
    const Tensor x = pool_[i];
    const size_t j = find(2, [&](const Tensor& y) { return y.dtype() == x.dtype() && y.shape() == x.shape(); });
    const size_t t = find(
        4, [](const Tensor& y) { return floats(y) && !y.requires_grad() && !may_overlap(y.shape(), y.strides()); });
    const bool writes = r_[5] % 3 == 0 && t < pool_.size();
    Tensor target = writes ? pool_[t] : Tensor();
    const Tensor y = pool_[j];
    say("cond(sum(", name(k), ") > 0, ", name(i), " * ", name(j), " + 1, sin(", name(i), ") - ", name(j),
        writes ? ", and " + name(t) + " *= 0.5 in the first)" : ")");
    const Tensor chosen = cond(
        sum(pool_[k].to(float32)).detach() > 0,
        [&] {
          if (writes) {
            const NoGrad no_grad;
            target.assign(target * 0.5);
          }
          return x * y + 1;
        },
        [&] { return sin(x) - y; });  // of both, so that both branches require gradients or none does
    add(chosen, "cond");
  }
  /// As many turns as values say. A graph has no gradient of it.
  void turns() {
    const size_t i = find(1, floats), k = any(2);
    if (i == pool_.size()) return;
    const Tensor x = pool_[i].detach(), most = abs(sum(pool_[k].detach().to(float32))) % 4;
    say("while_loop on ", name(i), ", for abs(sum(", name(k), ")) % 4 turns");
    const auto [n, last] = while_loop([&](const Tensor& turn, const Tensor&) { return turn < most; },
                                      [&](const Tensor& turn, const Tensor& now) {
                                        return std::tuple{turn + 1, now * 0.5 + x};
                                      },
                                      zeros({}), x);
    // Without a turn it is x itself, or a copy in a graph.
    add(last.clone(), "while_loop"), add(n, "its turns");
  }
  void scanned() {
    const size_t i =
        find(1, [](const Tensor& x) { return floats(x) && x.rank() > 0 && x.numel() > 0 && x.size(0) <= 8; });
    if (i == pool_.size()) return;
    const Tensor xs = pool_[i], first = xs.select(0, 0);
    const size_t j =
        find(2, [&](const Tensor& y) { return y.dtype() == xs.dtype() && expands_to(y.shape(), first.shape()); });
    const Tensor y = j < pool_.size() ? pool_[j] : Tensor();
    const ScanOptions options{.reverse = r_[3] % 2 == 1, .checkpoint = r_[4] % 3};
    say("scan of ", name(i), y.defined() ? " with " + name(j) : "", options.reverse ? ", reverse" : "", ", checkpoint ",
        options.checkpoint);
    const auto [last, all] = scan(
        [&](const Tensor& h, const Tensor& x) {
          const Tensor next = tanh(h * 0.5 + x + (y.defined() ? y : x));
          return std::pair{next, next * x};
        },
        zeros_like(first), xs, options);
    add(last, "the last carry"), add(all, "all results");
  }
  void assign() {
    const size_t i =
        find(1, [](const Tensor& x) { return !x.requires_grad() && !may_overlap(x.shape(), x.strides()); });
    if (i == pool_.size()) return;
    Tensor target = pool_[i];
    const size_t j = find(2, [&](const Tensor& y) { return expands_to(y.shape(), target.shape()); });
    if (j == pool_.size()) return;
    const NoGrad no_grad;
    const Tensor value = pool_[j].detach();
    switch (r_[3] % 3) {
      case 0: say(name(i), ".assign(", name(j), ")"); return target.assign(value);
      case 1:
        if (target.dtype() == bool_) return;
        say(name(i), " += ", name(j));
        target += value;
        return;
      case 2:
        if (!floats(target)) return;
        say(name(i), " *= 0.5");
        target *= 0.5;
        return;
    }
  }
  void backward() {
    const size_t i = find(1, [](const Tensor& x) { return x.requires_grad() && floats(x); });
    if (i == pool_.size()) return;
    say("sum(", name(i), " * 0.5).backward()");
    sum(pool_[i].to(float32) * 0.5).backward({.retain_graph = true});
  }
  void gradient() {
    Tensor& leaf = world_.leaves[r_[1] % world_.leaves.size()];
    const std::string which = str("leaf ", r_[1] % world_.leaves.size());
    switch (r_[2] % 4) {
      case 0: {
        if (!leaf.grad().defined()) return;
        return add(leaf.grad() * 2, str("grad of ", which, " * 2"));
      }
      case 1: say("set_grad({}) of ", which); return leaf.set_grad({});
      case 2: {
        if (!leaf.grad().defined()) return;
        const NoGrad no_grad;
        say(which, " -= 0.1 * its grad");
        return leaf.assign(leaf - leaf.grad() * 0.1);
      }
      case 3: {
        if (!leaf.grad().defined()) return;
        const NoGrad no_grad;
        say("grad of ", which, " *= 0.5");
        Tensor gradient = leaf.grad();
        gradient *= 0.5;
        return;
      }
    }
  }

  World& world_;
  std::vector<std::string>* text_;
  Tensors pool_;
  std::array<uint32_t, 6> r_ = {};
};

}  // namespace

Program random_program(uint64_t seed) {
  std::mt19937_64 draw(seed);
  Program program{.seed = seed, .instructions = {}};
  const size_t length = 3 + draw() % 22;
  for (size_t i = 0; i < length; ++i) {
    Instruction next;
    for (uint32_t& number : next.numbers) number = static_cast<uint32_t>(draw());
    program.instructions.push_back(next);
  }
  return program;
}

Outcome run(const Program& program, const CompileOptions& options) {
  Outcome outcome;
  World world = make_world(program.seed);
  auto function = compile(
      [&](const Tensor& a, const Tensor& b, const Tensor& c) {
        const bool eager = options.mode == Mode::eager;
        if (eager) outcome.text.clear();
        Machine machine(world, {a, b, c}, eager ? &outcome.text : nullptr);
        for (const Instruction& instruction : program.instructions) machine.step(instruction);
        return machine.results();
      },
      options);
  manual_seed(program.seed + 1);
  try {
    for (int call = 0; call < 3; ++call) {
      const Tensors arguments = make_arguments(program.seed, call);
      if (call == 1 && program.seed % 3 == 0) world.leaves[1].requires_grad(false).set_grad({});
      if (call == 2 && program.seed % 5 == 0 && world.leaves[0].grad().defined())
        world.leaves[0].set_grad(world.leaves[0].grad().transpose(0, 1));
      const Tensors results = function(arguments[0], arguments[1], arguments[2]);
      const NoGrad no_grad;
      const auto keep = [&](const Tensor& tensor) {
        outcome.values.push_back(tensor.defined() ? tensor.clone() : tensor);
      };
      for (const Tensor& tensor : results) keep(tensor);
      for (const Tensor& tensor : arguments) keep(tensor);
      for (const Tensor& tensor : world.state) keep(tensor);
      for (const Tensor& tensor : world.leaves) keep(tensor), keep(tensor.grad());
    }
  } catch (const Error& error) {
    outcome.error_class = error.what();
    outcome.error_class =
        outcome.error_class.substr(0, outcome.error_class.find(':', outcome.error_class.find("::") + 2));
    outcome.error = error.message();
  }
  return outcome;
}

std::string difference(const Outcome& eager, const Outcome& graph) {
  if (graph.error_class == "tandem::TraceError") return {};
  // A node saves all that its regions read.
  const bool has_regions = std::any_of(eager.text.begin(), eager.text.end(), [](const std::string& line) {
    return line.starts_with("cond(") || line.starts_with("scan ");
  });
  if (graph.error_class == "tandem::InPlaceError" && has_regions) return {};
  if (graph.error_class != eager.error_class)
    return str("eager: ", eager.error.empty() ? "no error" : eager.error,
               "; graph: ", graph.error.empty() ? "no error" : graph.error);
  if (!eager.error.empty()) return {};
  if (eager.values.size() != graph.values.size()) return "another number of values";
  for (size_t i = 0; i < eager.values.size(); ++i) {
    const Tensor &a = eager.values[i], &b = graph.values[i];
    if (a.defined() != b.defined()) return str("value ", i, " is defined in one mode");
    if (!a.defined()) continue;
    if (a.shape() != b.shape() || a.dtype() != b.dtype())
      return str("value ", i, ": ", a.dtype(), a.shape(), " eagerly, ", b.dtype(), b.shape());
    const std::vector<double> x = a.detach().to_vector<double>(), y = b.detach().to_vector<double>();
    for (size_t k = 0; k < x.size(); ++k) {
      const bool same = x[k] == y[k] || (std::isnan(x[k]) && std::isnan(y[k]));
      // Sums of float64 have no order (docs/design.md), and much comes from them.
      const bool near = std::abs(x[k] - y[k]) <= 1e-5 * std::max(1.0, std::abs(x[k]));
      if (!same && !near)
        return str("value ", i, " ", a.dtype(), a.shape(), ", element ", k, ": ", x[k], " eagerly, ", y[k]);
    }
  }
  return {};
}

Program minimised(Program program, const CompileOptions& options) {
  const auto differs = [&](const Program& candidate) {
    return !difference(run(candidate, {.mode = Mode::eager}), run(candidate, options)).empty();
  };
  for (size_t i = program.instructions.size(); i-- > 0;) {
    Program shorter = program;
    shorter.instructions.erase(shorter.instructions.begin() + static_cast<std::ptrdiff_t>(i));
    if (differs(shorter)) program = std::move(shorter);
  }
  return program;
}

}  // namespace tandem::fuzz
