// Program: what a specialisation runs. A flat list of steps over memory that was laid out beforehand.
#pragma once

#include <memory>
#include <string>

#include "graph/ir/graph.h"

namespace tandem::graph {

struct ProgramOptions {
  bool planned = true;   ///< one arena; otherwise values come from the allocator and go when they are last used
  bool in_place = true;  ///< updates write straight into the state they are assigned to, where that is safe
};

struct ProgramStats {
  int kernels = 0, fused_kernels = 0;
  int64_t arena_bytes = 0, lower_bound_bytes = 0;
  double emit_seconds = 0, compiler_seconds = 0;
  bool compiler_cached = false;
  std::string note;
};

class Program {
 public:
  /// Throws CompileError if generated source doesn't build. `fused nodes` need the system compiler: where there
  /// is none, nullptr and a reason.
  static std::unique_ptr<Program> build(Graph graph, ProgramOptions options, Where where, std::string* reason);
  ~Program();

  /// Runs with these arguments; afterwards state is assigned, grad() set, and the results are new tensors.
  Tensors run(const Tensors& arguments);

  const Graph& graph() const;
  const ProgramStats& stats() const;
  const std::string& source() const;
  /// One line for each step: what runs and where its results lie.
  std::string describe() const;

  /// Another tensor takes the place of a state, gradient or constant leaf (index in graph().leaves).
  void bind(int leaf, const Tensor& tensor);
  /// The number of a run-time scalar.
  void set_number(int leaf, double number);

 private:
  struct Impl;
  explicit Program(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tandem::graph
