// What the tests and the benchmark of the shared mathematics call: one table of loops for each language,
// compiler and instruction set, named like math_table_cpp_avx512 and math_table_c_gcc_portable.
// C and C++ both include this file; loops.h fills a table.
#ifndef TANDEM_TESTS_MATH_TABLES_H
#define TANDEM_TESTS_MATH_TABLES_H

// The float32 functions whose loops compilers must vectorise.
#define MATH_FUNCTIONS(X) \
  X(exp)                  \
  X(log)                  \
  X(tanh) X(sigmoid) X(erf) X(expm1) X(log1p) X(log2) X(sinh) X(cosh) X(gelu) X(gelu_tanh) X(silu) X(mish) X(softplus)

typedef void MathLoop(const float* x, float* y, long count);
typedef void MathRandomLoop(unsigned long seed, unsigned long draw, unsigned long first, float* y, long count);

struct MathTable {
#define MATH_FIELD(name) MathLoop* name;
  MATH_FUNCTIONS(MATH_FIELD)
#undef MATH_FIELD
  MathRandomLoop *uniform, *normal;
  MathRandomLoop *uniform_blocks, *normal_blocks;  // four elements at a time; first and count multiples of 4
  void (*widen_f16)(const unsigned short* x, float* y, long count);
  void (*widen_bf16)(const unsigned short* x, float* y, long count);
  void (*narrow_f16)(const float* x, unsigned short* y, long count);
  void (*narrow_bf16)(const float* x, unsigned short* y, long count);
};

// The true values in float64, and the comparison.
typedef void MathReference(const float* x, double* y, long count);

struct MathReferences {
  MathReference *exp, *log, *tanh, *sigmoid, *erf, *expm1, *log1p, *log2, *sinh, *cosh;
  void (*floats)(unsigned first, unsigned stride, float* x, long count);  // by their bit patterns
  double (*worst)(const float* got, const double* wanted, long count);    // the largest error in ULP
  int vectorised;                                                         // fast enough to try every float
};

#define MATH_JOIN_(a, b) a##_##b
#define MATH_JOIN(a, b) MATH_JOIN_(a, b)

#endif
