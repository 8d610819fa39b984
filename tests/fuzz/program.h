// Random programs over tensors, for the differential fuzzer: the same program runs in every mode.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "tandem.h"

namespace tandem::fuzz {

/// One step of a program. What it does, and to which tensors, follows from these numbers and from shapes and dtypes, which a
/// trace knows: so every mode does the same, and a program from which steps are taken is a program.
struct Instruction {
  std::array<uint32_t, 6> numbers;
};

struct Program {
  uint64_t seed = 0;  ///< of the generator, and of values
  std::vector<Instruction> instructions;
};
Program random_program(uint64_t seed);

/// What a run left: results, state and gradients after each of three calls, or the error that ended it.
struct Outcome {
  Tensors values;
  std::string error_class, error;
  std::vector<std::string> text;  ///< what the last call did, a line each; of eager runs
};
Outcome run(const Program& program, const CompileOptions& options);

/// How a graph mode's outcome differs from eager mode's; empty where it doesn't, or where graph mode has refused (TraceError).
std::string difference(const Outcome& eager, const Outcome& graph);

/// The program without the steps that the difference doesn't need.
Program minimised(Program program, const CompileOptions& options);

}  // namespace tandem::fuzz
