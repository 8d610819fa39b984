// Comparing traces: numbers that differ are expressed by the extents of the arguments, as the simplest rule that holds in
// all of them.
#include "graph/trace/sizes.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>

#include "graph/ir/loop.h"
#include "graph/run/program.h"
#include "graph/run/runtime.h"

namespace tandem::graph {

namespace {

constexpr size_t kFewest = 3;       ///< traces that a rule rests on: two to find it, one to check it
constexpr size_t kMostSamples = 6;  ///< traces that are kept

using Samples = std::vector<int64_t>;

bool varies(const Samples& samples) {
  return std::any_of(samples.begin(), samples.end(), [&](int64_t each) { return each != samples[0]; });
}

bool same_bits(double a, double b) { return std::bit_cast<uint64_t>(a) == std::bit_cast<uint64_t>(b); }

/// The number as a scalar of this dtype holds it.
double as_held(double number, DType type) {
  return type == DType::float64 ? number : double{static_cast<float>(number)};
}

std::optional<int64_t> times(int64_t a, int64_t b) {
  int64_t result;
  if (__builtin_mul_overflow(a, b, &result)) return std::nullopt;
  return result;
}

/// Whether constants hold the same bytes.
bool same_constant(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined() || a.device() != cpu() || !a.is_contiguous() || !b.is_contiguous()) return false;
  return std::memcmp(a.impl()->data, b.impl()->data, static_cast<size_t>(a.numel() * size_of(a.dtype()))) == 0;
}

/// Why leaves of the second trace can't be those of the first; empty if they can.
std::string difference_in_leaves(const Graph& a, const Graph& b) {
  for (size_t i = 0; i < a.leaves.size(); ++i) {
    const Leaf &x = a.leaves[i], &y = b.leaves[i];
    if (x.kind == LeafKind::constant && (!(a.type(x.value) == b.type(y.value)) || !same_constant(x.tensor, y.tensor)))
      return detail::str("a tensor made from C++ values, ", a.type(x.value), " and ", b.type(y.value),
                         ", differs with the size, at ", to_string(y.where));
  }
  return {};
}

/// Whether a graph with these numbers is for such arguments, and gradients of theirs.
bool fits(const Graph& graph, const std::vector<int64_t>& numbers, const Tensors& arguments) {
  auto next = numbers.begin();
  for (const Value& value : graph.values) {
    const auto shape = next, strides = shape + value.type.shape.size();
    next = strides + value.type.strides.size();
    if (value.leaf < 0 || graph.leaf(value.leaf).argument < 0) continue;
    const Leaf& leaf = graph.leaf(value.leaf);
    const Tensor& argument = arguments[static_cast<size_t>(leaf.argument)];
    const TensorImpl* now = leaf.kind == LeafKind::gradient ? argument.impl()->grad.impl() : argument.impl();
    if (!now || !std::equal(now->shape.begin(), now->shape.end(), shape, strides) ||
        !std::equal(now->strides.begin(), now->strides.end(), strides, next))
      return false;
  }
  return true;
}

}  // namespace

Sizes::Sizes(Graph traced) { samples_.push_back({std::move(traced)}); }

std::string Sizes::add(Graph& traced) {
  const Graph& first = samples_[0].traced;
  scalar_varies_.resize(first.leaves.size());
  std::string difference = difference_in_structure(first, traced);
  if (difference.empty()) difference = difference_in_leaves(first, traced);
  if (!difference.empty()) return "the function does something else in another size: " + difference;
  std::vector<bool> varying = scalar_varies_;
  for (size_t i = 0; i < first.leaves.size(); ++i)
    if (traced.leaves[i].kind == LeafKind::scalar)
      varying[i] = varying[i] || first.leaves[i].run_time || traced.leaves[i].run_time ||
                   !same_bits(first.leaves[i].number, traced.leaves[i].number);
  if (varying != scalar_varies_) {
    scalar_varies_ = varying;
    for (Sample& sample : samples_) {
      mark_scalars(sample.traced);
      sample.optimised.reset();
    }
    program_ = nullptr;
  }
  mark_scalars(traced);
  if (samples_.size() == kMostSamples) samples_.erase(samples_.begin() + 1);
  samples_.push_back({traced});
  return {};
}

