// C for the loops of fused kernels: a function for each segment, which the CPU runs in chunks, and one for the finish.
// Sums of floats run in double and are rounded once, as in the eager kernels: whatever the order, the result is all but
// always the same.
#include "graph/codegen/c_source.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace tandem::graph {

using detail::str;

namespace {

constexpr Dialect c = {.helper = "TD_FN",
                       .index = "long",
                       .stride_suffix = "L",
                       .extent_suffix = "L",
                       .nan = "__builtin_nan(\"\")",
                       .infinity = "__builtin_inf()"};

/// The type that a fold runs in. Sums of integers wrap, as unsigned ones do.
const char* fold_type(const Statement& s) {
  if (s.fold != Fold::sum && s.fold != Fold::prod) return compute_type(s.dtype);
  if (is_floating(s.dtype)) return "double";
  return s.dtype == DType::int64 ? "td_u64" : "td_u32";
}

/// Comparisons lose a NaN, so a flag beside the accumulator says whether there was one.
bool tracks_nan(const Statement& s) { return (s.fold == Fold::max || s.fold == Fold::min) && is_floating(s.dtype); }

/// Statements that are worth keeping for a later phase rather than computing again.
bool is_costly(const Statement& s) {
  return s.kind == LoopOp::uniform || (s.kind == LoopOp::pointwise && s.op->pointwise.cost == Cost::heavy);
}

class CSegment final : public SegmentEmitter {
 public:
  CSegment(const LoopKernel& kernel, const Segment& segment, std::set<std::string>& helpers)
      : SegmentEmitter(c, kernel, segment, helpers) {}

  SegmentCall call;  ///< of what was emitted

  std::string emit() {
    segment_.by_row ? rows() : flat();
    call.buffers = buffers();
    call.partials = segment_.partials;
    call.cost = 0;
    for (const Statement& s : segment_.statements)
      if (s.level == Level::element) call.cost += is_costly(s) ? 8 : 1;
    return function("(char* const* p, char* part, long begin, long end) {\n");
  }

  /// Straight-line code over the partial results, which are combined first; then a loop of one turn with the stores.
  std::string emit_finish() {
    tandem::detail::TextStream combine;
    for (int i = 0; i < count(); ++i) {
      const Statement& s = at(i);
      if (s.kind != LoopOp::partial) continue;
      const char* const wide = fold_type(s);
      combine << "  " << wide << " t" << i << " = " << identity(s.fold, s.dtype) << ";\n  for (long c = 0; c < chunks["
              << s.buffer << "]; ++c) {\n    const " << wide << " t = *(const " << wide << "*)(parts[" << s.buffer
              << "] + c * " << partial_bytes(s.buffer) << " + " << s.integer * 8 << ");\n    t" << i;
      switch (s.fold) {
        case Fold::sum: combine << " += t;\n"; break;
        case Fold::prod: combine << " *= t;\n"; break;
        case Fold::max: combine << " = t > t" << i << " || t != t ? t : t" << i << ";\n"; break;
        case Fold::min: combine << " = t < t" << i << " || t != t ? t : t" << i << ";\n"; break;
      }
      combine << "  }\n  const " << type(i) << " " << name(i) << " = "
              << rounded(s.dtype, str("(", type(i), ")", averaged(s, str("t", i)))) << ";\n";
    }
    flat();
    return function(
        "(char* const* p, char* const* parts, const long* chunks) {\n  const long begin = 0, end = 1; char* part = 0;\n"
        "  (void)parts; (void)chunks;\n",
        combine.str());
  }

 private:
  /// The function that begins so, with the buffers and numbers that it turned out to use, then `first`, then what was emitted.
  std::string function(std::string text, const std::string& first = {}) {
    for (size_t i = 0; i < buffers().size(); ++i) {
      const char* const memory = memory_type(buffer_type(buffers()[i]));
      text += str("  ", memory, "* const b", i, " = (", memory, "*)p[", i, "];\n");
    }
    if (!numbers_read().empty()) text += str("  const long* const e = (const long*)p[", buffers().size() + 1, "];\n");
    for (const int i : numbers_read()) text += str("  const long e", i, " = e[", i, "];\n");
    // What was out of range goes to the flag of its check, which lie behind the last buffer.
    std::string after;
    for (int i = 0; i < count(); ++i) {
      if (at(i).kind != LoopOp::check) continue;
      text += str("  int bad", i, " = 0;\n");
      after += str("  if (bad", i, ") __atomic_store_n((td_i64*)p[", buffers().size(), "] + ", at(i).check,
                   ", 1, __ATOMIC_RELAXED);\n");
    }
    return text + "  (void)p; (void)part;\n" + first + out_.str() + after + "}\n";
  }

