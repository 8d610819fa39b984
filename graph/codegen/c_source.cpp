// C for the loops of fused kernels. Scalar expressions are the tokens of core/pointwise.def over the
// functions of kernels/shared, so a fused kernel computes what the eager ones do, bit for bit, wherever
// no reduction is reordered. Floats of 16 bits are rounded after each op, as they are when each op
// stores its result.
#include "graph/codegen/c_source.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <set>
#include <sstream>

#include "core/expression.h"
#include "graph/codegen/embedded.h"

namespace tandem::graph {

namespace {

bool is_half(DType type) { return type == DType::float16 || type == DType::bfloat16; }

/// The C type that a dtype is computed in.
const char* compute_type(DType type) {
  switch (type) {
    case DType::float64: return "double";
    case DType::int32: return "td_i32";
    case DType::int64: return "td_i64";
    case DType::uint8:
    case DType::bool_: return "td_u8";
    default: return "float";
  }
}
const char* memory_type(DType type) { return is_half(type) ? "td_u16" : compute_type(type); }
const char* suffix(DType type) {
  switch (type) {
    case DType::float64: return "f64";
    case DType::int32: return "i32";
    case DType::int64: return "i64";
    case DType::uint8: return "u8";
    case DType::bool_: return "b8";
    default: return "f32";
  }
}
std::string from_memory(DType type, const std::string& value) {
  if (type == DType::float16) return "td_f16_to_f32(" + value + ")";
  if (type == DType::bfloat16) return "td_bf16_to_f32(" + value + ")";
  return value;
}
std::string to_memory(DType type, const std::string& value) {
  if (type == DType::float16) return "td_f32_to_f16(" + value + ")";
  if (type == DType::bfloat16) return "td_f32_to_bf16(" + value + ")";
  return value;
}
std::string rounded(DType type, const std::string& value) {
  return is_half(type) ? from_memory(type, to_memory(type, value)) : value;
}

std::string literal(double number, DType type) {
  char text[64];
  if (!is_floating(type)) {
    std::snprintf(text, sizeof text, "((%s)%lld)", compute_type(type), static_cast<long long>(number));
    return text;
  }
  if (std::isnan(number)) return std::string("((") + compute_type(type) + ")__builtin_nan(\"\"))";
  if (std::isinf(number)) return std::string(number < 0 ? "(-(" : "((") + compute_type(type) + ")__builtin_inf())";
  std::snprintf(text, sizeof text, "((%s)%a)", compute_type(type),
                type == DType::float64 ? number : static_cast<double>(static_cast<float>(number)));
  return text;
}

std::string fold_start(Fold fold, DType type) {
  switch (fold) {
    case Fold::sum: return "0";
    case Fold::prod: return "1";
    case Fold::max:
      return is_floating(type)      ? literal(-INFINITY, type)
             : type == DType::int64 ? "(-0x7fffffffffffffffLL-1)"
             : type == DType::int32 ? "(-0x7fffffff-1)"
                                    : "0";
    default:
      return is_floating(type)      ? literal(INFINITY, type)
             : type == DType::int64 ? "0x7fffffffffffffffLL"
             : type == DType::int32 ? "0x7fffffff"
                                    : "255";
  }
}

/// The type that a fold runs in.
const char* fold_c_type(Fold fold, DType type) {
  return is_floating(type) && (fold == Fold::sum || fold == Fold::prod) ? "double" : compute_type(type);
}

/// Statements that are worth keeping for a later phase rather than computing again.
bool is_costly(const Statement& s) {
  if (s.kind == LoopOp::uniform) return true;
  if (s.kind != LoopOp::pointwise) return false;
  const std::string expression = s.op->pointwise.expression;
  return expression.find("td_") != std::string::npos && expression.find("td_maximum") == std::string::npos &&
         expression.find("td_relu") == std::string::npos && expression.find("td_abs") == std::string::npos;
}

/// Spells one segment.
class SegmentWriter {
 public:
  SegmentWriter(const LoopKernel& kernel, const Segment& segment, std::set<std::string>& helpers)
      : kernel_(kernel), s_(segment), helpers_(helpers) {}

