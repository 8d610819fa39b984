// In place: what a kernel reads at the position where it stores, it has read by then.
#include "graph/run/in_place.h"

#include <algorithm>

#include "graph/ir/at.h"
#include "graph/ir/region.h"
#include "graph/run/plan.h"

namespace tandem::graph {

namespace {

/// Columns are walked once a phase, so what is stored in the last one is read no more, but at the same element.
bool stores_last(const Segment& segment, const Store& store) {
  const auto phase_of = [&](int statement) { return segment.statements[static_cast<size_t>(statement)].phase; };
  if (segment.statements[static_cast<size_t>(store.statement)].level != Level::element) return false;
  int last = phase_of(store.statement);
  for (const Statement& statement : segment.statements)
    if (statement.kind == LoopOp::fold) last = std::max(last, statement.phase);
  for (const Store& other : segment.stores) last = std::max(last, phase_of(other.statement));
  return phase_of(store.statement) == last;
}

/// The same within a region that is called for each block of rows.
bool blocks_read_before_writing(const Node& node, int read, int made) {
  const auto operand = std::find(node.inputs.begin(), node.inputs.end(), read);
  if (operand == node.inputs.end()) return true;
  const auto argument = operand - node.inputs.begin();
  const auto result = std::find(node.outputs.begin(), node.outputs.end(), made) - node.outputs.begin();
  if (std::count(node.inputs.begin(), node.inputs.end(), read) > 1 || argument >= node.attributes.integer("by_row"))
    return false;
  const auto may_share = make_plan(region_of(node.attributes, "body").graph(), {.results_apart = true}).may_share;
  return std::find(may_share.begin(), may_share.end(), std::pair<int, int>(argument, result)) != may_share.end();
}

/// Whether the value holds the base's elements, all of them, one after the other.
bool is_whole(const Graph& graph, const Reference& reference, int value) {
  const ValueType &base = graph.type(reference.base), &seen = graph.type(value);
  return value == reference.base ||
         (reference.offset == 0 && seen.shape.numel() == base.shape.numel() &&
          is_contiguous(base.shape, base.strides) && is_contiguous(seen.shape, seen.strides));
}

}  // namespace

bool InPlace::writes_over(const Node& node, int read, int made) const {
  const auto result = std::find(node.outputs.begin(), node.outputs.end(), made) - node.outputs.begin();
  if (node.fused || result >= kMaxOutputs) return false;
  const int operand = node.op->over[static_cast<size_t>(result)];
  if (operand < 0) return false;
  for (int i = 0; i < count(node.inputs); ++i) {
    const int input = at(node.inputs, i);
    if ((at(references_, input).base == read) != (i == operand)) return false;
  }
  const int over = at(node.inputs, operand);
  return graph_.type(over) == graph_.type(made) && is_whole(graph_, at(references_, over), over);
}

const InPlace::KernelUses& InPlace::uses_of(int node) const {
  const auto [known, fresh] = uses_.try_emplace(node);
  KernelUses& uses = known->second;
  if (!fresh) return uses;
  const Node& of = graph_.node(node);
  const LoopKernel& kernel = *of.fused;
  const int inputs = static_cast<int>(of.inputs.size());
  const auto add = [&](const Segment& all, const Segment* segment) {
    for (const Statement& statement : all.statements)
      if ((statement.kind == LoopOp::load || statement.kind == LoopOp::uniform) && statement.buffer < inputs)
        uses.reads[references_[of.inputs[statement.buffer]].base].emplace_back(segment, &statement);
    for (const Store& store : all.stores) uses.stores[of.outputs[store.buffer - inputs]] = {segment, &store};
  };
  for (const Segment& segment : kernel.segments) add(segment, &segment);
  add(kernel.finish, nullptr);
  return uses;
}

bool InPlace::reads_before_writing(int n, int read, int made) const {
  const Node& node = graph_.node(n);
  if (!node.fused) {
    if (writes_over(node, read, made)) return true;
    for (int input : node.inputs)
      if (references_[input].base == read && input != read) return false;
    if (runs_blocks(node)) return blocks_read_before_writing(node, read, made);
    return node.op->in_place || (node.op->updates_operand && node.inputs[0] == read &&
                                 std::count(node.inputs.begin(), node.inputs.end(), read) == 1);
  }
  const KernelUses& uses = uses_of(n);
  const auto stored = uses.stores.find(made);
  TANDEM_ASSERT(stored != uses.stores.end(), "a kernel doesn't store what it makes");
  const auto [mine, store] = stored->second;
  const auto reads = uses.reads.find(read);
  if (reads == uses.reads.end()) return true;
  if (!mine) return true;  // the finish runs after everything
  const bool by_rows = mine->by_row && graph_.type(made).device.is_cpu() && stores_last(*mine, *store);
  for (const auto& [segment, statement] : reads->second)
    if (segment != mine || (segment->by_row && (!by_rows || statement->level != Level::element)) ||
        statement->kind != LoopOp::load || statement->position.offset != store->position.offset ||
        statement->position.strides != store->position.strides)
      return false;
  return true;
}

bool InPlace::may_take_over(int n, int read, int made) const {
  const ValueType &from = graph_.type(read), &to = graph_.type(made);
  if (from.dtype != to.dtype || from.device != to.device || bytes_of(from) != bytes_of(to)) return false;
  const Node& node = graph_.node(n);
  if (writes_over(node, read, made)) return true;
  if (!node.fused && (node.outputs.size() != 1 || !(from == to)))
    return false;  // of several, each goes over one operand alone
  if (std::none_of(node.inputs.begin(), node.inputs.end(), [&](int i) { return references_[i].base == read; }))
    return false;
  return reads_before_writing(n, read, made);
}

}  // namespace tandem::graph
