// One kernel as loops (loop.h): operands become loads at affine positions, views disappear into the
// positions, and each fold gets the phase after which its result is known.
#include <algorithm>
#include <map>
#include <numeric>

#include "core/custom_op.h"
#include "graph/ir/at.h"
#include "graph/passes/groups.h"
#include "graph/passes/pass.h"

namespace tandem::graph {

namespace {

class KernelLowerer {
 public:
  KernelLowerer(const Groups& groups, const GroupKernel& kernel, const std::vector<int>& stored,
                std::vector<int>& inputs)
      : groups_(groups), kernel_(kernel), stored_(stored), inputs_(inputs) {
    for (int i = 0; i < count(stored); ++i) store_of_[at(stored, i)] = i;
  }

  LoopKernel run() {
    // Where folds of everything end up: segment and slot of each.
    for (const GroupSegment& segment : kernel_.segments) lower_segment(segment, count(out_.segments));
    lower_finish();
    // Buffers: what is read, then what is stored.
    const int reads = count(inputs_);
    for (int value : inputs_) out_.buffers.push_back(groups_.type(value).dtype);
    for (int value : stored_) out_.buffers.push_back(groups_.type(value).dtype);
    for (Segment& segment : out_.segments)
      for (Store& store : segment.stores) store.buffer += reads;
    for (Store& store : out_.finish.stores) store.buffer += reads;
    return std::move(out_);
  }

 private:
  const Node& node(int n) const { return groups_.node(n); }

  int buffer(int value) {
    const auto [known, fresh] = buffer_of_.try_emplace(value, count(inputs_));
    if (fresh) inputs_.push_back(value);
    return known->second;
  }

  /// State of the segment (or finish) being spelled.
  struct Current {
    Segment* segment = nullptr;
    const GroupSegment* group = nullptr;  ///< null for the finish
    std::map<int, int> statement_of;      ///< graph value (without views) made in the segment → statement
    std::map<std::pair<int, std::vector<int64_t>>, int> loads;  ///< value and position → statement
    std::map<std::pair<int, int>, int> checks;                  ///< view that checks and what it reads → statement
    size_t rank = 0;
  };

  int add(Current& now, Statement statement) {
    now.segment->statements.push_back(std::move(statement));
    return count(now.segment->statements) - 1;
  }

  /// The operand `input` of a call whose iteration dims lie at `dims` of the domain, checked on the way if a view says so.
  int operand(Current& now, int input, const std::vector<int>& dims) {
    const int found = unchecked(now, input, dims), checked_by = groups_.reference(input).checked_by;
    if (checked_by < 0) return found;
    const auto [known, fresh] = now.checks.try_emplace({checked_by, found}, -1);
    if (!fresh) return known->second;
    const Node& view = node(checked_by);
    const Statement& operand = at(now.segment->statements, found);
    Statement check{.kind = LoopOp::check,
                    .level = operand.level,
                    .dtype = operand.dtype,
                    .operands = {found},
                    .phase = known_from(now, found),
                    .check = count(out_.checks)};
    out_.checks.push_back({.range = range_check_of(view.attributes),
                           .op = view.attributes.text("op"),
                           .where = view.where,
                           .shape = groups_.type(view.inputs[0]).shape});
    return known->second = add(now, std::move(check));
  }

  int unchecked(Current& now, int input, const std::vector<int>& dims) {
    const Reference& r = groups_.reference(input);
    if (const auto made = now.statement_of.find(r.base); made != now.statement_of.end()) return made->second;
    if (const double* number = constant_number(groups_.graph, r.base)) {
      Statement literal{.kind = LoopOp::literal,
                        .level = Level::scalar,
                        .dtype = groups_.type(r.base).dtype,
                        .number = *number,
                        .value = r.base};
      return now.statement_of[r.base] = add(now, literal);
    }
    const int maker = groups_.maker(r.base);
    if (maker >= 0 && groups_.computed_again(maker)) {
      if (groups_.is_generator(maker)) return generator(now, node(maker), r, dims);
      return scalar_calls(now, maker);
    }
    // From memory.
    Statement load{
        .kind = LoopOp::load, .dtype = groups_.type(r.base).dtype, .position = position(now, r, dims), .value = r.base};
    load.level = level_of(now, load.position);
    load.buffer = buffer(r.base);
    std::vector<int64_t> key(load.position.strides.begin(), load.position.strides.end());
    key.push_back(load.position.offset);
    const auto [known, fresh] = now.loads.try_emplace({r.base, key}, 0);
    if (fresh) known->second = add(now, load);
    return known->second;
  }

  /// What the scalar node `last` gives, and before it what that is made of, however long the chain.
  int scalar_calls(Current& now, int last) {
    std::vector<int> waiting{last};
    while (!waiting.empty()) {
      const int n = waiting.back();
      const size_t before = waiting.size();
      for (int input : node(n).inputs) {
        const int maker = groups_.source(input);
        if (maker >= 0 && !now.statement_of.count(groups_.reference(input).base) && groups_.computed_again(maker) &&
            !groups_.is_generator(maker))
          waiting.push_back(maker);
      }
      if (waiting.size() > before) continue;
      waiting.pop_back();
      const auto [made, fresh] = now.statement_of.try_emplace(node(n).outputs[0], -1);
      if (!fresh) continue;
      Statement call = call_statement(now, node(n), {});
      call.level = now.group ? Level::scalar : Level::finish;
      made->second = add(now, std::move(call));
    }
    return now.statement_of.at(node(last).outputs[0]);
  }

