// Running a program, and comparing what runs left.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <thread>

#include "fuzz/program.h"

namespace tandem::fuzz {

using detail::str;

int64_t extent_of(const Program& program, int call) {
  return call < 1 || program.extents.empty() ? kChanging
                                             : program.extents[static_cast<size_t>(call - 1) % program.extents.size()];
}

namespace {

int64_t changed(int64_t number, int64_t extent) { return number % kChanging ? number : number / kChanging * extent; }

Attributes changed(const Attributes& given, int64_t extent) {
  if (extent == kChanging) return given;
  Attributes attributes;
  for (Attribute attribute : given) {
    if (auto* shape = std::get_if<Shape>(&attribute.value))
      for (int64_t& each : *shape) each = changed(each, extent);
    else if (auto* number = std::get_if<int64_t>(&attribute.value)) *number = changed(*number, extent);
    attributes.set(attribute);
  }
  return attributes;
}

}  // namespace

Shape shape_of(const Program& program, size_t input, int call) {
  Shape shape = program.inputs[input].shape;
  if (program.inputs[input].role == Input::Role::argument)
    for (int64_t& each : shape) each = changed(each, extent_of(program, call));
  return shape;
}

std::vector<double> values_of(const Program& program, size_t input, int call) {
  const Input& made = program.inputs[input];
  std::vector<double> values(static_cast<size_t>(shape_of(program, input, call).numel()));
  std::mt19937_64 draw(program.seed * 1009 + input * 31 + static_cast<uint64_t>(call));
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t number = static_cast<int64_t>(draw() % 257) - 128;  // over 64: eight bits, which bfloat16 holds
    if (!made.values.empty()) values[i] = made.values[i % made.values.size()];
    else if (is_floating(made.dtype)) values[i] = static_cast<double>(number) / 64;
    else if (made.dtype == bool_ || made.dtype == uint8) values[i] = static_cast<double>((number + 128) % 2);
    else values[i] = static_cast<double>(number % 4);
  }
  return values;
}

namespace {

Tensor make(const Program& program, size_t input, int call) {
  const Input& made = program.inputs[input];
  const std::vector<double> values = values_of(program, input, call);
  return from_host(values.data(), float64, shape_of(program, input, call), {}, Where::current()).to(made.dtype).clone();
}

std::unique_ptr<nn::optim::Optimizer> make_optimiser(const std::string& name, const Tensors& leaves) {
  if (leaves.empty()) return nullptr;
  if (name == "Sgd") return std::make_unique<nn::optim::Sgd>(leaves, nn::optim::SgdOptions{.lr = 0.1, .momentum = 0.9});
  if (name == "Adam") return std::make_unique<nn::optim::Adam>(leaves, nn::optim::AdamOptions{.lr = 0.1});
  if (name == "AdamW") return std::make_unique<nn::optim::AdamW>(leaves, nn::optim::AdamWOptions{.lr = 0.1});
  if (name == "RmsProp") return std::make_unique<nn::optim::RmsProp>(leaves, nn::optim::RmsPropOptions{.lr = 0.1});
  if (name == "Adagrad") return std::make_unique<nn::optim::Adagrad>(leaves, nn::optim::AdagradOptions{.lr = 0.1});
  if (name == "Lion") return std::make_unique<nn::optim::Lion>(leaves, nn::optim::LionOptions{.lr = 0.1});
  return nullptr;
}

Tensor drawn(const std::string& function, const Tensor& like, DType wide) {
  if (function == "rand") return rand(like.shape()).to(wide);
  if (function == "randn") return randn(like.shape()).to(wide);
  if (function == "randint") return randint(-2, 3, like.shape());
  if (function == "bernoulli") return bernoulli(0.5, like.shape());
  return dropout(like, 0.5);
}

}  // namespace

