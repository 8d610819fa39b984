// Source text that the library carries with it, for the code generators to paste into what they emit.
#pragma once

#include <string_view>

namespace tandem::embedded {

/// The text of a file by its path from the include root, such as "core/scalar/math.h" or
/// "core/pointwise.def"; asserts that there is one. cmake/embed.cmake says which files there are.
const char* source(std::string_view name);

}  // namespace tandem::embedded
