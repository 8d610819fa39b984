// Ops that are called for what they do: they run once for each call of the text, in its order, in every mode, also in a branch or
// the body of a loop. No pass removes, joins or reorders them, and a gradient does none of them again.
#pragma once

#include <functional>
#include <string>

#include "../tensor.h"

namespace tandem {

/// Prints the tensor's values, after "label: " if there is a label. In a compiled function: at each call, when it gets there.
/// What lies on a device is waited for, and copied to the host.
void print(const Tensor& x, const std::string& label = {}, Where where = Where::current());

/// Takes what print() prints, a text of one line or more without the last newline, from whichever thread prints.
using PrintHandler = std::function<void(const std::string&)>;
/// Hands what is printed to `handler` from now on, and returns the one before. At first it goes to stdout, with a newline; an
/// empty handler drops it.
PrintHandler set_print_handler(PrintHandler handler);

/// ValueError "assert_that: message", with the caller's line, unless every element of the condition is true (not 0). In a compiled
/// function at the call that finds it false: what comes after it in the text may have run, or not. On a CUDA device nobody waits for
/// the condition: whoever waits for the device next gets the error (docs/cuda.md).
void assert_that(const Tensor& condition, const std::string& message, Where where = Where::current());

}  // namespace tandem