  SegmentCall write(std::string& body) {
    plan_folds();
    std::ostringstream out;
    for (const Store& store : s_.stores) buffer(store.buffer);
    // The loops first, to learn which buffers they use.
    if (s_.by_row) rows(out);
    else flat(out);
    std::ostringstream head;
    head << "(char* const* p, char* part, long begin, long end) {\n";
    for (size_t i = 0; i < call_.buffers.size(); ++i) {
      const DType type = kernel_.buffers[static_cast<size_t>(call_.buffers[i])];
      head << "  " << memory_type(type) << "* const b" << i << " = (" << memory_type(type) << "*)p[" << i << "];\n";
    }
    head << "  (void)p; (void)part;\n";
    body = head.str() + out.str() + "}\n";
    call_.partials = s_.partials;
    call_.cost = 0;
    for (const Statement& s : s_.statements)
      if (s.level == Level::element) call_.cost += is_costly(s) ? 8 : 1;
    return call_;
  }

 private:
  const Statement& at(int i) const { return s_.statements[static_cast<size_t>(i)]; }
  int buffer(int index) {
    const auto found = std::find(call_.buffers.begin(), call_.buffers.end(), index);
    if (found != call_.buffers.end()) return static_cast<int>(found - call_.buffers.begin());
    call_.buffers.push_back(index);
    return static_cast<int>(call_.buffers.size()) - 1;
  }
  static std::string name(int statement) { return "v" + std::to_string(statement); }

  /// The element of a position, over the index variables i0, i1, … (rows then columns).
  static std::string place(const Position& position) {
    std::string text;
    for (int d = 0; d < position.strides.size(); ++d) {
      const int64_t stride = position.strides[d];
      if (stride == 0) continue;
      text += (text.empty() ? "" : " + ") + std::string("i") + std::to_string(d) +
              (stride == 1 ? "" : " * " + std::to_string(stride) + "L");
    }
    if (position.offset || text.empty()) text += (text.empty() ? "" : " + ") + std::to_string(position.offset);
    return text;
  }

  std::string call(const Statement& s) {
    std::string operands;
    for (int o : s.operands) operands += (operands.empty() ? "" : ", ") + name(o);
    const DType computed = s.op->pointwise.selects ? s.dtype : at(s.operands.back()).dtype;
    const std::string helper = std::string("p_") + s.op->name + "_" + suffix(computed);
    const char* type = compute_type(computed);
    std::string text = "TD_FN " + std::string(s.op->pointwise.returns_bool ? "td_u8" : type) + " " + helper + "(";
    for (size_t i = 0; i < s.operands.size(); ++i)
      text +=
          std::string(i ? ", " : "") + (s.op->pointwise.selects && i == 0 ? "td_u8" : type) + " " + parameter_name(i);
    text += std::string(") { typedef ") + type + " T; (void)(T)0; return ";
    text += computed == DType::bool_ && !s.op->pointwise.returns_bool
                ? "(" + std::string(s.op->pointwise.expression) + ") != 0"
                : s.op->pointwise.expression;
    helpers_.insert(text + "; }\n");
    return rounded(s.dtype, helper + "(" + operands + ")");
  }

  std::string expression(int i) {
    const Statement& s = at(i);
    switch (s.kind) {
      case LoopOp::literal: return literal(s.number, s.dtype);
      case LoopOp::load: {
        const DType type = kernel_.buffers[static_cast<size_t>(s.buffer)];
        return from_memory(type, "b" + std::to_string(buffer(s.buffer)) + "[" + place(s.position) + "]");
      }
      case LoopOp::index:
        if (!is_floating(s.dtype))
          return detail::str("(", compute_type(s.dtype), ")(", static_cast<int64_t>(s.begin), " + ",
                             static_cast<int64_t>(s.step), " * (", place(s.position), "))");
        return rounded(s.dtype, detail::str("(", compute_type(s.dtype), ")(", literal(s.begin, float64), " + ",
                                            literal(s.step, float64), " * (double)(", place(s.position), "))"));
      case LoopOp::uniform: {
        const std::string key = "b" + std::to_string(buffer(s.buffer));
        return detail::str("td_uniform_f32((td_u64)", key, "[0], (td_u64)(", key, "[1] + ", s.integer, "), (td_u64)(",
                           place(s.position), "))");
      }
      case LoopOp::cast:
        if (s.dtype == DType::bool_) return "(" + name(s.operands[0]) + " != 0)";
        return rounded(s.dtype, std::string("(") + compute_type(s.dtype) + ")" + name(s.operands[0]));
      case LoopOp::pointwise: return call(s);
      default: return "";
    }
  }

  // ---- Phases: which statements each walk over the columns needs.

