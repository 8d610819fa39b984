// Running nodes with regions: each region is a program of its own, which the loops below call.
#include <algorithm>

#include "core/dispatch.h"
#include "graph/ir/at.h"
#include "graph/ir/region.h"
#include "graph/run/program.h"
#include "graph/run/regions.h"
#include "kernels/cpu/support/copy.h"
#include "kernels/cpu/support/parallel.h"

namespace tandem::graph {

Program& GraphRegion::program() const {
  std::call_once(once_, [&] {
    if (!program_) program_ = make_ ? make_() : Program::build(graph_, {}, Where(), nullptr);
  });
  return *program_;
}

namespace {

void copy_to(const Tensor& to, const Tensor& from, Where where) {
  static const Op& copy = find_op("copy");
  if (to.device() != from.device()) {  // a number of the host, for one on another device
    if (from.numel() != 1)
      throw GraphError(detail::str("run: a region gives ", type_of(from), ", and not on ", to.device()), where);
    const DeviceKind kind = to.device().is_cpu() ? from.device().kind : to.device().kind;
    return backend(kind).copy(to.impl()->data, to.device(), from.impl()->data, from.device(), size_of(from.dtype()));
  }
  run_kernel(copy, {&from, 1}, {}, {&to, 1}, where);
}

/// An element of one, on the host.
bool is_true(const Tensor& condition) {
  bool value = false;
  const Device device = condition.device();
  if (device.is_cpu()) return *static_cast<const bool*>(condition.impl()->data);
  backend(device.kind).copy(&value, cpu(), condition.impl()->data, device, sizeof value);
  return value;
}

/// A tensor of a layout that may have gaps.
Tensor with_room(const ValueType& type) {
  int64_t elements = type.shape.contains(0) ? 0 : 1;
  for (int d = 0; elements > 0 && d < type.shape.size(); ++d) elements += (type.shape[d] - 1) * type.strides[d];
  Tensor result = header_of(type);
  TensorImpl& impl = *result.impl();
  impl.storage = Storage::allocate(static_cast<size_t>(elements * size_of(type.dtype)), type.device);
  impl.data = impl.storage->data;
  return result;
}

bool same_layout(const Tensor& tensor, const ValueType& type) {
  return tensor.device() == type.device && tensor.strides() == type.strides;
}
Tensor header_like(const Tensor& tensor) {
  Tensor header = header_of(type_of(tensor), tensor.impl()->is_scalar);
  header.impl()->data = tensor.impl()->data;
  return header;
}

/// A region that is called for each turn, on headers whose memory moves. What a pass has laid out otherwise than the node's operands
/// and results goes through memory beside them.
class RegionCall {
 public:
  RegionCall(const GraphRegion& region, std::span<const Tensor> arguments, std::span<const Tensor> results, Where where)
      : run_(region.program()), plan_(region.program().plan()), where_(where) {
    const Plan& plan = plan_;
    for (const Tensor& each : arguments) given_.push_back(header_like(each));
    arguments_ = given_;
    for (const Leaf& leaf : plan.graph.leaves) {
      if (leaf.kind != LeafKind::argument || leaf.argument >= count(given_)) continue;
      const Tensor& given = at(given_, leaf.argument);
      const ValueType& type = plan.type(leaf.value);
      if (given.strides() == type.strides || given.impl()->is_scalar) continue;
      at(arguments_, leaf.argument) = with_room(type);
      moves_in_.push_back(leaf.argument);
    }
    moved_.assign(given_.size(), true);
    for (size_t i = 0; i < results.size(); ++i) {
      const ValueType& type = plan.type(plan.graph.outputs[i]);
      wanted_.push_back(header_like(results[i]));
      results_.push_back(same_layout(results[i], type) ? wanted_.back() : with_room(type));
    }
    region.program().check(arguments_);
  }

  ~RegionCall() {
    if (lent_) (*run_).lend_arena(nullptr);
  }
  RegionCall(const RegionCall&) = delete;
  RegionCall& operator=(const RegionCall&) = delete;

