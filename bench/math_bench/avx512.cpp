// The loops over the shared mathematics, built for AVX-512.
#if defined(__x86_64__)
#define MATH_NAME cpp_avx512
#include "tests/math/loops.h"
#endif