  int generator(Current& now, const Node& n, const Reference& r, const std::vector<int>& dims) {
    if (n.op->fills)
      return now.statement_of[r.base] = add(now, {.kind = LoopOp::literal,
                                                  .level = Level::scalar,
                                                  .dtype = groups_.type(r.base).dtype,
                                                  .number = filled_number(groups_.graph, n),
                                                  .value = r.base});
    Statement statement{
        .dtype = groups_.type(n.outputs[0]).dtype, .position = position(now, r, dims), .value = n.outputs[0]};
    statement.level = level_of(now, statement.position);
    if (*n.op->sequence == Sequence::range) {
      statement.kind = LoopOp::index;
      statement.begin = n.attributes.number("begin");
      statement.step = n.attributes.number("step");
    } else {
      statement.kind = LoopOp::uniform;
      statement.integer = n.attributes.integer("site");
      statement.buffer = buffer(groups_.reference(n.inputs[0]).base);
    }
    return add(now, statement);
  }

  Position position(const Current& now, const Reference& r, const std::vector<int>& dims) const {
    Position result;
    result.offset = r.offset;
    std::vector<int64_t> strides(now.rank, 0);
    const int shift = count(dims) - r.shape.size();
    for (int i = 0; i < r.shape.size(); ++i) {
      const int d = i + shift >= 0 ? at(dims, i + shift) : -1;
      if (d >= 0 && r.shape[i] != 1) at(strides, d) += r.strides[i];
    }
    result.strides = Shape(strides);
    return result;
  }

  static bool walks(const Position& position, const std::vector<bool>& dims, bool which) {
    for (int d = 0; d < position.strides.size(); ++d)
      if (position.strides[d] != 0 && at(dims, d) == which) return true;
    return false;
  }

  Level level_of(const Current& now, const Position& position) const {
    if (!now.group) return Level::finish;
    bool any = false;
    for (int64_t stride : position.strides) any = any || stride != 0;
    if (!any) return Level::scalar;
    if (now.group->has_rows() && !walks(position, now.group->reduced, true)) return Level::row;
    return Level::element;
  }

  Statement call_statement(Current& now, const Node& n, const std::vector<int>& dims) {
    Statement call{
        .kind = LoopOp::pointwise, .dtype = groups_.type(n.outputs[0]).dtype, .op = n.op, .value = n.outputs[0]};
    if (n.op->pointwise.expression == nullptr) call.kind = LoopOp::cast, call.op = nullptr;
    for (int input : n.inputs) call.operands.push_back(operand(now, input, dims));
    if (n.op->user)  // a user's expression: its attributes are numbers after the operands
      for (const std::string& name : n.op->user->attributes)
        call.operands.push_back(add(now, {.kind = LoopOp::literal,
                                          .level = now.group ? Level::scalar : Level::finish,
                                          .dtype = call.dtype,
                                          .number = n.attributes.number(name)}));
    for (int o : call.operands) call.phase = std::max(call.phase, known_from(now, o));
    return call;
  }

  /// The first phase in which a statement's value is known.
  static int known_from(const Current& now, int statement) {
    const Statement& s = at(now.segment->statements, statement);
    return s.kind == LoopOp::fold ? s.phase + 1 : s.phase;
  }

  void lower_segment(const GroupSegment& group, int index) {
    Segment segment;
    Current now;
    now.segment = &segment;
    now.group = &group;
    now.rank = group.domain.size();
    segment.by_row = group.has_rows();
    for (const Member& member : group.members) {
      const Node& n = node(member.node);
      const int value = n.outputs[0];
      if (!n.op->fold) {
        Statement call = call_statement(now, n, member.dims);
        call.level = member.level;
        now.statement_of[value] = add(now, call);
        continue;
      }
      Statement fold{.kind = LoopOp::fold, .level = member.level, .dtype = groups_.type(value).dtype, .value = value};
      fold.fold = *n.op->fold;
      if (n.op->averages) fold.divisor = groups_.type(n.inputs[0]).shape.numel() / groups_.type(value).shape.numel();
      fold.operands = {operand(now, n.inputs[0], member.dims)};
      fold.phase = known_from(now, fold.operands[0]);
      if (member.level == Level::finish) {
        // Folded where its operand is: over elements, or over rows.
        const Level operand_level = at(segment.statements, fold.operands[0]).level;
        fold.level = operand_level == Level::row && segment.by_row ? Level::row : Level::element;
        if (operand_level == Level::scalar) fold.level = Level::element;
        fold.partial = segment.partials++;
        folded_[value] = {index, fold.partial, fold.fold, fold.divisor, fold.dtype};
        add(now, fold);
        continue;
      }
      fold.level = Level::row;
      now.statement_of[value] = add(now, fold);
    }
    for (const Member& member : group.members) {
      const int value = node(member.node).outputs[0];
      const auto found = store_of_.find(value);
      if (found == store_of_.end() || member.level == Level::finish) continue;
      Store store{.statement = now.statement_of[value], .buffer = found->second, .position = {}};
      std::vector<int64_t> strides(now.rank, 0);
      const ValueType& type = groups_.type(value);
      for (int i = 0; i < type.shape.size(); ++i)
        if (const int d = at(member.output_dims, i); d >= 0) at(strides, d) = type.strides[i];
      store.position.strides = Shape(strides);
      segment.stores.push_back(store);
    }
    order_dims(segment, group);
    out_.segments.push_back(std::move(segment));
  }

