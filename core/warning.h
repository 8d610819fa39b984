// Warnings: what a program should know though nothing has failed.
#pragma once

#include <functional>
#include <string>

namespace tandem {

/// Takes warnings, each one sentence or more without a newline, from whichever thread has one.
using WarningHandler = std::function<void(const std::string&)>;
/// Hands warnings to `handler` from now on, and returns the one before. At first they are printed on stderr, as
/// "tandem: warning: …"; an empty handler drops them.
WarningHandler set_warning_handler(WarningHandler handler);

/// Hands a warning to the handler.
void warn(const std::string& text);

}  // namespace tandem