  void check(int i, std::string_view indent) override {
    const RangeCheck& range = check_of(at(i)).range;
    if (range.interval) {
      const DType type = at(i).dtype;
      out_ << indent << "bad" << i << " |= !(" << name(i) << " >= " << literal(range.interval->low, type) << " && "
           << name(i) << " <= " << literal(range.interval->high, type) << ");\n";
      return;
    }
    out_ << indent << "bad" << i << " |= (td_u64)" << name(i)
         << " >= " << (at_run_time(range.bound) ? "(td_u64)" + spelled(range.bound, "") : str(range.bound, "UL"));
    if (range.ignored) out_ << " && " << name(i) << " != " << *range.ignored << "L";
    out_ << ";\n";
  }

  // ---- Folds.

  void declare_fold(int i, std::string_view indent) override {
    const Statement& s = at(i);
    out_ << indent << fold_type(s) << " a" << i << " = " << identity(s.fold, s.dtype) << ";\n";
    if (tracks_nan(s)) out_ << indent << "int n" << i << " = 0;\n";
  }
  void accumulate(int i, std::string_view indent) override {
    const Statement& s = at(i);
    const std::string value = name(s.operands[0]), a = str("a", i);
    const auto choose = [&](const char* order) { return str(" = ", value, order, a, " ? ", value, " : ", a); };
    out_ << indent << a;
    switch (s.fold) {
      case Fold::sum: out_ << " += " << value; break;
      case Fold::prod: out_ << " *= " << value; break;
      case Fold::max: out_ << choose(" > "); break;
      case Fold::min: out_ << choose(" < "); break;
    }
    out_ << ";\n";
    if (tracks_nan(s)) out_ << indent << "n" << i << " |= " << value << " != " << value << ";\n";
  }
  std::string folded(int i) {
    const Statement& s = at(i);
    std::string value = averaged(s, str("a", i));
    if (tracks_nan(s)) value = str("(n", i, " ? ", literal(NAN, s.dtype), " : ", value, ")");
    if (fold_type(s) != compute_type(s.dtype)) value = str("(", type(i), ")", value);
    return rounded(s.dtype, value);
  }
  std::string pragma(const std::vector<int>& folds) const {
    std::string text = "#pragma omp simd";
    for (int i : folds) {
      const Fold fold = at(i).fold;
      const char* symbol = fold == Fold::sum ? "+" : fold == Fold::prod ? "*" : fold == Fold::max ? "max" : "min";
      text += str(" reduction(", symbol, ":a", i, ")");
      if (tracks_nan(at(i))) text += str(" reduction(|:n", i, ")");
    }
    for (int i = 0; i < count(); ++i)
      if (at(i).kind == LoopOp::check) text += str(" reduction(|:bad", i, ")");
    return text + "\n";
  }
  void write_partials() {
    for (int i : chunk_folds())
      out_ << "  *(" << fold_type(at(i)) << "*)(part + " << at(i).partial * 8
           << ") = " << (tracks_nan(at(i)) ? folded(i) : str("a", i)) << ";\n";
  }

  // ---- A domain without rows.

  void flat() {
    scalars();
    const Phase all = phase(kEverything);
    for (int i : all.folds) declare_fold(i, "  ");
    if (rank() <= 1) {
      walk(all, "i0", "begin", "end", "  ");
    } else {
      outer_loop(rank() - 1);
      walk(all, str("i", rank() - 1), "0", spelled(extent(rank() - 1), "L"), "    ");
      out_ << "  }\n";
    }
    write_partials();
  }

  /// The loop over `index` from `from` to `to`.
  void walk(const Phase& all, const std::string& index, const std::string& from, const std::string& to,
            const std::string& indent) {
    if (all.folds.empty() && stage_count(all.needed) > 1) {
      staged(all.needed, index, from, to, indent);
      return;
    }
    out_ << pragma(all.folds) << indent << "for (long " << index << " = " << from << "; " << index << " < " << to
         << "; ++" << index << ") {\n";
    elements(all, indent + "  ");
    out_ << indent << "}\n";
  }

