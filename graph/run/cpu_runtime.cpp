// The CPU's runtime: loop kernels as C, built by the system compiler, run in chunks by OpenMP's threads.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <optional>

#include "graph/codegen/c_source.h"
#include "graph/native/system_compiler.h"
#include "graph/run/runtime.h"
#include "kernels/cpu/support/copy.h"
#include "kernels/cpu/support/parallel.h"

namespace tandem::graph {

namespace {

constexpr double kChunkCost = 48 * 1024;  ///< simple operations that are worth a chunk of their own
constexpr int64_t kMostChunks = 64;

using SegmentFn = void (*)(char* const* buffers, char* partials, char* scratch, long begin, long end);
using FinishFn = void (*)(char* const* buffers, char* const* partials, const long* chunks);

double cost_of(const SegmentCall& segment) {
  return static_cast<double>(segment.units) * static_cast<double>(segment.elements_per_unit) * segment.cost;
}

template <class Function> Function function_of(const KernelLibrary& library, const std::string& name) {
  auto* function = reinterpret_cast<Function>(library.symbol(name.c_str()));
  TANDEM_ASSERT(function, "no symbol ", name);
  return function;
}

class CpuLaunch final : public Launch {
 public:
  CpuLaunch(const KernelCall& call, const KernelLibrary& library, const PointTo& point_to)
      : call_(call), buffers_(call.segments.size()), partials_(call.segments.size()), checks_(call.checks),
        flags_(call.checks.size(), 0), checked_(call.checks.size(), nullptr) {
    for (size_t i = 0; i < checks_.size(); ++i)
      if (checks_[i].buffer >= 0) point_to(checks_[i].buffer, &checked_[i]);
    for (size_t s = 0; s < call.segments.size(); ++s) {
      functions_.push_back(function_of<SegmentFn>(library, call.segments[s].name));
      fill(buffers_[s], call.segments[s].buffers, call, point_to);
    }
    make_chunks();
    if (call.finish.empty()) return;
    finish_ = function_of<FinishFn>(library, call.finish);
    fill(finish_buffers_, call.finish_buffers, call, point_to);
  }

  void resize() override {
    TANDEM_ASSERT(buffers_.empty() || buffers_[0].back() == call_.numbers.data(), "its numbers have moved");
    make_chunks();
  }

  void run() override {
    const auto count = static_cast<int64_t>(chunks_.size());
    const auto run_chunks = [&](int64_t begin, int64_t end) {
      std::optional<Scratch> scratch;
      if (scratch_ > 0) scratch.emplace(scratch_);
      char* const own = scratch ? scratch->as<char>() : nullptr;
      for (const Chunk* c = chunks_.data() + begin; c != chunks_.data() + end; ++c)
        c->function(c->buffers, c->partials, own, c->begin, c->end);
    };
    if (parallel_) {
      const int64_t threads = std::min<int64_t>(count, num_threads());
      parallel_for(threads, 1,
                   [&](int64_t begin, int64_t end) { run_chunks(share(begin, threads), share(end, threads)); });
    } else {
      run_chunks(0, count);
    }
    if (finish_)
      finish_(reinterpret_cast<char* const*>(finish_buffers_.data()), partial_pointers_.data(), chunk_counts_.data());
    for (size_t i = 0; i < flags_.size(); ++i)
      if (flags_[i] != 0) [[unlikely]]
        raise(i);
  }

 private:
  struct Chunk {
    SegmentFn function;
    char* const* buffers;
    char* partials;
    long begin, end;
  };

  /// Finds the first value that the check found out of range, if it was read from memory.
  [[noreturn]] void raise(size_t index) {
    std::fill(flags_.begin(), flags_.end(), 0);
    const CheckedLoad& checked = checks_[index];
    Shape extents, strides;  // the dims that the values are walked along, in their order
    for (int d = 0; d < checked.position.strides.size(); ++d)
      if (checked.position.strides[d] != 0)
        extents.push_back(checked.extents[d]), strides.push_back(checked.position.strides[d]);
    const bool known = checked.buffer >= 0 && !checked.check.range.interval;
    for (int64_t i = 0; known && i < extents.numel(); ++i) {
      int64_t offset = checked.position.offset, rest = i;
      for (int d = extents.size() - 1; d >= 0; --d) offset += rest % extents[d] * strides[d], rest /= extents[d];
      const int64_t value = static_cast<const int64_t*>(checked_[index])[offset];
      if (!checked.check.range.allows(value)) checked.check.fail(value, i);
    }
    checked.check.fail();
  }

  /// What a generated function is given: buffers, flags of checks, numbers.
  void fill(std::vector<void*>& table, const std::vector<int>& buffers, const KernelCall& call,
            const PointTo& point_to) {
    table.assign(buffers.size() + 2, nullptr);
    for (size_t b = 0; b < buffers.size(); ++b) point_to(buffers[b], &table[b]);
    table[buffers.size()] = flags_.data();
    table[buffers.size() + 1] = const_cast<int64_t*>(call.numbers.data());
  }

  /// For the size that the kernel has.
  void make_chunks() {
    chunks_.clear();
    costs_.clear();
    partial_pointers_.clear();
    chunk_counts_.clear();
    scratch_ = 0;
    double total = 0;
    for (size_t s = 0; s < call_.segments.size(); ++s) {
      add_chunks(s);
      total += cost_of(call_.segments[s]);
      scratch_ = std::max(scratch_, call_.segments[s].scratch);
    }
    for (std::vector<char>& partials : partials_) partial_pointers_.push_back(partials.data());
    parallel_ = chunks_.size() > 1 && total > 2 * kChunkCost;
  }

