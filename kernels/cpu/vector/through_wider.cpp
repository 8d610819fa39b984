// Pointwise loops of float16, int16 and int8: pieces of 512 elements widened to float or int32, computed, and narrowed. All
// that int32 computes has the low bits that the narrow type would have.
#include "kernels/cpu/vector/prelude.h"

TANDEM_BEGIN_VECTOR

constexpr int64_t kPiece = 512;  // the operands' buffers stay in the first cache

template <class S> struct Widened { using Type = int32_t; };
template <> struct Widened<F16> { using Type = float; };

template <class S> TANDEM_INLINE void widen_block(int64_t n, const S* from, int32_t* to) {
  TANDEM_SIMD
  for (int64_t i = 0; i < n; ++i) to[i] = from[i];
}
template <class S> TANDEM_INLINE void narrow_block(int64_t n, const int32_t* from, S* to) {
  TANDEM_SIMD
  for (int64_t i = 0; i < n; ++i) to[i] = (S)from[i];
}

template <class S> void load_piece(int64_t n, const char* from, int64_t stride, typename Widened<S>::Type* to) {
  if (stride == (int64_t)sizeof(S)) {
    widen_block(n, (const S*)from, to);
    return;
  }
  for (int64_t i = 0; i < n; ++i) to[i] = Convert<typename Widened<S>::Type>::from(*(const S*)(from + i * stride));
}

template <class S>
void run_pieces(Loop loop, int operands, bool returns_bool, bool selects, int64_t n, char* const* p, const int64_t* s) {
  using Wide = typename Widened<S>::Type;
  Wide buffers[4][kPiece];
  char* pointers[4];
  int64_t strides[4];
  for (int64_t at = 0; at < n; at += kPiece) {
    const int64_t count = least(kPiece, n - at);
    for (int k = 1; k <= operands; ++k) {
      char* from = p[k] + at * s[k];
      if (selects && k == 1) {  // the condition is bool already
        pointers[k] = from;
        strides[k] = s[k];
        continue;
      }
      pointers[k] = (char*)buffers[k];
      strides[k] = s[k] == 0 ? 0 : (int64_t)sizeof(Wide);
      if (s[k] != 0 || at == 0) load_piece<S>(s[k] == 0 ? 1 : count, from, s[k], buffers[k]);
    }
    if (returns_bool) {
      pointers[0] = p[0] + at * s[0];
      strides[0] = s[0];
      loop(count, pointers, strides);
      continue;
    }
    pointers[0] = (char*)buffers[0];
    strides[0] = sizeof(Wide);
    loop(count, pointers, strides);
    char* to = p[0] + at * s[0];
    if (s[0] == (int64_t)sizeof(S)) {
      narrow_block(count, buffers[0], (S*)to);
    } else {
      for (int64_t i = 0; i < count; ++i) *(S*)(to + i * s[0]) = Convert<S>::from(buffers[0][i]);
    }
  }
}

TANDEM_END_VECTOR

namespace tandem::TANDEM_ISA {
extern const Through through_float, through_i16, through_i8;
const Through through_float = run_pieces<F16>, through_i16 = run_pieces<int16_t>, through_i8 = run_pieces<int8_t>;
}  // namespace tandem::TANDEM_ISA
