// The loops over the shared mathematics, built for AVX2 with FMA.
#if defined(__x86_64__)
#define MATH_NAME cpp_avx2
#include "tests/math/loops.h"
#endif
