// Making random programs. Ops come from the op table: pointwise ones on whatever broadcasts, ops of one operand with attributes
// drawn by their schema, all others as tests/samples calls them. So a new op is part of programs when it has samples.
#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <random>
#include <set>

#include "fuzz/program.h"
#include "samples/samples.h"

namespace tandem::fuzz {

namespace {

/// A call of an op that works.
struct Recipe {
  std::vector<Input> operands;
  Attributes attributes;
};

constexpr int64_t kMostElements = 256;

/// Calls of the op in its samples.
std::vector<Recipe> make_recipes(const Op& op, const std::vector<samples::Sample>& all) {
  constexpr size_t kMost = 12;
  std::vector<Recipe> recipes;
  for (const samples::Sample& sample : all) {
    if (sample.op != op.name || sample.large || sample.dtypes.empty() || recipes.size() >= kMost) continue;
    const DType dtype = std::count(sample.dtypes.begin(), sample.dtypes.end(), float32) ? float32 : sample.dtypes[0];
    Tensors operands;
    std::vector<Input> inputs;
    for (const samples::Operand& operand : sample.operands) {
      Input input{.role = Input::Role::state, .dtype = operand.dtype.value_or(dtype), .shape = operand.shape};
      if (operand.shape.numel() > kMostElements) break;
      for (int64_t i = 0; i < operand.shape.numel(); ++i) input.values.push_back(operand.value(i));
      const Tensor numbers = from_host(input.values.data(), float64, input.shape, {}, Where::current());
      operands.push_back(numbers.to(input.dtype));
      inputs.push_back(std::move(input));
    }
    if (operands.size() < sample.operands.size()) continue;
    try {
      const Graph graph = graph::trace(operands, sample.call, Where::current());
      for (const Node& node : graph.nodes) {
        if (node.op != &op || recipes.size() >= kMost) continue;
        Recipe recipe{.operands = {}, .attributes = node.attributes};
        bool fits = true;
        for (const int value : node.inputs) {
          const ValueType& type = graph.type(value);
          const int leaf = graph.leaf_of(value);
          Input input{.role = Input::Role::state, .dtype = type.dtype, .shape = type.shape};
          if (leaf >= 0 && graph.leaf(leaf).kind == LeafKind::argument) {
            input = inputs[static_cast<size_t>(graph.leaf(leaf).argument)];
          } else if (leaf >= 0 && graph.leaf(leaf).kind == LeafKind::scalar) {
            input.values = {graph.leaf(leaf).number};
          } else if (leaf >= 0 && graph.leaf(leaf).tensor.defined() && type.shape.numel() <= kMostElements) {
            input.values = graph.leaf(leaf).tensor.to_vector<double>();
          }
          fits = fits && type.shape.numel() <= kMostElements;
          recipe.operands.push_back(std::move(input));
        }
        if (fits) recipes.push_back(std::move(recipe));
      }
    } catch (const Error&) {}  // a call that no trace can follow
  }
  return recipes;
}

struct Known {
  const Op* op;
  std::vector<Recipe> recipes;
};

/// Ops by what they are: some kinds have many members, and none should drown the others.
const std::map<OpKind, std::vector<Known>>& ops_by_kind() {
  static const std::map<OpKind, std::vector<Known>> all = [] {
    const std::vector<samples::Sample> samples = samples::all_samples();
    std::map<OpKind, std::vector<Known>> ops;
    for (const Op* op : op_table().all()) {
      const bool runs = kernel_for(*op, cpu()) || op->kind == OpKind::view;
      // What checks a range does so in generated kernels alone: decompositions write it where the eager kernel checks.
      if (!op->user && runs && !op->checks_range && op->kind != OpKind::control)
        ops[op->kind].push_back({op, make_recipes(*op, samples)});
    }
    return ops;
  }();
  return all;
}

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
bool floats(const Tensor& x) { return is_floating(x.dtype()); }
bool taped(const Tensor& x) { return x.requires_grad() && floats(x); }
bool writable(const Tensor& x) { return !x.requires_grad() && !may_overlap(x.shape(), x.strides()); }

/// Writes a program by running it eagerly, line by line.
class Author {
 public:
  Author(uint64_t seed, uint64_t attempt) : draw_(seed + (attempt << 48)) {
    program_.seed = seed;
    add_inputs();
  }