  void plan_folds() {
    for (const Statement& s : s_.statements)
      if (s.kind == LoopOp::fold && s.level == Level::element) phases_ = std::max(phases_, s.phase + 1);
    for (const Statement& s : s_.statements)
      if (s.kind == LoopOp::fold && s.level == Level::row && s.partial < 0) phases_ = std::max(phases_, s.phase + 1);
    for (const Store& store : s_.stores)
      if (at(store.statement).level == Level::element) phases_ = std::max(phases_, at(store.statement).phase + 1);
  }

  /// Adds the statement and its operands of that level.
  void need(int i, Level level, std::set<int>& needed) const {
    if (at(i).level != level || at(i).kind == LoopOp::fold || cached_.count(i)) {
      if (cached_.count(i) && at(i).level == level) needed.insert(i);
      return;
    }
    if (!needed.insert(i).second) return;
    for (int o : at(i).operands) need(o, level, needed);
  }

  static bool folds_elements(const Statement& s) {
    return s.kind == LoopOp::fold && (s.partial < 0 || s.level == Level::element);
  }

  void accumulate(std::ostringstream& out, int i, const char* indent) {
    const Statement& s = at(i);
    const std::string value = name(s.operands[0]), a = "a" + std::to_string(i);
    switch (s.fold) {
      case Fold::sum: out << indent << a << " += " << value << ";\n"; break;
      case Fold::prod: out << indent << a << " *= " << value << ";\n"; break;
      case Fold::max:
        out << indent << a << " = " << value << " > " << a << " ? " << value << " : " << a << ";\n";
        break;
      case Fold::min:
        out << indent << a << " = " << value << " < " << a << " ? " << value << " : " << a << ";\n";
        break;
    }
    if (tracks_nan(s)) out << indent << "n" << i << " |= " << value << " != " << value << ";\n";
  }
  static bool tracks_nan(const Statement& s) {
    return (s.fold == Fold::max || s.fold == Fold::min) && is_floating(s.dtype);
  }
  /// Sums of floats run in double and are rounded once, as in the eager kernels: whatever the order, the
  /// result is all but always the same.
  std::string fold_type(const Statement& s) const { return fold_c_type(s.fold, s.dtype); }
  void declare_fold(std::ostringstream& out, int i, const char* indent) {
    const Statement& s = at(i);
    out << indent << fold_type(s) << " a" << i << " = " << fold_start(s.fold, s.dtype) << ";\n";
    if (tracks_nan(s)) out << indent << "int n" << i << " = 0;\n";
  }
  std::string folded(int i) const {
    const Statement& s = at(i);
    std::string value = "a" + std::to_string(i);
    if (tracks_nan(s)) value = "(n" + std::to_string(i) + " ? " + literal(NAN, s.dtype) + " : " + value + ")";
    if (fold_type(s) != compute_type(s.dtype)) value = std::string("(") + compute_type(s.dtype) + ")" + value;
    return rounded(s.dtype, value);
  }
  std::string pragma(const std::vector<int>& folds) const {
    std::string text = "#pragma omp simd";
    for (int i : folds) {
      const char* symbol = at(i).fold == Fold::sum    ? "+"
                           : at(i).fold == Fold::prod ? "*"
                           : at(i).fold == Fold::max  ? "max"
                                                      : "min";
      text += " reduction(" + std::string(symbol) + ":a" + std::to_string(i) + ")";
      if (tracks_nan(at(i))) text += " reduction(|:n" + std::to_string(i) + ")";
    }
    return text + "\n";
  }

  void define(std::ostringstream& out, int i, const char* indent) {
    out << indent << "const " << compute_type(at(i).dtype) << " " << name(i) << " = " << expression(i) << ";\n";
  }
  void store(std::ostringstream& out, const Store& store, const char* indent) {
    const DType type = kernel_.buffers[static_cast<size_t>(store.buffer)];
    out << indent << "b" << buffer(store.buffer) << "[" << place(store.position)
        << "] = " << to_memory(type, name(store.statement)) << ";\n";
  }
  void scalars(std::ostringstream& out) {
    for (int i = 0; i < static_cast<int>(s_.statements.size()); ++i)
      if (at(i).level == Level::scalar && at(i).kind != LoopOp::partial) define(out, i, "  ");
  }
  void write_partials(std::ostringstream& out) {
    for (int i = 0; i < static_cast<int>(s_.statements.size()); ++i)
      if (at(i).kind == LoopOp::fold && at(i).partial >= 0)
        out << "  *(" << fold_type(at(i)) << "*)(part + " << at(i).partial * 8
            << ") = " << (tracks_nan(at(i)) ? folded(i) : "a" + std::to_string(i)) << ";\n";
  }