  /// Where an argument lies, and where a result goes, from now on.
  void argument(size_t i, void* data) {
    given_[i].impl()->data = data;
    moved_[i] = true;
  }
  void result(size_t i, void* data) { wanted_[i].impl()->data = data; }
  /// The region's intermediate values lie there as long as this lives.
  void lend_arena(void* memory) {
    lent_ = true;
    (*run_).lend_arena(memory);
  }
  /// The result lies where the argument does: it goes there last, unless the plan allows for it.
  void shared(size_t argument, size_t result) {
    const std::vector<std::pair<int, int>>& may_share = plan_.may_share;
    const std::pair<int, int> pair(static_cast<int>(argument), static_cast<int>(result));
    if (results_[result].impl() == wanted_[result].impl() &&
        std::find(may_share.begin(), may_share.end(), pair) == may_share.end())
      results_[result] = with_room(type_of(wanted_[result]));
  }
  const Tensor& result(size_t i) const { return wanted_[i]; }

  void operator()() {
    for (const int i : moves_in_)
      if (at(moved_, i)) copy_to(at(arguments_, i), at(given_, i), where_), at(moved_, i) = false;
    (*run_).into(arguments_, results_);
    for (size_t i = 0; i < results_.size(); ++i)
      if (results_[i].impl() != wanted_[i].impl()) copy_to(wanted_[i], results_[i], where_);
  }

 private:
  const Program::Taken run_;
  const Plan& plan_;
  Where where_;
  Tensors given_, arguments_, wanted_, results_;
  std::vector<int> moves_in_;
  std::vector<bool> moved_;
  bool lent_ = false;
};

/// What a loop starts from, laid out as what it carries is.
Tensor start_of(const Tensor& input, const Tensor& carried, Where where) {
  if (same_layout(input, type_of(carried))) return input;
  const Tensor start = with_room(type_of(carried));
  copy_to(start, input, where);
  return start;
}

void cond_kernel(KernelContext& c) {
  const GraphRegion& taken = region_of(c.attributes, is_true(c.inputs[0]) ? "then" : "otherwise");
  RegionCall(taken, c.inputs.subspan(1), c.outputs, c.where)();
}

/// What is carried goes to and fro between the node's results and memory beside them.
void while_kernel(KernelContext& c) {
  const GraphRegion& condition_region = region_of(c.attributes, "condition");
  const Graph& condition_graph = condition_region.program().plan().graph;
  const Tensor goes_on = with_room(condition_graph.type(condition_graph.outputs[0]));
  Tensors now(c.inputs.begin(), c.inputs.end()), spare(c.outputs.size());
  for (size_t k = 0; k < c.outputs.size(); ++k) now[k] = start_of(c.inputs[k], c.outputs[k], c.where);
  RegionCall condition(condition_region, now, {&goes_on, 1}, c.where);
  RegionCall body(region_of(c.attributes, "body"), now, c.outputs, c.where);
  for (bool to_results = true; condition(), is_true(goes_on); to_results = !to_results) {
    for (size_t k = 0; k < c.outputs.size(); ++k) {
      if (!to_results && !spare[k].defined()) spare[k] = with_room(type_of(c.outputs[k]));
      body.result(k, (to_results ? c.outputs : std::span<const Tensor>(spare))[k].impl()->data);
    }
    body();
    for (size_t k = 0; k < c.outputs.size(); ++k) {
      now[k] = to_results ? c.outputs[k] : spare[k];
      condition.argument(k, now[k].impl()->data);
      body.argument(k, now[k].impl()->data);
    }
  }
  for (size_t k = 0; k < c.outputs.size(); ++k)
    if (now[k].impl() != c.outputs[k].impl()) copy_to(c.outputs[k], now[k], c.where);
}

/// The element of a sequence that the turn is at: the same header, moved along.
class Element {
 public:
  explicit Element(const Tensor& sequence)
      : first_(static_cast<char*>(sequence.impl()->data)), step_(sequence.strides()[0] * size_of(sequence.dtype())),
        element_(header_of({sequence.dtype(), sequence.device(), without_first(sequence.shape()),
                            without_first(sequence.strides())})) {}
  const Tensor& at(int64_t turn) {
    element_.impl()->data = first_ + turn * step_;
    return element_;
  }

