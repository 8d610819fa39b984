// Numbers as people read them.
#pragma once

#include <cstdint>
#include <string>

#include "compare.h"

namespace tandem::lab {

std::string format(const char* pattern, double value);  ///< as printf
std::string duration(double seconds);                   ///< "1.23 ms"
std::string mebibytes(int64_t bytes);                   ///< "0.45"
std::string error_text(double error);                   ///< "1.2e-07", "unknown"
std::string ratio_text(const Ratio& ratio);             ///< "0.52 (0.50 to 0.55)"
std::string step_count(double steps);                   ///< "1,234"

/// Whether and when compiling pays, in a sentence.
std::string verdict(const Comparison& comparison);
/// Whether the rungs compute the same, in a sentence.
std::string agreement(const Comparison& comparison);

}  // namespace tandem::lab