  // ---- A domain without rows.

  void flat(std::ostringstream& out) {
    Shape extents = s_.rows;
    for (int64_t e : s_.columns) extents.push_back(e);
    const int rank = extents.size();
    scalars(out);
    std::vector<int> folds;
    std::set<int> needed;
    for (int i = 0; i < static_cast<int>(s_.statements.size()); ++i)
      if (at(i).kind == LoopOp::fold) {
        folds.push_back(i);
        need(at(i).operands[0], Level::element, needed);
        declare_fold(out, i, "  ");
      }
    for (const Store& st : s_.stores) need(st.statement, Level::element, needed);
    const auto walk = [&](const std::string& index, const std::string& from, const std::string& to,
                          const std::string& indent) {
      if (folds.empty() && stage_count(needed) > 1) {
        staged(out, needed, index, from, to, indent);
        return;
      }
      const std::string inner = indent + "  ";
      out << pragma(folds) << indent << "for (long " << index << " = " << from << "; " << index << " < " << to << "; ++"
          << index << ") {\n";
      for (int i : needed) define(out, i, inner.c_str());
      for (int i : folds) accumulate(out, i, inner.c_str());
      for (const Store& st : s_.stores) store(out, st, inner.c_str());
      out << indent << "}\n";
    };
    if (rank <= 1) {
      call_.units = rank == 0 ? 1 : extents[0];
      walk("i0", "begin", "end", "  ");
    } else {
      outer_loop(out, extents, rank - 1);
      call_.elements_per_unit = extents[rank - 1];
      walk("i" + std::to_string(rank - 1), "0", std::to_string(extents[rank - 1]) + "L", "    ");
      out << "  }\n";
    }
    write_partials(out);
  }

  // ---- Stages. A loop whose statements form a long dependent chain runs at the latency of that chain: the next
  // elements' work lies beyond what the processor looks ahead. So the loop is cut into strips that stay in the
  // first-level cache, and each strip is walked once for every costly statement of the chain.

  static constexpr int kStrip = 128;  // elements

  /// What every stage spells again rather than keeps.
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
    int count = 1;
    for (const auto& [i, depth] : depths(needed)) count = std::max(count, depth);
    return count;
  }

  /// The loop over `index` from `from` to `to`, in stages. Stores come last: an output may lie where an input does.
  void staged(std::ostringstream& out, const std::set<int>& needed, const std::string& index, const std::string& from,
              const std::string& to, const std::string& indent) {
    const int count = stage_count(needed);
    std::map<int, int> stage = depths(needed);
    for (auto& [i, s] : stage) s = std::max(s, 1);
    std::set<int> kept;  // read in a later stage
    for (int i : needed)
      for (int o : at(i).operands)
        if (stage.count(o) && stage.at(o) < stage.at(i)) kept.insert(o);
    for (const Store& st : s_.stores)
      if (stage.count(st.statement) && stage.at(st.statement) < count) kept.insert(st.statement);

    const std::string inner = indent + "  ", body = inner + "  ";
    out << indent << "for (long w = " << from << "; w < " << to << "; w += " << kStrip << ") {\n"
        << inner << "const long n = " << to << " - w < " << kStrip << " ? " << to << " - w : " << kStrip << ";\n";
    for (int i : kept)
      out << inner << compute_type(at(i).dtype) << " k" << i << "[" << kStrip << "] __attribute__((aligned(64)));\n";
    for (int now = 1; now <= count; ++now) {
      std::set<int> read;  // from before, or free
      const auto reads = [&](int o) {
        if (needed.count(o) && (is_free(at(o)) || stage.at(o) < now)) read.insert(o);
      };
      for (const auto& [i, s] : stage)
        if (s == now)
          for (int o : at(i).operands) reads(o);
      if (now == count)
        for (const Store& st : s_.stores) reads(st.statement);
      out << pragma({}) << inner << "for (long k = 0; k < n; ++k) {\n"
          << body << "const long " << index << " = w + k;\n";
      for (int i : read) {
        if (is_free(at(i))) define(out, i, body.c_str());
        else out << body << "const " << compute_type(at(i).dtype) << " " << name(i) << " = k" << i << "[k];\n";
      }
      for (const auto& [i, s] : stage) {
        if (s != now) continue;
        define(out, i, body.c_str());
        if (kept.count(i)) out << body << "k" << i << "[k] = " << name(i) << ";\n";
      }
      if (now == count)
        for (const Store& st : s_.stores) store(out, st, body.c_str());
      out << inner << "}\n";
    }
    out << indent << "}\n";
  }