  Program write() {
    World world(program_);
    Tensors values = world.inputs;
    const Tensors arguments = arguments_of(program_, 0);
    for (size_t i = 0, next = 0; i < program_.inputs.size(); ++i)
      if (program_.inputs[i].role == Input::Role::argument) values[i] = arguments[next++];
    for (size_t i = 0; i < values.size(); ++i) pool_.push_back(static_cast<int>(i));
    next_ = static_cast<int>(values.size());
    manual_seed(program_.seed + 1);
    world_ = &world;
    machine_.emplace(program_, values, world.optimizer.get());
    const size_t length = 3 + below(18);
    for (int tries = 0; program_.body.size() < length && tries < 200; ++tries) {
      if (program_.inputs.size() > 24) break;
      if (!propose() && failed_ && below(150) == 0) break;  // with the line that raises an error
      if (failed_) discard();
    }
    if (!failed_ && below(2)) {
      if (add({.action = Action::backward, .operands = {find(taped)}}) && below(2)) add({.action = Action::optimise});
      discard();
    }
    // A function whose results have a gradient keeps one program a size.
    const bool detached = !program_.extents.empty() && below(4) && !failed_;
    for (int i = 0; i < 4; ++i) {
      int result = any();
      if (detached && add({.action = Action::detach, .operands = {result}})) result = pool_.back();
      program_.results.push_back(result);
    }
    if (below(4) == 0)
      program_.results.push_back(static_cast<int>(below(program_.inputs.size() - late_.size())));  // an input itself
    if (below(4) == 0) program_.results.push_back(program_.results[0]);
    renumber();
    return std::move(program_);
  }

 private:
  uint64_t below(uint64_t n) { return draw_() % n; }
  template <class T> const T& one_of(const std::vector<T>& all) { return all[below(all.size())]; }

  DType any_float() {
    constexpr DType types[] = {float32, float32, float32, float32, float64, bfloat16, float16};
    return types[below(std::size(types))];
  }
  DType any_dtype() {
    constexpr DType types[] = {float32, float64, int32, int64, bool_, bfloat16, float16, uint8, int8, int16};
    return types[below(std::size(types))];
  }

  void add_inputs() {
    using Role = Input::Role;
    const auto extent = [&] { return static_cast<int64_t>(1 + below(5)); };
    int64_t m = extent();
    const int64_t n = extent(), k = extent();
    const bool changes = below(4) == 0;
    if (changes) {  // of arguments alone; what is outside broadcasts
      const std::vector<std::vector<int64_t>> all = {
          {7, 9, 11, 8, 12, 9}, {7, 3, 4, 5, 7, 3}, {7, 1, 2, 3, 5, 1}, {7, 14, 21, 0, 28}, {7, 2, 3, 4, 5, 6, 2}};
      program_.extents = one_of(all);
      program_.calls = static_cast<int>(program_.extents.size());
      m = 1;
    }
    std::vector<Shape> shapes;
    const auto draw_from = [&](int64_t first) {
      shapes = {{first, n}, {n}, {n, k}, {k, first, n}, {n, n}, {first, 1}, {}, {k, first}};
    };
    const auto add = [&](Role role, DType dtype) { program_.inputs.push_back({role, dtype, one_of(shapes)}); };
    draw_from(changes ? kChanging : m);
    program_.inputs.push_back({Role::argument, float32, shapes[0]});
    program_.inputs[0].trained = below(3) == 0;
    program_.twice = below(12) == 0;
    program_.casts = below(12) == 0;
    add(Role::argument, any_float()), add(Role::argument, any_dtype());
    draw_from(m);
    program_.inputs.push_back({Role::state, float32, {m, n}});
    add(Role::state, float32), add(Role::state, any_dtype()), add(Role::state, any_float());
    program_.inputs.push_back({Role::leaf, float32, {n, n}});
    add(Role::leaf, float32), add(Role::leaf, float32);
    const std::vector<std::string> optimisers = {"Sgd", "Adam", "AdamW", "RmsProp", "Adagrad", "Lion"};
    program_.optimiser = one_of(optimisers);
    // Views of state.
    int next = static_cast<int>(program_.inputs.size());
    for (size_t i = 3; i < 7; ++i) {
      const Shape& shape = program_.inputs[i].shape;
      if (shape.empty()) continue;
      const int rank = shape.size();
      Statement view{.operands = {static_cast<int>(i)}, .results = {next}};
      if (below(2) && rank > 1) {
        Shape dims;
        for (int d = rank; d-- > 0;) dims.push_back(d);
        view.name = "permute", view.attributes = {{"dims", dims}};
      } else {
        view.name = "slice";
        view.attributes = {{"dim", 0},
                           {"begin", static_cast<int64_t>(below(static_cast<uint64_t>(shape[0])))},
                           {"end", shape[0]},
                           {"step", 1}};
      }
      program_.outside.push_back(view), ++next;
    }
  }