  // ---- Stages. A loop whose statements form a long dependent chain runs at the latency of that chain: the next
  // elements' work lies beyond what the processor looks ahead. So the loop is cut into strips that stay in the
  // first-level cache, and each strip is walked once for every costly statement of the chain.

  static constexpr int kStrip = 128;  // elements

  /// What every stage writes again rather than keeps.
  static bool is_free(const Statement& s) {
    return s.kind == LoopOp::load || s.kind == LoopOp::literal || s.kind == LoopOp::index;
  }

  /// How many costly statements stand in the longest chain that ends in each; free ones are left out.
  std::map<int, int> depths(const std::set<int>& needed) const {
    std::map<int, int> depth;
    for (int i : needed) {
      if (is_free(at(i))) continue;
      int deepest = 0;
      for (int o : at(i).operands)
        if (depth.count(o)) deepest = std::max(deepest, depth.at(o));
      depth[i] = deepest + (is_costly(at(i)) ? 1 : 0);
    }
    return depth;
  }
  int stage_count(const std::set<int>& needed) const {
    int stages = 1;
    for (const auto& [i, depth] : depths(needed)) stages = std::max(stages, depth);
    return stages;
  }

  /// The loop of walk(), in stages. Stores come last: an output may lie where an input does.
  void staged(const std::set<int>& needed, const std::string& index, const std::string& from, const std::string& to,
              const std::string& indent) {
    const int last = stage_count(needed);
    std::map<int, int> stage = depths(needed);
    for (auto& [i, s] : stage) s = std::max(s, 1);
    std::set<int> kept;  // read in a later stage
    for (int i : needed)
      for (int o : at(i).operands)
        if (stage.count(o) && stage.at(o) < stage.at(i)) kept.insert(o);
    for (const Store& st : segment_.stores)
      if (stage.count(st.statement) && stage.at(st.statement) < last) kept.insert(st.statement);

    const std::string inner = indent + "  ", body = inner + "  ";
    out_ << indent << "for (long w = " << from << "; w < " << to << "; w += " << kStrip << ") {\n"
         << inner << "const long n = " << to << " - w < " << kStrip << " ? " << to << " - w : " << kStrip << ";\n";
    for (int i : kept) out_ << inner << type(i) << " k" << i << "[" << kStrip << "] __attribute__((aligned(64)));\n";
    for (int now = 1; now <= last; ++now) {
      std::set<int> read;  // from before, or free
      const auto reads = [&](int o) {
        if (needed.count(o) && (is_free(at(o)) || stage.at(o) < now)) read.insert(o);
      };
      for (const auto& [i, s] : stage)
        if (s == now)
          for (int o : at(i).operands) reads(o);
      if (now == last)
        for (const Store& st : segment_.stores) reads(st.statement);
      out_ << pragma({}) << inner << "for (long k = 0; k < n; ++k) {\n"
           << body << "const long " << index << " = w + k;\n";
      for (int i : read) {
        if (is_free(at(i))) define(i, body);
        else define(i, str("k", i, "[k]"), body);
      }
      for (const auto& [i, s] : stage) {
        if (s != now) continue;
        define(i, body);
        if (kept.count(i)) out_ << body << "k" << i << "[k] = " << name(i) << ";\n";
      }
      if (now == last)
        for (const Store& st : segment_.stores) store(st, body);
      out_ << inner << "}\n";
    }
    out_ << indent << "}\n";
  }

  /// for (u = begin …) with i0 … of so many dims.
  void outer_loop(int dims) {
    out_ << "  for (long u = begin; u < end; ++u) {\n";
    indices(0, dims, "u", "    ");
  }

  // ---- Rows: the columns are walked once a phase.

  static constexpr int64_t kWidestHeld = 4096;  // columns

