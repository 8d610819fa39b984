// The loops over the shared mathematics and their reference, built for the baseline of the architecture.
#define MATH_NAME cpp_portable
#include "tests/math/loops.h"
#include "tests/math/reference.h"