  const Tensor& tensor(int number) const { return (*machine_)[number]; }
  /// One of the last made in most cases, the very last in some: chains are what is fused, and whose memory is used again.
  int any() {
    if (below(4) == 0) return pool_.back();
    const size_t recent = std::min<size_t>(pool_.size(), 8);
    return below(2) ? one_of(pool_) : pool_[pool_.size() - 1 - below(recent)];
  }
  /// The first from a random one on of which this is true; -1 if there is none.
  template <class Is> int find(Is&& is) {
    const int chosen = any();
    if (is(tensor(chosen))) return chosen;
    const size_t begin = below(pool_.size());
    for (size_t i = 0; i < pool_.size(); ++i)
      if (const int number = pool_[(begin + i) % pool_.size()]; is(tensor(number))) return number;
    return -1;
  }
  int leaf() {
    std::vector<int> leaves;
    for (size_t i = 0; i < program_.inputs.size(); ++i)
      if (program_.inputs[i].role == Input::Role::leaf) leaves.push_back(static_cast<int>(i));
    return one_of(leaves);
  }

  static int most_results(const Statement& statement) {
    switch (statement.action) {
      case Action::op: {
        const int outputs = find_op(statement.name).outputs;
        return outputs == kVariadic ? 1 : outputs;
      }
      case Action::draw:
      case Action::detach:
      case Action::constant:
      case Action::number:
      case Action::gradient:
      case Action::read_gradient:
      case Action::branch: return 1;
      case Action::loop:
      case Action::scan: return 2;
      default: return 0;
    }
  }
  /// Adds a line if it runs, and if numbers stay numbers. Else it is in failed_ where it raised an error.
  bool add(Statement statement) {
    failed_.reset();
    if (std::count(statement.operands.begin(), statement.operands.end(), -1)) return false;
    const int first = next_;
    for (int i = 0; i < most_results(statement); ++i) statement.results.push_back(first + i);
    try {
      machine_->step(statement);
    } catch (const Error&) {
      failed_ = statement;
      return false;
    }
    std::vector<int> kept;
    bool fine = true;
    for (const int number : statement.results) {
      if (!tensor(number).defined()) continue;
      const Tensor& made = tensor(number);
      kept.push_back(number);
      fine = fine && made.numel() <= 1024 && made.rank() <= 5;
      if (!fine || !floats(made) || below(8) == 0) continue;
      for (const double x : made.detach().to_vector<double>()) fine = fine && std::abs(x) < 1e4;
    }
    if (!fine) return false;
    statement.results = kept;
    next_ = first + 4;
    for (const int number : kept) {
      pool_.push_back(number);
      if (statement.action == Action::branch || statement.action == Action::loop || statement.action == Action::scan)
        of_regions_.insert(tensor(number).impl());
    }
    program_.body.push_back(std::move(statement));
    return true;
  }
  void discard() { failed_.reset(); }

