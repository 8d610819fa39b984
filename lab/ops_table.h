// The table of ops as text, made from the op table itself.
#pragma once

#include <string>

namespace tandem::lab {

/// For the terminal: with a column for each device, as this build has them.
std::string ops_text();
/// docs/ops.md: what holds for every build.
std::string ops_markdown();

}  // namespace tandem::lab
