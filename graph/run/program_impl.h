// What a Program is made of. Every value lies in a *base*: an argument, a state tensor, a result, or a place in the
// arena. Views are offsets into a base. Steps hold tensors and pointer tables that point into the bases; when a base
// moves (another argument, a new result) just those pointers are patched.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graph/codegen/c_source.h"
#include "graph/ir/views.h"
#include "graph/native/system_compiler.h"
#include "graph/run/cuda_step.h"
#include "graph/run/program.h"
#include "kernels/cuda/capture.h"
#include "kernels/cuda/module.h"

namespace tandem::graph {

using SegmentFn = void (*)(char* const* buffers, char* partials, long begin, long end);
using FinishFn = void (*)(char* const* buffers, char* const* partials, const long* chunks);

struct Use {
  void** pointer;
  int64_t offset;  ///< bytes
};

struct Base {
  std::vector<Use> uses;
  void* data = nullptr;
  void bind(void* to) {
    if (to == data) return;
    data = to;
    for (const Use& use : uses) *use.pointer = to ? static_cast<char*>(to) + use.offset : nullptr;
  }
};

struct Chunk {
  SegmentFn function;
  char* const* buffers;
  char* partials;
  long begin, end;
};

/// A kernel of the op table.
struct KernelStep {
  const Op* op;
  Tensors inputs, outputs;
  Attributes attributes;
  Where where;
};

/// A fused kernel.
struct FusedStep {
  std::vector<std::vector<void*>> buffers;  ///< of each segment
  std::vector<Chunk> chunks;
  std::vector<std::vector<char>> partials;  ///< of each segment
  std::vector<char*> partial_pointers;
  std::vector<long> chunk_counts;
  std::vector<void*> finish_buffers;
  FinishFn finish = nullptr;
  bool parallel = false;
  std::vector<double> costs;  ///< of all chunks up to each, itself included

  /// The first chunk of thread `t` of `threads`. They share the cost, not the number of chunks: the segments of a
  /// kernel (an optimiser's parameters, say) are of very different sizes.
  int64_t share(int64_t t, int64_t threads) const {
    const double wanted = costs.back() * static_cast<double>(t) / static_cast<double>(threads);
    const auto holds = std::lower_bound(costs.begin(), costs.end(), wanted);
    if (t <= 0) return 0;
    if (t >= threads || holds == costs.end()) return static_cast<int64_t>(costs.size());
    const double before = holds == costs.begin() ? 0 : *(holds - 1);
    return holds - costs.begin() + (wanted - before > (*holds - before) / 2 ? 1 : 0);
  }
};

struct Step {
  int node = -1;
  std::unique_ptr<KernelStep> kernel;
  std::unique_ptr<FusedStep> fused;
  std::vector<std::unique_ptr<CudaLaunch>> launches;  ///< a fused kernel on a CUDA device
  std::vector<int> allocate, release;                 ///< bases, where memory is not planned
};

inline int64_t bytes_of(const ValueType& type) { return type.shape.numel() * size_of(type.dtype); }

struct Program::Impl {
  Graph graph;
  ProgramOptions options;
  ProgramStats stats;
  Where called_at;  ///< the line of compile()
  std::string source;
  std::shared_ptr<KernelLibrary> library;

  std::vector<Base> bases;
  std::vector<int> base_of;             ///< of each value
  std::vector<int64_t> offset_of;       ///< bytes into the base, of each value
  std::vector<Tensor> header_of_value;  ///< tensors that steps hold, one for each value in use
  std::vector<Step> steps;
  Tensor arena;
  std::vector<Tensor> owned;           ///< scalars, by leaf
  std::vector<Tensor> bound;           ///< tensors of state and constant leaves, by leaf
  std::vector<Storage*> base_storage;  ///< of unplanned values while they are alive
  struct Result {
    int value, base;
  };
  std::vector<Result> outputs;
  struct Gradient {
    const GradientWrite* write;
    int value, base;
    bool recycle;
  };
  std::vector<Gradient> gradients;
  struct LateWrite {
    int leaf;
    KernelStep copy;
  };
  std::vector<LateWrite> late_writes;
  std::vector<int> released_last;  ///< bases that late writes read

  // On a CUDA device.
  Device device;  ///< the CUDA device that nodes run on, if any does
  std::shared_ptr<gpu::Module> cuda_module;
  HostNumbers host_numbers;
  std::vector<std::pair<int, int>> number_leaves;  ///< leaf, index in host_numbers
  std::map<int, Tensor> number_headers;            ///< by value, as tensors on the device
  bool capturable = false;                         ///< the whole run is launches on one device
  std::unique_ptr<gpu::Capture> capture;
  std::vector<void*> captured_bases, last_bases;
  std::vector<Tensor> fixed;  ///< by base: where a captured run finds arguments and puts results

  const ValueType& type(int value) const { return graph.values[static_cast<size_t>(value)].type; }
  Base& base_at(int value) { return bases[static_cast<size_t>(base_of[static_cast<size_t>(value)])]; }

  // Building: program_build.cpp.
  /// Results that are also something else get a copy of their own.
  void separate_results();
  bool build(Where where, std::string* reason);
  /// No other leaf shares its storage.
  bool alone(const Leaf& leaf) const;
  /// Whether the node may write `value` over `state`, which it reads.
  bool safe_in_place(const Node& node, int state, int value, const std::vector<Reference>& references) const;
  /// The tensor that steps use for a value; its data pointer follows the base.
  Tensor header(int value);
  /// Numbers of the host that kernels on the device read get a place there.
  void find_device(const std::vector<int>& order);
  /// What a step on the device reads: the value, or its copy there.
  Tensor input_of(const Node& node, int value);
  void use(int value, void** pointer);
  bool make_steps(const std::vector<int>& order, Where where, std::string* reason);
  std::unique_ptr<CudaLaunch> make_launch(const Node& node, const CudaKernelCall& call);
  std::unique_ptr<FusedStep> make_fused(const Node& node, const KernelCall& call);
  void bind_leaves();

  // Running: program.cpp.
  /// Memory that a run changes is known to the graph under one name: an argument that lies there as well would be
  /// read before or after the change as the schedule has it, and its gradient would be lost.
  void refuse_aliases(const Tensors& arguments) const;
  Tensors run(const Tensors& arguments);
  void run_steps();
  /// A captured run repeats the same addresses: it is recorded when two calls in a row had them, after a first run
  /// that let libraries and the allocator settle.
  void run_captured();
  /// Memory of the program's own for a base whose tensor is another one at each call.
  void* fixed_at(int base, const ValueType& t);
  void bind_argument(const Leaf& leaf, const Tensor& argument);
  Tensor fresh(int value, int base);
  void run_step(Step& step);
  void release(int base);
};

}  // namespace tandem::graph