World::World(const Program& program) {
  manual_seed(program.seed);
  Tensors leaves;
  for (size_t i = 0; i < program.inputs.size(); ++i) {
    inputs.push_back(program.inputs[i].role == Input::Role::argument ? Tensor() : make(program, i, 0));
    if (program.inputs[i].role == Input::Role::leaf) leaves.push_back(inputs[i].requires_grad(true));
  }
  optimizer = make_optimiser(program.optimiser, leaves);
  Machine machine(program, inputs, nullptr);
  for (const Statement& statement : program.outside) machine.step(statement);
  inputs.clear();
  for (int i = 0; i < count_of(program); ++i) inputs.push_back(machine[i]);
}

Tensors arguments_of(const Program& program, int call) {
  Tensors arguments;
  for (size_t i = 0; i < program.inputs.size(); ++i)
    if (program.inputs[i].role == Input::Role::argument) {
      arguments.push_back(make(program, i, call + 1));
      if (program.inputs[i].trained) arguments.back().requires_grad(true);
    }
  if (program.twice && arguments.size() > 1) arguments[1] = arguments[0];
  return arguments;
}

double constant_of(const Statement& statement) {
  constexpr double kNumbers[] = {0, -0.0, 1, -1, 0.5, 2};
  return kNumbers[static_cast<size_t>(statement.choice / 2) % std::size(kNumbers)];
}

int count_of(const Program& program) {
  int count = static_cast<int>(program.inputs.size());
  for (const auto* statements : {&program.outside, &program.body})
    for (const Statement& statement : *statements)
      for (const int result : statement.results) count = std::max(count, result + 1);
  return count;
}

bool has_regions(const Program& program) {
  return std::any_of(program.body.begin(), program.body.end(), [](const Statement& statement) {
    return statement.action == Action::branch || statement.action == Action::scan || statement.action == Action::loop;
  });
}

bool has_one_order(const Program& program) {
  return std::all_of(program.body.begin(), program.body.end(), [](const Statement& statement) {
    if (statement.action == Action::op) {
      const Op& op = find_op(statement.name);
      return op.kind == OpKind::pointwise || op.kind == OpKind::view || op.kind == OpKind::create ||
             op.kind == OpKind::random;
    }
    return statement.action == Action::draw || statement.action == Action::detach ||
           statement.action == Action::assign || statement.action == Action::add || statement.action == Action::scale ||
           statement.action == Action::number || statement.action == Action::constant;
  });
}

Program in_float64(Program program) {
  program.wide = float64;
  for (Input& input : program.inputs)
    if (is_floating(input.dtype)) input.dtype = float64;
  for (auto* statements : {&program.outside, &program.body})
    for (Statement& statement : *statements) {
      Attributes attributes;
      for (const Attribute& attribute : statement.attributes) {
        const auto* dtype = std::get_if<DType>(&attribute.value);
        attributes.set(dtype && is_floating(*dtype) ? Attribute(attribute.name, float64) : attribute);
      }
      statement.attributes = attributes;
    }
  return program;
}

Machine::Machine(const Program& program, Tensors inputs, nn::optim::Optimizer* optimizer)
    : program_(program), values_(std::move(inputs)), optimizer_(optimizer) {
  values_.resize(static_cast<size_t>(count_of(program)));
}

void Machine::step(const Statement& statement) {
  std::optional<Autocast> casts;
  if (program_.casts) casts.emplace(bfloat16);
  const Tensors results = results_of(statement);
  for (size_t i = 0; i < statement.results.size(); ++i)
    set(statement.results[i], i < results.size() ? results[i] : Tensor());
}
void Machine::set(int tensor, const Tensor& value) {
  if (static_cast<size_t>(tensor) >= values_.size()) values_.resize(static_cast<size_t>(tensor) + 1);
  values_[static_cast<size_t>(tensor)] = value;
}