  /// for (u = begin …) with i0 … of the first `count` dims.
  void outer_loop(std::ostringstream& out, const Shape& extents, int count) {
    call_.units = 1;
    for (int d = 0; d < count; ++d) call_.units *= extents[d];
    out << "  for (long u = begin; u < end; ++u) {\n";
    int64_t below = call_.units;
    for (int d = 0; d < count; ++d) {
      below /= std::max<int64_t>(extents[d], 1);
      out << "    const long i" << d << " = u";
      if (below != 1) out << " / " << below << "L";
      if (d) out << " % " << extents[d] << "L";
      out << "; (void)i" << d << ";\n";
    }
  }

  // ---- Rows: the columns are walked once a phase.

  void rows(std::ostringstream& out) {
    scalars(out);
    const int row_rank = s_.rows.size();
    const int64_t width = s_.columns.numel();
    Shape columns = s_.columns;
    // Folds of everything go on through the rows.
    for (int i = 0; i < static_cast<int>(s_.statements.size()); ++i)
      if (at(i).kind == LoopOp::fold && at(i).partial >= 0) declare_fold(out, i, "  ");
    // Costly elements needed in a later phase are kept for the row, if rows are short enough for the stack.
    std::set<int> keep;
    if (columns.size() == 1 && width <= 4096) keep = worth_keeping();
    std::ostringstream loops;
    outer_loop(loops, s_.rows, row_rank);
    call_.elements_per_unit = width;
    for (int i : keep) loops << "    " << compute_type(at(i).dtype) << " c" << i << "[" << width << "];\n";
    for (int phase = 0; phase < phases_; ++phase) {
      row_statements(loops, phase);
      std::vector<int> folds;
      std::set<int> needed;
      for (int i = 0; i < static_cast<int>(s_.statements.size()); ++i)
        if (folds_elements(at(i)) && at(i).phase == phase) {
          folds.push_back(i);
          need(at(i).operands[0], Level::element, needed);
          if (at(i).partial < 0) declare_fold(loops, i, "    ");
        }
      std::vector<const Store*> stores;
      for (const Store& st : s_.stores)
        if (at(st.statement).level == Level::element && at(st.statement).phase == phase) {
          stores.push_back(&st);
          need(st.statement, Level::element, needed);
        }
      if (folds.empty() && stores.empty()) continue;
      int depth = row_rank;
      for (int c = 0; c < columns.size(); ++c, ++depth) {
        if (c + 1 == columns.size()) loops << pragma(folds);
        loops << "    for (long i" << depth << " = 0; i" << depth << " < " << columns[c] << "L; ++i" << depth
              << ") {\n";
      }
      const std::string column = "i" + std::to_string(row_rank);
      for (int i : needed) {
        if (cached_.count(i)) {
          loops << "      const " << compute_type(at(i).dtype) << " " << name(i) << " = c" << i << "[" << column
                << "];\n";
          continue;
        }
        define(loops, i, "      ");
        if (keep.count(i)) loops << "      c" << i << "[" << column << "] = " << name(i) << ";\n";
      }
      for (int i : needed)
        if (keep.count(i)) cached_.insert(i);
      for (int i : folds) accumulate(loops, i, "      ");
      for (const Store* st : stores) store(loops, *st, "      ");
      for (int c = 0; c < columns.size(); ++c) loops << "    }\n";
      for (int i : folds)
        if (at(i).partial < 0)
          loops << "    const " << compute_type(at(i).dtype) << " " << name(i) << " = " << folded(i) << ";\n";
    }
    row_statements(loops, phases_);
    for (int i = 0; i < static_cast<int>(s_.statements.size()); ++i)
      if (at(i).kind == LoopOp::fold && at(i).partial >= 0 && at(i).level == Level::row) accumulate(loops, i, "    ");
    for (const Store& st : s_.stores)
      if (at(st.statement).level == Level::row) store(loops, st, "    ");
    loops << "  }\n";
    out << loops.str();
    write_partials(out);
  }

  void row_statements(std::ostringstream& out, int phase) {
    for (int i = 0; i < static_cast<int>(s_.statements.size()); ++i)
      if (at(i).level == Level::row && at(i).kind != LoopOp::fold && at(i).phase <= phase &&
          written_rows_.insert(i).second)
        define(out, i, "    ");
  }

