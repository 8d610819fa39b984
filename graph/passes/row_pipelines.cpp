// row_pipelines: chains of nodes that each go along the rows of a batch become one node, "over_rows", whose region computes a
// block of rows: it is called for each block, blocks side by side on the threads. What one node has just made of a block, the
// next reads from the cache; what nobody outside reads is never as large as all rows; and threads wait for one another once
// a chain, not once a node.
//
// Nodes are visited in order; each joins the chain that makes one of the operands that it reads by row, if no path leads from
// the chain through other nodes back to it. A chain is kept if it holds a product and something around it. Convolutions join none:
// by blocks of images ResNet-8's step took 1.05 times as long.
#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <unordered_map>
#include <utility>

#include "core/threads.h"
#include "graph/ir/region.h"
#include "graph/passes/pass.h"
#include "graph/passes/profile.h"
#include "graph/passes/rows.h"

namespace tandem::graph {

namespace {

constexpr int kMostChains = 512;       ///< of a graph
constexpr int kMostLookedAt = 4096;    ///< edges that a search for a path follows
constexpr int kMostMembers = 192;      ///< nodes of a chain
constexpr int64_t kCache = 512 << 10;  ///< bytes of a block that stay in a core's second-level cache
constexpr int64_t kLeastRows = 512;    ///< of a product's block: a block's call packs its operands anew
constexpr int64_t kFewRows = 8;        ///< fewer than these are no block
constexpr double kLeastWork = 4;       ///< multiplications for each byte that a chain makes
constexpr double kLarge = 0.1;         ///< of a chain's multiplications: a product of fewer doesn't decide
/// Bytes that may wait for the end of a chain, though they were last read before: the most that doesn't raise the peak.
constexpr int64_t kMostHeld[] = {8 << 20, 1 << 20, 128 << 10, 0};

/// Bytes that a chain makes: with fewer, waking the threads is most of its time, whatever is done.
int64_t least_bytes = 1 << 20;

constexpr double kPeak = 1.05;    ///< times the peak before, at most
constexpr int kMostDropped = 24;  ///< chains that are given up, one after the other, until the peak is low enough
constexpr int kNear = 32;         ///< nodes after the first that reads from a chain, up to which others may join it

struct Chain {
  std::vector<int> nodes;
  std::vector<int> sources, through;  ///< chains that it reads from, at once and through other nodes
  int64_t common = 0;                 ///< divisor of all rows
  int64_t held = 0;
  int first_reader = -1;  ///< the first node elsewhere that reads from it
  int joined = -1;        ///< to which chain
  bool kept = false;
  const char* why = "";  ///< it isn't
};

class Chains {
 public:
  Chains(const Graph& graph, FusionReport& report, int64_t most_held)
      : graph_(graph), report_(report), most_held_(most_held), references_(references(graph)),
        chain_of_(graph.nodes.size(), -1), last_read_(graph.values.size(), -1), behind_(graph.nodes.size()),
        by_row_(graph.nodes.size()) {
    for (int n = 0; n < count(graph.nodes); ++n)
      for (const int input : graph.node(n).inputs) at(last_read_, at(references_, input).base) = n;
  }

