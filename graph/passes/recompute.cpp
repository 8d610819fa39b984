// recompute: what is cheap to compute from values that are there anyway isn't kept while the most memory is in use. The nodes are
// cut in two where that is: of what the second part reads of the first, the fewest bytes are kept from which the rest follows by
// pointwise ops and look-ups in tables (a minimum cut, as in partition.h), and these run again right before they are read. So much
// is done in any case as costs a small part of the step's time; for a budget, more of it, and then products too, each from operands
// that no other product makes again.
#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <utility>

#include "graph/ir/choices.h"
#include "graph/ir/views.h"
#include "graph/passes/flow.h"
#include "graph/passes/pass.h"
#include "graph/passes/profile.h"
#include "graph/run/plan.h"

namespace tandem::graph {

namespace {

constexpr int64_t kLeastPeak = 256 << 10;  ///< bytes, below which memory is no matter
constexpr int kDeepest = 24;               ///< ops of a chain that runs again
constexpr int kNear = 12;                  ///< nodes between readers that share what ran again
constexpr int kMostCuts = 5;
constexpr double kGain = 0.97;  ///< times the peak before, at most
constexpr double kFree = 0.02;  ///< times the step: what may run again though no budget asks for it
constexpr double kMost = 1;     ///< times the step: what may run again at all

constexpr double kByDefault = 0.9;  ///< CompileOptions::memory_budget: from there on no more than what is free

// Times, in those of an arithmetic op on an element of a large tensor.
constexpr double kPass = 0.5;              ///< of an element of what a fused kernel writes
constexpr double kHeavy = 3.3;             ///< of one of the costlier functions
constexpr double kMultiplication = 0.125;  ///< of a product

double elements(const Graph& graph, int value) { return static_cast<double>(graph.type(value).shape.numel()); }

/// Of a product with as many terms as its operands have elements in common; of a convolution less than it has.
double multiplications(const Graph& graph, const Node& node) {
  const double all =
      elements(graph, node.inputs[0]) * elements(graph, node.inputs[1]) * elements(graph, node.outputs[0]);
  return std::sqrt(all);
}

/// About what the node takes.
double time_of(const Graph& graph, const Node& node) {
  if (node.op->kind == OpKind::view) return 0;
  if (node.op->kind == OpKind::contract && node.inputs.size() >= 2)
    return kMultiplication * multiplications(graph, node);
  double most = 0;
  for (const std::vector<int>* values : {&node.inputs, &node.outputs})
    for (const int value : *values) most = std::max(most, elements(graph, value));
  return most * (kPass + (node.op->is_pointwise() && node.op->pointwise.cost == Cost::heavy ? kHeavy : 0));
}

/// What may run again.
struct Allowed {
  int64_t wanted = 0;     ///< bytes that are to be kept no more, about
  double free = 0;        ///< time that may be spent on others
  double most = 0;        ///< time that may be spent in all
  bool products = false;  ///< too
};

class Recompute {
 public:
  /// Cut where about the most memory is in use for the first time, or where the most is.
  Recompute(const Graph& graph, Choices* choices, bool first)
      : graph_(graph), choices_(choices), references_(references(graph)), profile_(graph, references_),
        peak_(static_cast<int>(number(first ? first_high() : profile_.peak))) {}

  int64_t peak_bytes() const { return profile_.peak_bytes; }

  /// The graph in which values of the first part are computed again; nothing if none is.
  std::optional<Graph> cut(const Allowed& allowed) {
    find_chains();
    if (allowed.products) find_products();
    choose();
    keep_beyond(allowed);
    bool any = false;
    for (const int v : crossing_) any = any || !at(kept_, v);
    if (!any) return std::nullopt;
    return dead_code(build());
  }

  /// What is computed again, for which part of the step's time.
  void note(std::vector<std::string>& report, double step) const {
    for (const int v : crossing_)
      if (!at(kept_, v))
        report.push_back(detail::str(node(maker(v)).op->name, " at ", to_string(node(maker(v)).where), ": ",
                                     bytes_of(graph_.type(v)), " bytes, ", std::round(cost(v) / step * 1e4) / 100,
                                     "% of the step"));
  }
  /// The time of what runs again.
  double spent() const { return spent_; }