void Sizes::mark_scalars(Graph& traced) const {
  for (size_t i = 0; i < scalar_varies_.size(); ++i)
    if (scalar_varies_[i]) traced.leaves[i].run_time = true;
}

std::string Sizes::difference_in_samples() const {
  const Graph& first = *samples_[0].optimised;
  for (const Sample& sample : samples_) {
    if (const std::string difference = difference_in_structure(first, *sample.optimised); !difference.empty())
      return "the passes give another graph in another size: " + difference;
  }
  for (const Node& node : first.nodes)
    if (const Device device = first.type(node.outputs[0]).device; node.fused && !runtime_for(device).resizes())
      return detail::str("kernels on ", device, " are made for one size");
  return {};
}

std::string Sizes::lower(Graph& optimised, const Optimise& optimise) {
  ++lowered_;
  if (!several()) return {};
  samples_.back().optimised = optimised;
  for (Sample& sample : samples_)
    if (!sample.optimised) sample.optimised = optimise(sample.traced);
  if (std::string difference = difference_in_samples(); !difference.empty()) {
    samples_.pop_back();
    return difference;
  }
  fit();
  const Graph& first = *samples_[0].optimised;
  // What generated code is to read at each call.
  std::vector<std::vector<int64_t>> numbers;  // of one kernel, by trace
  for (int n = 0; n < static_cast<int>(optimised.size()); ++n) {
    if (!first.node(n).fused) continue;
    numbers.assign(samples_.size(), {});
    for (size_t s = 0; s < samples_.size(); ++s)
      each_number(*samples_[s].optimised->node(n).fused,
                  [&](const auto& number) { numbers[s].push_back(bits_of(number)); });
    std::vector<bool> at_run_time(numbers[0].size());
    bool any = false;
    for (size_t i = 0; i < at_run_time.size(); ++i)
      for (const std::vector<int64_t>& other : numbers)
        if (other[i] != numbers[0][i]) at_run_time[i] = any = true;
    if (!any) continue;
    auto kernel = std::make_shared<LoopKernel>(*optimised.node(n).fused);
    kernel->at_run_time = std::move(at_run_time);
    optimised.node(n).fused = std::move(kernel);
  }
  samples_.back().optimised = optimised;
  return {};
}

// ---- Rules.

std::optional<int64_t> Sizes::value_of(const Rule& rule, const std::vector<int64_t>& quantities) {
  std::optional<int64_t> base = rule.sum ? 0 : 1;
  for (const int factor : rule.factors) {
    const int64_t quantity = quantities[static_cast<size_t>(factor)];
    base = rule.sum ? *base + quantity : times(*base, quantity);
    if (!base) return base;
  }
  base = times(*base, rule.numerator);
  if (!base || *base % rule.denominator) return std::nullopt;
  return *base / rule.denominator + rule.constant;
}

/// The simplest rule: a product with a constant of one quantity, of a product, of a sum; then the same with a constant
/// added. Bases of the first `bases` quantities.
std::optional<Sizes::Rule> Sizes::rule_for(const Samples& samples, const Fit& fit, size_t bases) {
  std::vector<Rule> candidates;
  const int count = static_cast<int>(bases), symbols = static_cast<int>(fit.symbols.size());
  for (int a = 0; a < count; ++a) candidates.push_back({.factors = {a}});
  for (int a = 0; a < count; ++a)
    for (int b = a; b < count; ++b) candidates.push_back({.factors = {a, b}});
  for (int a = 0; a < symbols; ++a)
    for (int b = a; b < symbols; ++b)
      for (int c = b; c < symbols; ++c) candidates.push_back({.factors = {a, b, c}});
  for (int a = 0; a < symbols; ++a)
    for (int b = a + 1; b < symbols; ++b) candidates.push_back({.factors = {a, b}, .sum = true});
  for (const bool with_constant : {false, true})
    for (Rule rule : candidates) {
      Samples bases_of_rule;
      for (size_t s = 0; s < samples.size(); ++s) {
        std::vector<int64_t> quantities;
        for (const Samples& each : fit.quantities) quantities.push_back(each[s]);
        bases_of_rule.push_back(value_of(rule, quantities).value_or(0));
      }
      const auto other = std::find_if(bases_of_rule.begin(), bases_of_rule.end(),
                                      [&](int64_t each) { return each != bases_of_rule[0]; });
      if (other == bases_of_rule.end()) continue;
      const size_t second = static_cast<size_t>(other - bases_of_rule.begin());
      int64_t rise = with_constant ? samples[second] - samples[0] : samples[0];
      int64_t run = with_constant ? bases_of_rule[second] - bases_of_rule[0] : bases_of_rule[0];
      if (rise == 0 || run == 0) continue;
      const int64_t common = std::gcd(rise, run);
      rise /= common, run /= common;
      if (run < 0) rise = -rise, run = -run;
      rule.numerator = rise, rule.denominator = run;
      const bool holds = [&] {
        for (size_t s = 0; s < samples.size(); ++s) {
          const std::optional<int64_t> scaled = times(bases_of_rule[s], rise);
          if (!scaled || *scaled % run) return false;
          if (s == 0) rule.constant = samples[0] - *scaled / run;
          if (*scaled / run + rule.constant != samples[s]) return false;
        }
        return true;
      }();
      if (!holds) continue;
      rule.least = std::min<int64_t>(2, *std::min_element(samples.begin(), samples.end()));
      return rule;
    }
  return std::nullopt;
}