  /// Nothing if there is no chain.
  std::optional<Graph> run() {
    for (const StateWrite& write : graph_.writes) assigned_[at(references_, write.value).base] = write.leaf;
    find_products();
    for (int n = 0; n < count(graph_.nodes); ++n) visit(n);
    bool any = false;
    for (Chain& chain : chains_) {
      if (chain.joined >= 0) continue;
      chain.kept = blocks_of(chain, &chain.why) > 0;
      any = any || chain.kept;
    }
    if (!any) return std::nullopt;
    return rewritten();
  }
  /// Without those chains, so many, that are nearest to this node of the graph that was made last. Nothing if no chain is left.
  std::optional<Graph> without_nearest(const Graph& made, int place, int number) {
    const Op& over_rows = find_op("over_rows");
    std::vector<std::pair<int, int>> near;  // how far, and the chain
    for (int n = 0; n < count(made.nodes); ++n)
      if (made.node(n).op == &over_rows) near.emplace_back(std::abs(n - place), at(emitted_, count(near)));
    std::stable_sort(near.begin(), near.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (int i = 0; i < std::min(number, count(near)); ++i) {
      Chain& chain = at(chains_, at(near, i).second);
      chain.kept = false;
      chain.why = "more memory would be in use at one time";
    }
    if (number >= count(near)) return std::nullopt;
    return rewritten();
  }
  /// What explain() says.
  void note() {
    for (const Chain& chain : chains_)
      if (chain.joined < 0) note(chain);
  }
  /// Bytes of blocks' values in use at one time, about.
  int64_t scratch_bytes() const { return scratch_; }

 private:
  /// What explain() says of a chain that holds a product.
  void note(const Chain& chain) {
    std::string names;
    Where where;
    bool product = false;
    for (const int n : chain.nodes) {
      const Node& node = graph_.node(n);
      if (node.op->kind == OpKind::view) continue;
      product = product || node.op->kind == OpKind::contract;
      if (!where.line()) where = node.where;
      if (names.size() < 160) names += (names.empty() ? "" : " ") + std::string(node.op->name);
      else if (names.back() != '.') names += " ...";
    }
    if (chain.kept)
      report_.kernels.push_back(detail::str(to_string(where), ": ", blocks_of(chain), " blocks of rows: ", names));
    else if (product && chain.nodes.size() > 1 && report_.refused.size() < 200)
      report_.refused.push_back(detail::str("rows of ", names, " at ", to_string(where), ": ", chain.why));
  }

  // ---- Finding chains.

  int chain_of(int node) const {
    int chain = node < 0 ? -1 : at(chain_of_, node);
    while (chain >= 0 && at(chains_, chain).joined >= 0) chain = at(chains_, chain).joined;
    return chain;
  }
  int current(int chain) const {
    while (at(chains_, chain).joined >= 0) chain = at(chains_, chain).joined;
    return chain;
  }
  int maker(int value) const { return graph_.value(value).node; }

  void visit(int n) {
    const Node& node = graph_.node(n);
    if (at(by_row_, n) && at(with_product_, find(n)) && join(n)) return;
    // It stays outside: behind the chains that it reads from.
    std::vector<int>& behind = at(behind_, n);
    for (const int input : node.inputs) {
      const int made_by = maker(input);
      if (made_by < 0) continue;
      if (const int chain = chain_of(made_by); chain >= 0) {
        behind.push_back(chain);
        read_by(chain, n);
        if (const int base = at(references_, input).base; at(last_read_, base) == n && made_in(base, chain))
          at(chains_, chain).held += bytes_of_value(base);
      } else {
        behind.insert(behind.end(), at(behind_, made_by).begin(), at(behind_, made_by).end());
      }
    }
    unique(behind);
  }

  /// Which nodes hang together with a product by rows: no others are ever in a chain that is kept.
  void find_products() {
    const int nodes = count(graph_.nodes);
    set_.resize(graph_.nodes.size());
    std::iota(set_.begin(), set_.end(), 0);
    with_product_.resize(graph_.nodes.size());
    for (int n = 0; n < nodes; ++n) {
      const Node& node = graph_.node(n);
      at(by_row_, n) = operands_by_row(graph_, node, references_);
      const bool product = node.op->kind == OpKind::contract;
      if (at(by_row_, n) && product && reads_more_whole(n)) at(by_row_, n).reset();
      if (!at(by_row_, n)) continue;
      at(with_product_, find(n)) = at(with_product_, find(n)) || product;
      for (int i = 0; i < count(node.inputs); ++i) {
        const int made_by = maker(at(node.inputs, i));
        if (made_by < 0 || !by_row(n, i) || !at(by_row_, made_by)) continue;
        const int mine = find(n), other = find(made_by);
        if (mine == other) continue;
        at(set_, other) = mine;
        at(with_product_, mine) = at(with_product_, mine) || at(with_product_, other);
      }
    }
  }
  int find(int n) {
    for (; at(set_, n) != n; n = at(set_, n)) at(set_, n) = at(set_, at(set_, n));
    return n;
  }

  /// A product that reads more whole than by row: each thread would read all of that, where the kernel cuts it up among them
  /// (a step of 784 x 256 weights for 64 rows took 1.3 times as long).
  bool reads_more_whole(int n) const {
    int64_t whole = 0, rows = 0;
    for (int i = 0; i < count(graph_.node(n).inputs); ++i)
      (by_row(n, i) ? rows : whole) += bytes_of_value(at(graph_.node(n).inputs, i));
    return least_bytes > 0 && whole > rows;
  }

  void read_by(int chain, int n) {
    if (int& first = at(chains_, chain).first_reader; first < 0) first = n;
  }

  bool made_in(int value, int chain) const { return maker(value) >= 0 && chain_of(maker(value)) == chain; }
  int64_t bytes_of_value(int value) const {
    const ValueType& type = graph_.type(value);
    return type.shape.numel() * size_of(type.dtype);
  }
  static void unique(std::vector<int>& list) {
    std::sort(list.begin(), list.end());
    list.erase(std::unique(list.begin(), list.end()), list.end());
  }

  int64_t common_rows(int n) const {
    const Node& node = graph_.node(n);
    int64_t common = 0;
    for (const int output : node.outputs) common = std::gcd(common, rows_of(graph_.type(output)));
    for (int i = 0; i < count(node.inputs); ++i)
      if (by_row(n, i)) common = std::gcd(common, rows_of(graph_.type(at(node.inputs, i))));
    return common;
  }
  bool by_row(int n, int operand) const { return (*at(by_row_, n))[static_cast<size_t>(operand)]; }

  bool join(int n) {
    const Node& node = graph_.node(n);
    const int64_t common = common_rows(n);
    if (common < 2) return false;
    std::vector<int> candidates;
    for (int i = 0; i < count(node.inputs); ++i)
      if (const int chain = chain_of(maker(at(node.inputs, i))); by_row(n, i) && chain >= 0)
        candidates.push_back(chain);
    unique(candidates);
    std::reverse(candidates.begin(), candidates.end());  // the newest first
    for (const int candidate : candidates) {
      if (!may_join(n, candidate, common)) continue;
      enter(n, candidate, common);
      for (const int other : candidates)
        if (other != candidate && may_merge(candidate, other)) merge(other, candidate);
      return true;
    }
    if (node.op->kind == OpKind::view || count(chains_) >= kMostChains) return false;
    chains_.emplace_back();
    enter(n, count(chains_) - 1, common);
    return true;
  }

  /// Whether `from` reads from `chain`, or from what does; also where that takes too long to tell.
  bool reads_from(int from, int chain) const {
    std::vector<int> waiting{from};
    std::vector<bool> seen(chains_.size());
    int looked_at = 0;
    for (size_t i = 0; i < waiting.size(); ++i) {
      if (waiting[i] == chain || looked_at > kMostLookedAt) return true;
      const Chain& now = at(chains_, waiting[i]);
      for (const auto* list : {&now.sources, &now.through})
        for (const int source : *list) {
          const int next = current(source);
          ++looked_at;
          if (at(seen, next)) continue;
          at(seen, next) = true;
          waiting.push_back(next);
        }
    }
    return false;
  }

  /// The chains that the node reads from: by row at once, or otherwise.
  void sources_of(int n, std::vector<int>& direct, std::vector<int>& through) const {
    const Node& node = graph_.node(n);
    for (int i = 0; i < count(node.inputs); ++i) {
      const int made_by = maker(at(node.inputs, i));
      if (made_by < 0) continue;
      if (const int chain = chain_of(made_by); chain >= 0) (by_row(n, i) ? direct : through).push_back(chain);
      else
        for (const int chain_behind : at(behind_, made_by)) through.push_back(current(chain_behind));
    }
  }

  bool may_join(int n, int chain, int64_t common) const {
    const Chain& into = at(chains_, chain);
    if (count(into.nodes) >= kMostMembers || into.held > most_held_ || std::gcd(into.common, common) < 2) return false;
    std::vector<int> direct, through;
    sources_of(n, direct, through);
    std::erase(direct, chain);
    direct.insert(direct.end(), through.begin(), through.end());
    // What is computed again for backward stays there, and not where it was computed first.
    if (into.first_reader >= 0 && n - into.first_reader > kNear) return false;
    if (overwrites_operand(n, into)) return false;
    return std::none_of(direct.begin(), direct.end(), [&](int source) { return reads_from(source, chain); });
  }

  /// State that a chain assigns must not be read whole by it: the block that is assigned first would change what others read.
  bool overwrites_operand(int n, const Chain& chain) const {
    const auto reads_whole = [&](int node, int leaf) {
      const std::vector<int>& inputs = graph_.node(node).inputs;
      for (int i = 0; i < count(inputs); ++i)
        if (at(references_, at(inputs, i)).base == graph_.leaf(leaf).value &&
            (!by_row(node, i) || at(inputs, i) != graph_.leaf(leaf).value))
          return true;
      return false;
    };
    const auto assigned = [&](int node) {
      std::vector<int> leaves;
      for (const int output : graph_.node(node).outputs)
        if (const auto found = assigned_.find(output); found != assigned_.end()) leaves.push_back(found->second);
      return leaves;
    };
    std::vector<int> all = chain.nodes;
    all.push_back(n);
    for (const int leaf : assigned(n))
      if (std::any_of(all.begin(), all.end(), [&](int node) { return reads_whole(node, leaf); })) return true;
    for (const int node : chain.nodes)
      for (const int leaf : assigned(node))
        if (reads_whole(n, leaf)) return true;
    return false;
  }

  void enter(int n, int chain, int64_t common) {
    Chain& into = at(chains_, chain);
    into.nodes.push_back(n);
    into.common = into.nodes.size() == 1 ? common : std::gcd(into.common, common);
    sources_of(n, into.sources, into.through);
    for (const int input : graph_.node(n).inputs)
      if (const int other = chain_of(maker(input)); other >= 0 && other != chain) read_by(other, n);
    at(chain_of_, n) = chain;
    tidy(chain);
  }
  void tidy(int chain) {
    Chain& now = at(chains_, chain);
    for (auto* list : {&now.sources, &now.through}) {
      for (int& source : *list) source = current(source);
      unique(*list);
    }
    std::erase(now.sources, chain);
  }

  /// Every path between the two is a direct one, by row.
  bool may_merge(int a, int b) const {
    const Chain &x = at(chains_, a), &y = at(chains_, b);
    if (count(x.nodes) + count(y.nodes) > kMostMembers || std::gcd(x.common, y.common) < 2 ||
        x.held + y.held > most_held_)
      return false;
    const auto leads_back = [&](const Chain& from, int to) {
      return std::any_of(from.through.begin(), from.through.end(),
                         [&](int source) { return reads_from(current(source), to); }) ||
             std::any_of(from.sources.begin(), from.sources.end(),
                         [&](int source) { return current(source) != to && reads_from(current(source), to); });
    };
    return !leads_back(x, b) && !leads_back(y, a);
  }
  void merge(int from, int into) {
    Chain &x = at(chains_, into), &y = at(chains_, from);
    x.nodes.insert(x.nodes.end(), y.nodes.begin(), y.nodes.end());
    std::sort(x.nodes.begin(), x.nodes.end());
    x.common = std::gcd(x.common, y.common);
    x.held += y.held;
    if (x.first_reader < 0 || (y.first_reader >= 0 && y.first_reader < x.first_reader)) x.first_reader = y.first_reader;
    x.sources.insert(x.sources.end(), y.sources.begin(), y.sources.end());
    x.through.insert(x.through.end(), y.through.begin(), y.through.end());
    y.joined = into;
    y.nodes.clear();
    tidy(into);
  }

  // ---- Blocks.

  /// How many blocks the chain's rows are cut into; 0 and the reason if it isn't worth it.
  int64_t blocks_of(const Chain& chain, const char** why = nullptr) const {
    const auto none = [&](const char* reason) {
      if (why) *why = reason;
      return int64_t{0};
    };
    int others = 0;
    int64_t widest = 0, made = 0;
    double multiplications = 0;
    std::vector<std::pair<double, int64_t>> products;  // multiplications and rows
    for (const int n : chain.nodes) {
      const Node& node = graph_.node(n);
      if (node.op->kind == OpKind::view) continue;
      int64_t outputs = 0, inputs = 0;
      for (const int output : node.outputs) outputs += bytes_of_value(output);
      for (int i = 0; i < count(node.inputs); ++i)
        if (by_row(n, i)) inputs += bytes_of_value(at(node.inputs, i));
      made += outputs;
      widest = std::max(widest, outputs + inputs);
      if (node.op->kind == OpKind::contract) {
        products.emplace_back(multiplications_of(node), product_rows(node));
        multiplications += products.back().first;
      } else {
        ++others;
      }
    }
    if (products.empty()) return none("no product among them");
    if (products.size() == 1 && others == 0) return none("a product alone");
    if (made < least_bytes) return none("they make few bytes");
    if (least_bytes > 0 && multiplications < kLeastWork * static_cast<double>(made))
      return none("products are little of their work");
    int64_t rows = std::numeric_limits<int64_t>::max();
    for (const auto& [work, own_rows] : products)
      if (work >= kLarge * multiplications) rows = std::min(rows, own_rows);
    const int64_t threads = num_threads(), few = least_bytes > 0 ? kFewRows : 1;
    int64_t best = 0;
    for (int64_t blocks = 2; blocks <= chain.common / 2 && rows / blocks >= few; ++blocks) {
      if (chain.common % blocks) continue;
      if (best >= threads && (widest / best <= kCache || rows / blocks < kLeastRows)) break;
      best = blocks;
    }
    return best >= threads ? best : none("their rows can't be cut into blocks for all threads");
  }
  /// How many rows the product has, those of a batch's matrices together.
  int64_t product_rows(const Node& node) const {
    const Shape& shape = graph_.type(node.outputs[0]).shape;
    return shape.numel() / std::max<int64_t>(shape.back(), 1);
  }
  /// About: elements of the result times the terms of each.
  double multiplications_of(const Node& node) const {
    const Shape &made = graph_.type(node.outputs[0]).shape, &first = graph_.type(node.inputs[0]).shape;
    return static_cast<double>(made.numel()) * static_cast<double>(first.back());
  }

  // ---- Rewriting.

  Graph rewritten() {
    Rewriter rewriter(graph_);
    outside_ = wanted_outside();
    emitted_.clear();
    scratch_ = 0;
    std::vector<int> state(graph_.nodes.size(), 0);  // 1: begun, 2: done; of a chain by its first node
    const auto unit = [&](int n) {
      const int chain = chain_of(n);
      return chain >= 0 && at(chains_, chain).kept ? at(chains_, chain).nodes[0] : n;
    };
    const auto sources = [&](int first) {
      std::vector<int> result;
      const auto add = [&](int n) {
        for (const int input : graph_.node(n).inputs)
          if (const int made_by = maker(input); made_by >= 0 && unit(made_by) != first) result.push_back(unit(made_by));
      };
      if (const int chain = chain_of(first); chain >= 0 && at(chains_, chain).kept)
        for (const int n : at(chains_, chain).nodes) add(n);
      else add(first);
      return result;
    };
    for (int n = 0; n < count(graph_.nodes); ++n) {
      // A chain comes with the last of its nodes, so that it waits for nothing that comes later.
      const int chain = chain_of(n);
      const bool inside = chain >= 0 && at(chains_, chain).kept;
      if (inside && at(chains_, chain).nodes.back() != n) continue;
      std::vector<int> waiting{unit(n)};
      while (!waiting.empty()) {
        const int now = waiting.back();
        int& how_far = at(state, now);
        if (how_far == 0) {
          how_far = 1;
          for (const int source : sources(now)) {
            TANDEM_ASSERT(at(state, source) != 1, "row_pipelines made a cycle");
            if (at(state, source) == 0) waiting.push_back(source);
          }
          continue;
        }
        waiting.pop_back();
        if (how_far == 2) continue;
        how_far = 2;
        if (const int mine = chain_of(now); mine >= 0 && at(chains_, mine).kept)
          emitted_.push_back(mine), emit(rewriter, at(chains_, mine));
        else copy(rewriter, graph_.node(now));
      }
    }
    for (const int output : graph_.outputs) seen_outside(rewriter, output);
    for (const StateWrite& write : graph_.writes) seen_outside(rewriter, write.value);
    for (const GradientWrite& write : graph_.gradients)
      if (write.value >= 0) seen_outside(rewriter, write.value);
    return rewriter.finish();
  }

  /// Values that are made in a chain and read elsewhere, seen through views.
  std::vector<bool> wanted_outside() const {
    std::vector<bool> wanted(graph_.values.size());
    const auto want = [&](int value) {
      if (value >= 0) at(wanted, at(references_, value).base) = true;
    };
    for (int n = 0; n < count(graph_.nodes); ++n) {
      const int chain = chain_of(n);
      const bool kept = chain >= 0 && at(chains_, chain).kept;
      if (graph_.node(n).op->kind == OpKind::view) continue;
      for (const int input : graph_.node(n).inputs)
        if (!kept || chain_of(maker(at(references_, input).base)) != chain || chain_of(maker(input)) != chain)
          want(input);
    }
    for (const int output : graph_.outputs) want(output);
    for (const StateWrite& write : graph_.writes) want(write.value);
    for (const GradientWrite& write : graph_.gradients) want(write.value);
    return wanted;
  }

  void copy(Rewriter& rewriter, const Node& node) const {
    std::vector<int> inputs;
    for (const int input : node.inputs) inputs.push_back(seen_outside(rewriter, input));
    rewriter.copy(node, std::move(inputs));
  }

  /// The value in the new graph; views that a chain holds are made outside of it as well.
  int seen_outside(Rewriter& rewriter, int value) const {
    std::vector<int> views;
    for (int v = value; rewriter.mapped(v) < 0; v = graph_.node(views.back()).inputs[0]) {
      views.push_back(maker(v));
      TANDEM_ASSERT(graph_.node(views.back()).op->kind == OpKind::view,
                    "a value of a row pipeline is read but not a result: ", graph_.node(views.back()).op->name);
    }
    for (; !views.empty(); views.pop_back()) rewriter.copy(graph_.node(views.back()));
    return rewriter.mapped(value);
  }

  void emit(Rewriter& rewriter, const Chain& chain) const {
    static const Op& over_rows = find_op("over_rows");
    const int64_t blocks = blocks_of(chain);
    Graph body;
    std::map<std::pair<int, bool>, int> inside;  // value and whether a block of it, to the value in the body
    std::vector<int> by_row_operands, whole_operands;
    const int mine = chain_of(chain.nodes[0]);
    const auto is_member = [&](int value) { return made_in(value, mine); };
    const auto is_constant = [&](int value) {
      const int leaf = graph_.leaf_of(value);
      return leaf >= 0 && graph_.leaf(leaf).kind == LeafKind::scalar && !graph_.leaf(leaf).run_time;
    };
    for (const int n : chain.nodes)
      for (int i = 0; i < count(graph_.node(n).inputs); ++i) {
        const int input = at(graph_.node(n).inputs, i);
        if (is_member(input) || is_constant(input)) continue;
        if (inside.try_emplace({input, by_row(n, i)}, -1).second)
          (by_row(n, i) ? by_row_operands : whole_operands).push_back(input);
      }
    std::vector<int> operands;
    const auto add = [&](int value, bool block) {
      const ValueType& type = graph_.type(value);
      inside[{value, block}] =
          body.add_leaf({.kind = LeafKind::argument, .argument = count(operands), .dynamic = graph_.is_number(value)},
                        block ? block_of(type, blocks) : type);
      operands.push_back(seen_outside(rewriter, value));
    };
    for (const int value : by_row_operands) add(value, true);
    for (const int value : whole_operands) add(value, false);
    std::vector<int> results;
    Where where;
    for (const int n : chain.nodes) {
      const Node& node = graph_.node(n);
      Node made = node;
      for (int i = 0; i < count(node.inputs); ++i) {
        const int input = at(node.inputs, i);
        if (is_constant(input) && !inside.count({input, false})) {
          Leaf leaf = graph_.leaf(graph_.leaf_of(input));
          inside[{input, false}] = body.add_leaf(std::move(leaf), graph_.type(input));
        }
        at(made.inputs, i) = inside.at({input, by_row(n, i)});
      }
      made.attributes = attributes_of_block(node, rows_of(graph_.type(node.outputs[0])), blocks);
      std::vector<ValueType> types;
      for (const int output : node.outputs) types.push_back(block_of(graph_.type(output), blocks));
      const int index = body.append(std::move(made), types);
      for (int i = 0; i < count(node.outputs); ++i) {
        const int output = at(node.outputs, i);
        inside[{output, true}] = at(body.node(index).outputs, i);
        if (!at(outside_, output) && node.op->kind == OpKind::contract)
          scratch_ = std::max(scratch_, bytes_of_value(output) / blocks * std::min<int64_t>(blocks, num_threads()));
        if (node.op->kind == OpKind::view || !at(outside_, output)) continue;
        results.push_back(output);
        body.outputs.push_back(at(body.node(index).outputs, i));
      }
      if (!where.line()) where = node.where;
    }
    std::vector<ValueType> types;
    for (const int result : results) types.push_back(graph_.type(result));
    const int made = rewriter.to().append(over_rows, std::move(operands),
                                          {{"body", RegionPtr(std::make_shared<const GraphRegion>(std::move(body)))},
                                           {"blocks", blocks},
                                           {"by_row", static_cast<int64_t>(by_row_operands.size())}},
                                          where, types);
    for (int i = 0; i < count(results); ++i) rewriter.replace(at(results, i), at(rewriter.to().node(made).outputs, i));
  }

  const Graph& graph_;
  FusionReport& report_;
  const int64_t most_held_;
  const std::vector<Reference> references_;
  std::vector<int> chain_of_, last_read_;
  std::vector<std::vector<int>> behind_;  ///< of nodes outside: chains that they read from, at once or through others
  std::vector<std::optional<std::vector<bool>>> by_row_;
  std::vector<int> set_;            ///< of each node, another of its set; its own root
  std::vector<bool> with_product_;  ///< of each root
  std::vector<Chain> chains_;
  std::vector<int> emitted_;  ///< chains in the order of the nodes that they have become
  std::vector<bool> outside_;
  std::unordered_map<int, int> assigned_;  ///< values that state is assigned, and its leaf
  mutable int64_t scratch_ = 0;
};

}  // namespace

int64_t set_least_pipeline_bytes(int64_t bytes) { return std::exchange(least_bytes, bytes); }

Graph row_pipelines(const Graph& graph, FusionReport& report) {
  const double most = kPeak * static_cast<double>(Profile(graph, references(graph)).peak_bytes);
  std::optional<Chains> chains;
  std::optional<Graph> made;
  int peak = 0;  // where it is
  const auto fits = [&] {
    if (!made || least_bytes == 0) return true;
    const Profile after(*made, references(*made));
    peak = after.peak;
    return static_cast<double>(after.peak_bytes + chains->scratch_bytes()) <= most;
  };
  for (const int64_t most_held : kMostHeld) {
    chains.emplace(graph, report, most_held);
    made = chains->run();
    if (fits()) break;
  }
  for (int i = 0; !fits(); ++i) made = chains->without_nearest(*made, peak, i < kMostDropped ? 1 : kMostChains);
  chains->note();
  return made ? *std::move(made) : graph;
}

}  // namespace tandem::graph
