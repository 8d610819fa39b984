// float16 pointwise loops: pieces of 512 elements widened to float, computed, and narrowed.
#include "kernels/cpu/vector/prelude.h"

TANDEM_BEGIN_VECTOR

constexpr int64_t kPiece = 512;  // the operands' buffers stay in the first cache

void load_piece(int64_t n, const char* from, int64_t stride, float* to) {
  if (stride == (int64_t)sizeof(F16)) {
    widen_block(n, (const F16*)from, to);
    return;
  }
  for (int64_t i = 0; i < n; ++i) to[i] = widen(*(const F16*)(from + i * stride));
}

void run_pieces(Loop loop, int operands, bool returns_bool, bool selects, int64_t n, char* const* p, const int64_t* s) {
  float buffers[4][kPiece];
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
      strides[k] = s[k] == 0 ? 0 : (int64_t)sizeof(float);
      if (s[k] != 0 || at == 0) load_piece(s[k] == 0 ? 1 : count, from, s[k], buffers[k]);
    }
    if (returns_bool) {
      pointers[0] = p[0] + at * s[0];
      strides[0] = s[0];
      loop(count, pointers, strides);
      continue;
    }
    pointers[0] = (char*)buffers[0];
    strides[0] = sizeof(float);
    loop(count, pointers, strides);
    char* to = p[0] + at * s[0];
    if (s[0] == (int64_t)sizeof(F16)) {
      narrow_block(count, buffers[0], (F16*)to);
    } else {
      for (int64_t i = 0; i < count; ++i) *(F16*)(to + i * s[0]) = Convert<F16>::from(buffers[0][i]);
    }
  }
}

TANDEM_END_VECTOR

namespace tandem::TANDEM_ISA {
void through_float(Loop loop, int operands, bool returns_bool, bool selects, int64_t n, char* const* pointers,
                   const int64_t* strides) {
  run_pieces(loop, operands, returns_bool, selects, n, pointers, strides);
}
}  // namespace tandem::TANDEM_ISA