 private:
  const Node& node(int n) const { return graph_.node(n); }
  int maker(int value) const { return graph_.value(value).node; }
  int base(int value) const { return at(references_, value).base; }
  int64_t number(int64_t now) const { return choices_ ? choices_->number(now) : now; }
  bool is_view(int n) const { return node(n).op->kind == OpKind::view; }
  int first_high() const {
    const double high = kGain * static_cast<double>(profile_.peak_bytes);
    const auto found = std::find_if(profile_.alive.begin(), profile_.alive.end(),
                                    [&](int64_t bytes) { return static_cast<double>(bytes) > high; });
    return std::min(static_cast<int>(found - profile_.alive.begin()), profile_.peak);
  }

  bool again(int n) const {
    const Op& op = *node(n).op;
    if (op.kind == OpKind::view || op.fills || op.sequence || products_.count(n)) return true;
    return at(depth_, n) <= kDeepest && ((op.is_pointwise() && !op.user) || looks_up(n));
  }
  /// Rows of a table from outside at positions from outside: no more than copying them.
  bool looks_up(int n) const {
    return node(n).op->kind == OpKind::index && !node(n).op->user && node(n).outputs.size() == 1 &&
           std::all_of(node(n).inputs.begin(), node(n).inputs.end(), [&](int input) { return maker(base(input)) < 0; });
  }

  /// Whether the value follows from other results of its node.
  bool remade(int v) const {
    const int made_by = maker(v);
    if (made_by < 0 || !node(made_by).op->again || node(made_by).outputs[0] != v) return false;
    const ValueType& type = graph_.type(v);
    return type.device.is_cpu() && (type.dtype == float32 || type.dtype == float64);
  }
  bool again_value(int v) const { return maker(v) >= 0 && (again(maker(v)) || remade(v)); }
  /// What the value, computed again, is computed from.
  std::vector<int> sources(int v) const {
    const Node& made_by = node(maker(v));
    return remade(v) ? std::vector<int>(made_by.outputs.begin() + 1, made_by.outputs.end()) : made_by.inputs;
  }

  /// Products that may run again: the cheapest for their bytes, none of which needs what another one makes.
  void find_products() {
    std::vector<std::pair<double, int>> order;
    for (int n = 0; n <= peak_; ++n) {
      const Node& now = node(n);
      if (now.op->kind != OpKind::contract || now.op->user || now.outputs.size() != 1 || now.inputs.size() < 2)
        continue;
      const auto bytes = static_cast<double>(bytes_of(graph_.type(now.outputs[0])));
      if (bytes > 0) order.emplace_back(time_of(graph_, now) / bytes, n);
    }
    std::stable_sort(order.begin(), order.end(), [&](const auto& a, const auto& b) {
      return std::pair(a.first, -elements(graph_, node(a.second).outputs[0])) <
             std::pair(b.first, -elements(graph_, node(b.second).outputs[0]));
    });
    std::set<int> chosen, needed;
    for (const auto& [time, n] : order) {
      const std::set<int> before = products_before(n);
      const bool apart = !needed.count(n) &&
                         std::none_of(before.begin(), before.end(), [&](int other) { return chosen.count(other) > 0; });
      if (number(apart) == 0) continue;
      chosen.insert(n);
      needed.insert(before.begin(), before.end());
    }
    products_ = std::move(chosen);
  }
  /// Those from which the node's operands would be computed again.
  std::set<int> products_before(int n) const {
    std::set<int> found, known{n};
    std::vector<int> open{n};
    while (!open.empty()) {
      const int now = open.back();
      open.pop_back();
      for (const int input : node(now).inputs) {
        const int made_by = maker(input);
        if (made_by < 0 || !known.insert(made_by).second) continue;
        if (node(made_by).op->kind == OpKind::contract) found.insert(made_by);
        else if (again(made_by)) open.push_back(made_by);
      }
    }
    return found;
  }

  void find_chains() {
    depth_.resize(graph_.nodes.size());
    for (int n = 0; n <= peak_; ++n) {
      int deepest = 0;
      for (const int input : node(n).inputs)
        if (maker(input) >= 0 && again(maker(input))) deepest = std::max(deepest, at(depth_, maker(input)));
      at(depth_, n) = deepest + (is_view(n) ? 0 : 1);
    }
  }