void Sizes::fit() {
  fit_ = {};
  ++fitted_;
  confirmed_.clear();
  reads_numbers_ = false;
  if (samples_.size() < kFewest) return;
  Fit fit;
  const Graph& first = samples_[0].traced;
  const auto gather = [&](auto&& number_in) {
    Samples result;
    for (const Sample& sample : samples_) result.push_back(number_in(sample.traced));
    return result;
  };
  const auto add_quantity = [&](const Samples& samples) {
    if (std::find(fit.quantities.begin(), fit.quantities.end(), samples) != fit.quantities.end()) return false;
    fit.quantities.push_back(samples);
    return true;
  };
  for (const Leaf& leaf : first.leaves) {
    if (leaf.kind != LeafKind::argument) continue;
    for (int d = 0; d < first.type(leaf.value).shape.size(); ++d) {
      Samples samples = gather([&](const Graph& graph) { return graph.type(leaf.value).shape[d]; });
      if (!varies(samples)) continue;
      if (std::set<int64_t>(samples.begin(), samples.end()).size() < kFewest) return;
      if (add_quantity(samples)) fit.symbols.push_back({leaf.argument, d, std::move(samples)});
    }
  }
  if (fit.symbols.empty()) return;
  // Extents that follow from these: n + 1 of a concat.
  for (const Value& value : first.values)
    for (int d = 0; d < value.type.shape.size(); ++d) {
      const int v = static_cast<int>(&value - first.values.data());
      const Samples samples = gather([&](const Graph& graph) { return graph.type(v).shape[d]; });
      if (fit.quantities.size() >= fit.symbols.size() + 8 || !varies(samples)) continue;
      std::optional<Rule> rule = rule_for(samples, fit, fit.symbols.size());
      if (rule && rule->constant != 0 && add_quantity(samples)) fit.derived.push_back(std::move(*rule));
    }
  std::map<Samples, int> known, known_reals;  // rules, by what they give
  const auto rule_of = [&](const Samples& samples) {
    const auto [found, fresh] = known.try_emplace(samples, -1);
    if (!fresh) return found->second;
    if (std::optional<Rule> rule = rule_for(samples, fit, fit.quantities.size())) {
      found->second = static_cast<int>(fit.rules.size());
      fit.rules.push_back(std::move(*rule));
    }
    return found->second;
  };
  const auto real_rule_of = [&](const Samples& bits) {
    if (const auto found = known_reals.find(bits); found != known_reals.end()) return found->second;
    int& place = known_reals[bits];
    place = -1;
    std::vector<double> numbers;
    for (const int64_t each : bits) numbers.push_back(std::bit_cast<double>(each));
    const auto accept = [&](const RealRule& rule) {
      place = static_cast<int>(fit.real_rules.size());
      fit.real_rules.push_back(rule);
      return place;
    };
    const auto gives = [&](auto&& of, DType type) {  // all the numbers
      for (size_t s = 0; s < numbers.size(); ++s)
        if (!same_bits(as_held(of(s), type), numbers[s])) return false;
      return true;
    };
    for (const DType type : {float64, float32}) {
      for (const RealRule::Form form : {RealRule::whole, RealRule::inverse}) {
        const auto of = [&](double x) { return form == RealRule::whole ? x : 1 / x; };
        Samples whole;
        for (const double number : numbers)
          if (std::fabs(of(number)) < 1e15) whole.push_back(static_cast<int64_t>(std::llround(of(number))));
        if (whole.size() < numbers.size() || !varies(whole) ||
            !gives([&](size_t s) { return of(static_cast<double>(whole[s])); }, type))
          continue;
        if (const int rule = rule_of(whole); rule >= 0) return accept({form, rule, -1, type});
      }
      // n / (n - 1), as of an unbiased variance.
      for (const Samples& quantity : fit.quantities)
        for (const int64_t more : {-1, 1}) {
          Samples other = quantity;
          for (int64_t& each : other) each += more;
          const auto ratio = [&](size_t s) { return static_cast<double>(quantity[s]) / static_cast<double>(other[s]); };
          if (!gives(ratio, type)) continue;
          if (const int rule = rule_of(quantity), below = rule_of(other); rule >= 0 && below >= 0)
            return accept({RealRule::ratio, rule, below, type});
        }
      // n / 8 and n * 0.1: a share that the program's text holds.
      for (const Samples& quantity : fit.quantities)
        for (size_t one = 0; one < numbers.size(); ++one) {
          const auto known = [&](size_t s) { return static_cast<double>(quantity[s]); };
          const double factor = numbers[one] / known(one), divisor = std::round(known(one) / numbers[one]);
          if (!std::isfinite(factor) || factor == 0) continue;
          const bool divides = std::isfinite(divisor) && gives([&](size_t s) { return known(s) / divisor; }, type);
          if (!divides && !gives([&](size_t s) { return known(s) * factor; }, type)) continue;
          if (const int rule = rule_of(quantity); rule >= 0)
            return accept({divides ? RealRule::over : RealRule::times, rule, -1, type, divides ? divisor : factor});
        }
    }
    return -1;
  };
  const auto fit_numbers = [&](Numbers& numbers, size_t scalars_from, auto&& graph_of) {
    std::vector<std::vector<int64_t>> all;
    for (const Sample& sample : samples_) all.push_back(numbers_of(graph_of(sample), scalars_from));
    const std::vector<bool> doubles = which_are_doubles(graph_of(samples_[0]), scalars_from);
    Samples samples(samples_.size());
    for (size_t i = 0; i < all[0].size(); ++i) {
      for (size_t s = 0; s < samples.size(); ++s) samples[s] = all[s][i];
      if (!varies(samples)) continue;
      const int rule = doubles[i] ? real_rule_of(samples) : rule_of(samples);
      if (rule < 0) return false;
      (doubles[i] ? numbers.real_rules : numbers.rules).emplace_back(i, rule);
    }
    numbers.all = std::move(all.back());
    return true;
  };
  const size_t leaves = first.leaves.size();
  if (!fit_numbers(fit.traced, leaves, [](const Sample& sample) -> const Graph& { return sample.traced; }) ||
      !fit_numbers(fit.optimised, leaves, [](const Sample& sample) -> const Graph& { return *sample.optimised; }))
    return;
  for (size_t i = 0; i < leaves; ++i) {
    if (!scalar_varies_[i]) continue;
    const Samples bits = gather([&](const Graph& graph) { return std::bit_cast<int64_t>(graph.leaves[i].number); });
    if (const int rule = real_rule_of(bits); rule >= 0) fit.scalars.emplace_back(i, rule);
    else reads_numbers_ = true;
  }
  fit.complete = true;
  fit_ = std::move(fit);
}

