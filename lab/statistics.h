// Medians, quartiles and bootstrap intervals of step times.
#pragma once

#include <vector>

#include "compare.h"

namespace tandem::lab {

/// Linear interpolation between order statistics (type 7 of Hyndman & Fan 1996). `values` need not be sorted.
double quantile(std::vector<double> values, double fraction);
Spread spread(const std::vector<double>& values);
/// median(b) / median(a), where a[i] and b[i] were measured in the same round i.
Ratio ratio_of_medians(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace tandem::lab
