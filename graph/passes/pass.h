// The passes, and what they share: a way to rewrite a graph node by node. pipeline.cpp says in which order they run, and why.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/autocast.h"
#include "core/dispatch.h"
#include "graph/ir/at.h"
#include "graph/ir/graph.h"

namespace tandem::graph {

/// Builds a new graph from an old one: leaves are copied, then each node is copied or replaced.
/// Also an interceptor, so that public functions called while it is installed append nodes.
class Rewriter final : public Interceptor {
 public:
  explicit Rewriter(const Graph& from);

  const Graph& from() const { return from_; }
  Graph& to() { return to_; }
  int mapped(int old_value) const { return at(map_, old_value); }
  std::vector<int> mapped(const std::vector<int>& old_values) const;
  /// Copies the node with its operands mapped; keeps the layouts of its outputs.
  void copy(const Node& node) { copy(node, mapped(node.inputs)); }
  /// Copies the node with operands of the new graph.
  void copy(const Node& node, std::vector<int> inputs);
  /// Lets `new_value` stand for `old_value`.
  void replace(int old_value, int new_value) { at(map_, old_value) = new_value; }
  /// A symbolic tensor for a value of the new graph, to call public functions with.
  Tensor symbol(int new_value);
  /// A number as a leaf of the new graph.
  int scalar(double number, DType dtype);
  /// Replaces outputs, writes and gradients by what they map to, and hands the graph over.
  Graph finish();

  /// Ops with a decomposition are replaced by it as they are appended, unless it folds in order.
  bool decompose = false;

  void run(const Op& op, std::span<const Tensor> inputs, const Attributes& attributes, std::span<Tensor> outputs,
           Where where) override;
  void assign(const Tensor& target, const Tensor& value, Where where) override;
  void value_needed(const Tensor& tensor, const char* wanted_by, Where where) override;
  void gradient_read(TensorImpl&) override {}
  void gradient_written(TensorImpl&) override {}
  void flag_read(const bool&) override {}
  void constant(const Tensor&) override {}
  int64_t draw() override { return 0; }

 private:
  const Graph& from_;
  Graph to_;
  std::vector<int> map_;
  std::map<std::pair<uint64_t, DType>, int> scalars_;  ///< the leaves of numbers, by bits and dtype
  bool folds_in_order_ = false;                        ///< what was appended since this was false
  uint64_t id_;
  InterceptorScope installed_;
  NoGrad no_grad_;
  AutocastOff autocast_off_;  ///< the trace holds every cast already
};

/// Whether the op adds or multiplies numbers in an order that shows, which its kernel alone knows: folds of float64 on the CPU,
/// for which there is no wider type. No generated loop walks it.
bool folds_in_order(const Op& op, const ValueType& operand);
/// The single number of a scalar leaf, or of a one-element constant, that stays the same between calls.
const double* constant_number(const Graph& graph, int value);
/// What all elements of the node's result are, as its dtype holds it. The op fills (Op::fills).
double filled_number(const Graph& graph, const Node& node);

Graph decompose(const Graph& graph);
Graph fold(const Graph& graph);
Graph simplify(const Graph& graph);
Graph common_subexpressions(const Graph& graph);
Graph dead_code(const Graph& graph);
Graph move_invariants(const Graph& graph);
/// Drops what is dead when that is done.
Graph prune_regions(const Graph& graph);
enum class Compile : uint8_t { now, later };
/// Leaves the same passes out of what regions hold. Programs are built, now or by Program::compile.
Graph optimise_regions(const Graph& graph, const std::vector<std::string>& without, Compile when);

constexpr size_t kMostRefused = 200;  ///< lines of a report

/// What was joined, and which producer-consumer pairs were not, with the reason.
struct FusionReport {
  std::vector<std::string> kernels;
  std::vector<std::string> refused;
  std::vector<std::string> recomputed;  ///< values that are computed again rather than kept
  int64_t looked_at = 0;                ///< Groups::looked_at
};

/// Chains of nodes that go along the rows of a batch, as nodes that run over blocks of rows.
Graph row_pipelines(const Graph& graph, FusionReport& report);
class Choices;
/// The budget is CompileOptions::memory_budget. With `choices`, as it was chosen there, or to be repeated. Notes what is computed
/// again.
Graph recompute(const Graph& graph, Choices* choices, double budget, std::vector<std::string>& report);
/// Orders the nodes. With `choices`, as it was chosen there, or to be repeated.
Graph schedule(const Graph& graph, Choices* choices = nullptr);

class Groups;
Groups fuse(const Graph& graph, FusionReport& report, Choices* choices = nullptr);
void join_state_kernels(Groups& groups, FusionReport& report, Choices* choices = nullptr);
Graph lower(const Groups& groups, FusionReport& report);

}  // namespace tandem::graph
