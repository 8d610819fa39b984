// The loop IR: what one fused kernel computes, before it is spelled in C or CUDA C++. Both emitters
// (codegen/c_source, codegen/cuda_source) read this and nothing else.
//
// A kernel is a list of segments that may run side by side, and a finish that runs after all of them.
// A segment iterates a domain: `rows` dims, then `columns` dims. Statements are in single assignment
// and stand at one of three levels:
//
//   scalar   once for the segment, before the loop (0-d operands; computed again in each chunk)
//   row      once for each row, after the columns have been folded
//   element  once for each element
//
// A reduction takes element statements to the row level, or row or element statements to a partial
// result of the chunk; partial results are combined in the order of chunks by the finish, so results
// don't depend on the number of threads.
#pragma once

#include <bit>
#include <string>
#include <vector>

#include "../../core/op.h"
#include "../../core/range_check.h"

namespace tandem {

enum class Level : uint8_t { scalar, row, element, finish };

enum class LoopOp : uint8_t {
  load,       ///< a buffer at an affine position
  index,      ///< the affine position itself, times `step` plus `begin` (arange)
  uniform,    ///< a random number in [0, 1) for element `position` of a draw; operand 0 is the key buffer
  literal,    ///< a number
  pointwise,  ///< an op's scalar expression over the operands
  cast,       ///< to the statement's dtype
  check,      ///< operand 0, noting whether it is out of a range (LoopKernel::checks)
  fold,       ///< a reduction of operand 0
  partial,    ///< finish only: what fold `reduction` gave, over all chunks of its segment
};

/// offset + sum of strides[d] * index[d] over the domain's dims (rows then columns), in elements.
struct Position {
  int64_t offset = 0;
  Shape strides;
};

struct Statement {
  LoopOp kind = LoopOp::literal;
  Level level = Level::element;
  DType dtype = DType::float32;
  const Op* op = nullptr;          ///< pointwise
  std::vector<int> operands = {};  ///< statements of the same segment
  int buffer = -1;                 ///< load, uniform: index in LoopKernel::buffers; partial: the segment
  Position position = {};          ///< load, index, uniform
  double number = 0;               ///< literal
  int64_t integer = 0;             ///< uniform: the site added to the key's draw; partial: the slot
  double begin = 0, step = 1;      ///< index
  Fold fold = Fold::sum;
  int64_t divisor = 1;  ///< fold, partial: of a sum that is a mean; divided before it is rounded
  int phase = 0;        ///< rows are walked once a phase; a fold of phase p is known from p + 1 on
  int check = -1;       ///< check: index in LoopKernel::checks
  int partial = -1;     ///< fold to the chunk: slot of the partial result
  int value = -1;       ///< graph value it computes, for the report
};

/// A result put in memory.
struct Store {
  int statement = -1;
  int buffer = -1;
  Position position;
};

struct Segment {
  Shape rows, columns;                ///< extents; no rows and columns: one element
  std::vector<Statement> statements;  ///< operands come before their users
  std::vector<Store> stores;
  int partials = 0;     ///< partial results of each chunk
  bool by_row = false;  ///< has row statements: columns are walked once a phase
};

struct LoopKernel {
  std::vector<DType> buffers;  ///< dtypes of the node's inputs, then of its outputs: what loads and stores name
  std::vector<Segment> segments;
  /// Scalar work after all segments: statements at Level::finish. `partial` statements name a segment and
  /// its slot; `integer` of the segment's fold says how it was folded.
  Segment finish;
  std::vector<ValueCheck> checks;  ///< what `check` statements check
  /// Of each of its numbers (each_number): whether generated code reads it at each call, as it depends on sizes that change.
  /// Empty: all are written into the code.
  std::vector<bool> at_run_time;
};

// A number as it is kept in a list of int64 and double.
inline int64_t bits_of(int64_t number) { return number; }
inline int64_t bits_of(double number) { return std::bit_cast<int64_t>(number); }
inline void set_bits(int64_t& number, int64_t bits) { number = bits; }
inline void set_bits(double& number, int64_t bits) { number = std::bit_cast<double>(bits); }

/// Calls f with every number of the kernel that may depend on sizes, int64 or double, always in the same order.
template <class Kernel, class F> void each_number(Kernel& kernel, F&& f) {
  const auto all = [&](auto& shape) {
    for (auto& number : shape) f(number);
  };
  const auto position = [&](auto& place) {
    f(place.offset);
    all(place.strides);
  };
  const auto segment = [&](auto& of) {
    all(of.rows);
    all(of.columns);
    for (auto& statement : of.statements) {
      position(statement.position);
      f(statement.divisor);
      f(statement.number);
      f(statement.begin);
      f(statement.step);
    }
    for (auto& store : of.stores) position(store.position);
  };
  for (auto& each : kernel.segments) segment(each);
  segment(kernel.finish);
  for (auto& check : kernel.checks) {
    f(check.range.bound);
    all(check.shape);
  }
}

/// Calls f with the site of every draw, always in the same order.
template <class F> void each_site(const LoopKernel& kernel, F&& f) {
  const auto segment = [&](const Segment& of) {
    for (const Statement& statement : of.statements)
      if (statement.kind == LoopOp::uniform) f(statement.integer);
  };
  for (const Segment& each : kernel.segments) segment(each);
  segment(kernel.finish);
}

}  // namespace tandem