  bool propose() {
    static constexpr int kWeights[] = {60, 4, 3, 10, 4, 4, 3, 2, 3, 3, 3, 2, 3};
    uint64_t chosen = below(104);
    int which = 0;
    while (chosen >= static_cast<uint64_t>(kWeights[which])) chosen -= static_cast<uint64_t>(kWeights[which++]);
    switch (which) {
      case 0: return op();
      case 1: {
        const std::vector<std::string> functions = {"rand", "randn", "randint", "bernoulli", "dropout"};
        const std::string& function = one_of(functions);
        return add(
            {.action = Action::draw, .name = function, .operands = {function == "dropout" ? find(floats) : any()}});
      }
      case 2: return add({.action = Action::detach, .operands = {any()}});
      case 3: {
        const int target = find(writable);
        if (target < 0) return false;
        const int value = find([&](const Tensor& x) { return expands_to(x.shape(), tensor(target).shape()); });
        if (below(4) == 0) {  // a tensor is what an op makes of it: its kernel may write where it reads
          const Known& known = one_of(ops_by_kind().at(below(2) ? OpKind::pointwise : OpKind::opaque));
          if (known.op->inputs != 1 || known.recipes.empty()) return false;
          const Attributes attributes = drawn(*known.op, one_of(known.recipes).attributes, tensor(target).rank());
          return add({.name = known.op->name, .operands = {target}, .attributes = attributes}) &&
                 expands_to(tensor(pool_.back()).shape(), tensor(target).shape()) &&
                 add({.action = Action::assign, .operands = {target, pool_.back()}});
        }
        switch (below(3)) {
          case 0: return add({.action = Action::assign, .operands = {target, value}});
          case 1: return add({.action = Action::add, .operands = {target, value}});
          default: return add({.action = Action::scale, .operands = {target}});
        }
      }
      case 4: return add({.action = Action::backward, .operands = {find(taped)}});
      case 5: {
        // Eagerly the results of a scan are computed from one another; in a graph they are those of one node.
        const int by = find([&](const Tensor& x) { return taped(x) && !x.is_leaf() && !of_regions_.count(x.impl()); });
        return add({.action = Action::gradient,
                    .operands = {find(taped), below(2) ? leaf() : by},
                    .choice = static_cast<int64_t>(below(2))});
      }
      case 6:
        return add({.action = below(3)   ? Action::read_gradient
                              : below(2) ? Action::scale_gradient
                                         : Action::clear_gradient,
                    .operands = {leaf()}});
      case 7: return add({.action = Action::optimise});
      case 8: {
        const int x = find(floats);
        const int y =
            find([&](const Tensor& t) { return t.dtype() == tensor(x).dtype() && t.shape() == tensor(x).shape(); });
        Statement branch{.action = Action::branch, .name = op_within(), .operands = {any(), x, y}};
        const int target = find([](const Tensor& t) { return floats(t) && writable(t); });
        if (below(3) == 0 && target >= 0) branch.operands.push_back(target);
        return add(branch);
      }
      case 9: return add({.action = Action::loop, .name = op_within(), .operands = {find(floats), any()}});
      case 10: {
        const int xs =
            find([](const Tensor& t) { return floats(t) && t.rank() > 0 && t.numel() > 0 && t.size(0) <= 8; });
        if (xs < 0) return false;
        const Shape first = tensor(xs).shape();
        const int y = find([&](const Tensor& t) {
          Shape one = first;
          one.erase(0);
          return t.dtype() == tensor(xs).dtype() && expands_to(t.shape(), one);
        });
        Statement scan{
            .action = Action::scan, .name = op_within(), .operands = {xs}, .choice = static_cast<int64_t>(below(6))};
        if (y >= 0 && below(3)) scan.operands.push_back(y);
        return add(scan);
      }
      case 11:
        return add({.action = Action::number, .operands = {find(floats)}, .choice = static_cast<int64_t>(below(2))});
      default:
        return add({.action = Action::op, .name = "cast", .operands = {any()}, .attributes = {{"dtype", any_dtype()}}});
    }
  }