// The same as printed() writes.
Tensors Machine::results_of(const Statement& statement) {
  Tensors x;
  for (const int operand : statement.operands) x.push_back((*this)[operand]);
  const DType wide = program_.wide;
  const auto within = [&](const Tensor& t) {
    return statement.name.empty() ? t : find_op(statement.name)(Tensors{t}, {})[0];
  };
  switch (statement.action) {
    case Action::op: return find_op(statement.name)(x, changed(statement.attributes, extent));
    case Action::draw: return {drawn(statement.name, x[0], wide)};
    case Action::detach: return {x[0].detach()};
    case Action::constant: {
      const Op& op = find_op(statement.name);
      const double value = constant_of(statement);
      return {statement.choice % 2 ? op(value, x[0]) : op(x[0], value)};
    }
    case Action::number: {
      const double factor = statement.choice ? static_cast<double>(x[0].numel()) / 8 : number;
      return {x[0] * factor + factor};
    }
    case Action::assign:
    case Action::add:
    case Action::scale: {
      const NoGrad no_grad;
      if (statement.action == Action::assign) x[0].assign(x[1]);
      else if (statement.action == Action::add) x[0] += x[1];
      else x[0] *= 0.5;
      return {};
    }
    case Action::backward: sum(x[0].to(wide) * 0.5).backward({.retain_graph = true}); return {};
    case Action::gradient: {
      const Tensor found =
          grad_of(sum(x[0].to(wide) * 0.5), {x[1]},
                  {.retain_graph = true, .create_graph = statement.choice == 1, .allow_unused = true})[0];
      return {found.defined() ? found : zeros_like(x[1])};
    }
    case Action::read_gradient: return {x[0].grad().defined() ? x[0].grad() * 2 : zeros_like(x[0])};
    case Action::scale_gradient: {
      const NoGrad no_grad;
      Tensor gradient = x[0].grad();
      if (gradient.defined()) gradient *= 0.5;
      return {};
    }
    case Action::clear_gradient: x[0].set_grad({}); return {};
    case Action::optimise: {
      bool any = false;
      for (const Tensor& leaf : optimizer_ ? optimizer_->parameters() : Tensors()) any = any || leaf.grad().defined();
      if (any) optimizer_->step();
      return {};
    }
    case Action::branch: {
      const bool writes = x.size() > 3;
      return {cond(
          sum(x[0].to(wide)).detach() > 0,
          [&] {
            if (writes) {
              const NoGrad no_grad;
              x[3].assign(x[3] * 0.5);
            }
            return within(x[1] * x[2] + 1);
          },
          [&] { return within(sin(x[1]) - x[2]); })};  // of both, so that both branches require gradients or none does
    }
    case Action::loop: {
      const Tensor at = x[0].detach(), most = abs(sum(x[1].detach().to(wide))) % 4;
      const auto [n, last] = while_loop([&](const Tensor& turn, const Tensor&) { return turn < most; },
                                        [&](const Tensor& turn, const Tensor& now) {
                                          return std::tuple{turn + 1, within(now * 0.5 + at)};
                                        },
                                        zeros({}), at);
      return {last.clone(), n};  // without a turn it is `at` itself, or a copy in a graph
    }
    case Action::scan: {
      const auto [last, all] = scan(
          [&](const Tensor& h, const Tensor& each) {
            const Tensor next = within(tanh(h * 0.5 + each + (x.size() > 1 ? x[1] : each)));
            return std::pair{next, next * each};
          },
          zeros_like(x[0].select(0, 0)), x[0],
          {.reverse = statement.choice % 2 == 1, .checkpoint = statement.choice / 2});
      return {last, all};
    }
  }
  return {};
}

namespace {

/// A program in the course of a run.
struct Running {
  explicit Running(const Program& program) : program(program), world(program) {}
  const Program& program;
  World world;
  double number = 0.5;
  int64_t extent = kChanging;