 private:
  static Shape without_first(const Shape& shape) {
    Shape rest;
    for (int d = 1; d < shape.size(); ++d) rest.push_back(shape[d]);
    return rest;
  }
  char* first_;
  int64_t step_;
  Tensor element_;
};

/// A block of rows of a tensor that has so many of them.
class Block {
 public:
  Block(const Tensor& all, int64_t blocks)
      : first_(static_cast<char*>(all.impl()->data)),
        step_(all.shape()[0] / blocks * all.strides()[0] * size_of(all.dtype())), type_(type_of(all)) {
    type_.shape[0] /= blocks;
  }
  void* at(int64_t block) const { return first_ + block * step_; }
  Tensor header() const {
    Tensor header = header_of(type_);
    header.impl()->data = first_;
    return header;
  }

 private:
  char* first_;
  int64_t step_;
  ValueType type_;
};

void scan_kernel(KernelContext& c) {
  const auto carried = static_cast<size_t>(c.attributes.integer("carried"));
  const auto sequences = static_cast<size_t>(c.attributes.integer("sequences"));
  const int64_t length = c.attributes.integer("length");
  const bool reverse = c.attributes.flag("reverse"), keeps = c.attributes.flag("keeps");
  // What is carried is written where the next turn reads it: among what is kept for the gradient, or to and fro between the node's
  // results and memory beside them.
  Tensors arguments(c.inputs.begin(), c.inputs.end()), results(c.outputs.begin(), c.outputs.end()), spare(carried);
  results.resize(c.outputs.size() - (keeps ? carried : 0));
  const size_t stacked = results.size() - carried;
  std::vector<Element> from, to, kept;
  for (size_t i = 0; i < sequences; ++i) from.emplace_back(c.inputs[carried + i]);
  for (size_t i = 0; i < stacked; ++i) to.emplace_back(c.outputs[carried + i]);
  for (size_t i = 0; keeps && i < carried; ++i) kept.emplace_back(c.outputs[carried + stacked + i]);
  for (size_t k = 0; k < carried; ++k) arguments[k] = start_of(c.inputs[k], c.outputs[k], c.where);
  for (size_t k = 0; k < sequences; ++k) arguments[carried + k] = from[k].at(0);
  for (size_t k = 0; k < stacked; ++k) results[carried + k] = to[k].at(0);
  RegionCall body(region_of(c.attributes, "body"), arguments, results, c.where);
  const auto position = [&](int64_t turn) { return reverse ? length - 1 - turn : turn; };
  std::vector<bool> chained(carried);
  for (size_t k = 0; k < carried; ++k) {
    chained[k] = keeps && same_layout(kept[k].at(0), type_of(c.outputs[k]));
    if (keeps) copy_to(kept[k].at(position(0)), arguments[k], c.where);
    if (!chained[k] && length > 1) spare[k] = with_room(type_of(c.outputs[k]));
  }
  for (int64_t turn = 0; turn < length; ++turn) {
    for (size_t k = 0; k < carried; ++k) {
      if (turn + 1 < length && chained[k]) body.result(k, kept[k].at(position(turn + 1)).impl()->data);
      else body.result(k, ((length - 1 - turn) % 2 == 0 ? c.outputs[k] : spare[k]).impl()->data);
    }
    for (size_t k = 0; k < sequences; ++k) body.argument(carried + k, from[k].at(position(turn)).impl()->data);
    for (size_t k = 0; k < stacked; ++k) body.result(carried + k, to[k].at(position(turn)).impl()->data);
    body();
    for (size_t k = 0; k < carried; ++k) {
      body.argument(k, body.result(k).impl()->data);
      if (keeps && !chained[k] && turn + 1 < length) copy_to(kept[k].at(position(turn + 1)), body.result(k), c.where);
    }
  }
}

/// Blocks of rows side by side: each thread has a call of its own.
void over_rows_kernel(KernelContext& c) {
  const int64_t blocks = c.attributes.integer("blocks");
  const auto by_row = static_cast<size_t>(c.attributes.integer("by_row"));
  const GraphRegion& body = region_of(c.attributes, "body");
  std::vector<Block> from, to;
  for (size_t i = 0; i < by_row; ++i) from.emplace_back(c.inputs[i], blocks);
  for (const Tensor& output : c.outputs) to.emplace_back(output, blocks);
  // Blocks' intermediate values are forgotten after the call: other chains' lie in the same memory.
  const Plan& plan = body.program().plan();
  const bool lends = plan.arenas.size() == 1;
  const int64_t arena = lends ? (plan.arena_bytes() + 4095) / 4096 * 4096 : 0;
  const int64_t threads = std::max<int64_t>(1, threads_for(blocks, 1));
  const Scratch scratch(threads * arena);
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    Tensors arguments(c.inputs.begin(), c.inputs.end()), results;
    for (size_t i = 0; i < by_row; ++i) arguments[i] = from[i].header();
    for (const Block& block : to) results.push_back(block.header());
    RegionCall call(body, arguments, results, c.where);
    if (lends) call.lend_arena(scratch.as<char>() + (threads > 1 ? omp_get_thread_num() : 0) * arena);
    for (size_t i = 0; i < by_row; ++i)
      for (size_t k = 0; k < to.size(); ++k)
        if (from[i].at(0) == to[k].at(0)) call.shared(i, k);
    for (int64_t block = begin; block < end; ++block) {
      for (size_t i = 0; i < by_row; ++i) call.argument(i, from[i].at(block));
      for (size_t i = 0; i < to.size(); ++i) call.result(i, to[i].at(block));
      call();
    }
  });
}

