// Names, promotion table and 16-bit conversions.
#include "core/dtype.h"

#include <ostream>

#include "core/error.h"
#include "core/scalar/math.h"

#include "core/scalar/half.h"

namespace tandem {

namespace {
constexpr std::string_view kNames[] = {"float32", "float64", "float16", "bfloat16", "int32",
                                       "int64",   "int16",   "int8",    "uint8",    "bool"};
}

Float16::Float16(float value) : bits(td_f32_to_f16(value)) {}
Float16::operator float() const { return td_f16_to_f32(bits); }
BFloat16::BFloat16(float value) : bits(td_f32_to_bf16(value)) {}
BFloat16::operator float() const { return td_bf16_to_f32(bits); }

std::string_view name_of(DType type) { return kNames[static_cast<int>(type)]; }

DType parse_dtype(std::string_view name, Where where) {
  for (int i = 0; i < kDTypeCount; ++i)
    if (kNames[i] == name) return static_cast<DType>(i);
  throw ValueError(detail::str("no dtype is called \"", name,
                               "\"; there are float32, float64, float16, bfloat16, "
                               "int32, int64, int16, int8, uint8 and bool"),
                   where);
}

std::ostream& operator<<(std::ostream& out, DType type) { return out << name_of(type); }

DType promote(DType a, DType b) {
  if (a == b) return a;
  if (is_floating(a) != is_floating(b)) return is_floating(a) ? a : b;
  if (is_floating(a)) {
    if (a == float64 || b == float64) return float64;
    return float32;  // float32 with a 16-bit one, or the two 16-bit ones together
  }
  if (a == bool_) return b;
  if (b == bool_) return a;
  if (size_of(a) != size_of(b)) return size_of(a) > size_of(b) ? a : b;
  return int16;  // int8 with uint8
}

}  // namespace tandem
