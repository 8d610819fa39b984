// The loops over the shared mathematics and their reference, built for AVX2 with FMA.
#if defined(__x86_64__)
#define MATH_NAME cpp_avx2
#include "tests/math/loops.h"
#include "tests/math/reference.h"
#endif