  /// Of one operand, for a branch or a body.
  std::string op_within() {
    if (program_.casts) return {};  // which may widen it: of a loop without a turn nobody finds out eagerly
    const Op& op = *one_of(ops_by_kind().at(OpKind::pointwise)).op;
    return op.inputs == 1 && op.attributes.empty() && op.grad ? op.name : "";
  }

  bool op() {
    static constexpr std::pair<OpKind, int> kKinds[] = {
        {OpKind::pointwise, 40}, {OpKind::view, 16},    {OpKind::reduce, 16}, {OpKind::opaque, 14},
        {OpKind::index, 8},      {OpKind::contract, 8}, {OpKind::create, 2},  {OpKind::random, 1}};
    uint64_t chosen = below(105);
    size_t which = 0;
    while (chosen >= static_cast<uint64_t>(kKinds[which].second))
      chosen -= static_cast<uint64_t>(kKinds[which++].second);
    const auto found = ops_by_kind().find(kKinds[which].first);
    if (found == ops_by_kind().end()) return false;
    const Known& known = one_of(found->second);
    // Results of regions are rows in a graph, and have any layout eagerly: who looks at memory sees that.
    if (std::string_view(known.op->name).starts_with("as_strided") && has_regions(program_)) return false;
    if (known.op->is_pointwise() && known.op->pointwise.expression && below(10)) return pointwise(*known.op, known);
    if (known.op->inputs == 1 && below(3) && by_schema(*known.op, known)) return true;
    return !known.recipes.empty() && by_recipe(*known.op, one_of(known.recipes));
  }

  bool pointwise(const Op& op, const Known& known) {
    if (op.inputs == 2 && op.attributes.empty() && below(6) == 0)
      return add({.action = Action::constant,
                  .name = op.name,
                  .operands = {any()},
                  .choice = static_cast<int64_t>(below(12))});
    Statement call{.name = op.name};
    for (int i = 0; i < op.inputs; ++i) {
      const int operand = find([&](const Tensor& x) {
        if (op.pointwise.selects && i == 0 && x.dtype() != bool_) return false;
        return std::all_of(call.operands.begin(), call.operands.end(),
                           [&](int other) { return broadcasts(tensor(other).shape(), x.shape()); });
      });
      if (operand < 0) return false;
    }
    if (!known.recipes.empty()) call.attributes = drawn(op, one_of(known.recipes).attributes, 1);
    return add(call);
  }

  /// Attributes by their schema: the sample's in half of all cases.
  Attributes drawn(const Op& op, const Attributes& given, int rank) {
    Attributes attributes;
    for (const AttributeSpec& spec : op.attributes) {
      const AttributeValue* value = given.find(spec.name);
      if (value && below(2)) {
        attributes.set(Attribute(spec.name, *value));
        continue;
      }
      if (!value && (spec.otherwise || spec.may_lack)) continue;
      const auto dim = [&] { return static_cast<int64_t>(below(static_cast<uint64_t>(std::max(rank, 1)))); };
      switch (spec.type) {
        case AttributeType::integer: attributes.set(Attribute(spec.name, dim())); break;
        case AttributeType::flag: attributes.set(Attribute(spec.name, below(2) == 1)); break;
        case AttributeType::dtype: attributes.set(Attribute(spec.name, any_dtype())); break;
        case AttributeType::ints: {
          Shape dims;
          for (int d = 0; d < rank; ++d)
            if (below(2)) dims.push_back(d);
          attributes.set(Attribute(spec.name, dims));
          break;
        }
        default:
          if (value) attributes.set(Attribute(spec.name, *value));
      }
    }
    return attributes;
  }

  bool by_schema(const Op& op, const Known& known) {
    for (int tries = 0; tries < 4; ++tries) {
      const int x = any();
      const Attributes given = known.recipes.empty() ? Attributes() : one_of(known.recipes).attributes;
      if (add({.name = op.name, .operands = {x}, .attributes = drawn(op, given, tensor(x).rank())})) return true;
    }
    return false;
  }

