// Element types, their C++ counterparts, and type promotion.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string_view>

#include "error.h"

namespace tandem {

enum class DType : uint8_t { float32, float64, float16, bfloat16, int32, int64, int16, int8, uint8, bool_ };
inline constexpr int kDTypeCount = 10;

inline constexpr DType float32 = DType::float32, float64 = DType::float64, float16 = DType::float16,
                       bfloat16 = DType::bfloat16, int32 = DType::int32, int64 = DType::int64, int16 = DType::int16,
                       int8 = DType::int8, uint8 = DType::uint8, bool_ = DType::bool_;

/// Storage types of the two 16-bit floats. Arithmetic on them is done in float32.
struct Float16 {
  uint16_t bits = 0;
  Float16() = default;
  explicit Float16(float value);
  explicit operator float() const;
};
struct BFloat16 {
  uint16_t bits = 0;
  BFloat16() = default;
  explicit BFloat16(float value);
  explicit operator float() const;
};

constexpr int64_t size_of(DType type) {
  constexpr int64_t sizes[] = {4, 8, 2, 2, 4, 8, 2, 1, 1, 1};
  return sizes[static_cast<int>(type)];
}
constexpr bool is_floating(DType type) { return type <= DType::bfloat16; }
constexpr bool is_integral(DType type) { return type >= DType::int32 && type <= DType::uint8; }

std::string_view name_of(DType type);
/// The dtype of that name; throws ValueError otherwise.
DType parse_dtype(std::string_view name, Where where = Where::current());
std::ostream& operator<<(std::ostream& out, DType type);

/// The dtype in which two tensors meet: category first (bool < integer < floating), then width; float16 with bfloat16
/// gives float32, int8 with uint8 int16. The same table as PyTorch's `torch.promote_types`.
DType promote(DType a, DType b);

template <class T> struct DTypeOf;
template <> struct DTypeOf<float> { static constexpr DType value = DType::float32; };
template <> struct DTypeOf<double> { static constexpr DType value = DType::float64; };
template <> struct DTypeOf<Float16> { static constexpr DType value = DType::float16; };
template <> struct DTypeOf<BFloat16> { static constexpr DType value = DType::bfloat16; };
template <> struct DTypeOf<int32_t> { static constexpr DType value = DType::int32; };
template <> struct DTypeOf<int64_t> { static constexpr DType value = DType::int64; };
template <> struct DTypeOf<long long> { static constexpr DType value = DType::int64; };
template <> struct DTypeOf<int16_t> { static constexpr DType value = DType::int16; };
template <> struct DTypeOf<int8_t> { static constexpr DType value = DType::int8; };
template <> struct DTypeOf<uint8_t> { static constexpr DType value = DType::uint8; };
template <> struct DTypeOf<bool> { static constexpr DType value = DType::bool_; };
template <class T> inline constexpr DType dtype_of = DTypeOf<T>::value;

/// Calls `f.template operator()<T>()` with the C++ element type of `type`.
template <class F> decltype(auto) visit_dtype(DType type, F&& f) {
  switch (type) {
    case DType::float32: return f.template operator()<float>();
    case DType::float64: return f.template operator()<double>();
    case DType::float16: return f.template operator()<Float16>();
    case DType::bfloat16: return f.template operator()<BFloat16>();
    case DType::int32: return f.template operator()<int32_t>();
    case DType::int64: return f.template operator()<int64_t>();
    case DType::int16: return f.template operator()<int16_t>();
    case DType::int8: return f.template operator()<int8_t>();
    case DType::uint8: return f.template operator()<uint8_t>();
    case DType::bool_: break;
  }
  return f.template operator()<bool>();
}

}  // namespace tandem