  /// Costly element statements of a phase that a later phase reads again.
  std::set<int> worth_keeping() const {
    std::set<int> result;
    std::vector<std::set<int>> by_phase;
    for (int phase = 0; phase < phases_; ++phase) {
      std::set<int> needed;
      for (const Statement& s : s_.statements)
        if (folds_elements(s) && s.phase == phase) need(s.operands[0], Level::element, needed);
      for (const Store& st : s_.stores)
        if (at(st.statement).level == Level::element && at(st.statement).phase == phase)
          need(st.statement, Level::element, needed);
      for (const std::set<int>& before : by_phase)
        for (int i : needed)
          if (before.count(i) && is_costly(at(i))) result.insert(i);
      by_phase.push_back(std::move(needed));
    }
    return result;
  }

  const LoopKernel& kernel_;
  const Segment& s_;
  std::set<std::string>& helpers_;
  SegmentCall call_;
  int phases_ = 0;
  std::set<int> cached_, written_rows_;

  friend class FinishWriter;
};

}  // namespace

std::string CSource::function(const std::string& body, const char* prefix) {
  for (const auto& [text, name] : functions_)
    if (text == body && name[0] == prefix[0]) return name;
  const std::string name = prefix + std::to_string(functions_.size());
  functions_.emplace_back(body, name);
  return name;
}

namespace {

/// The finish: straight-line code over the partial results.
std::string finish_body(const LoopKernel& kernel, std::set<std::string>& helpers, std::vector<int>& buffers) {
  // Spelled as a segment of one element whose partial statements are combined first.
  Segment as_segment = kernel.finish;
  std::ostringstream combine;
  for (size_t i = 0; i < as_segment.statements.size(); ++i) {
    Statement& s = as_segment.statements[i];
    s.level = Level::scalar;
    if (s.kind != LoopOp::partial) continue;
    const char* type = fold_c_type(s.fold, s.dtype);
    const int64_t stride = kernel.segments[static_cast<size_t>(s.buffer)].partials * 8;
    combine << "  " << type << " t" << i << " = " << fold_start(s.fold, s.dtype) << ";\n  for (long c = 0; c < chunks["
            << s.buffer << "]; ++c) {\n    const " << type << " t = *(const " << type << "*)(parts[" << s.buffer
            << "] + c * " << stride << " + " << s.integer * 8 << ");\n    t" << i;
    switch (s.fold) {
      case Fold::sum: combine << " += t;\n"; break;
      case Fold::prod: combine << " *= t;\n"; break;
      case Fold::max: combine << " = t > t" << i << " || t != t ? t : t" << i << ";\n"; break;
      case Fold::min: combine << " = t < t" << i << " || t != t ? t : t" << i << ";\n"; break;
    }
    const std::string narrow = std::string("(") + compute_type(s.dtype) + ")t" + std::to_string(i);
    combine << "  }\n  const " << compute_type(s.dtype) << " v" << i << " = " << rounded(s.dtype, narrow) << ";\n";
  }
  std::string body;
  SegmentWriter writer(kernel, as_segment, helpers);
  buffers = writer.write(body).buffers;
  // Its loop runs once; partial statements were left out of it.
  std::string head =
      "(char* const* p, char* const* parts, const long* chunks) {\n  const long begin = 0, end = 1; char* part = 0;\n  "
      "(void)parts; (void)chunks;\n";
  const size_t brace = body.find("{\n");
  return head + combine.str() + body.substr(brace + 2);
}

}  // namespace

KernelCall CSource::add(const LoopKernel& kernel) {
  std::set<std::string> helpers(helpers_.begin(), helpers_.end());
  KernelCall result;
  for (const Segment& segment : kernel.segments) {
    std::string body;
    SegmentCall call = SegmentWriter(kernel, segment, helpers).write(body);
    call.name = function(body, "s");
    result.segments.push_back(std::move(call));
  }
  if (!kernel.finish.stores.empty()) result.finish = function(finish_body(kernel, helpers, result.finish_buffers), "f");
  helpers_.assign(helpers.begin(), helpers.end());
  return result;
}

std::string CSource::text() const {
  if (functions_.empty()) return {};
  std::string text = "// Generated by Tandem.\n";
  for (const char* header : {"core/scalar/math.h", "core/scalar/half.h", "core/scalar/philox.h"})
    text += std::string(embedded::source(header)) + "\n";
  for (const std::string& helper : helpers_) text += helper;
  for (const auto& [body, name] : functions_) {
    text += "\nvoid " + name;
    text += body;
  }
  return text;
}

}  // namespace tandem::graph