std::vector<int64_t> Sizes::evaluate(const Numbers& numbers, const Foreseen& foreseen) {
  std::vector<int64_t> all = numbers.all;
  for (const auto& [place, rule] : numbers.rules) all[place] = foreseen.values[static_cast<size_t>(rule)];
  for (const auto& [place, rule] : numbers.real_rules)
    all[place] = std::bit_cast<int64_t>(foreseen.reals[static_cast<size_t>(rule)]);
  return all;
}

std::optional<Sizes::Foreseen> Sizes::foresee(std::vector<int64_t> sizes) const {
  Foreseen result;
  result.sizes = sizes;
  std::vector<int64_t>& quantities = sizes;
  for (const Rule& rule : fit_.derived) {
    const std::optional<int64_t> value = value_of(rule, quantities);
    if (!value || *value < rule.least) return std::nullopt;
    quantities.push_back(*value);
  }
  result.values.reserve(fit_.rules.size());
  for (const Rule& rule : fit_.rules) {
    const std::optional<int64_t> value = value_of(rule, quantities);
    if (!value || *value < rule.least) return std::nullopt;
    result.values.push_back(*value);
  }
  const auto value = [&](int rule) { return static_cast<double>(result.values[static_cast<size_t>(rule)]); };
  for (const RealRule& rule : fit_.real_rules) {
    const double number = value(rule.rule);
    const auto of_form = [&] {
      switch (rule.form) {
        case RealRule::whole: return number;
        case RealRule::inverse: return 1 / number;
        case RealRule::ratio: return number / value(rule.other);
        case RealRule::times: return number * rule.constant;
        case RealRule::over: return number / rule.constant;
      }
      return number;
    };
    result.reals.push_back(as_held(of_form(), rule.type));
  }
  return result;
}

