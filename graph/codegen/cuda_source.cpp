// CUDA C++ for the loops of fused kernels.
//
// A segment without rows is a loop over elements, strided by the grid. A segment with rows gives each row to a warp
// or, where it is long, to a block; the elements that several phases need stay in registers, so that memory is read
// once; folds are butterflies of shuffles. Partial results of blocks are folded by whichever block ends last, in the
// order of blocks: no float atomics, and the same bits at every run.
#include "graph/codegen/cuda_source.h"

#include <algorithm>

#include "kernels/cuda/module.h"  // source_prelude: what stands for __shared__ is known to who compiles

namespace tandem::graph {

using detail::str;

namespace {

constexpr int64_t block_threads = 256;
constexpr int64_t most_blocks = 1024;        // of a segment: fills any device several times over
constexpr int64_t most_items = 32;           // elements of a row that a thread holds at most
constexpr int64_t most_held_registers = 96;  // for all values that are held
constexpr size_t most_arguments = 480;       // 4 KB of them

constexpr Dialect cuda_cpp = {.helper = "TD_DEVICE",
                              .index = "td_i64",
                              .stride_suffix = "LL",
                              .extent_suffix = "u",
                              .nan = "(TD_INF - TD_INF)",
                              .infinity = "TD_INF",
                              .reads_sites = false};

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
struct FoldSum { template <class T> static TD_DEVICE T join(T a, T b) { return td_add(a, b); } };
struct FoldProduct { template <class T> static TD_DEVICE T join(T a, T b) { return td_multiply(a, b); } };
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

std::string note_parameter(const LoopKernel& kernel) { return kernel.checks.empty() ? "" : ", td_range_note note"; }
std::string note_argument(const LoopKernel& kernel) { return kernel.checks.empty() ? "" : ", note"; }

/// Emits one segment as a device function of (its buffers, part, block, blocks, scratch, note).
class CudaSegment final : public SegmentEmitter {
 public:
  CudaSegment(const LoopKernel& kernel, const Segment& segment, std::set<std::string>& helpers)
      : SegmentEmitter(cuda_cpp, kernel, segment, helpers) {}

  int64_t blocks = 1;

  std::string emit() {
    segment_.by_row ? rows() : flat();
    return function("char* part, td_u32 block, td_u32 blocks, double* scratch",
                    ") {\n  (void)part; (void)block; (void)blocks; (void)scratch;\n");
  }
  /// The statements of a finish: those that fold partial results over all chunks first, by the whole block.
  std::string emit_finish(const std::vector<int64_t>& chunks) {
    for (int i = 0; i < count(); ++i) {
      const Statement& s = at(i);
      if (s.kind != LoopOp::partial) {
        define(i, "  ");
        continue;
      }
      declare_fold(i, "  ");
      out_ << "  for (td_u32 c = threadIdx.x; c < " << chunks[static_cast<size_t>(s.buffer)] << "u; c += 256) a" << i
           << " = " << fold_name(s.fold) << "::join(a" << i << ", *(const volatile " << type(i) << "*)(parts["
           << s.buffer << "] + c * " << partial_bytes(s.buffer) << "u + " << s.integer * 8 << "));\n";
      define(i, rounded(s.dtype, averaged(s, fold_block(i))), "  ");
    }
    out_ << "  if (threadIdx.x == 0) {\n";
    for (const Store& st : segment_.stores) store(st, "    ");
    out_ << "  }\n";
    return function("char* const* parts, double* scratch", ") {\n");
  }

 private:
  /// The function with these parameters after its buffers.
  std::string function(const std::string& parameters, const std::string& head) const {
    std::string text = "(";
    for (size_t i = 0; i < buffers().size(); ++i) text += str(memory_type(buffer_type(buffers()[i])), "* b", i, ", ");
    return text + parameters + note_parameter(kernel_) + head + out_.str() + "}\n";
  }

  /// The place of a value that is read from memory is that among the dims along which it is read.
  void check(int i, std::string_view indent) override {
    const RangeCheck& range = check_of(at(i)).range;
    const Statement& operand = at(at(i).operands[0]);
    out_ << indent << "if (" << (at(i).level == Level::row ? "live && " : "");
    if (range.interval) {
      const DType type = at(i).dtype;
      out_ << "!(" << name(i) << " >= " << literal(range.interval->low, type) << " && " << name(i)
           << " <= " << literal(range.interval->high, type) << ")) td_note_range(note, " << at(i).check
           << "u, -1, 0);\n";
      return;
    }
    Shape extents = segment_.rows;
    for (int64_t extent : segment_.columns) extents.push_back(extent);
    std::string place = operand.kind == LoopOp::load ? "0" : "-1";
    for (int d = 0; operand.kind == LoopOp::load && d < operand.position.strides.size(); ++d)
      if (operand.position.strides[d] != 0) place = str("(", place, " * ", extents[d], "LL + i", d, ")");
    out_ << "(td_u64)" << name(i) << " >= " << range.bound << "ULL";
    if (range.ignored) out_ << " && " << name(i) << " != " << *range.ignored << "LL";
    out_ << ") td_note_range(note, " << at(i).check << "u, " << place << ", " << name(i) << ");\n";
  }

