// Program: what a specialisation runs: a plan, its code, what the trace closed over, and a pool of runs.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "graph/run/plan.h"
#include "graph/run/run.h"

namespace tandem::graph {

struct BuildCost {
  double emit_seconds = 0, compiler_seconds = 0;
  bool compiler_cached = false;
  std::string note;
};

class Program {
 public:
  /// Throws CompileError if generated source doesn't build. Fused nodes need a compiler: where there is none, nullptr
  /// and a reason.
  static std::unique_ptr<Program> build(Graph graph, PlanOptions options, Where where, std::string* reason);
  // The same in steps, the second of which may be another thread's.
  /// Plan and sources. Nullptr and a reason where fused nodes are not to be emitted.
  static std::unique_ptr<Program> prepare(Graph graph, PlanOptions options, Where where, std::string* reason);
  /// Makes the code; false and a reason, or CompileError, as build(). So for all regions of the graph.
  bool compile(std::string* reason);
  /// Whether all code was found, without the compiler: then it has it, as after compile().
  bool find();
  /// Once it has its code: now it may run.
  void make_ready();

  /// Reads what `other` reads, a program of the same trace, whose leaves are the first of both.
  void bind_as(const Program& other, size_t leaves);
  /// What a program is to be given other sizes by, in place.
  struct Growth {
    size_t scalars_from = 0;          ///< leaves before it are the trace's
    std::vector<size_t> places;       ///< of the numbers that change, among numbers_of(graph, scalars_from)
    std::vector<int64_t> most_bytes;  ///< of each value, for which there is to be room
  };
  /// The program of the same graph in other sizes, with a plan of its own and this one's code. Null if that doesn't serve
  /// them. With `growth` it can be given further ones.
  std::unique_ptr<Program> resized(Graph graph, const Growth* growth = nullptr) const;
  /// Becomes the program of the same graph with these numbers, in the order of Growth::places: its plan and code stay, and so does
  /// what it reads. Nothing but numbers is touched. False if it wasn't made for that, if one of the ops or the plan doesn't serve
  /// these sizes: then it is of no use any more. Not while a run is under way.
  bool resize(std::span<const int64_t> numbers);
  bool resizable() const { return resizer_ != nullptr; }

  /// Runs with these arguments (GraphError if they are not of the types that it was made for, or a leaf of a graph that was
  /// read from text is unbound); afterwards state is assigned, grad() set, and the results are new tensors. Several
  /// threads may, each with a Run of its own, unless plan().alone().
  Tensors run(const Tensors& arguments);
  /// GraphError if arguments are not of the types that it was made for.
  void check(const Tensors& arguments) const;

  /// A run that no other call has while this one lives.
  class Taken {
   public:
    explicit Taken(Program& program) : program_(program), run_(program.alone_ ? *program.first_ : program.take()) {}
    ~Taken() {
      if (!program_.alone_) program_.give_back(run_);
    }
    Taken(const Taken&) = delete;
    Taken& operator=(const Taken&) = delete;
    Run& operator*() const { return run_; }

   private:
    Program& program_;
    Run& run_;
  };

  const Plan& plan() const { return plan_; }
  const BuildCost& cost() const { return cost_; }
  /// The generated sources, one after another.
  std::string source() const;

  // Not while a run is under way.
  /// Another tensor takes the place of a state, gradient or constant leaf (index in graph().leaves).
  /// GraphError if it is of another type.
  void bind(int leaf, const Tensor& tensor);
  /// The number of a run-time scalar.
  void set_number(int leaf, double number);

 private:
  struct Resizer;

  Program(Graph graph, PlanOptions options, Where where, Elastic* elastic = nullptr);
  bool emit(std::string* reason);
  void add_cost(const CompileCost& cost);
  void look_for_unbound();
  /// Memory that a run changes is known to the graph under one name: an argument that lies there as well would be
  /// read before or after the change as the schedule has it, and its gradient would be lost.
  void refuse_aliases(const Tensors& arguments) const;
  /// A run that no call has now, for a call of its own.
  Run& take();
  void give_back(Run& run);

  Plan plan_;
  Where where_;  ///< the line of compile()
  BuildCost cost_;
  std::vector<std::unique_ptr<Kernels>> code_;
  Bindings bindings_;
  std::shared_ptr<Resizer> resizer_;  ///< null: for one size
  std::string unbound_;               ///< what keeps a graph that was read from text from running
  // The pool: the first run, which is all that one thread needs, and those of calls that found it taken.
  std::unique_ptr<Run> first_;
  bool alone_ = true;  ///< plan_.alone(): it is never taken twice
  std::atomic<bool> first_taken_ = false;
  std::mutex mutex_;  ///< of what follows
  std::vector<std::unique_ptr<Run>> others_;
  std::vector<Run*> idle_;  ///< of others_
};

}  // namespace tandem::graph
