// CUDA C++ for the loops of fused kernels. The scalar expressions are those of the C emitter and of the eager kernels,
// so results agree bit for bit wherever no reduction is reordered.
//
// A segment without rows is a loop over elements, strided by the grid. A segment with rows gives each row to a warp
// or, where it is long, to a block; the elements that several phases need stay in registers, so that memory is read
// once; folds are butterflies of shuffles. Partial results of blocks are folded by whichever block ends last, in the
// order of blocks: no float atomics, and the same bits at every run.
#include "graph/codegen/cuda_source.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>
#include <sstream>

#include "core/expression.h"
#include "graph/codegen/embedded.h"
#include "kernels/cuda/module.h"

namespace tandem::graph {

namespace {

constexpr int64_t block_threads = 256;
constexpr int64_t most_blocks = 1024;        // of a segment: fills any device several times over
constexpr int64_t most_items = 32;           // elements of a row that a thread holds at most
constexpr int64_t most_held_registers = 96;  // for all values that are held
constexpr size_t most_arguments = 480;       // 4 KB of them

bool is_half(DType type) { return type == DType::float16 || type == DType::bfloat16; }

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
  const std::string cast = std::string("((") + compute_type(type) + ")";
  if (!is_floating(type)) {
    std::snprintf(text, sizeof text, "%lld)", static_cast<long long>(number));
    return cast + text;
  }
  if (std::isnan(number)) return cast + "(TD_INF - TD_INF))";
  if (std::isinf(number)) return cast + (number < 0 ? "-TD_INF)" : "TD_INF)");
  const double exact = type == DType::float64 ? number : static_cast<double>(static_cast<float>(number));
  std::snprintf(text, sizeof text, "%a)", exact);
  return cast + text;
}

std::string fold_start(Fold fold, DType type) {
  switch (fold) {
    case Fold::sum: return literal(0, type);
    case Fold::prod: return literal(1, type);
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
const char* fold_name(Fold fold) {
  switch (fold) {
    case Fold::sum: return "FoldSum";
    case Fold::prod: return "FoldProduct";
    case Fold::max: return "FoldMax";
    default: return "FoldMin";
  }
}

constexpr const char* fold_helpers = R"(
#define TD_DEVICE __device__ __forceinline__
struct FoldSum { template <class T> static TD_DEVICE T join(T a, T b) { return a + b; } };
struct FoldProduct { template <class T> static TD_DEVICE T join(T a, T b) { return a * b; } };
struct FoldMax { template <class T> static TD_DEVICE T join(T a, T b) { return a != a || a > b ? a : b; } };
struct FoldMin { template <class T> static TD_DEVICE T join(T a, T b) { return a != a || a < b ? a : b; } };
TD_DEVICE float shuffled(float v, int by) { return __shfl_xor_sync(0xffffffffu, v, by); }
TD_DEVICE double shuffled(double v, int by) { return __shfl_xor_sync(0xffffffffu, v, by); }
TD_DEVICE td_i32 shuffled(td_i32 v, int by) { return __shfl_xor_sync(0xffffffffu, v, by); }
TD_DEVICE td_i64 shuffled(td_i64 v, int by) { return (td_i64)__shfl_xor_sync(0xffffffffu, (long long)v, by); }
TD_DEVICE td_u8 shuffled(td_u8 v, int by) { return (td_u8)__shfl_xor_sync(0xffffffffu, (int)v, by); }
template <class F, class T> TD_DEVICE T fold_warp(T v) {
#pragma unroll
  for (int by = 16; by > 0; by /= 2) v = F::join(v, shuffled(v, by));
  return v;
}
// All threads get the fold of the block's 256 values. `scratch` is shared and has room for eight.
template <class F, class T> TD_DEVICE T fold_block(T v, double* scratch) {
  T* const part = (T*)scratch;
  v = fold_warp<F>(v);
  __syncthreads();
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
  __syncthreads();
  v = part[0];
#pragma unroll
  for (int w = 1; w < 8; ++w) v = F::join(v, part[w]);
  return v;
}
)";

/// Spells one segment as a device function of (its buffers, part, block, blocks, scratch).
class SegmentWriter {
 public:
  SegmentWriter(const LoopKernel& kernel, const Segment& segment, std::set<std::string>& helpers)
      : kernel_(kernel), s_(segment), helpers_(helpers) {}

  std::vector<int> buffers;  ///< in the order of the function's parameters
  int64_t blocks = 1;

  std::string write() {
    std::ostringstream out;
    for (const Store& store : s_.stores) buffer(store.buffer);
    if (s_.by_row) rows(out);
    else flat(out);
    return parameters() +
           "char* part, td_u32 block, td_u32 blocks, double* scratch) {\n  (void)part; (void)block; (void)blocks; "
           "(void)scratch;\n" +
           out.str() + "}\n";
  }
  std::string parameters() const {
    std::string text = "(";
    for (size_t i = 0; i < buffers.size(); ++i) {
      text +=
          std::string(memory_type(kernel_.buffers[static_cast<size_t>(buffers[i])])) + "* b" + std::to_string(i) + ", ";
    }
    return text;
  }
  /// The statements of a finish: those that fold partial results over all chunks first, by the whole block.
  std::string write_finish(const std::vector<int64_t>& chunks) {
    std::ostringstream out, body;
    for (const Store& store : s_.stores) buffer(store.buffer);
    for (int i = 0; i < static_cast<int>(s_.statements.size()); ++i) {
      const Statement& s = at(i);
      if (s.kind != LoopOp::partial) {
        define(body, i, "  ");
        continue;
      }
      const char* type = compute_type(s.dtype);
      const int64_t stride = kernel_.segments[static_cast<size_t>(s.buffer)].partials * 8;
      body << "  " << type << " a" << i << " = " << fold_start(s.fold, s.dtype)
           << ";\n  for (td_u32 c = threadIdx.x; c < " << chunks[static_cast<size_t>(s.buffer)] << "u; c += 256) a" << i
           << " = " << fold_name(s.fold) << "::join(a" << i << ", *(const volatile " << type << "*)(parts[" << s.buffer
           << "] + c * " << stride << "u + " << s.integer * 8 << "));\n  const " << type << " " << name(i) << " = "
           << rounded(s.dtype,
                      std::string("fold_block<") + fold_name(s.fold) + ">(a" + std::to_string(i) + ", scratch)")
           << ";\n";
    }
    body << "  if (threadIdx.x == 0) {\n";
    for (const Store& st : s_.stores) store(body, st, "    ");
    body << "  }\n";
    return parameters() + "char* const* parts, double* scratch) {\n" + body.str() + "}\n";
  }

 private:
  const Statement& at(int i) const { return s_.statements[static_cast<size_t>(i)]; }
  int count() const { return static_cast<int>(s_.statements.size()); }
  int buffer(int index) {
    const auto found = std::find(buffers.begin(), buffers.end(), index);
    if (found != buffers.end()) return static_cast<int>(found - buffers.begin());
    buffers.push_back(index);
    return static_cast<int>(buffers.size()) - 1;
  }
  static std::string name(int statement) { return "v" + std::to_string(statement); }

  static std::string place(const Position& position) {
    std::string text;
    for (int d = 0; d < position.strides.size(); ++d) {
      const int64_t stride = position.strides[d];
      if (stride == 0) continue;
      text += (text.empty() ? "" : " + ") + std::string("i") + std::to_string(d) +
              (stride == 1 ? "" : " * " + std::to_string(stride) + "LL");
    }
    if (position.offset || text.empty()) text += (text.empty() ? "" : " + ") + std::to_string(position.offset);
    return text;
  }

  std::string call(const Statement& s) {
    std::string operands;
    for (int o : s.operands) operands += (operands.empty() ? "" : ", ") + name(o);
    const Pointwise& pointwise = s.op->pointwise;
    const DType computed = pointwise.selects ? s.dtype : at(s.operands.back()).dtype;
    const std::string helper = std::string("p_") + s.op->name + "_" + suffix(computed);
    const char* type = compute_type(computed);
    std::string text = "TD_DEVICE " + std::string(pointwise.returns_bool ? "td_u8" : type) + " " + helper + "(";
    for (size_t i = 0; i < s.operands.size(); ++i)
      text += std::string(i ? ", " : "") + (pointwise.selects && i == 0 ? "td_u8" : type) + " " + parameter_name(i);
    text += std::string(") { typedef ") + type + " T; (void)(T)0; return ";
    text += computed == DType::bool_ && !pointwise.returns_bool ? "(" + std::string(pointwise.expression) + ") != 0"
                                                                : pointwise.expression;
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

  void define(std::ostringstream& out, int i, const char* indent) {
    out << indent << "const " << compute_type(at(i).dtype) << " " << name(i) << " = " << expression(i) << ";\n";
  }
  void store(std::ostringstream& out, const Store& store, const char* indent) {
    const DType type = kernel_.buffers[static_cast<size_t>(store.buffer)];
    out << indent << "b" << buffer(store.buffer) << "[" << place(store.position)
        << "] = " << to_memory(type, name(store.statement)) << ";\n";
  }
  void scalars(std::ostringstream& out) {
    for (int i = 0; i < count(); ++i)
      if (at(i).level == Level::scalar) define(out, i, "  ");
  }
  void declare_fold(std::ostringstream& out, int i, const char* indent) {
    out << indent << compute_type(at(i).dtype) << " a" << i << " = " << fold_start(at(i).fold, at(i).dtype) << ";\n";
  }
  void accumulate(std::ostringstream& out, int i, const char* indent) {
    out << indent << "a" << i << " = " << fold_name(at(i).fold) << "::join(a" << i << ", (" << compute_type(at(i).dtype)
        << ")" << name(at(i).operands[0]) << ");\n";
  }
  void write_partial(std::ostringstream& out, int i) {
    out << "  if (threadIdx.x == 0) *(" << compute_type(at(i).dtype) << "*)(part + block * " << s_.partials * 8
        << "u + " << at(i).partial * 8 << ") = " << rounded(at(i).dtype, "a" + std::to_string(i)) << ";\n";
  }
  /// i0 … of the dims from a linear index.
  static void indices(std::ostringstream& out, const Shape& extents, int first, const std::string& linear,
                      const char* indent) {
    int64_t below = extents.numel();
    for (int d = 0; d < extents.size(); ++d) {
      below /= std::max<int64_t>(extents[d], 1);
      out << indent << "const td_i64 i" << first + d << " = " << linear;
      if (below != 1) out << " / " << below << "u";
      if (d) out << " % " << extents[d] << "u";
      out << "; (void)i" << first + d << ";\n";
    }
  }

  /// Adds the element statements that `i` needs; folds of earlier phases are known, and so is what is held.
  void need(int i, std::set<int>& needed) const {
    if (at(i).level != Level::element || at(i).kind == LoopOp::fold) return;
    if (!needed.insert(i).second || held_.count(i)) return;
    for (int o : at(i).operands) need(o, needed);
  }

  // ---- A domain without rows.

  void flat(std::ostringstream& out) {
    Shape extents = s_.rows;
    for (int64_t e : s_.columns) extents.push_back(e);
    const int64_t elements = extents.numel();
    blocks = std::clamp<int64_t>((elements + block_threads * 4 - 1) / (block_threads * 4), 1, most_blocks);
    scalars(out);
    std::vector<int> folds;
    std::set<int> needed;
    for (int i = 0; i < count(); ++i)
      if (at(i).kind == LoopOp::fold) {
        folds.push_back(i);
        need(at(i).operands[0], needed);
        declare_fold(out, i, "  ");
      }
    for (const Store& st : s_.stores) need(st.statement, needed);
    const char* type = elements < (int64_t{1} << 31) ? "td_u32" : "td_u64";
    out << "  for (" << type << " u = block * 256u + threadIdx.x; u < " << elements << "u; u += blocks * 256u) {\n";
    indices(out, extents, 0, "u", "    ");
    for (int i : needed) define(out, i, "    ");
    for (int i : folds) accumulate(out, i, "    ");
    for (const Store& st : s_.stores) store(out, st, "    ");
    out << "  }\n";
    for (int i : folds) {
      out << "  a" << i << " = fold_block<" << fold_name(at(i).fold) << ">(a" << i << ", scratch);\n";
      write_partial(out, i);
    }
  }

  // ---- Rows: the columns are walked once a phase.

  static bool folds_elements(const Statement& s) {
    return s.kind == LoopOp::fold && (s.partial < 0 || s.level == Level::element);
  }

  std::set<int> needed_in(int phase) const {
    std::set<int> needed;
    for (const Statement& s : s_.statements)
      if (folds_elements(s) && s.phase == phase) need(s.operands[0], needed);
    for (const Store& st : s_.stores)
      if (at(st.statement).level == Level::element && at(st.statement).phase == phase) need(st.statement, needed);
    return needed;
  }

  void rows(std::ostringstream& out) {
    for (const Statement& s : s_.statements)
      if (s.kind == LoopOp::fold && (s.level == Level::element || s.partial < 0))
        phases_ = std::max(phases_, s.phase + 1);
    for (const Store& st : s_.stores)
      if (at(st.statement).level == Level::element) phases_ = std::max(phases_, at(st.statement).phase + 1);

    const int64_t row_count = s_.rows.numel(), width = s_.columns.numel();
    const int row_rank = s_.rows.size();
    const int64_t lanes = width <= 1024 ? 32 : block_threads, groups = block_threads / lanes;
    const int64_t items = (width + lanes - 1) / lanes;
    const bool holding = items <= most_items;
    blocks = std::clamp<int64_t>((row_count + groups - 1) / groups, 1, s_.partials ? most_blocks : int64_t{1} << 20);

    scalars(out);
    for (int i = 0; i < count(); ++i)
      if (at(i).kind == LoopOp::fold && at(i).partial >= 0) declare_fold(out, i, "  ");
    out << "  const td_u32 lane = threadIdx.x % " << lanes << "u, group = threadIdx.x / " << lanes
        << "u; (void)group;\n";
    // All lanes of a block make the same number of turns: folds are collectives.
    out << "  for (td_u32 first = block * " << groups << "u; first < " << row_count << "u; first += blocks * " << groups
        << "u) {\n"
        << "    const td_u32 r = first + group < " << row_count
        << "u ? first + group : " << std::max<int64_t>(row_count - 1, 0) << "u;\n"
        << "    const bool live = first + group < " << row_count << "u; (void)live;\n";
    indices(out, s_.rows, 0, "r", "    ");

    // What several phases need is held in registers, as far as they go: what is dear to compute, and what is read.
    std::set<int> hold;
    if (holding) {
      std::vector<std::set<int>> by_phase;
      for (int phase = 0; phase < phases_; ++phase) by_phase.push_back(needed_in(phase));
      for (int pass = 0; pass < 2; ++pass)
        for (int i = count() - 1; i >= 0; --i) {
          int uses = 0;
          for (const auto& needed : by_phase) uses += needed.count(i) ? 1 : 0;
          const bool load = at(i).kind == LoopOp::load && at(i).level == Level::element;
          const bool dear = at(i).kind == LoopOp::uniform ||
                            (at(i).kind == LoopOp::pointwise &&
                             std::string(at(i).op->pointwise.expression).find("td_") != std::string::npos);
          if (uses > 1 && (pass == 0 ? dear : load) &&
              static_cast<int64_t>(hold.size() + 1) * items <= most_held_registers)
            hold.insert(i);
        }
    }
    for (int i : hold) out << "    " << compute_type(at(i).dtype) << " c" << i << "[" << items << "];\n";

    for (int phase = 0; phase < phases_; ++phase) {
      row_statements(out, phase);
      std::vector<int> folds;
      for (int i = 0; i < count(); ++i)
        if (folds_elements(at(i)) && at(i).phase == phase) {
          folds.push_back(i);
          if (at(i).partial < 0) declare_fold(out, i, "    ");
        }
      std::vector<const Store*> stores;
      for (const Store& st : s_.stores)
        if (at(st.statement).level == Level::element && at(st.statement).phase == phase) stores.push_back(&st);
      if (folds.empty() && stores.empty()) continue;
      const std::set<int> needed = needed_in(phase);
      if (holding) out << "#pragma unroll\n";
      out << "    for (td_u32 t = 0; t < " << items << "u; ++t) {\n      const td_u32 column = t * " << lanes
          << "u + lane;\n      if (column >= " << width << "u || !live) continue;\n";
      indices(out, s_.columns, row_rank, "column", "      ");
      for (int i : needed) {
        if (held_.count(i)) {
          out << "      const " << compute_type(at(i).dtype) << " " << name(i) << " = c" << i << "[t];\n";
          continue;
        }
        define(out, i, "      ");
        if (hold.count(i)) out << "      c" << i << "[t] = " << name(i) << ";\n";
      }
      for (int i : folds) accumulate(out, i, "      ");
      for (const Store* st : stores) store(out, *st, "      ");
      out << "    }\n";
      for (int i : needed)
        if (hold.count(i)) held_.insert(i);
      for (int i : folds) {
        if (at(i).partial >= 0) continue;
        const std::string folded = lanes == 32
                                       ? detail::str("fold_warp<", fold_name(at(i).fold), ">(a", i, ")")
                                       : detail::str("fold_block<", fold_name(at(i).fold), ">(a", i, ", scratch)");
        out << "    const " << compute_type(at(i).dtype) << " " << name(i) << " = " << rounded(at(i).dtype, folded)
            << ";\n";
      }
    }
    row_statements(out, phases_);
    for (int i = 0; i < count(); ++i)
      if (at(i).kind == LoopOp::fold && at(i).partial >= 0 && at(i).level == Level::row) {
        out << "    if (live && lane == 0) {\n";
        accumulate(out, i, "      ");
        out << "    }\n";
      }
    bool row_stores = false;
    for (const Store& st : s_.stores) row_stores = row_stores || at(st.statement).level != Level::element;
    if (row_stores) {
      out << "    if (live && lane == 0) {\n";
      for (const Store& st : s_.stores)
        if (at(st.statement).level != Level::element) store(out, st, "      ");
      out << "    }\n";
    }
    out << "  }\n";
    for (int i = 0; i < count(); ++i)
      if (at(i).kind == LoopOp::fold && at(i).partial >= 0) {
        out << "  a" << i << " = fold_block<" << fold_name(at(i).fold) << ">(a" << i << ", scratch);\n";
        write_partial(out, i);
      }
  }

  void row_statements(std::ostringstream& out, int phase) {
    for (int i = 0; i < count(); ++i)
      if (at(i).level == Level::row && at(i).kind != LoopOp::fold && at(i).phase <= phase &&
          written_rows_.insert(i).second)
        define(out, i, "    ");
  }

  const LoopKernel& kernel_;
  const Segment& s_;
  std::set<std::string>& helpers_;
  int phases_ = 0;
  std::set<int> held_, written_rows_;
};

}  // namespace

std::string CudaSource::function(const std::string& body) {
  for (const auto& [text, name] : functions_)
    if (text == body) return name;
  functions_.emplace_back(body, "segment" + std::to_string(functions_.size()));
  return functions_.back().second;
}

std::vector<CudaKernelCall> CudaSource::add(const LoopKernel& kernel) {
  std::set<std::string> helpers(helpers_.begin(), helpers_.end());
  struct Part {
    std::string function;
    std::vector<int> buffers;
    int64_t blocks;
  };
  std::vector<Part> parts;
  std::vector<int64_t> chunks;
  for (const Segment& segment : kernel.segments) {
    SegmentWriter writer(kernel, segment, helpers);
    const std::string body = writer.write();
    parts.push_back({function(body), writer.buffers, writer.blocks});
    chunks.push_back(writer.blocks);
  }
  const bool has_finish = !kernel.finish.stores.empty();
  Part finish{"", {}, 0};
  if (has_finish) {
    SegmentWriter writer(kernel, kernel.finish, helpers);
    const std::string body = writer.write_finish(chunks);
    finish = {function(body), writer.buffers, 0};
  }
  helpers_.assign(helpers.begin(), helpers.end());

  std::vector<CudaKernelCall> calls;
  for (size_t first = 0; first < parts.size() || (calls.empty() && has_finish);) {
    CudaKernelCall call;
    call.name = "kernel" + std::to_string(kernel_names_.size());
    const auto position = [&](int buffer) {
      const auto found = std::find(call.buffers.begin(), call.buffers.end(), buffer);
      const auto index = static_cast<size_t>(found - call.buffers.begin());
      if (index == call.buffers.size()) call.buffers.push_back(buffer);
      return index;
    };
    std::ostringstream body;
    std::vector<size_t> part_offsets;
    int64_t blocks = 0;
    size_t last = first;
    // With a finish everything is one launch: its partial results meet there.
    for (; last < parts.size() &&
           (has_finish || last == first || call.buffers.size() + parts[last].buffers.size() <= most_arguments);
         ++last) {
      const Part& part = parts[last];
      part_offsets.push_back(call.partial_bytes);
      body << "  if (";
      if (blocks) body << "blockIdx.x >= " << blocks << "u && ";
      body << "blockIdx.x < " << blocks + part.blocks << "u) " << part.function << "(";
      for (int buffer : part.buffers) body << "p" << position(buffer) << ", ";
      const int64_t slots = kernel.segments[last].partials;
      if (slots) body << "partial + " << call.partial_bytes;
      else body << "nullptr";
      body << ", blockIdx.x - " << blocks << "u, " << part.blocks << "u, scratch);\n";
      call.partial_bytes += static_cast<size_t>(slots * part.blocks) * 8;
      blocks += part.blocks;
    }
    first = last;
    call.blocks = static_cast<unsigned>(std::max<int64_t>(blocks, 1));
    if (has_finish && parts.empty()) {  // only numbers: one block does it
      body << "  " << finish.function << "(";
      for (int buffer : finish.buffers) body << "p" << position(buffer) << ", ";
      body << "nullptr, scratch);\n";
    } else if (has_finish) {
      body << "  // The block that ends last folds what all of them left.\n"
           << "  TANDEM_SHARED(td_u32, turn, [1]);\n  td_u32* const ended = (td_u32*)(partial + " << call.partial_bytes
           << ");\n"
           << "  __threadfence();\n  __syncthreads();\n  if (threadIdx.x == 0) turn[0] = atomicAdd(ended, 1u);\n  "
              "__syncthreads();\n"
           << "  if (turn[0] == gridDim.x - 1) {\n    __threadfence();\n    char* const parts[] = {";
      for (size_t offset : part_offsets) body << "partial + " << offset << ", ";
      body << "};\n    " << finish.function << "(";
      for (int buffer : finish.buffers) body << "p" << position(buffer) << ", ";
      body << "parts, scratch);\n    if (threadIdx.x == 0) *ended = 0;\n  }\n";
      call.partial_bytes += 8;
    }
    std::ostringstream text;
    text << "\nextern \"C\" __global__ void __launch_bounds__(256) " << call.name << "(";
    for (size_t i = 0; i < call.buffers.size(); ++i) {
      text << (i ? ", " : "") << memory_type(kernel.buffers[static_cast<size_t>(call.buffers[i])]) << "* p" << i;
    }
    if (call.partial_bytes) text << (call.buffers.empty() ? "" : ", ") << "char* partial";
    text << ") {\n  TANDEM_SHARED(double, scratch, [8]);\n" << body.str() << "}\n";
    kernels_.push_back(text.str());
    kernel_names_.push_back(call.name);
    calls.push_back(std::move(call));
  }
  return calls;
}

std::string CudaSource::text() const {
  if (kernels_.empty()) return {};
  std::string text = "// Generated by Tandem.\n";
  text += gpu::source_prelude;
  for (const char* header : {"core/scalar/math.h", "core/scalar/half.h", "core/scalar/philox.h"})
    text += std::string(embedded::source(header)) + "\n";
  text += fold_helpers;
  for (const std::string& helper : helpers_) text += helper;
  for (const auto& [body, name] : functions_) text += "\nTD_DEVICE void " + name + body;
  for (const std::string& kernel : kernels_) text += kernel;
  return text;
}

}  // namespace tandem::graph