  /// Each value is two vertices, with its bytes as the capacity between them. The flow runs from the readers, so that of cuts with
  /// as many bytes the last is found.
  void choose() {
    const int values = count(graph_.values), source = 2 * values, sink = source + 1;
    Flow flow(sink + 1);
    std::vector<bool> known(graph_.values.size());
    std::vector<int> open;
    const auto visit = [&](int value) {
      if (at(known, value)) return;
      at(known, value) = true;
      open.push_back(value);
    };
    for (int n = peak_ + 1; n < count(graph_.nodes); ++n)
      if (!is_view(n))
        for (const int input : node(n).inputs)
          if (const int value = base(input); maker(value) >= 0 && maker(value) <= peak_ && !at(known, value)) {
            visit(value);
            crossing_.push_back(value);
            flow.connect(sink, 2 * value + 1, Flow::kUnbounded);
          }
    while (!open.empty()) {
      const int v = open.back(), made_by = maker(v);
      open.pop_back();
      const bool repeats = again_value(v);
      int64_t bytes = made_by < 0 || at(profile_.stays, v) ? 0 : std::max<int64_t>(bytes_of(graph_.type(v)), 1);
      flow.connect(2 * v + 1, 2 * v, bytes);
      if (!repeats || bytes == 0) flow.connect(2 * v, source, Flow::kUnbounded);
      if (!repeats || bytes == 0) continue;
      for (const int input : sources(v)) {
        visit(base(input));
        flow.connect(2 * v, 2 * base(input) + 1, Flow::kUnbounded);
      }
    }
    const std::vector<bool> reached = flow.source_side(sink, source);
    kept_.assign(graph_.values.size(), true);
    for (int v = 0; v < values; ++v)
      if (at(known, v)) at(kept_, v) = number(!at(reached, 2 * v)) != 0;
  }

  /// Of what would be computed again, the cheapest for its bytes; the rest is kept after all.
  void keep_beyond(const Allowed& allowed) {
    std::vector<std::pair<double, int>> order;  // time for each byte
    for (const int v : crossing_)
      if (!at(kept_, v)) order.emplace_back(cost(v) / static_cast<double>(bytes_of(graph_.type(v))), v);
    std::stable_sort(order.begin(), order.end());
    int64_t wanted = allowed.wanted;
    for (const auto& [each, v] : order) {
      const double spent = spent_ + each * static_cast<double>(bytes_of(graph_.type(v)));
      at(kept_, v) = number(spent > (wanted > 0 ? allowed.most : allowed.free)) != 0;
      if (at(kept_, v)) continue;
      wanted -= bytes_of(graph_.type(v));
      spent_ = spent;
    }
  }
  /// Of all that runs again for the value. A chain of pointwise ops is one loop.
  double cost(int value) const {
    std::vector<int> open{value};
    std::set<int> known{value};
    double sum = elements(graph_, value) * kPass;
    while (!open.empty()) {
      const int v = open.back();
      open.pop_back();
      const Node& now = node(maker(v));
      if (now.op->kind == OpKind::contract) sum += time_of(graph_, now) + elements(graph_, v) * kPass;
      else if (remade(v) || (now.op->is_pointwise() && now.op->pointwise.cost == Cost::heavy))
        sum += elements(graph_, v) * kHeavy;
      for (const int input : sources(v))
        if (maker(input) >= 0 && !at(kept_, base(input)) && known.insert(input).second) open.push_back(input);
    }
    return sum;
  }

  Graph build() {
    Rewriter rewriter(graph_);
    copy_.assign(graph_.values.size(), -1);
    copied_at_.assign(graph_.values.size(), -1);
    once_.assign(graph_.values.size(), false);
    for (int n = 0; n < count(graph_.nodes); ++n) {
      if (n <= peak_ || is_view(n)) {
        rewriter.copy(node(n));
        continue;
      }
      // What is remade is so before its sources are read: what reads them last may write over them.
      for (const int input : node(n).inputs)
        if (const int made_by = maker(base(input)); made_by >= 0 && made_by <= peak_ && node(made_by).op->again)
          if (const int v = node(made_by).outputs[0]; remade(v) && !at(kept_, v)) at_reader(rewriter, v, n);
      std::vector<int> inputs;
      for (const int input : node(n).inputs) inputs.push_back(at_reader(rewriter, input, n));
      rewriter.copy(node(n), std::move(inputs));
    }
    return rewriter.finish();
  }