  Tensors call(std::span<const Tensor> arguments) {
    Tensors inputs = world.inputs;
    size_t next = 0;
    for (size_t i = 0; i < program.inputs.size(); ++i)
      if (program.inputs[i].role == Input::Role::argument) inputs[i] = arguments[next++];
    Machine machine(program, std::move(inputs), world.optimizer.get());
    machine.number = number;
    machine.extent = extent;
    for (const Statement& statement : program.body) machine.step(statement);
    Tensors results;
    for (const int number : program.results) results.push_back(machine[number]);
    return results;
  }
  size_t arguments() const {
    return static_cast<size_t>(std::count_if(program.inputs.begin(), program.inputs.end(),
                                             [](const Input& input) { return input.role == Input::Role::argument; }));
  }
  /// What somebody else changes outside, before some calls.
  void change(int call) {
    number = 0.5 + call;
    Tensors leaves;
    for (size_t i = 0; i < program.inputs.size(); ++i)
      if (program.inputs[i].role == Input::Role::leaf) leaves.push_back(world.inputs[i]);
    if (call == 1 && program.seed % 3 == 0 && leaves.size() > 1) leaves[1].requires_grad(false).set_grad({});
    if (call == 2 && program.seed % 5 == 0 && !leaves.empty() && leaves[0].rank() == 2 && leaves[0].grad().defined())
      leaves[0].set_grad(leaves[0].grad().transpose(0, 1).clone().transpose(0, 1));
  }
  /// Adds what is outside.
  void keep(Tensors& values) const {
    for (const Tensor& tensor : world.inputs)
      if (tensor.defined()) {
        values.push_back(tensor.detach().clone());
        if (tensor.is_leaf()) values.push_back(tensor.grad().defined() ? tensor.grad().detach().clone() : Tensor());
      }
    if (!world.optimizer) return;
    for (const nn::NamedTensor& named : world.optimizer->state()) values.push_back(named.tensor.clone());
  }
};

template <class F, class Arguments>
void call_from_threads(F& function, const Arguments& arguments, int calls, const Setting& setting) {
  if (setting.options.mode == Mode::eager) {
    for (int i = 0; i < setting.threads * calls; ++i) function(arguments());
    return;
  }
  std::vector<std::thread> threads;
  std::vector<std::exception_ptr> errors(static_cast<size_t>(setting.threads));
  for (std::exception_ptr& error : errors)
    threads.emplace_back([&function, &arguments, &error, calls] {
      try {
        for (int i = 0; i < calls; ++i) function(arguments());
      } catch (const Error&) { error = std::current_exception(); }
    });
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

bool same_bits(const Tensor& a, const Tensor& b) {
  const std::vector<double> x = a.to_vector<double>(), y = b.to_vector<double>();
  return std::equal(x.begin(), x.end(), y.begin(), y.end(),
                    [](double p, double q) { return p == q || (std::isnan(p) && std::isnan(q)); });
}

}  // namespace

/// backward() of the sum of what requires a gradient, as far as the program itself calls none.
bool goes_back_outside(const Program& program, const Setting& setting) {
  return setting.backward_outside && std::none_of(program.body.begin(), program.body.end(), [](const Statement& each) {
           return each.action == Action::backward || each.action == Action::gradient;
         });
}
void go_back(const Tensors& results) {
  Tensor total;
  for (const Tensor& result : results) {
    if (!result.requires_grad()) continue;
    const Tensor sum = (result.to(float64) * 0.5).sum();
    total = total.defined() ? total + sum : sum;
  }
  if (total.defined()) total.backward();
}

Outcome run(std::span<const Program> programs, const Setting& setting) {
  Outcome outcome;
  std::vector<std::unique_ptr<Running>> all;
  try {  // views outside that a smaller program no longer allows
    for (const Program& program : programs) all.push_back(std::make_unique<Running>(program));
  } catch (const Error& error) {
    outcome.error_class = error.code();
    outcome.error = error.what();
    return outcome;
  }
  auto function = compile(
      [&](const Tensors& arguments) {
        std::vector<Tensors> results;
        size_t next = 0;
        for (const auto& each : all) {
          results.push_back(each->call(std::span(arguments).subspan(next, each->arguments())));
          next += each->arguments();
        }
        return results;
      },
      setting.options);
  const auto arguments_at = [&](int call) {
    Tensors arguments;
    for (const auto& each : all)
      for (const Tensor& argument : arguments_of(each->program, call)) arguments.push_back(argument);
    return arguments;
  };
  manual_seed(programs[0].seed + 1);
  try {
    if (setting.threads > 1) {
      call_from_threads(
          function, [&] { return arguments_at(0); }, programs[0].calls, setting);
      for (const auto& each : all) each->keep(outcome.values);
      return outcome;
    }
    Tensors held, expected;
    for (int call = 0; call < programs[0].calls; ++call) {
      if (all.size() == 1) all[0]->change(call);
      for (const auto& each : all) each->extent = extent_of(each->program, call + 1);
      const Tensors arguments = arguments_at(call);
      const std::vector<Tensors> results = function(arguments);
      for (size_t i = 0; i < all.size(); ++i)
        if (goes_back_outside(all[i]->program, setting)) go_back(results[i]);
      const NoGrad no_grad;
      size_t next = 0;
      for (size_t i = 0; i < all.size(); ++i) {
        for (const Tensor& result : results[i]) {
          outcome.values.push_back(result.detach().clone());
          if (setting.options.mode != Mode::eager) held.push_back(result), expected.push_back(outcome.values.back());
        }
        for (size_t k = 0; k < all[i]->arguments(); ++k) {
          const Tensor& argument = arguments[next++];
          outcome.values.push_back(argument.detach().clone());
          outcome.values.push_back(argument.grad().defined() ? argument.grad().detach().clone() : Tensor());
        }
        all[i]->keep(outcome.values);
        outcome.owners.resize(outcome.values.size(), i);
      }
    }
    outcome.resizes = function.stats().resizes;
    for (size_t i = 0; i < held.size(); ++i)
      if (!same_bits(held[i].detach(), expected[i]))
        outcome.stale = str("result ", i, " of all calls changed after its call");
  } catch (const Error& error) {
    outcome.error_class = error.code();
    outcome.error = error.what();
  }
  return outcome;
}
Outcome run(const Program& program, const Setting& setting) { return run(std::span(&program, 1), setting); }

namespace {

/// Whether the numbers must be eager's to the bit under this setting.
bool bits_promised(const Program& program, const Setting& setting) {
  return (has_one_order(program) && !setting.backward_outside) ||
         (setting.options.mode == Mode::replay && !has_regions(program) && setting.threads == 1 &&
          !setting.backward_outside);
}

std::string difference(const Tensor& a, const Tensor& b, bool bits) {
  if (a.defined() != b.defined()) return "is defined in one mode";
  if (!a.defined()) return {};
  if (a.shape() != b.shape() || a.dtype() != b.dtype())
    return str("is ", a.dtype(), a.shape(), " eagerly, else ", b.dtype(), b.shape());
  const std::vector<double> x = a.to_vector<double>(), y = b.to_vector<double>();
  for (size_t k = 0; k < x.size(); ++k) {
    const bool same =
        x[k] == y[k] ? !bits || std::signbit(x[k]) == std::signbit(y[k]) : std::isnan(x[k]) && std::isnan(y[k]);
    const bool near = !bits && is_floating(a.dtype()) && std::abs(x[k] - y[k]) <= 1e-5 * std::max(1.0, std::abs(x[k]));
    if (!same && !near) return str(a.dtype(), a.shape(), ", element ", k, ": ", x[k], " eagerly, else ", y[k]);
  }
  return {};
}

std::string difference(const Program& program, const Outcome& eager, const Outcome& graph, bool bits) {
  constexpr const char* kTraceError = "E020";
  constexpr const char *kInPlaceError = "E011", *kAutogradError = "E010";
  const auto contains = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
  if (graph.error_class == kTraceError) return {};
  // What graph mode refuses, or an error of the gradient's trace, is raised at backward().
  if (graph.error_class == kAutogradError && contains(graph.error, "the function compiled at")) return {};
  // A node saves all that its regions read, in a version of its own where they wrote it (docs/contract.md).
  if ((graph.error_class == kInPlaceError || eager.error_class == kInPlaceError) && has_regions(program)) return {};
  if (graph.error_class != eager.error_class)
    return str("eager: ", eager.error.empty() ? "no error" : eager.error,
               "; graph: ", graph.error.empty() ? "no error" : graph.error);
  if (!eager.error.empty()) return {};
  if (!graph.stale.empty()) return graph.stale;
  if (eager.values.size() != graph.values.size()) return "another number of values";
  for (size_t i = 0; i < eager.values.size(); ++i)
    if (const std::string found = difference(eager.values[i], graph.values[i], bits); !found.empty())
      return str("value ", i, " ", found);
  return {};
}

/// The greatest difference of elements, over their size where that is more than 1.
double distance(const Tensor& a, const Tensor& b) {
  const std::vector<double> x = a.to_vector<double>(), y = b.to_vector<double>();
  double most = x.size() == y.size() ? 0 : INFINITY;
  for (size_t k = 0; k < std::min(x.size(), y.size()); ++k) {
    if (x[k] == y[k] || (std::isnan(x[k]) && std::isnan(y[k]))) continue;
    const double off = std::abs(x[k] - y[k]) / std::max(1.0, std::abs(x[k]));
    most = std::max(most, std::isfinite(off) ? off : INFINITY);
  }
  return most;
}

/// A program that returns all that it makes.
Program with_all_results(Program program) {
  for (const Statement& statement : program.body)
    program.results.insert(program.results.end(), statement.results.begin(), statement.results.end());
  return program;
}

}  // namespace

std::string difference(const Program& program, const Setting& setting) {
  const bool has_numbers = std::any_of(program.body.begin(), program.body.end(), [](const Statement& statement) {
    return statement.action == Action::number && statement.choice == 0;
  });
  if (has_numbers && setting.options.verify == Verify::never) return {};  // then they are frozen, as the docs say
  const Setting eagerly{
      .options = {.mode = Mode::eager}, .backward_outside = setting.backward_outside, .threads = setting.threads};
  const bool bits = bits_promised(program, setting);
  const Outcome eager = run(program, eagerly), graph = run(program, setting);
  std::string found = difference(program, eager, graph, bits);
  if (found.empty()) return {};
  // A gradient on the way that reaches no leaf isn't computed in a graph, so a matrix that is singular there is no error.
  if (setting.backward_outside && eager.error_class == "E008" && graph.error.empty() &&
      run(program, {.options = eagerly.options, .threads = setting.threads}).error.empty())
    return {};
  if (!eager.error.empty() && graph.error.empty()) {
    const Program all = with_all_results(program);
    return difference(all, run(all, eagerly), run(all, setting), bits);
  }
  if (bits || !graph.error.empty() || !graph.stale.empty()) return found;
  const Outcome wide = run(in_float64(program), eagerly);
  if (!wide.error.empty() || wide.values.size() != eager.values.size()) return found;
  for (size_t i = 0; i < eager.values.size(); ++i) {
    if (!eager.values[i].defined() || !wide.values[i].defined() || !graph.values[i].defined()) continue;
    const double off = distance(eager.values[i], graph.values[i]);
    if (off > 1e-5 && off > 8 * distance(eager.values[i], wide.values[i])) return found;
  }
  return {};
}

std::vector<size_t> differing(std::span<const Program> programs, const Outcome& eager, const Outcome& graph,
                              const Setting& setting) {
  std::vector<size_t> found;
  if (eager.error_class != graph.error_class || eager.values.size() != graph.values.size() || !graph.stale.empty()) {
    for (size_t i = 0; i < programs.size(); ++i) found.push_back(i);
    return found;
  }
  for (size_t i = 0; i < eager.values.size(); ++i) {
    const size_t owner = eager.owners[i];
    if (!found.empty() && found.back() == owner) continue;
    if (!difference(eager.values[i], graph.values[i], bits_promised(programs[owner], setting)).empty())
      found.push_back(owner);
  }
  return found;
}

}  // namespace tandem::fuzz
