// The scalar expressions of core/pointwise.def as functors, and the loops around one of them. Which paths there
// are is the includer's choice: every path of every op costs code in three instruction sets.
#pragma once

#include "kernels/cpu/vector/prelude.h"

TANDEM_BEGIN_VECTOR

namespace op {
// T is the type computed in, and what the expression's value is stored as, but for comparisons.
#define TANDEM_EXPRESSION(...) __attribute__((always_inline)) static inline
#define TANDEM_UNARY(name, domain, ...)                                              \
  struct name {                                                                      \
    template <class T> TANDEM_EXPRESSION() auto of(T x) { return (T)(__VA_ARGS__); } \
  };
#define TANDEM_TEST(name, domain, ...)                                                               \
  struct name {                                                                                      \
    template <class T> TANDEM_EXPRESSION() auto of(T x) { return (uint8_t)((__VA_ARGS__) ? 1 : 0); } \
  };
#define TANDEM_BINARY(name, domain, ...)                                                  \
  struct name {                                                                           \
    template <class T> TANDEM_EXPRESSION() auto of(T x, T y) { return (T)(__VA_ARGS__); } \
  };
#define TANDEM_COMPARE(name, domain, ...)                                                                 \
  struct name {                                                                                           \
    template <class T> TANDEM_EXPRESSION() auto of(T x, T y) { return (uint8_t)((__VA_ARGS__) ? 1 : 0); } \
  };
#define TANDEM_TERNARY(name, domain, ...)                                                      \
  struct name {                                                                                \
    template <class T> TANDEM_EXPRESSION() auto of(T x, T y, T z) { return (T)(__VA_ARGS__); } \
  };
#define TANDEM_SELECT(name, domain, ...)                                                             \
  struct name {                                                                                      \
    template <class T> TANDEM_EXPRESSION() auto of(uint8_t x, T y, T z) { return (T)(__VA_ARGS__); } \
  };
#include "core/pointwise.def"
#undef TANDEM_UNARY
#undef TANDEM_TEST
#undef TANDEM_BINARY
#undef TANDEM_COMPARE
#undef TANDEM_TERNARY
#undef TANDEM_SELECT
}  // namespace op

// How values of storage type S reach an expression and come back. bool computes as 0 or 1 in uint8, bfloat16 in float.
template <class S> struct Element {
  using Type = S;
  TANDEM_INLINE S load(S x) { return x; }
  TANDEM_INLINE S store(S x) { return x; }
};
template <> struct Element<Bool> {
  using Type = uint8_t;
  TANDEM_INLINE uint8_t load(Bool x) { return x.value; }
  TANDEM_INLINE Bool store(uint8_t x) { return Bool{(uint8_t)(x != 0)}; }
};

template <> struct Element<BF16> {
  using Type = float;
  TANDEM_INLINE float load(BF16 x) { return widen(x); }
  TANDEM_INLINE BF16 store(float x) { return narrow_bf16(x); }
};

// Whether a loop also has paths of its own for an operand that is one number.
enum class Paths { few, scalar_operands };

#define TANDEM_AT(type, k, i) (*(type*)(p[k] + (i)*s[k]))

template <class Op, class S, Paths> void unary_loop(int64_t n, char* const* p, const int64_t* s) {
  using E = Element<S>;
  if (s[0] == (int64_t)sizeof(S) && s[1] == (int64_t)sizeof(S)) {
    S* out = (S*)p[0];
    const S* x = (const S*)p[1];
    TANDEM_SIMD
    for (int64_t i = 0; i < n; ++i) out[i] = E::store(Op::of(E::load(x[i])));
    return;
  }
  for (int64_t i = 0; i < n; ++i) TANDEM_AT(S, 0, i) = E::store(Op::of(E::load(TANDEM_AT(const S, 1, i))));
}

template <class Op, class S, Paths> void test_loop(int64_t n, char* const* p, const int64_t* s) {
  using E = Element<S>;
  if (s[0] == 1 && s[1] == (int64_t)sizeof(S)) {
    uint8_t* out = (uint8_t*)p[0];
    const S* x = (const S*)p[1];
    TANDEM_SIMD
    for (int64_t i = 0; i < n; ++i) out[i] = Op::of(E::load(x[i]));
    return;
  }
  for (int64_t i = 0; i < n; ++i) TANDEM_AT(uint8_t, 0, i) = Op::of(E::load(TANDEM_AT(const S, 1, i)));
}

