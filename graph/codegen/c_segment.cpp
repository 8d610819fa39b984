// The words are those of emitter.h: v3 is statement 3, a3 the accumulator of fold 3, c3 what is held of it for the row.
// Here k3 is a strip of statement 3 and d3 one of store 3 before it goes out as float16; m3 and x3 are tiles of what is read
// and stored; w is where a strip begins, n how long it is, k an element of it, y a row of the tile.
#include "graph/codegen/c_segment.h"

#include <algorithm>
#include <cmath>
#include <iterator>

namespace tandem::graph {

using detail::str;

namespace {

constexpr Dialect c = {.helper = "TD_FN",
                       .index = "long",
                       .stride_suffix = "L",
                       .extent_suffix = "L",
                       .nan = "__builtin_nan(\"\")",
                       .infinity = "__builtin_inf()",
                       .reads_sites = true};

constexpr int kStrip = 128;                 ///< elements: strips stay in the first cache
constexpr int kLongStrip = 256;             ///< of random numbers, which are many blocks at a time
constexpr int kTileStrip = 64;              ///< of those that are walked for each row of a tile
constexpr int64_t kShort = 16;              ///< a dim of fewer elements is no strip
constexpr int64_t kMostLanes = 64;          ///< elements of an innermost dim that folds keep apart
constexpr int64_t kLine = 64;               ///< bytes of a dim that a tile holds: a cache line
constexpr int64_t kOnStack = 4096;          ///< columns whose held elements lie on the stack
constexpr int64_t kWidestHeld = 1 << 20;    ///< columns: beyond, elements are computed again
constexpr int64_t kWidestTile = 16 * 1024;  ///< columns of rows that are transposed in tiles

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

/// What every stage writes again rather than keeps.
bool is_free(const Statement& s) {
  return s.kind == LoopOp::load || s.kind == LoopOp::literal || s.kind == LoopOp::index;
}

std::string index_name(int dim) { return str("i", dim); }

}  // namespace

CSegment::CSegment(const LoopKernel& kernel, const Segment& segment, std::set<std::string>& helpers)
    : SegmentEmitter(c, kernel, segment, helpers) {}

std::string CSegment::emit() {
  segment_.by_row ? rows() : flat();
  call.buffers = buffers();
  call.partials = segment_.partials;
  call.cost = 0;
  for (const Statement& s : segment_.statements)
    if (s.level == Level::element) call.cost += is_costly(s) ? 8 : 1;
  return function("(char* const* p, char* part, char* scratch, long begin, long end) {\n");
}

std::string CSegment::emit_finish() {
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
      "(char* const* p, char* const* parts, const long* chunks) {\n  const long begin = 0, end = 1; char *part = 0, "
      "*scratch = 0;\n"
      "  (void)parts; (void)chunks;\n",
      combine.str());
}

std::string CSegment::function(std::string text, const std::string& first) {
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
  return text + "  (void)p; (void)part; (void)scratch;\n" + first + out_.str() + after + "}\n";
}