  void rows() {
    scalars();
    const Shape& columns = segment_.columns;
    const int row_rank = segment_.rows.size(), phases = phase_count();
    const int64_t width = columns.numel();
    // Folds of everything go on through the rows.
    for (int i : chunk_folds()) declare_fold(i, "  ");
    // Costly elements needed in a later phase are kept for the row, if rows are short enough for the stack.
    if (columns.size() == 1 && width <= kWidestHeld) {
      const std::vector<int> uses = phase_uses();
      for (int i = 0; i < count(); ++i)
        if (uses[static_cast<size_t>(i)] > 1 && is_costly(at(i))) hold_.insert(i);
    }
    outer_loop(row_rank);
    const bool any_width = columns.size() == 1 && at_run_time(columns.begin()[0]);
    if (any_width && !hold_.empty()) call.widest = kWidestHeld;
    for (int i : hold_) out_ << "    " << type(i) << " c" << i << "[" << (any_width ? kWidestHeld : width) << "];\n";
    for (int p = 0; p < phases; ++p) {
      row_statements(p);
      const Phase now = phase(p);
      if (now.empty()) continue;
      for (int i : now.folds)
        if (at(i).partial < 0) declare_fold(i, "    ");
      for (int d = 0; d < columns.size(); ++d) {
        const std::string index = str("i", row_rank + d);
        if (d + 1 == columns.size()) out_ << pragma(now.folds);
        out_ << "    for (long " << index << " = 0; " << index << " < " << spelled(columns.begin()[d], "L") << "; ++"
             << index << ") {\n";
      }
      elements(now, "      ", str("i", row_rank));
      for (int d = 0; d < columns.size(); ++d) out_ << "    }\n";
      for (int i : now.folds)
        if (at(i).partial < 0) define(i, folded(i), "    ");
    }
    row_statements(phases);
    for (int i : chunk_folds())
      if (at(i).level == Level::row) accumulate(i, "    ");
    for (const Store& st : segment_.stores)
      if (at(st.statement).level == Level::row) store(st, "    ");
    out_ << "  }\n";
    write_partials();
  }
};

}  // namespace

bool KernelCall::resize(const LoopKernel& kernel) {
  numbers.clear();
  size_t number = 0;
  each_number(kernel, [&](const auto& each) {
    if (!kernel.at_run_time.empty() && kernel.at_run_time[number++]) numbers.push_back(bits_of(each));
  });
  for (size_t i = 0; i < checks.size(); ++i) checks[i].check = kernel.checks[i];
  for (size_t i = 0; i < segments.size(); ++i) {
    const Segment& segment = kernel.segments[i];
    SegmentCall& call = segments[i];
    Shape domain = segment.rows;
    for (int64_t extent : segment.columns) domain.push_back(extent);
    const Shape inner = segment.by_row ? segment.columns : domain.size() <= 1 ? Shape() : Shape{domain.back()};
    call.elements_per_unit = inner.numel();
    call.units = 1;
    for (int d = 0; d < domain.size() - inner.size(); ++d) call.units *= domain[d];
    if (call.elements_per_unit > call.widest) return false;
    for (const Statement& s : segment.statements) {
      if (s.kind != LoopOp::check) continue;
      const Statement& operand = segment.statements[static_cast<size_t>(s.operands[0])];
      if (operand.kind != LoopOp::load) continue;
      CheckedLoad& checked = checks[static_cast<size_t>(s.check)];
      checked.buffer = operand.buffer;
      checked.position = operand.position;
      checked.extents = domain;
    }
  }
  return true;
}

KernelCall CSource::add(const LoopKernel& kernel) {
  KernelCall result;
  for (const ValueCheck& check : kernel.checks)
    result.checks.push_back({.check = check, .position = {}, .extents = {}});
  for (const Segment& segment : kernel.segments) {
    CSegment emitter(kernel, segment, helpers_);
    const std::string name = function(emitter.emit(), "s");
    result.segments.push_back(std::move(emitter.call));
    result.segments.back().name = name;
  }
  if (!kernel.finish.stores.empty()) {
    CSegment emitter(kernel, kernel.finish, helpers_);
    result.finish = function(emitter.emit_finish(), "f");
    result.finish_buffers = emitter.buffers();
  }
  result.resize(kernel);
  return result;
}

std::string CSource::text() const {
  if (empty()) return {};
  return prelude({"core/scalar/math.h", "core/scalar/gamma.h", "core/scalar/half.h", "core/scalar/philox.h"}) +
         functions("void ");
}

}  // namespace tandem::graph