  /// The call of a sample, some of its operands being tensors of the program.
  bool by_recipe(const Op& op, const Recipe& recipe) {
    for (const bool own : {false, true}) {
      Statement call{.name = op.name, .attributes = recipe.attributes};
      const size_t inputs = program_.inputs.size();
      for (const Input& wanted : recipe.operands) call.operands.push_back(own ? new_input(wanted) : operand(wanted));
      if (add(call)) return true;
      if (program_.inputs.size() != inputs && failed_) continue;
    }
    return false;
  }
  int operand(const Input& wanted) {
    if (!is_floating(wanted.dtype) || below(3) == 0) return new_input(wanted);
    const int same = find([&](const Tensor& x) { return x.dtype() == wanted.dtype && x.shape() == wanted.shape; });
    if (same >= 0 && below(4)) return same;
    // The elements of another, over and over.
    const int64_t count = wanted.shape.numel();
    int at = find([&](const Tensor& x) { return floats(x) && x.numel() > 0; });
    const auto then = [&](const char* name, Attributes attributes, std::vector<int> operands) {
      if (at >= 0)
        at = add({.name = name, .operands = std::move(operands), .attributes = std::move(attributes)})
                 ? program_.body.back().results[0]
                 : -1;
    };
    if (at >= 0 && tensor(at).dtype() != wanted.dtype) then("cast", {{"dtype", wanted.dtype}}, {at});
    then("contiguous", {}, {at});
    if (at >= 0) then("reshape", {{"shape", Shape{tensor(at).numel()}}}, {at});
    if (at >= 0 && tensor(at).numel() < count)
      then("concat", {{"dim", 0}}, std::vector<int>(static_cast<size_t>((count - 1) / tensor(at).numel() + 1), at));
    then("slice", {{"dim", 0}, {"begin", 0}, {"end", count}, {"step", 1}}, {at});
    then("reshape", {{"shape", wanted.shape}}, {at});
    return at >= 0 ? at : new_input(wanted);
  }
  /// One more tensor of the world. It is numbered from the other end, until all are known.
  int new_input(const Input& wanted) {
    program_.inputs.push_back(wanted);
    const int number = next_++;
    late_.push_back(number);
    std::vector<double> values = values_of(program_, program_.inputs.size() - 1, 0);
    machine_->set(number,
                  from_host(values.data(), float64, wanted.shape, {}, Where::current()).to(wanted.dtype).clone());
    return number;
  }

  /// Inputs come first.
  void renumber() {
    const int early = static_cast<int>(program_.inputs.size() - late_.size());
    std::map<int, int> names;
    for (int i = 0; i < early; ++i) names[i] = i;
    for (size_t i = 0; i < late_.size(); ++i) names[late_[i]] = early + static_cast<int>(i);
    int next = static_cast<int>(program_.inputs.size());
    const auto rename = [&](std::vector<int>& numbers) {
      for (int& number : numbers) {
        const auto [at, is_new] = names.try_emplace(number, next);
        next += is_new;
        number = at->second;
      }
    };
    for (auto* statements : {&program_.outside, &program_.body})
      for (Statement& statement : *statements) rename(statement.operands), rename(statement.results);
    rename(program_.results);
    if (failed_) {
      rename(failed_->operands), rename(failed_->results);
      program_.body.push_back(*failed_);
    }
  }

  std::mt19937_64 draw_;
  Program program_;
  World* world_ = nullptr;
  std::optional<Machine> machine_;
  std::vector<int> pool_, late_;
  std::set<const TensorImpl*> of_regions_;
  int next_ = 0;
  std::optional<Statement> failed_;
};

}  // namespace

Program random_program(uint64_t seed) {
  // Errors that come with the values of a later call end a program early: few of those are enough.
  for (uint64_t attempt = 0;; ++attempt) {
    Program program = Author(seed, attempt).write();
    if (attempt == 3 || seed % 16 == 0 || run(program, {.options = {.mode = Mode::eager}}).error.empty())
      return program;
  }
}

}  // namespace tandem::fuzz