  // ---- Folds.

  void declare_fold(int i, std::string_view indent) override {
    out_ << indent << type(i) << " a" << i << " = " << identity(at(i).fold, at(i).dtype) << ";\n";
  }
  void accumulate(int i, std::string_view indent) override {
    out_ << indent << "a" << i << " = " << fold_name(at(i).fold) << "::join(a" << i << ", (" << type(i) << ")"
         << name(at(i).operands[0]) << ");\n";
  }
  std::string fold_warp(int i) const { return str("fold_warp<", fold_name(at(i).fold), ">(a", i, ")"); }
  std::string fold_block(int i) const { return str("fold_block<", fold_name(at(i).fold), ">(a", i, ", scratch)"); }
  void write_partials() {
    for (int i : chunk_folds())
      out_ << "  a" << i << " = " << fold_block(i) << ";\n  if (threadIdx.x == 0) *(" << type(i) << "*)(part + block * "
           << segment_.partials * 8 << "u + " << at(i).partial * 8 << ") = " << rounded(at(i).dtype, str("a", i))
           << ";\n";
  }

  /// The type that counts to so many, and in steps of a grid behind them.
  static const char* counter(int64_t most) { return most < (int64_t{1} << 31) ? "td_u32" : "td_u64"; }

  // ---- A domain without rows.

  void flat() {
    const int64_t elements_in_all = segment_.rows.numel() * segment_.columns.numel();
    blocks = std::clamp<int64_t>((elements_in_all + block_threads * 4 - 1) / (block_threads * 4), 1, most_blocks);
    scalars();
    const Phase all = phase(kEverything);
    for (int i : all.folds) declare_fold(i, "  ");
    out_ << "  for (" << counter(elements_in_all) << " u = block * 256u + threadIdx.x; u < " << elements_in_all
         << "u; u += blocks * 256u) {\n";
    indices(0, rank(), "u", "    ");
    elements(all, "    ");
    out_ << "  }\n";
    write_partials();
  }

  // ---- Rows: the columns are walked once a phase.

  /// What several phases need is held in registers, as far as they go: what calls functions, and what is read.
  void choose_held(int64_t items) {
    const std::vector<int> uses = phase_uses();
    for (const bool loads : {false, true})
      for (int i = count() - 1; i >= 0; --i) {
        const Statement& s = at(i);
        const bool calls =
            s.kind == LoopOp::uniform || (s.kind == LoopOp::pointwise && s.op->pointwise.cost != Cost::arithmetic);
        const bool load = s.kind == LoopOp::load && s.level == Level::element;
        const int64_t registers = (std::ssize(hold_) + 1) * items;
        if (uses[static_cast<size_t>(i)] > 1 && (loads ? load : calls) && registers <= most_held_registers)
          hold_.insert(i);
      }
  }

