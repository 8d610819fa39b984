// The table of ops as text, made from the op table itself.
#pragma once

#include <string>

namespace tandem::lab {

/// For the terminal.
std::string ops_text();
/// docs/ops.md: the same, and the attributes of each.
std::string ops_markdown();

}  // namespace tandem::lab
