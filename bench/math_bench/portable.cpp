// The loops over the shared mathematics, built for the baseline of the architecture.
#define MATH_NAME cpp_portable
#include "tests/math/loops.h"