std::optional<Sizes::Foreseen> Sizes::foresee(const Tensors& arguments) const {
  if (!fit_.complete || !program_) return std::nullopt;
  std::vector<int64_t> sizes;
  for (const Symbol& symbol : fit_.symbols)
    sizes.push_back(arguments[static_cast<size_t>(symbol.argument)].shape()[symbol.dim]);
  std::optional<Foreseen> result = foresee(std::move(sizes));
  if (result && !fits(samples_.back().traced, evaluate(fit_.traced, *result), arguments)) return std::nullopt;
  return result;
}

bool Sizes::agrees(Graph& traced, const Foreseen& foreseen) const {
  const Graph& last = samples_.back().traced;
  if (traced.leaves.size() != last.leaves.size()) return false;
  if (!difference_in_structure(last, traced).empty() || !difference_in_leaves(last, traced).empty() ||
      numbers_of(traced, traced.leaves.size()) != evaluate(fit_.traced, foreseen))
    return false;
  std::vector<int> rule_of(last.leaves.size(), -1);  // of scalars that change with the size by a rule
  for (const auto& [leaf, rule] : fit_.scalars) rule_of[leaf] = rule;
  for (size_t i = 0; i < last.leaves.size(); ++i)
    if (last.leaves[i].kind == LeafKind::scalar && (rule_of[i] >= 0 || !scalar_varies_[i]) &&
        !same_bits(traced.leaves[i].number,
                   rule_of[i] >= 0 ? foreseen.reals[static_cast<size_t>(rule_of[i])] : last.leaves[i].number))
      return false;
  mark_scalars(traced);
  return true;
}

Graph Sizes::traced(const Foreseen& foreseen, const Graph& like) const {
  Graph result = samples_.back().traced;
  set_numbers(result, result.leaves.size(), evaluate(fit_.traced, foreseen));
  for (size_t i = 0; i < result.leaves.size(); ++i) result.leaves[i].tensor = like.leaves[i].tensor;
  for (const auto& [leaf, rule] : fit_.scalars) result.leaves[leaf].number = foreseen.reals[static_cast<size_t>(rule)];
  for (size_t i = 0; i < result.gradients.size(); ++i) result.gradients[i].tensor = like.gradients[i].tensor;
  return result;
}

/// What each value of the optimised graph takes in sizes up to the next power of two, or eighth of one if memory is dear. Nothing if
/// the rules say none.
std::optional<std::vector<int64_t>> Sizes::bytes_of_values(const Foreseen& foreseen, bool roomy) const {
  std::vector<int64_t> sizes = foreseen.sizes;
  for (int64_t& size : sizes) {
    const auto power = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(size)));
    const int64_t step = roomy ? power : std::max<int64_t>(power / 8, 1);
    size = (size + step - 1) / step * step;
  }
  const std::optional<Foreseen> most = foresee(std::move(sizes));
  if (!most) return std::nullopt;
  std::vector<int64_t> result;
  const std::vector<int64_t> numbers = evaluate(fit_.optimised, *most);
  auto next = numbers.begin();
  for (const Value& value : samples_.back().optimised->values) {
    std::optional<int64_t> bytes = size_of(value.type.dtype);
    for (int d = 0; d < value.type.shape.size() && bytes; ++d) bytes = times(*bytes, *next++);
    if (!bytes) return std::nullopt;
    next += value.type.strides.size();
    result.push_back(*bytes);
  }
  return result;
}

