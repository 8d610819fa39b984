// Random programs over tensors, for the differential fuzzer: the same program runs in every mode, is shrunk where modes differ,
// and is printed as C++.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "tandem.h"

namespace tandem::fuzz {

/// A tensor that the program finds.
struct Input {
  enum class Role : uint8_t {
    argument,  ///< of the function: others at each call
    state,     ///< closed over
    leaf,      ///< closed over; requires a gradient
  };
  Role role = Role::argument;
  DType dtype = float32;
  Shape shape;
  bool trained = false;             ///< an argument that requires a gradient
  std::vector<double> values = {};  ///< in turn, over and over; none: random ones, which every dtype holds exactly
};

enum class Action : uint8_t {
  op,    ///< any op of the table, by name and attributes
  draw,  ///< random numbers, by the public function of that name
  number,  ///< times, and plus, a C++ number that the function captures, another at each call; choice 1: it is the operand's numel
  constant,  ///< an op of two operands, one of them the C++ number that `choice` names; on the left if it is odd
  detach,
  assign,          ///< the second operand to the first
  add,             ///< the same with +=
  scale,           ///< operand *= 0.5
  backward,        ///< of a weighted sum
  gradient,        ///< the same by grad_of(), of the second operand; recorded if `choice` is 1
  read_gradient,   ///< grad() of a leaf
  scale_gradient,  ///< grad() of a leaf is written to
  clear_gradient,
  optimise,  ///< a step of the program's optimiser
  branch,    ///< cond: on the first operand
  loop,      ///< while_loop: as many turns as the second operand says
  scan,
};

/// One line of a program. A tensor is named by a number: inputs come first.
struct Statement {
  Action action = Action::op;
  std::string name = {};  ///< of op, or function; of a branch or loop: an op of one operand in it, if any
  std::vector<int> operands = {};
  Attributes attributes = {};
  std::vector<int> results = {};
  int64_t choice = 0;
};

struct Program {
  uint64_t seed = 0;  ///< of values and draws
  std::vector<Input> inputs = {};
  std::vector<Statement> outside = {};  ///< views of inputs, made before the function
  std::vector<Statement> body = {};
  std::vector<int> results = {};
  std::string optimiser = {};  ///< over the leaves: "Sgd", "AdamW", …; none
  bool twice = false;          ///< the second argument is the first
  bool casts = false;          ///< below an Autocast
  DType wide = float32;        ///< what draws, weights of sums and the like are
  int calls = 3;
  std::vector<int64_t> extents = {};  ///< of each call, in the place of kChanging: sizes that change; none: they don't
};

/// An extent that no other dim has by itself. Where a program's sizes change, each multiple of it in the shape of an argument or in
/// an attribute is as many times the extent of the call.
constexpr int64_t kChanging = 7;

/// Made by running it: a line that raises an error is seldom kept, and ends the program.
Program random_program(uint64_t seed);
/// The same in float64 where it computes in floats.
Program in_float64(Program program);
/// Whether the numbers of a graph must be eager's to the bit: no sum, and so no order of one, is part of the program.
bool has_one_order(const Program& program);
bool has_regions(const Program& program);

/// How programs are run.
struct Setting {
  CompileOptions options = {};
  bool backward_outside =
      false;  ///< after each call, of the sum of its results; not if the function has gradients inside
  int threads =
      1;  ///< more: calls with one call's arguments by that many threads, as many each as the program has calls
};

/// What a run left after each call: results, arguments, state and gradients; or the error that ended it. With several threads
/// what the last call left outside.
struct Outcome {
  Tensors values;
  std::vector<size_t> owners;  ///< of each value: which program's it is
  std::string error_class, error;
  std::string stale;    ///< a result that another call has changed
  int64_t resizes = 0;  ///< calls of another size that cost no passes
};
Outcome run(const Program& program, const Setting& setting);
/// Several programs as one function.
Outcome run(std::span<const Program> programs, const Setting& setting);

/// How a graph mode's outcome differs from eager mode's; empty where it doesn't, or where graph mode has refused (TraceError). Not
/// counted: what an ill-conditioned program makes of sums in another order, if float64 gives yet another number; and an error of a line
/// whose results nobody reads, or of a gradient that reaches no leaf, which a graph leaves out.
std::string difference(const Program& program, const Setting& setting);
/// The same of several programs that ran as one, without errors: which of them differ.
std::vector<size_t> differing(std::span<const Program> programs, const Outcome& eager, const Outcome& graph,
                              const Setting& setting);

/// A smaller program that fails too: without the lines, extents, operands, types and calls that it doesn't need.
Program minimised(Program program, const std::function<bool(const Program&)>& fails);

/// A C++ program that runs `program` eagerly and under the setting, says where they differ, and then returns 1. `setup` stands at the
/// beginning of its main().
std::string printed(const Program& program, const Setting& setting, const std::string& setup = {});

// ---- Shared by the parts.

/// What a program computes on: numbers of tensors to tensors.
class Machine {
 public:
  Machine(const Program& program, Tensors inputs, nn::optim::Optimizer* optimizer);
  void step(const Statement& statement);
  double number = 0.5;         ///< that the function captures
  int64_t extent = kChanging;  ///< of the call
  const Tensor& operator[](int tensor) const { return values_[static_cast<size_t>(tensor)]; }
  void set(int tensor, const Tensor& value);

 private:
  Tensors results_of(const Statement& statement);
  const Program& program_;
  Tensors values_;
  nn::optim::Optimizer* optimizer_;
};

/// What is outside of a program's function.
struct World {
  explicit World(const Program& program);
  Tensors inputs;  ///< arguments are undefined
  std::unique_ptr<nn::optim::Optimizer> optimizer;
};
Tensors arguments_of(const Program& program, int call);
/// Call 0 makes what is outside, call n + 1 the arguments of the program's n-th.
std::vector<double> values_of(const Program& program, size_t input, int call);
Shape shape_of(const Program& program, size_t input, int call);
int64_t extent_of(const Program& program, int call);
/// The number that a constant's choice names.
double constant_of(const Statement& statement);
/// Numbers of tensors in use: all are below.
int count_of(const Program& program);

}  // namespace tandem::fuzz