  void rows() {
    const int64_t row_count = segment_.rows.numel(), width = segment_.columns.numel();
    const int row_rank = segment_.rows.size(), phases = phase_count();
    const int64_t lanes = width <= 1024 ? 32 : block_threads, groups = block_threads / lanes;
    const int64_t items = (width + lanes - 1) / lanes;
    const bool holding = items <= most_items;
    blocks =
        std::clamp<int64_t>((row_count + groups - 1) / groups, 1, segment_.partials ? most_blocks : int64_t{1} << 20);

    scalars();
    for (int i : chunk_folds()) declare_fold(i, "  ");
    out_ << "  const td_u32 lane = threadIdx.x % " << lanes << "u, group = threadIdx.x / " << lanes
         << "u; (void)group;\n";
    // All lanes of a block make the same number of turns: folds are collectives.
    const char *const of_rows_type = counter(row_count), *const of_columns_type = counter(width);
    out_ << "  for (" << of_rows_type << " first = block * " << groups << "u; first < " << row_count
         << "u; first += blocks * " << groups << "u) {\n"
         << "    const " << of_rows_type << " r = first + group < " << row_count
         << "u ? first + group : " << std::max<int64_t>(row_count - 1, 0) << "u;\n"
         << "    const bool live = first + group < " << row_count << "u; (void)live;\n";
    indices(0, row_rank, "r", "    ");
    if (holding) choose_held(items);
    for (int i : hold_) out_ << "    " << type(i) << " c" << i << "[" << items << "];\n";

    for (int p = 0; p < phases; ++p) {
      row_statements(p);
      const Phase now = phase(p);
      if (now.empty()) continue;
      for (int i : now.folds)
        if (at(i).partial < 0) declare_fold(i, "    ");
      if (holding) out_ << "#pragma unroll\n";
      out_ << "    for (" << of_columns_type << " t = 0; t < " << items << "u; ++t) {\n      const " << of_columns_type
           << " column = t * " << lanes << "u + lane;\n      if (column >= " << width << "u || !live) continue;\n";
      indices(row_rank, rank(), "column", "      ");
      elements(now, "      ", "t");
      out_ << "    }\n";
      for (int i : now.folds)
        if (at(i).partial < 0)
          define(i, rounded(at(i).dtype, averaged(at(i), lanes == 32 ? fold_warp(i) : fold_block(i))), "    ");
    }
    row_statements(phases);
    for (int i : chunk_folds())
      if (at(i).level == Level::row) {
        out_ << "    if (live && lane == 0) {\n";
        accumulate(i, "      ");
        out_ << "    }\n";
      }
    const auto of_rows = [&](const Store& st) { return at(st.statement).level != Level::element; };
    if (std::any_of(segment_.stores.begin(), segment_.stores.end(), of_rows)) {
      out_ << "    if (live && lane == 0) {\n";
      for (const Store& st : segment_.stores)
        if (of_rows(st)) store(st, "      ");
      out_ << "    }\n";
    }
    out_ << "  }\n";
    write_partials();
  }
};

}  // namespace

std::vector<CudaKernelCall> CudaSource::add(const LoopKernel& kernel) {
  struct Part {
    std::string function;
    std::vector<int> buffers;
    int64_t blocks;
  };
  std::vector<Part> parts;
  std::vector<int64_t> chunks;
  for (const Segment& segment : kernel.segments) {
    CudaSegment emitter(kernel, segment, helpers_);
    const std::string name = function(emitter.emit(), "segment");
    parts.push_back({name, emitter.buffers(), emitter.blocks});
    chunks.push_back(emitter.blocks);
  }
  const bool has_finish = !kernel.finish.stores.empty();
  Part finish{"", {}, 0};
  if (has_finish) {
    CudaSegment emitter(kernel, kernel.finish, helpers_);
    const std::string name = function(emitter.emit_finish(chunks), "segment");
    finish = {name, emitter.buffers(), 0};
  }

  std::vector<CudaKernelCall> calls;
  for (size_t first = 0; first < parts.size() || (calls.empty() && has_finish);) {
    CudaKernelCall call;
    const auto position = [&](int buffer) {
      const auto found = std::find(call.buffers.begin(), call.buffers.end(), buffer);
      const auto index = found - call.buffers.begin();
      if (found == call.buffers.end()) call.buffers.push_back(buffer);
      return index;
    };
    tandem::detail::TextStream body;
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
      body << ", blockIdx.x - " << blocks << "u, " << part.blocks << "u, scratch" << note_argument(kernel) << ");\n";
      call.partial_bytes += static_cast<size_t>(slots * part.blocks) * 8;
      blocks += part.blocks;
    }
    first = last;
    call.blocks = static_cast<unsigned>(std::max<int64_t>(blocks, 1));
    if (has_finish && parts.empty()) {  // only numbers: one block does it
      body << "  " << finish.function << "(";
      for (int buffer : finish.buffers) body << "p" << position(buffer) << ", ";
      body << "nullptr, scratch" << note_argument(kernel) << ");\n";
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
      body << "parts, scratch" << note_argument(kernel) << ");\n    if (threadIdx.x == 0) *ended = 0;\n  }\n";
      call.partial_bytes += 8;
    }
    tandem::detail::TextStream text;
    text << "(";
    std::string parameters;  // each after a comma
    for (size_t i = 0; i < call.buffers.size(); ++i)
      parameters += str(", ", memory_type(kernel.buffers[static_cast<size_t>(call.buffers[i])]), "* p", i);
    if (call.partial_bytes) parameters += ", char* partial";
    parameters += note_parameter(kernel);
    text << parameters.substr(std::min<size_t>(2, parameters.size())) << ") {\n  TANDEM_SHARED(double, scratch, [8]);\n"
         << body.str() << "}\n";
    const auto [known, fresh] = names_of_kernels_.try_emplace(text.str(), str("kernel", kernel_names_.size()));
    if (fresh) {
      kernels_.push_back("\nextern \"C\" __global__ void __launch_bounds__(256) " + known->second + known->first);
      kernel_names_.push_back(known->second);
    }
    call.name = known->second;
    calls.push_back(std::move(call));
  }
  return calls;
}

std::string CudaSource::text() const {
  if (kernels_.empty()) return {};
  std::string text = prelude({"core/scalar/math.h", "core/scalar/gamma.h", "core/scalar/half.h",
                              "core/scalar/rounded.h", "core/scalar/philox.h", "kernels/cuda/range_note.cuh"},
                             gpu::source_prelude);
  text += fold_helpers + functions("TD_DEVICE void ");
  for (const std::string& kernel : kernels_) text += kernel;
  return text;
}

}  // namespace tandem::graph
