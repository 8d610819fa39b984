// The report's pictures: SVG that takes its colours from the page.
#pragma once

#include <string>

#include "compare.h"

namespace tandem::lab {

/// & < > " as entities.
std::string escaped(const std::string& text);

std::string step_time_chart(const Comparison& comparison);   ///< a bar for each rung, with its quartiles
std::string break_even_chart(const Comparison& comparison);  ///< time spent since the start, and where the lines cross
std::string memory_chart(const Comparison& comparison);
std::string loss_chart(const Comparison& comparison);

}  // namespace tandem::lab