  void add_chunks(size_t s) {
    const SegmentCall& segment = call_.segments[s];
    std::vector<void*>& table = buffers_[s];
    const int64_t count = std::clamp<int64_t>(static_cast<int64_t>(cost_of(segment) / kChunkCost), 1,
                                              std::min(kMostChunks, std::max<int64_t>(segment.units, 1)));
    partials_[s].assign(count * segment.partials * 8 + 8, 0);
    // Chunks begin at multiples of 16 units, so that vectors and cache lines are whole.
    int64_t size = (segment.units + count - 1) / count;
    if (segment.elements_per_unit == 1) size = (size + 15) / 16 * 16;
    long made = 0;
    for (int64_t begin = 0; begin < segment.units; begin += size, ++made) {
      const int64_t end = std::min(segment.units, begin + size);
      chunks_.push_back({functions_[s], reinterpret_cast<char* const*>(table.data()),
                         partials_[s].data() + made * segment.partials * 8, begin, end});
      costs_.push_back((costs_.empty() ? 0 : costs_.back()) + static_cast<double>(end - begin) *
                                                                  static_cast<double>(segment.elements_per_unit) *
                                                                  segment.cost);
    }
    chunk_counts_.push_back(made);
  }

  /// The first chunk of thread `t` of `threads`. They share the cost, not the number of chunks: the segments of a
  /// kernel (an optimiser's parameters, say) are of very different sizes.
  int64_t share(int64_t t, int64_t threads) const {
    const double wanted = costs_.back() * static_cast<double>(t) / static_cast<double>(threads);
    const auto holds = std::lower_bound(costs_.begin(), costs_.end(), wanted);
    if (t <= 0) return 0;
    if (t >= threads || holds == costs_.end()) return std::ssize(costs_);
    const double before = holds == costs_.begin() ? 0 : *(holds - 1);
    return holds - costs_.begin() + (wanted - before > (*holds - before) / 2 ? 1 : 0);
  }

  const KernelCall& call_;
  std::vector<SegmentFn> functions_;         ///< of each segment
  std::vector<std::vector<void*>> buffers_;  ///< of each segment
  std::vector<std::vector<char>> partials_;  ///< of each segment
  std::vector<Chunk> chunks_;
  std::vector<double> costs_;  ///< of all chunks up to each, itself included
  std::vector<char*> partial_pointers_;
  std::vector<long> chunk_counts_;
  std::vector<void*> finish_buffers_;
  const std::vector<CheckedLoad>& checks_;
  std::vector<int64_t> flags_;  ///< of each check
  std::vector<void*> checked_;  ///< where the values of each lie
  FinishFn finish_ = nullptr;
  int64_t scratch_ = 0;  ///< bytes that a thread needs
  bool parallel_ = false;
};

class CpuKernels final : public Kernels {
 public:
  int add(const LoopKernel& kernel) override {
    calls_.push_back(source_.add(kernel));
    return static_cast<int>(calls_.size()) - 1;
  }
  std::string source() const override { return source_.text(); }
  bool compile(Device, Where where, std::string* reason, CompileCost& cost) override {
    const auto begin = std::chrono::steady_clock::now();
    std::vector<size_t> cuts;
    const std::string source = source_.text(&cuts);
    library_ = load_c_source(source, where, reason, functions(), cuts);
    if (!library_) return false;
    cost = {std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), library_->from_cache,
            library_->note};
    return true;
  }
  bool find(Device, CompileCost& cost) override {
    const auto begin = std::chrono::steady_clock::now();
    library_ = find_c_source(source(), functions());
    if (library_) cost.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return library_ != nullptr;
  }
  std::unique_ptr<Launch> launch(int kernel, const PointTo& point_to) const override {
    return std::make_unique<CpuLaunch>(calls_[kernel], *library_, point_to);
  }
  std::unique_ptr<Kernels> resized(const std::vector<const LoopKernel*>& kernels) const override {
    auto result = std::make_unique<CpuKernels>();
    result->calls_ = calls_;
    result->library_ = library_;
    for (size_t i = 0; i < kernels.size(); ++i)
      if (!result->calls_[i].resize(*kernels[i])) return nullptr;
    return result;
  }
  bool resize(int kernel, const LoopKernel& to) override { return calls_[kernel].resize(to); }

 private:
  std::vector<std::string> functions() const {
    std::vector<std::string> names;
    for (const KernelCall& call : calls_) {
      for (const SegmentCall& segment : call.segments) names.push_back(segment.name);
      if (!call.finish.empty()) names.push_back(call.finish);
    }
    return names;
  }

  CSource source_;
  std::vector<KernelCall> calls_;
  std::shared_ptr<KernelLibrary> library_;
};

class CpuRuntime final : public Runtime {
 public:
  const char* tier() const override { return CSource::tier; }
  std::unique_ptr<Kernels> kernels() const override { return std::make_unique<CpuKernels>(); }
  bool concurrent() const override { return true; }
  bool resizes() const override { return true; }
};

}  // namespace

const Runtime& cpu_runtime() {
  static const CpuRuntime runtime;
  return runtime;
}

}  // namespace tandem::graph
