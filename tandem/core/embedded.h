// Source text that the library carries with it, for the code generators to paste into what they emit.
#pragma once

#include <string_view>

namespace tandem::embedded {

/// The text of a file by its path from the include root, such as "tandem/kernels/shared/math.h" or
/// "tandem/core/pointwise.def"; null if no such file is embedded. cmake/embed.cmake says which are.
const char* source(std::string_view name);

}  // namespace tandem::embedded