std::unique_ptr<Program> Sizes::program(const Foreseen& foreseen, const Graph& traced) const {
  constexpr int64_t kDear = 4 << 20;  ///< bytes of an arena
  Graph graph = *samples_.back().optimised;
  set_numbers(graph, traced.leaves.size(), evaluate(fit_.optimised, foreseen));
  for (size_t i = 0; i < traced.leaves.size(); ++i) {  // the passes leave them where they are
    graph.leaves[i].tensor = traced.leaves[i].tensor;
    graph.leaves[i].number = traced.leaves[i].number;
  }
  for (size_t i = 0; i < traced.gradients.size(); ++i) graph.gradients[i].tensor = traced.gradients[i].tensor;
  try {
    verify(graph, "another size");
  } catch (const Error&) { return nullptr; }
  if (!kernels_stay_inside(graph)) return nullptr;
  Program::Growth growth;
  growth.scalars_from = traced.leaves.size();
  for (const auto& each : {fit_.optimised.rules, fit_.optimised.real_rules})
    for (const auto& [place, rule] : each) growth.places.push_back(place);
  for (const bool roomy : {true, false}) {
    std::optional<std::vector<int64_t>> most = bytes_of_values(foreseen, roomy);
    if (!most) continue;
    growth.most_bytes = std::move(*most);
    std::unique_ptr<Program> program = program_->resized(graph, &growth);
    if (!program || !roomy || program->plan().arena_bytes() <= kDear) return program;
  }
  return program_->resized(std::move(graph));
}

bool Sizes::resize(const Foreseen& foreseen, const Graph& like, Graph& traced, std::vector<NumberPlace>& places,
                   Program& program) const {
  const auto value = [&](int rule) { return foreseen.values[static_cast<size_t>(rule)]; };
  const auto real = [&](int rule) { return std::bit_cast<int64_t>(foreseen.reals[static_cast<size_t>(rule)]); };
  if (places.empty()) places = number_places(traced, traced.leaves.size(), traced.values.size(), traced.nodes.size());
  const auto put = [&](size_t place, int64_t number) { std::memcpy(places[place].address, &number, sizeof number); };
  for (const auto& [place, rule] : fit_.traced.rules) put(place, value(rule));
  for (const auto& [place, rule] : fit_.traced.real_rules) put(place, real(rule));
  for (size_t i = 0; i < like.leaves.size(); ++i)
    if (like.leaves[i].kind == LeafKind::scalar) traced.leaves[i] = like.leaves[i];
  for (const auto& [leaf, rule] : fit_.scalars) traced.leaves[leaf].number = foreseen.reals[static_cast<size_t>(rule)];
  for (size_t i = 0; i < traced.leaves.size(); ++i)
    if (traced.leaves[i].kind == LeafKind::scalar) program.set_number(static_cast<int>(i), traced.leaves[i].number);
  std::vector<int64_t> numbers;
  numbers.reserve(fit_.optimised.rules.size() + fit_.optimised.real_rules.size());
  for (const auto& [place, rule] : fit_.optimised.rules) numbers.push_back(value(rule));
  for (const auto& [place, rule] : fit_.optimised.real_rules) numbers.push_back(real(rule));
  return program.resize(numbers);
}

std::vector<std::string> Sizes::dims() const {
  std::vector<std::string> result;
  const Graph& first = samples_[0].traced;
  for (const Leaf& leaf : first.leaves)
    for (int d = 0; leaf.kind == LeafKind::argument && d < first.type(leaf.value).shape.size(); ++d)
      for (const Sample& sample : samples_)
        if (sample.traced.type(leaf.value).shape[d] != first.type(leaf.value).shape[d]) {
          result.push_back(detail::str("argument ", leaf.argument, ", dim ", d));
          break;
        }
  return result;
}

}  // namespace tandem::graph