  /// The value, or what stands for it where the node of the second part reads it.
  int at_reader(Rewriter& rewriter, int value, int reader) {
    const int made_by = maker(value);
    if (made_by < 0 || at(kept_, base(value)) || maker(base(value)) > peak_) return rewriter.mapped(value);
    int& copy = at(copy_, value);
    if (copy >= 0 && (at(once_, value) || reader - at(copied_at_, value) <= kNear)) return copy;
    at(copied_at_, value) = reader;
    if (remade(value)) {
      at(once_, value) = true;
      return copy = remake(rewriter, value);
    }
    std::vector<int> inputs;
    bool once = products_.count(made_by) > 0;
    for (const int input : node(made_by).inputs) {
      inputs.push_back(at_reader(rewriter, input, reader));
      once = once || at(once_, input);
    }
    at(once_, value) = once;
    Node made = node(made_by);
    made.inputs = std::move(inputs);
    const int index = rewriter.to().append(std::move(made), {graph_.type(value)});
    return copy = rewriter.to().node(index).outputs[0];
  }
  int remake(Rewriter& rewriter, int value) {
    const Node& made_by = node(maker(value));
    Tensors results(1);
    for (size_t i = 1; i < made_by.outputs.size(); ++i)
      results.push_back(rewriter.symbol(rewriter.mapped(made_by.outputs[i])));
    const int made = static_cast<int>(made_by.op->again(results, made_by.attributes).impl()->value);
    rewriter.to().type(made).strides = graph_.type(value).strides;
    return made;
  }

  const Graph& graph_;
  Choices* choices_;
  const std::vector<Reference> references_;
  const Profile profile_;
  const int peak_;             ///< the last node of the first part
  std::vector<int> depth_;     ///< of each node of the first part: of the chain that would run again
  std::vector<int> crossing_;  ///< values of the first part that the second reads
  std::vector<bool> kept_;     ///< of each value
  std::set<int> products_;     ///< that may run again
  std::vector<int> copy_, copied_at_;
  std::vector<bool> once_;  ///< of each value: one copy serves all readers, as a product is in it
  double spent_ = 0;
};

}  // namespace

Graph recompute(const Graph& graph, Choices* choices, double budget, std::vector<std::string>& report) {
  Graph best = graph;
  if (budget == 1) return best;
  double step = 0, spent = 0;
  for (const Node& node : graph.nodes) step += time_of(graph, node);
  const auto agreed = [&](bool now) { return choices ? choices->choose(now) : now; };
  double target = budget > 1 ? budget : 0;  // bytes
  enum Stage { cheap, pointwise, products };
  for (const Stage stage : {cheap, pointwise, products}) {
    if (stage != cheap && budget >= kByDefault && budget < 1) break;
    bool first = true;
    for (int i = 0; i < kMostCuts; ++i) {
      Recompute now(best, choices, first);
      const auto peak = static_cast<double>(now.peak_bytes());
      if (stage == pointwise && i == 0 && budget < 1) target = budget * peak;
      if (!agreed(now.peak_bytes() >= kLeastPeak && (stage == cheap || peak > target))) break;
      std::optional<Graph> made = now.cut({.wanted = stage == cheap ? 0 : static_cast<int64_t>(peak - target),
                                           .free = stage == cheap ? kFree * step - spent : 0,
                                           .most = kMost * step - spent,
                                           .products = stage == products});
      const bool less =
          made && agreed(static_cast<double>(Recompute(*made, nullptr, true).peak_bytes()) <= kGain * peak);
      if (less) {
        now.note(report, step);
        spent += now.spent();
        best = std::move(*made);
      } else if (!std::exchange(first, false)) {
        break;
      }
    }
  }
  return best;
}

}  // namespace tandem::graph