void CSegment::check(int i, std::string_view indent) {
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

void CSegment::declare_fold(int i, std::string_view indent) {
  const Statement& s = at(i);
  out_ << indent << fold_type(s) << " a" << i << " = " << identity(s.fold, s.dtype) << ";\n";
  if (tracks_nan(s)) out_ << indent << "int n" << i << " = 0;\n";
  if (summed_.count(i) && !in_one_go(i))
    out_ << indent << "td_sums s" << i << "; __builtin_memset(&s" << i << ", 0, sizeof s" << i << ");\n";
}

void CSegment::accumulate(int i, std::string_view indent) {
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

/// Sums of what is read from memory as it is, or costs so much that a walk of its own over a strip doesn't count: compilers
/// make less of a sum in double within another loop.
void CSegment::choose_summed() {
  for (int p = 0; p < (segment_.by_row ? phase_count() : 1); ++p) {
    const Phase now = phase(segment_.by_row ? p : kEverything);
    const bool costly = std::any_of(now.needed.begin(), now.needed.end(), [&](int i) { return is_costly(at(i)); });
    for (int i : now.folds) {
      const Statement &s = at(i), &operand = at(s.operands[0]);
      if (s.fold != Fold::sum || std::string_view(type(i)) != "float" || is_short(inner_)) continue;
      if (operand.level != Level::element || std::string_view(compute_type(operand.dtype)) != "float") continue;
      const bool read = operand.kind == LoopOp::load && buffer_type(operand.buffer) == DType::float32 &&
                        lies_along(operand.position, inner_);
      if (read || costly) summed_.insert(i);
    }
  }
}

/// A row of one strip is summed by one call.
bool CSegment::in_one_go(int fold) const {
  return segment_.by_row && segment_.columns.size() == 1 && at(fold).partial < 0 && !at_run_time(extent(inner_)) &&
         extent(inner_) <= kStrip;
}

void CSegment::add_strip(int fold, const std::string& count, const std::string& values, const std::string& indent) {
  out_ << indent;
  if (in_one_go(fold)) out_ << "a" << fold << " = td_sum(" << count << ", " << values << ");\n";
  else out_ << "td_sums_add(&s" << fold << ", " << count << ", " << values << ");\n";
}

void CSegment::end_sums(const std::vector<int>& folds, const std::string& indent) {
  for (int i : folds)
    if (summed_.count(i) && !in_one_go(i)) out_ << indent << "a" << i << " = td_sums_total(&s" << i << ");\n";
}

std::vector<int> CSegment::not_summed(const std::vector<int>& folds) const {
  std::vector<int> others;
  for (int i : folds)
    if (!summed_.count(i)) others.push_back(i);
  return others;
}

std::string CSegment::folded(int i) {
  const Statement& s = at(i);
  std::string value = averaged(s, str("a", i));
  if (tracks_nan(s)) value = str("(n", i, " ? ", literal(NAN, s.dtype), " : ", value, ")");
  if (fold_type(s) != compute_type(s.dtype)) value = str("(", type(i), ")", value);
  return rounded(s.dtype, value);
}

std::string CSegment::pragma(const std::vector<int>& folds) const {
  std::string text = "#pragma omp simd";
  for (int i : folds) {
    const Fold fold = at(i).fold;
    const char* symbol = fold == Fold::sum ? "+" : fold == Fold::prod ? "*" : fold == Fold::max ? "max" : "min";
    text += str(" reduction(", symbol, ":a", i, ")");
    if (tracks_nan(at(i))) text += str(" reduction(|:n", i, ")");
  }
  for (int i = 0; i < count(); ++i)
    if (at(i).kind == LoopOp::check && at(i).level == Level::element) text += str(" reduction(|:bad", i, ")");
  return text + "\n";
}

void CSegment::write_partials() {
  end_sums(chunk_folds(), "  ");
  for (int i : chunk_folds())
    out_ << "  *(" << fold_type(at(i)) << "*)(part + " << at(i).partial * 8
         << ") = " << (tracks_nan(at(i)) ? folded(i) : str("a", i)) << ";\n";
}

// ---- A domain without rows.

void CSegment::flat() {
  scalars();
  const Phase all = phase(kEverything);
  inner_ = std::max(rank() - 1, 0);
  if (rank() > 1) choose_tile(inner_);
  choose_summed();
  for (int i : all.folds) declare_fold(i, "  ");
  if (rank() <= 1) {
    walk(all, {inner_, "begin", "end"}, "  ");
    return write_partials();
  }
  const std::string width = spelled(extent(inner_), "L");
  if (tiles_.empty()) {
    const bool by_lane = !all.folds.empty() && summed_.empty() && !at_run_time(extent(inner_)) &&
                         extent(inner_) <= kMostLanes && !needs_strips(all);
    if (by_lane) begin_lanes(all.folds);
    outer_loop(inner_);
    by_lane ? walk_lanes(all) : walk(all, {inner_, "0", width}, "    ");
    out_ << "  }\n";
    if (by_lane) end_lanes(all.folds);
    return write_partials();
  }
  for (const auto& [position, name] : tiles_)
    out_ << "  " << memory_type(buffer_type(crossed_buffer(position))) << " " << name << "[" << call.tile * kTileStrip
         << "] __attribute__((aligned(64)));\n";
  tile_step_ = std::to_string(kTileStrip), tile_at_ = "k";
  tiled_loop();
  out_ << "    for (long w = 0; w < " << width << "; w += " << kTileStrip << ") {\n      const long n = " << width
       << " - w < " << kTileStrip << " ? " << width << " - w : " << kTileStrip << ";\n";
  transpose(true, "w", "n", "      ");
  out_ << "      for (long y = 0; y < rows; ++y) {\n        const long " << index_name(call.tile_dim)
       << " = first + y;\n";
  strip(all, inner_, "        ");
  out_ << "      }\n";
  transpose(false, "w", "n", "      ");
  out_ << "    }\n  }\n";
  write_partials();
}

// Folds over a short innermost dim go on through the outer loop in a lane for each of its elements: a vector folded into one
// number at every turn would take longer than the elements themselves.

void CSegment::begin_lanes(const std::vector<int>& folds) {
  for (int i : folds) {
    const std::string all = str("for (long k = 0; k < ", extent(inner_), "; ++k) ");
    out_ << "  " << fold_type(at(i)) << " l" << i << "[" << extent(inner_) << "];\n  " << all << "l" << i
         << "[k] = " << identity(at(i).fold, at(i).dtype) << ";\n";
    if (tracks_nan(at(i))) out_ << "  int f" << i << "[" << extent(inner_) << "] = {0};\n";
  }
}

void CSegment::walk_lanes(const Phase& all) {
  const std::string index = index_name(inner_);
  out_ << pragma({}) << "    for (long " << index << " = 0; " << index << " < " << extent(inner_) << "L; ++" << index
       << ") {\n";
  for (int i : all.folds) {
    out_ << "      " << fold_type(at(i)) << " a" << i << " = l" << i << "[" << index << "];\n";
    if (tracks_nan(at(i))) out_ << "      int n" << i << " = f" << i << "[" << index << "];\n";
  }
  elements(all, "      ");
  for (int i : all.folds) {
    out_ << "      l" << i << "[" << index << "] = a" << i << ";\n";
    if (tracks_nan(at(i))) out_ << "      f" << i << "[" << index << "] = n" << i << ";\n";
  }
  out_ << "    }\n";
}

void CSegment::end_lanes(const std::vector<int>& folds) {
  for (int i : folds) {
    out_ << "  for (long k = 0; k < " << extent(inner_) << "; ++k) {\n    const " << fold_type(at(i)) << " "
         << name(at(i).operands[0]) << " = l" << i << "[k];\n";
    accumulate(i, "    ");
    if (tracks_nan(at(i))) out_ << "    n" << i << " |= f" << i << "[k];\n";
    out_ << "  }\n";
  }
}

/// for (u = begin …) with i0 … of so many dims.
void CSegment::outer_loop(int dims) {
  out_ << "  for (long u = begin; u < end; ++u) {\n";
  indices(0, dims, "u", "    ");
}

/// The same over the dims beside the innermost and that of the tile, and over tiles: rows `first` … of the latter.
void CSegment::tiled_loop() {
  const int tiled = call.tile_dim, end = segment_.by_row ? segment_.rows.size() : inner_;
  const std::string height = spelled(extent(tiled), "L");
  out_ << "  const long tiles = (" << height << " + " << call.tile - 1 << ") / " << call.tile
       << ";\n  for (long u = begin; u < end; ++u) {\n    const long first = u % tiles * " << call.tile
       << ", rows = " << height << " - first < " << call.tile << " ? " << height << " - first : " << call.tile
       << ";\n    long rest = u / tiles; (void)rest;\n";
  for (int d = end; d-- > 0;)
    if (d != tiled) {
      const std::string all = spelled(extent(d), "L");
      out_ << "    const long i" << d << " = rest % " << all << "; rest /= " << all << "; (void)i" << d << ";\n";
    }
}

// ---- Rows: the columns are walked once a phase.

void CSegment::rows() {
  scalars();
  const Shape& columns = segment_.columns;
  const int row_rank = segment_.rows.size();
  const int64_t& width = columns.begin()[0];
  inner_ = rank() - 1;
  if (columns.size() == 1) choose_tile(inner_);
  choose_summed();
  // Folds of everything go on through the rows.
  for (int i : chunk_folds()) declare_fold(i, "  ");
  if (columns.size() == 1) {
    // Costly elements needed in a later phase are kept for the row.
    const std::vector<int> uses = phase_uses();
    if (at_run_time(width) || width <= kWidestHeld)
      for (int i = 0; i < count(); ++i)
        if (uses[static_cast<size_t>(i)] > 1 && is_costly(at(i))) hold_.insert(i);
  }
  const bool on_stack = !at_run_time(width) && width <= kOnStack;
  if (!on_stack) hold_in_results();
  const bool holds_apart = !on_stack && held_in_.size() < hold_.size();
  if (!tiles_.empty() || holds_apart) {
    if (at_run_time(width)) {
      call.widest = tiles_.empty() ? kWidestHeld : kWidestTile;
      out_ << "  const long wide = (" << spelled(width, "L") << " + 15) / 16 * 16;\n";
    } else {
      out_ << "  const long wide = " << (width + 15) / 16 * 16 << ";\n";
    }
  }
  for (const auto& [position, name] : tiles_) {
    const DType memory = buffer_type(crossed_buffer(position));
    out_ << "  " << memory_type(memory) << "* const " << name << " = (" << memory_type(memory) << "*)"
         << scratch(size_of(memory) * call.tile) << ";\n";
  }
  for (int i : hold_) {
    if (held_in_.count(i)) continue;
    if (on_stack) out_ << "  " << type(i) << " c" << i << "[" << width << "] __attribute__((aligned(64)));\n";
    else out_ << "  " << type(i) << "* const c" << i << " = (" << type(i) << "*)" << scratch(8) << ";\n";
  }
  if (tiles_.empty()) {
    outer_loop(row_rank);
    row("    ");
  } else {
    tile_step_ = "wide", tile_at_ = index_name(inner_);
    const std::string all = spelled(width, "L");
    tiled_loop();
    transpose(true, "0", all, "    ");
    out_ << "    for (long y = 0; y < rows; ++y) {\n      const long " << index_name(call.tile_dim)
         << " = first + y;\n";
    row("      ");
    out_ << "    }\n";
    transpose(false, "0", all, "    ");
  }
  out_ << "  }\n";
  write_partials();
}

void CSegment::row(const std::string& indent) {
  const int phases = phase_count();
  if (!held_in_.empty()) out_ << indent << "const long " << index_name(inner_) << " = 0;\n";
  for (const auto& [i, store] : held_in_)
    out_ << indent << type(i) << "* const c" << i << " = &" << element(store->buffer, store->position) << ";\n";
  for (int p = 0; p < phases; ++p) {
    row_statements(p, indent);
    const Phase now = phase(p);
    if (now.empty()) continue;
    for (int i : now.folds)
      if (at(i).partial < 0) declare_fold(i, indent);
    const int row_rank = segment_.rows.size();
    for (int d = row_rank; d < inner_; ++d)
      out_ << indent << "for (long i" << d << " = 0; i" << d << " < " << spelled(extent(d), "L") << "; ++i" << d
           << ") {\n";
    walk(now, {inner_, "0", spelled(extent(inner_), "L")}, indent);
    for (int d = row_rank; d < inner_; ++d) out_ << indent << "}\n";
    std::vector<int> of_rows;
    for (int i : now.folds)
      if (at(i).partial < 0) of_rows.push_back(i);
    end_sums(of_rows, indent);
    for (int i : now.folds)
      if (at(i).partial < 0) define(i, folded(i), indent);
  }
  row_statements(phases, indent);
  for (int i : chunk_folds())
    if (at(i).level == Level::row) accumulate(i, indent);
  for (const Store& st : segment_.stores)
    if (at(st.statement).level == Level::row) store(st, indent);
}

/// Long rows hold a statement where a result of the row is stored at the end, if that is the same type and nothing is read from
/// memory after the statement is: the result may lie where an operand does.
void CSegment::hold_in_results() {
  const int last = phase_count() - 1;
  std::set<const Store*> taken;
  for (int i : hold_) {
    int first = 0;
    while (!phase(first).needed.count(i)) ++first;
    bool reads = false;
    for (const auto& [s, stage] : stages(phase(first))) reads = reads || stage > 1;
    held_ = hold_;
    for (int p = first + 1; p <= last; ++p)
      for (int s : phase(p).needed) reads = reads || (at(s).kind == LoopOp::load && !held_.count(s));
    held_.clear();
    for (const Store& store : segment_.stores) {
      if (reads || held_in_.count(i)) break;
      const Statement& stored = at(store.statement);
      if (stored.level == Level::element && stored.phase == last && first < last && !tiles_.count(&store.position) &&
          lies_along(store.position, inner_) && buffer_type(store.buffer) == at(i).dtype &&
          std::string_view(memory_type(at(i).dtype)) == type(i) && taken.insert(&store).second)
        held_in_[i] = &store;
    }
  }
}

std::string CSegment::scratch(int64_t bytes_per_column) {
  const std::string where = str("(scratch + ", call.scratch_per_column, " * wide)");
  call.scratch_per_column += bytes_per_column;
  return where;
}

// ---- The innermost dim.

bool CSegment::is_short(int dim) const { return dim >= rank() || (!at_run_time(extent(dim)) && extent(dim) < kShort); }

/// Whether neighbours along the dim are neighbours in memory, or in a tile.
bool CSegment::lies_along(const Position& position, int dim) const {
  if (tiles_.count(&position)) return true;
  if (dim >= position.strides.size()) return false;
  const int64_t& stride = position.strides.begin()[dim];
  return stride == 1 && !at_run_time(stride);
}

bool CSegment::is_filled(int i) const {
  const Statement& s = at(i);
  if (s.level != Level::element || is_short(inner_) || held_.count(i)) return false;
  if (s.kind == LoopOp::uniform) return lies_along(s.position, inner_);
  return s.kind == LoopOp::load && buffer_type(s.buffer) == DType::float16 && lies_along(s.position, inner_);
}

bool CSegment::is_drained(const Store& store) const {
  return buffer_type(store.buffer) == DType::float16 && !is_short(inner_) && lies_along(store.position, inner_);
}

/// Of each statement that a strip computes, the walk over the strip that does: so many costly statements stand in the
/// longest chain that ends in it.
std::map<int, int> CSegment::stages(const Phase& now) const {
  const bool one = is_short(inner_);
  std::map<int, int> depth;
  for (int i : now.needed) {
    if (is_free(at(i)) || is_filled(i) || held_.count(i)) continue;
    int deepest = 0;
    for (int o : at(i).operands)
      if (depth.count(o)) deepest = std::max(deepest, depth.at(o));
    depth[i] = deepest + (is_costly(at(i)) && !one ? 1 : 0);
  }
  for (auto& [i, stage] : depth) stage = std::max(stage, 1);
  return depth;
}

bool CSegment::needs_strips(const Phase& now) const {
  const std::map<int, int> stage = stages(now);
  return std::any_of(stage.begin(), stage.end(), [](const auto& each) { return each.second > 1; }) ||
         std::any_of(now.needed.begin(), now.needed.end(), [&](int i) { return is_filled(i); }) ||
         std::any_of(now.stores.begin(), now.stores.end(), [&](const Store* each) { return is_drained(*each); });
}

void CSegment::walk(const Phase& now, const Inner& inner, const std::string& indent) {
  const std::map<int, int> stage = stages(now);
  const bool strips = needs_strips(now);
  const std::string index = index_name(inner.dim);
  const std::vector<int> others = not_summed(now.folds);
  const bool only_read = stage.empty() && now.stores.empty() && others.empty() &&
                         std::all_of(now.folds.begin(), now.folds.end(), [&](int i) {
                           return at(at(i).operands[0]).kind == LoopOp::load && !is_filled(at(i).operands[0]);
                         });
  if (only_read && !now.folds.empty()) {
    out_ << indent << "{\n" << indent << "  const long " << index << " = " << inner.from << ";\n";
    for (int i : now.folds) {
      const Statement& read = at(at(i).operands[0]);
      add_strip(i, inner.to + " - " + inner.from, "&" + element(read.buffer, read.position), indent + "  ");
    }
    out_ << indent << "}\n";
    return;
  }
  if (!strips && others.size() == now.folds.size()) {
    out_ << pragma(now.folds) << indent << "for (long " << index << " = " << inner.from << "; " << index << " < "
         << inner.to << "; ++" << index << ") {\n";
    elements(now, indent + "  ", index);
    out_ << indent << "}\n";
    return;
  }
  const bool draws = std::any_of(now.needed.begin(), now.needed.end(),
                                 [&](int i) { return at(i).kind == LoopOp::uniform && is_filled(i); });
  const int length = draws ? kLongStrip : kStrip;
  out_ << indent << "for (long w = " << inner.from << "; w < " << inner.to << "; w += " << length << ") {\n"
       << indent << "  const long n = " << inner.to << " - w < " << length << " ? " << inner.to << " - w : " << length
       << ";\n";
  strip(now, inner.dim, indent + "  ");
  out_ << indent << "}\n";
}

void CSegment::fill(int i, const std::string& indent) {
  const Statement& s = at(i);
  if (s.kind == LoopOp::uniform) out_ << indent << "td_uniforms(n, " << uniform_arguments(s);
  else out_ << indent << "td_widen_f16(n, &" << element(s.buffer, s.position);
  out_ << (hold_.count(i) ? str(", c", i, " + w);\n") : str(", k", i, ");\n"));
}

/// The elements w … w + n - 1. Stores come last: an output may lie where an input does.
void CSegment::strip(const Phase& now, int dim, const std::string& indent) {
  const std::string index = index_name(dim), inner = indent + "  ";
  const std::map<int, int> stage = stages(now);
  int last = 1;
  for (const auto& [i, s] : stage) last = std::max(last, s);
  std::set<int> filled, results, kept;  // kept: read in a later stage
  std::vector<const Store*> drained;
  for (int i : now.needed)
    if (is_filled(i)) filled.insert(i);
  for (const Store* each : now.stores) {
    results.insert(each->statement);
    if (is_drained(*each)) drained.push_back(each);
  }
  const std::vector<int> others = not_summed(now.folds);
  std::vector<int> summed;
  std::set_difference(now.folds.begin(), now.folds.end(), others.begin(), others.end(), std::back_inserter(summed));
  for (int i : others) results.insert(at(i).operands[0]);
  for (const auto& [i, s] : stage)
    for (int o : at(i).operands)
      if (stage.count(o) && stage.at(o) < s) kept.insert(o);
  for (int i : results)
    if (stage.count(i) && stage.at(i) < last) kept.insert(i);
  for (int i : summed)
    if (stage.count(at(i).operands[0])) kept.insert(at(i).operands[0]);
  for (int i : hold_) kept.erase(i);

  const auto drain = [&](size_t j) { return str("d", j); };
  const auto strip_of = [&](int i) { return kept.count(i) || (filled.count(i) && !hold_.count(i)); };
  for (int i : now.needed)
    if (strip_of(i)) out_ << indent << type(i) << " k" << i << "[" << kLongStrip << "] __attribute__((aligned(64)));\n";
  for (size_t j = 0; j < drained.size(); ++j)
    out_ << indent << "float " << drain(j) << "[" << kLongStrip << "] __attribute__((aligned(64)));\n";
  const auto at_begin = [&] {
    out_ << indent << "{\n" << inner << "const long " << index << " = w, k = 0; (void)k;\n";
  };
  if (!filled.empty()) {
    at_begin();
    for (int i : filled) fill(i, inner);
    out_ << indent << "}\n";
  }
  for (int walked = 1; walked <= last; ++walked) {
    std::set<int> read;  // from before, or free
    const auto reads = [&](int o) {
      if (now.needed.count(o) && (!stage.count(o) || stage.at(o) < walked)) read.insert(o);
    };
    for (const auto& [i, s] : stage)
      if (s == walked)
        for (int o : at(i).operands) reads(o);
    if (walked == last)
      for (int i : results) reads(i);
    out_ << pragma(walked == last ? others : std::vector<int>()) << indent << "for (long k = 0; k < n; ++k) {\n"
         << inner << "const long " << index << " = w + k; (void)" << index << ";\n";
    for (int i : read) {
      if (strip_of(i)) define(i, str("k", i, "[k]"), inner);
      else if (held_.count(i) || hold_.count(i)) define(i, str("c", i, "[", index, "]"), inner);
      else define(i, inner);
    }
    for (const auto& [i, s] : stage) {
      if (s != walked) continue;
      define(i, inner);
      if (kept.count(i)) out_ << inner << "k" << i << "[k] = " << name(i) << ";\n";
      if (hold_.count(i)) out_ << inner << "c" << i << "[" << index << "] = " << name(i) << ";\n";
    }
    if (walked == last) {
      for (int i : others) accumulate(i, inner);
      for (const Store* each : now.stores) {
        const auto place = std::find(drained.begin(), drained.end(), each) - drained.begin();
        if (static_cast<size_t>(place) == drained.size()) store(*each, inner);
        else out_ << inner << drain(static_cast<size_t>(place)) << "[k] = " << name(each->statement) << ";\n";
      }
    }
    out_ << indent << "}\n";
  }
  if (!drained.empty() || !summed.empty()) {
    at_begin();
    for (int i : summed) {
      const int o = at(i).operands[0];
      const std::string values = strip_of(o)                        ? str("k", o)
                                 : hold_.count(o) || held_.count(o) ? str("c", o, " + w")
                                                                    : "&" + element(at(o).buffer, at(o).position);
      add_strip(i, "n", values, inner);
    }
    for (size_t j = 0; j < drained.size(); ++j)
      out_ << inner << "td_narrow_f16(n, " << drain(j) << ", &" << element(drained[j]->buffer, drained[j]->position)
           << ");\n";
    out_ << indent << "}\n";
  }
  for (int i : now.needed)
    if (hold_.count(i)) held_.insert(i);
}

// ---- Tiles.

bool CSegment::is_crossed(const Position& position, int tiled) const {
  const Shape& strides = position.strides;
  if (strides.size() != rank() || strides[inner_] == 0) return false;
  const int64_t &along = strides.begin()[inner_], &across = strides.begin()[tiled];
  return (along != 1 || at_run_time(along)) && across == 1 && !at_run_time(across);
}

/// Which dim lies along memory in what the innermost one doesn't, if that is worth transposing.
void CSegment::choose_tile(int inner) {
  if (is_short(inner)) return;
  if (segment_.by_row && !at_run_time(extent(inner)) && extent(inner) > kWidestTile) return;
  std::vector<std::pair<const Position*, int>> positions;  // with their buffers; stores decide
  for (const Store& each : segment_.stores)
    if (at(each.statement).level == Level::element) positions.emplace_back(&each.position, each.buffer);
  const size_t stores = positions.size();
  for (const Statement& s : segment_.statements)
    if (s.kind == LoopOp::load && s.level == Level::element) positions.emplace_back(&s.position, s.buffer);
  const int end = segment_.by_row ? segment_.rows.size() : inner;
  for (const auto& [position, buffer] : positions) {
    for (int d = 0; d < end && call.tile_dim < 0; ++d)
      if ((at_run_time(extent(d)) || extent(d) >= kShort / 2) && is_crossed(*position, d)) call.tile_dim = d;
  }
  if (call.tile_dim < 0) return;
  int64_t least = 8;
  for (size_t i = 0; i < positions.size(); ++i) {
    const auto [position, buffer] = positions[i];
    if (!is_crossed(*position, call.tile_dim)) continue;
    tiles_[position] = str(i < stores ? "x" : "m", i);
    (i < stores ? crossed_stores_ : crossed_loads_).emplace_back(position, buffer);
    least = std::min(least, size_of(buffer_type(buffer)));
  }
  call.tile = kLine / least;
}

int CSegment::crossed_buffer(const Position* position) const {
  for (const auto* list : {&crossed_loads_, &crossed_stores_})
    for (const auto& [each, buffer] : *list)
      if (each == position) return buffer;
  return -1;
}

std::string CSegment::element(int index, const Position& position) {
  const auto tile = tiles_.find(&position);
  if (tile == tiles_.end()) return SegmentEmitter::element(index, position);
  return str(tile->second, "[y * ", tile_step_, " + ", tile_at_, "]");
}

/// `count` elements of the innermost dim from `begin` on, of the tile's rows, come into tiles, or go out of them.
void CSegment::transpose(bool in, const std::string& begin, const std::string& count, const std::string& indent) {
  for (const auto& [position, buffer] : in ? crossed_loads_ : crossed_stores_) {
    const std::string bits = std::to_string(size_of(buffer_type(buffer)) * 8), word = str("td_u", bits, "*"),
                      memory = "&" + SegmentEmitter::element(buffer, *position),
                      stride = spelled(position->strides.begin()[inner_], "L"), tile = tiles_.at(position);
    out_ << indent << "{\n"
         << indent << "  const long " << index_name(inner_) << " = " << begin << ", " << index_name(call.tile_dim)
         << " = first;\n"
         << indent << "  td_transpose" << bits << "(";
    if (in)
      out_ << count << ", rows, (const " << word << ")" << memory << ", " << stride << ", (" << word << ")" << tile
           << ", " << tile_step_;
    else
      out_ << "rows, " << count << ", (const " << word << ")" << tile << ", " << tile_step_ << ", (" << word << ")"
           << memory << ", " << stride;
    out_ << ");\n" << indent << "}\n";
  }
}

}  // namespace tandem::graph
