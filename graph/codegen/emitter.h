// What generated C and CUDA C++ have in common, written once: types and conversions, expressions, index arithmetic,
// statements, and the file that they are put together in. A Dialect holds the words in which the two differ; how a
// segment is walked is left to c_source.cpp and cuda_source.cpp.
#pragma once

#include <initializer_list>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "graph/ir/loop.h"

namespace tandem::graph {

/// The words in which the generated languages differ.
struct Dialect {
  const char* helper;         ///< stands before the function of a scalar expression
  const char* index;          ///< the type of i0, i1, …
  const char* stride_suffix;  ///< of constants in addresses
  const char* extent_suffix;  ///< of constants that linear indices are taken apart with
  const char* nan;
  const char* infinity;
  bool reads_sites;  ///< code reads the sites of draws at each call, so that kernels that differ in them alone are one
};

// Floats of 16 bits lie in memory as td_u16 and are computed with as float.
const char* compute_type(DType type);
const char* memory_type(DType type);
std::string from_memory(DType type, const std::string& value);
std::string to_memory(DType type, const std::string& value);
/// As it is after each op that stores its result: floats of 16 bits are rounded to them.
std::string rounded(DType type, const std::string& value);

/// How a generated file begins: `first`, then the embedded sources of these names.
std::string prelude(std::initializer_list<const char*> headers, const char* first = "");

/// Emits statements of one segment, or of a kernel's finish. In the text, statement 3 is v3, the accumulator of fold 3 is
/// a3, and what is held of it for a later phase c3; buffers are b0, b1, … in the order of first use.
class SegmentEmitter {
 public:
  /// Indices in LoopKernel::buffers of b0, b1, …
  const std::vector<int>& buffers() const { return buffers_; }

 protected:
  /// Expressions in use are added to `helpers`, one function for each op and dtype.
  SegmentEmitter(const Dialect& dialect, const LoopKernel& kernel, const Segment& segment,
                 std::set<std::string>& helpers);
  ~SegmentEmitter() = default;

  const Statement& at(int i) const { return segment_.statements[static_cast<size_t>(i)]; }
  int count() const { return static_cast<int>(segment_.statements.size()); }
  const char* type(int i) const { return compute_type(at(i).dtype); }
  static std::string name(int i) { return "v" + std::to_string(i); }
  const ValueCheck& check_of(const Statement& s) const { return kernel_.checks[static_cast<size_t>(s.check)]; }
  DType buffer_type(int index) const { return kernel_.buffers[static_cast<size_t>(index)]; }
  /// Bytes of the partial results of a chunk of that segment.
  int64_t partial_bytes(int segment) const { return kernel_.segments[static_cast<size_t>(segment)].partials * 8; }

  // Expressions.
  std::string literal(double number, DType type) const;
  /// What a fold begins with.
  std::string identity(Fold fold, DType type) const;

  /// A fold's total, over how many it is the mean of. Whole numbers divide in the total's own type.
  std::string averaged(const Statement& s, const std::string& total);

  // Numbers of the kernel: constants, or e0, e1, … that the code reads at each call.
  template <class Number> bool at_run_time(const Number& number) const { return number_index_.count(&number) != 0; }
  std::string spelled(const int64_t& number, const char* suffix);
  std::string spelled(const double& number, DType type);
  /// Of e0, e1, …, those in the text.
  const std::set<int>& numbers_read() const { return numbers_read_; }
  /// Extents of the domain: rows, then columns.
  int rank() const { return segment_.rows.size() + segment_.columns.size(); }
  const int64_t& extent(int d) const {
    const int rows = segment_.rows.size();
    return d < rows ? segment_.rows.begin()[d] : segment_.columns.begin()[d - rows];
  }

  // Statements.
  void define(int i, std::string_view indent) { define(i, expression(i), indent); }
  void define(int i, const std::string& value, std::string_view indent);
  void store(const Store& store, std::string_view indent);
  /// Those that stand before all loops.
  void scalars();
  /// Those of rows that the folds of phases before this one make possible.
  void row_statements(int phase, std::string_view indent = "    ");
  /// i<first> … of the dims of the domain up to `end`, from a linear index over all of them.
  void indices(int first, int end, std::string_view linear, std::string_view indent);

  /// Where that element of a buffer lies, over the index variables.
  virtual std::string element(int buffer, const Position& position);
  /// Key, draw and element of a random number: what td_uniform_f32 takes.
  std::string uniform_arguments(const Statement& statement);

  /// Notes whether the value of a `check` statement, just defined, is out of its range.
  virtual void check(int i, std::string_view indent) = 0;

  // Folds.
  virtual void declare_fold(int i, std::string_view indent) = 0;
  virtual void accumulate(int i, std::string_view indent) = 0;
  /// Folds of everything, whose partial results go to the finish.
  std::vector<int> chunk_folds() const;

  // Phases: the elements are walked once in each.
  struct Phase {
    std::vector<int> folds;
    std::vector<const Store*> stores;
    std::set<int> needed;  ///< element statements that these read, but for what is computed from what is held
    bool empty() const { return folds.empty() && stores.empty(); }
  };
  static constexpr int kEverything = -1;  ///< all phases in one: a segment without rows
  Phase phase(int number) const;
  int phase_count() const;
  /// Of each statement, how many phases need it.
  std::vector<int> phase_uses() const;
  /// The inside of the loop over elements. What is held of a statement lies at `held_at`.
  void elements(const Phase& phase, std::string_view indent, std::string_view held_at = "");

  const LoopKernel& kernel_;
  const Segment& segment_;
  tandem::detail::TextStream out_;
  std::set<int> hold_;  ///< element statements to be held for later phases
  std::set<int> held_;  ///< of these, what is there by now

 private:
  int buffer(int index);
  std::string place(const Position& position);
  std::string call(const Statement& statement);
  std::string expression(int i);
  void need(int i, std::set<int>& needed) const;

  const Dialect& dialect_;
  std::set<std::string>& helpers_;
  std::vector<int> buffers_;
  std::set<int> written_rows_;
  std::set<int> only_stored_;  ///< floats of 16 bits that nobody reads: they are rounded as they are stored
  std::unordered_map<const void*, int> number_index_;  ///< of what the code reads at each call, where it lies
  std::set<int> numbers_read_;
};

/// Collects the functions of one generated file. Segments that read the same get one.
class GeneratedSource {
 protected:
  /// The name of the function of this text, which begins with its parameters: a new one, or that of its twin.
  std::string function(const std::string& text, const std::string& prefix);
  /// All helpers and functions; `before` stands before the names of these. `starts` gets where each function begins.
  std::string functions(const std::string& before, std::vector<size_t>* starts = nullptr) const;
  bool empty() const { return functions_.empty(); }

  std::set<std::string> helpers_;

 private:
  std::vector<std::pair<std::string, std::string>> functions_;  ///< text, name
  std::unordered_map<std::string, std::string> names_;          ///< of each, by prefix and text
};

}  // namespace tandem::graph