template <class Op, class S, Paths paths> void binary_loop(int64_t n, char* const* p, const int64_t* s) {
  using E = Element<S>;
  constexpr int64_t size = sizeof(S);
  S* out = (S*)p[0];
  const S* x = (const S*)p[1];
  const S* y = (const S*)p[2];
  if (s[0] == size && s[1] == size && s[2] == size) {
    TANDEM_SIMD
    for (int64_t i = 0; i < n; ++i) out[i] = E::store(Op::of(E::load(x[i]), E::load(y[i])));
    return;
  }
  if constexpr (paths == Paths::scalar_operands) {
    if (s[0] == size && s[1] == size && s[2] == 0) {
      const auto b = E::load(*y);
      TANDEM_SIMD
      for (int64_t i = 0; i < n; ++i) out[i] = E::store(Op::of(E::load(x[i]), b));
      return;
    }
    if (s[0] == size && s[1] == 0 && s[2] == size) {
      const auto a = E::load(*x);
      TANDEM_SIMD
      for (int64_t i = 0; i < n; ++i) out[i] = E::store(Op::of(a, E::load(y[i])));
      return;
    }
  }
  for (int64_t i = 0; i < n; ++i)
    TANDEM_AT(S, 0, i) = E::store(Op::of(E::load(TANDEM_AT(const S, 1, i)), E::load(TANDEM_AT(const S, 2, i))));
}

template <class Op, class S, Paths paths> void compare_loop(int64_t n, char* const* p, const int64_t* s) {
  using E = Element<S>;
  constexpr int64_t size = sizeof(S);
  if (s[0] == 1 && s[1] == size && (s[2] == size || s[2] == 0)) {
    uint8_t* out = (uint8_t*)p[0];
    const S* x = (const S*)p[1];
    const S* y = (const S*)p[2];
    if (s[2] == size) {
      TANDEM_SIMD
      for (int64_t i = 0; i < n; ++i) out[i] = Op::of(E::load(x[i]), E::load(y[i]));
    } else {
      const auto b = E::load(*y);
      TANDEM_SIMD
      for (int64_t i = 0; i < n; ++i) out[i] = Op::of(E::load(x[i]), b);
    }
    return;
  }
  for (int64_t i = 0; i < n; ++i)
    TANDEM_AT(uint8_t, 0, i) = Op::of(E::load(TANDEM_AT(const S, 1, i)), E::load(TANDEM_AT(const S, 2, i)));
}

template <class Op, class S, Paths paths> void ternary_loop(int64_t n, char* const* p, const int64_t* s) {
  using E = Element<S>;
  constexpr int64_t size = sizeof(S);
  S* out = (S*)p[0];
  const S* x = (const S*)p[1];
  const S* y = (const S*)p[2];
  const S* z = (const S*)p[3];
  if (s[0] == size && s[1] == size) {
    if (s[2] == 0 && s[3] == 0) {  // bounds, slopes
      const auto b = E::load(*y), c = E::load(*z);
      TANDEM_SIMD
      for (int64_t i = 0; i < n; ++i) out[i] = E::store(Op::of(E::load(x[i]), b, c));
      return;
    }
    if (s[2] == size && s[3] == 0) {
      const auto c = E::load(*z);
      TANDEM_SIMD
      for (int64_t i = 0; i < n; ++i) out[i] = E::store(Op::of(E::load(x[i]), E::load(y[i]), c));
      return;
    }
    if constexpr (paths == Paths::scalar_operands) {
      if (s[2] == size && s[3] == size) {
        TANDEM_SIMD
        for (int64_t i = 0; i < n; ++i) out[i] = E::store(Op::of(E::load(x[i]), E::load(y[i]), E::load(z[i])));
        return;
      }
    }
  }
  for (int64_t i = 0; i < n; ++i)
    TANDEM_AT(S, 0, i) = E::store(Op::of(E::load(TANDEM_AT(const S, 1, i)), E::load(TANDEM_AT(const S, 2, i)),
                                         E::load(TANDEM_AT(const S, 3, i))));
}