  /// Sorts the dims as they lie in memory, rows apart from columns, and joins those that every position
  /// walks as one.
  void order_dims(Segment& segment, const GroupSegment& group) {
    std::vector<Position*> positions;
    for (Statement& s : segment.statements)
      if (s.kind == LoopOp::load || s.kind == LoopOp::index || s.kind == LoopOp::uniform)
        positions.push_back(&s.position);
    for (Store& s : segment.stores) positions.push_back(&s.position);
    // The position that walks the most dims, stores before loads, leads; of those that walk as many, but different ones, the
    // shortest, so that what it doesn't walk, which comes to lie innermost, is long.
    const Position* leader = nullptr;
    int most = -1;
    int64_t fewest = 0;
    for (size_t p = positions.size(); p-- > 0;) {
      int walked = 0;
      int64_t elements = 1;
      for (size_t d = 0; d < group.domain.size(); ++d)
        if (positions[p]->strides[static_cast<int>(d)] != 0) ++walked, elements *= group.domain[d];
      if (walked > most || (walked == most && elements < fewest))
        most = walked, fewest = elements, leader = positions[p];
    }
    std::vector<int> order(group.domain.size());
    std::iota(order.begin(), order.end(), 0);
    const Shape lead = leader ? leader->strides : Shape();
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      if (at(group.reduced, a) != at(group.reduced, b)) return !at(group.reduced, a);
      return leader && lead[a] > lead[b];
    });
    std::vector<int64_t> extents;
    std::vector<bool> reduced;
    std::vector<std::vector<int>> from;  // domain dims joined into each new dim, outer first
    for (int d : order) {
      bool joins = !extents.empty() && reduced.back() == at(group.reduced, d);
      for (size_t p = 0; joins && p < positions.size(); ++p)
        joins = positions[p]->strides[from.back().back()] == positions[p]->strides[d] * at(group.domain, d);
      if (joins) {
        extents.back() *= at(group.domain, d);
        from.back().push_back(d);
      } else {
        extents.push_back(at(group.domain, d));
        reduced.push_back(at(group.reduced, d));
        from.push_back({d});
      }
    }
    for (Position* position : positions) {
      Shape strides;
      for (const std::vector<int>& joined : from) strides.push_back(position->strides[joined.back()]);
      position->strides = strides;
    }
    for (size_t i = 0; i < extents.size(); ++i)
      (segment.by_row && reduced[i] ? segment.columns : segment.rows).push_back(extents[i]);
  }

  struct Folded {
    int segment, slot;
    Fold fold;
    int64_t divisor;
    DType dtype;
  };

  void lower_finish() {
    Current now;
    now.segment = &out_.finish;
    for (const auto& [value, folded] : folded_) {
      Statement partial{.kind = LoopOp::partial,
                        .level = Level::finish,
                        .dtype = folded.dtype,
                        .buffer = folded.segment,
                        .integer = folded.slot,
                        .fold = folded.fold,
                        .divisor = folded.divisor,
                        .value = value};
      now.statement_of[value] = add(now, partial);
    }
    for (int n : kernel_.finish) {
      Statement call = call_statement(now, node(n), {});
      call.level = Level::finish;
      now.statement_of[node(n).outputs[0]] = add(now, call);
    }
    for (Statement& s : out_.finish.statements) s.level = Level::finish;
    for (size_t i = 0; i < stored_.size(); ++i)
      if (const auto made = now.statement_of.find(stored_[i]);
          made != now.statement_of.end() && !stored_by_segment(stored_[i]))
        out_.finish.stores.push_back({.statement = made->second, .buffer = static_cast<int>(i), .position = {}});
  }

  bool stored_by_segment(int value) const {
    for (const Segment& segment : out_.segments)
      for (const Store& store : segment.stores)
        if (at(stored_, store.buffer) == value) return true;
    return false;
  }

  const Groups& groups_;
  const GroupKernel& kernel_;
  const std::vector<int>& stored_;
  std::vector<int>& inputs_;
  std::map<int, int> buffer_of_, store_of_;  ///< values to indices in inputs_ and stored_
  LoopKernel out_;
  std::map<int, Folded> folded_;  ///< graph value of a fold of everything
};

}  // namespace

LoopKernel lower_kernel(const Groups& groups, const GroupKernel& kernel, const std::vector<int>& stored,
                        std::vector<int>& inputs) {
  return KernelLowerer(groups, kernel, stored, inputs).run();
}

}  // namespace tandem::graph
