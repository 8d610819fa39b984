// recompute: what is cheap to compute from values that are there anyway isn't kept while the most memory is in use. The nodes are
// cut in two where that is: of what the second part reads of the first, the fewest bytes are kept from which the rest follows by
// pointwise ops and look-ups in tables (a minimum cut, as in partition.h), and these run again right before they are read. Folds,
// products and the like are never done twice, so the time is that of a few loops over memory.
#include <algorithm>
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

class Recompute {
 public:
  /// Cut where about the most memory is in use for the first time, or where the most is.
  Recompute(const Graph& graph, Choices* choices, bool first)
      : graph_(graph), choices_(choices), references_(references(graph)), profile_(graph, references_),
        peak_(static_cast<int>(number(first ? first_high() : profile_.peak))) {}

  int64_t peak_bytes() const { return profile_.peak_bytes; }

  /// The graph in which cheap values of the first part are computed again, so many that about `wanted` bytes fewer are kept, or all;
  /// nothing if none is cheap.
  std::optional<Graph> cut(int64_t wanted) {
    find_chains();
    choose();
    keep_beyond(wanted);
    bool any = false;
    for (const int v : crossing_) any = any || !at(kept_, v);
    if (!any) return std::nullopt;
    return dead_code(build());
  }

  /// What is computed again.
  void note(std::vector<std::string>& report) const {
    for (const int v : crossing_)
      if (!at(kept_, v))
        report.push_back(detail::str(node(maker(v)).op->name, " at ", to_string(node(maker(v)).where), ": ",
                                     bytes_of(graph_.type(v)), " bytes"));
  }

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
    if (op.kind == OpKind::view || op.fills || op.sequence) return true;
    return at(depth_, n) <= kDeepest && ((op.is_pointwise() && !op.user) || looks_up(n));
  }
  /// Rows of a table from outside at positions from outside: no more than copying them.
  bool looks_up(int n) const {
    return node(n).op->kind == OpKind::index && !node(n).op->user && node(n).outputs.size() == 1 &&
           std::all_of(node(n).inputs.begin(), node(n).inputs.end(), [&](int input) { return maker(base(input)) < 0; });
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
      const bool repeats = made_by >= 0 && again(made_by);
      int64_t bytes = made_by < 0 || at(profile_.stays, v) ? 0 : std::max<int64_t>(bytes_of(graph_.type(v)), 1);
      flow.connect(2 * v + 1, 2 * v, bytes);
      if (!repeats || bytes == 0) flow.connect(2 * v, source, Flow::kUnbounded);
      if (!repeats || bytes == 0) continue;
      for (const int input : node(made_by).inputs) {
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
  void keep_beyond(int64_t wanted) {
    std::vector<std::pair<double, int>> order;  // cost for each byte
    for (const int v : crossing_)
      if (!at(kept_, v)) order.emplace_back(cost(maker(v)) / static_cast<double>(size_of(graph_.type(v).dtype)), v);
    std::stable_sort(order.begin(), order.end());
    for (const auto& [each, v] : order) {
      at(kept_, v) = number(wanted <= 0) != 0;
      if (!at(kept_, v)) wanted -= bytes_of(graph_.type(v));
    }
  }
  /// For each element, of all that runs again.
  double cost(int n) const {
    std::vector<int> open{n};
    std::set<int> known{n};
    double sum = 0;
    while (!open.empty()) {
      const Node& now = node(open.back());
      sum += is_view(open.back()) ? 0 : now.op->pointwise.cost == Cost::heavy ? 16 : 1;
      open.pop_back();
      for (const int input : now.inputs)
        if (const int made_by = maker(input); made_by >= 0 && !at(kept_, base(input)) && known.insert(made_by).second)
          open.push_back(made_by);
    }
    return sum;
  }

  Graph build() {
    Rewriter rewriter(graph_);
    copy_.assign(graph_.values.size(), -1);
    copied_at_.assign(graph_.values.size(), -1);
    for (int n = 0; n < count(graph_.nodes); ++n) {
      if (n <= peak_ || is_view(n)) {
        rewriter.copy(node(n));
        continue;
      }
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
    if (copy >= 0 && reader - at(copied_at_, value) <= kNear) return copy;
    std::vector<int> inputs;
    for (const int input : node(made_by).inputs) inputs.push_back(at_reader(rewriter, input, reader));
    Node made = node(made_by);
    made.inputs = std::move(inputs);
    const int index = rewriter.to().append(std::move(made), {graph_.type(value)});
    at(copied_at_, value) = reader;
    return copy = rewriter.to().node(index).outputs[0];
  }

  const Graph& graph_;
  Choices* choices_;
  const std::vector<Reference> references_;
  const Profile profile_;
  const int peak_;             ///< the last node of the first part
  std::vector<int> depth_;     ///< of each node of the first part: of the chain that would run again
  std::vector<int> crossing_;  ///< values of the first part that the second reads
  std::vector<bool> kept_;     ///< of each value
  std::vector<int> copy_, copied_at_;
};

}  // namespace

Graph recompute(const Graph& graph, Choices* choices, double budget, std::vector<std::string>& report) {
  Graph best = graph;
  if (budget == 1) return best;
  double target = budget;  // bytes

  const auto agreed = [&](bool now) { return choices ? choices->choose(now) : now; };
  bool first = true;
  for (int i = 0; i < kMostCuts; ++i) {
    Recompute now(best, choices, first);
    const auto peak = static_cast<double>(now.peak_bytes());
    if (i == 0 && budget < 1) target = budget * peak;
    if (!agreed(now.peak_bytes() >= kLeastPeak && peak > target)) break;
    std::optional<Graph> made = now.cut(static_cast<int64_t>(peak - target));
    const bool less = made && agreed(static_cast<double>(Recompute(*made, nullptr, true).peak_bytes()) <= kGain * peak);
    if (less) now.note(report), best = std::move(*made);
    else if (!std::exchange(first, false)) break;
  }
  return best;
}

}  // namespace tandem::graph