template <class Op, class S, Paths paths> void select_loop(int64_t n, char* const* p, const int64_t* s) {
  using E = Element<S>;
  constexpr int64_t size = sizeof(S);
  S* out = (S*)p[0];
  const uint8_t* x = (const uint8_t*)p[1];
  const S* y = (const S*)p[2];
  const S* z = (const S*)p[3];
  if (s[0] == size && s[1] == 1 && s[2] == 0 && s[3] == size) {
    const auto b = E::load(*y);
    TANDEM_SIMD
    for (int64_t i = 0; i < n; ++i) out[i] = E::store(Op::of(x[i], b, E::load(z[i])));
    return;
  }
  if (s[0] == size && s[1] == 1 && s[2] == size) {
    if (s[3] == size) {
      TANDEM_SIMD
      for (int64_t i = 0; i < n; ++i) out[i] = E::store(Op::of(x[i], E::load(y[i]), E::load(z[i])));
      return;
    }
    if (s[3] == 0) {
      const auto c = E::load(*z);
      TANDEM_SIMD
      for (int64_t i = 0; i < n; ++i) out[i] = E::store(Op::of(x[i], E::load(y[i]), c));
      return;
    }
  }
  for (int64_t i = 0; i < n; ++i)
    TANDEM_AT(S, 0, i) = E::store(
        Op::of(TANDEM_AT(const uint8_t, 1, i), E::load(TANDEM_AT(const S, 2, i)), E::load(TANDEM_AT(const S, 3, i))));
}

#undef TANDEM_AT

// Domains as conditions on S: an entry outside its domain is a null pointer.
template <class S> struct Is {
  static constexpr bool any = true, numeric = true, floating = false, integral = true, whole = true;
};
template <> struct Is<float> {
  static constexpr bool any = true, numeric = true, floating = true, integral = false, whole = false;
};
template <> struct Is<double> {
  static constexpr bool any = true, numeric = true, floating = true, integral = false, whole = false;
};
template <> struct Is<BF16> {
  static constexpr bool any = true, numeric = true, floating = true, integral = false, whole = false;
};
template <> struct Is<Bool> {
  static constexpr bool any = true, numeric = false, floating = false, integral = true, whole = false;
};

struct UnaryForm {
  template <class Op, class S, Paths paths> static constexpr Loop loop() { return unary_loop<Op, S, paths>; }
};
struct TestForm {
  template <class Op, class S, Paths paths> static constexpr Loop loop() { return test_loop<Op, S, paths>; }
};
struct BinaryForm {
  template <class Op, class S, Paths paths> static constexpr Loop loop() { return binary_loop<Op, S, paths>; }
};
struct CompareForm {
  template <class Op, class S, Paths paths> static constexpr Loop loop() { return compare_loop<Op, S, paths>; }
};
struct TernaryForm {
  template <class Op, class S, Paths paths> static constexpr Loop loop() { return ternary_loop<Op, S, paths>; }
};
struct SelectForm {
  template <class Op, class S, Paths paths> static constexpr Loop loop() { return select_loop<Op, S, paths>; }
};
template <bool exists, class Form, class Op, class S, Paths paths> constexpr Loop entry() {
  if constexpr (exists) return Form::template loop<Op, S, paths>();
  else return nullptr;
}

TANDEM_END_VECTOR

// Defines `name`: the loops of all ops for storage type S, in the order of pointwise.def.
#define TANDEM_UNARY(name, domain, ...) entry<Is<S>::domain, UnaryForm, op::name, S, paths>(),
#define TANDEM_TEST(name, domain, ...) entry<Is<S>::domain, TestForm, op::name, S, paths>(),
#define TANDEM_BINARY(name, domain, ...) entry<Is<S>::domain, BinaryForm, op::name, S, paths>(),
#define TANDEM_COMPARE(name, domain, ...) entry<Is<S>::domain, CompareForm, op::name, S, paths>(),
#define TANDEM_TERNARY(name, domain, ...) entry<Is<S>::domain, TernaryForm, op::name, S, paths>(),
#define TANDEM_SELECT(name, domain, ...) entry<Is<S>::domain, SelectForm, op::name, S, paths>(),
TANDEM_BEGIN_VECTOR
template <class S, Paths paths> struct Table {
  static constexpr Loop loops[] = {
#include "core/pointwise.def"
  };
};
TANDEM_END_VECTOR
#undef TANDEM_UNARY
#undef TANDEM_TEST
#undef TANDEM_BINARY
#undef TANDEM_COMPARE
#undef TANDEM_TERNARY
#undef TANDEM_SELECT