/// The operands that are read by row come first. Results lead with the rows of all blocks.
void infer_over_rows(Infer& op) {
  const int64_t blocks = op.integer("blocks", 1), by_row = op.integer("by_row", 1, std::ssize(op.inputs));
  const Graph& graph = region_of(op.attributes, "body").graph();
  op.check<GraphError>(graph.writes.empty() && graph.gradients.empty() && graph.draws == 0 && !has_effect(graph),
                       "its region changes what is outside");
  for (const Leaf& leaf : graph.leaves) {
    op.check<GraphError>(leaf.kind == LeafKind::argument || leaf.kind == LeafKind::scalar, "its region reads a ",
                         name_of(leaf.kind));
    if (leaf.kind != LeafKind::argument) continue;
    op.check<GraphError>(leaf.argument < std::ssize(op.inputs), "its region reads operand ", leaf.argument, " of ",
                         op.inputs.size());
    Shape given = op.input(leaf.argument).shape();
    if (leaf.argument < by_row && !given.empty() && given[0] % blocks == 0) given[0] /= blocks;
    const ValueType& type = graph.type(leaf.value);
    op.check<GraphError>(given == type.shape && op.input(leaf.argument).dtype() == type.dtype, "its region takes ",
                         type, " as operand ", leaf.argument, ", and gets ", type_of(op.input(leaf.argument)));
  }
  for (const int output : graph.outputs) {
    const ValueType& type = graph.type(output);
    op.check<GraphError>(!type.shape.empty(), "its region returns a number");
    Shape shape = type.shape;
    shape[0] = checked_mul(shape[0], blocks);
    op.output(shape, type.dtype);
  }
}

}  // namespace

void define_over_rows(OpTable& table) {
  using enum AttributeType;
  table.add({.name = "over_rows",
             .kind = OpKind::control,
             .inputs = kVariadic,
             .outputs = kVariadic,
             .attributes = {{"body", region}, {"blocks", integer}, {"by_row", integer}},
             .infer = infer_over_rows});
}

void add_region_kernels(OpTable& table) {
  for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {  // the loops are the host's
    const tandem::Kernels kernels(table, device);
    kernels["cond"] = cond_kernel;
    kernels["while_loop"] = while_kernel;
    kernels["scan"] = scan_kernel;
    kernels["over_rows"] = over_rows_kernel;
  }
}

}  // namespace tandem::graph
