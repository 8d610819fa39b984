// The fields of a plain struct, by structured bindings: how many, each by reference, and their names.
//
// C++20 has no reflection, but an aggregate T with n fields can be initialised from n braced values and
// not from n + 1, and `auto& [f0, f1] = value` gives its fields by reference. A field's name is read from
// what the compiler prints for a template whose argument is the address of that field in an object that is
// declared and never defined. (The technique is that of Boost.PFR and its descendants.) Structured bindings need no
// aggregate, only counting does: a class with a constructor says how many public fields it has.
#pragma once

#include <cstddef>
#include <string_view>
#include <type_traits>
#include <utility>

namespace tandem::nn::detail {

inline constexpr int kMaxFields = 32;

/// Stands for a value of any type, and is asked for the type of each field in turn.
struct AnyValue {
  template <class T> operator T() const;
};
template <size_t> using AnyValueAt = AnyValue;
/// Stands for a value of any class that T derives from.
template <class T> struct AnyBase {
  template <class B>
  requires(std::is_base_of_v<B, T> && !std::is_same_v<B, T>) operator B() const;
};

template <class T, size_t... I> constexpr bool braces_take(std::index_sequence<I...>) {
  return requires { T{AnyValueAt<I>{}...}; };
}
template <class T, size_t... I> constexpr bool has_base(std::index_sequence<I...>) {
  return requires { T{AnyBase<T>{}, AnyValueAt<I>{}...}; };
}
template <class T, size_t... I> constexpr bool has_c_array(std::index_sequence<I...>) {
#if defined(__cpp_aggregate_paren_init)
  // Braces flatten an array into its elements, parentheses don't.
  if constexpr (sizeof...(I) > 1) return !requires {
      T(AnyValueAt<I>{}...);
    };
#endif
  return false;
}

// Values taken range from the last field without a default (0 if all have one) to the number of fields.
template <class T, int n = 0, bool taken_before = false> constexpr int count_fields() {
  if constexpr (n > kMaxFields + 1) {
    return -1;
  } else {
    constexpr bool taken = braces_take<T>(std::make_index_sequence<static_cast<size_t>(n)>());
    if constexpr (taken_before && !taken) return n - 1;
    else return count_fields<T, n + 1, taken>();
  }
}

/// `static constexpr int fields = 3;`
template <class T>
concept SaysFieldCount = requires {
  requires std::is_same_v<const int, decltype(T::fields)>;
  std::integral_constant<int, T::fields>();
};
template <class T>
inline constexpr bool has_fields = std::is_class_v<T> && (std::is_aggregate_v<T> || SaysFieldCount<T>);

template <class T> constexpr int checked_count() {
  constexpr int count = count_fields<T>();
  static_assert(count >= 0,
                "tandem::nn: the fields of this struct can't be counted (more than 32, or a reference or C array "
                "among them): give it  static constexpr int fields = N;  or  template <class V> void visit(V&& v) { "
                "v(\"name\", name); ... }");
  constexpr auto others = std::make_index_sequence<static_cast<size_t>(count > 0 ? count - 1 : 0)>();
  static_assert(
      count <= 0 || !has_base<T>(others),
      "tandem::nn: a struct that derives from another has no structured bindings, unless all fields are of one of "
      "the two (then say how many: static constexpr int fields = N;): give it  "
      "template <class V> void visit(V&& v) { Base::visit(v); v(\"name\", name); ... }");
  static_assert(count <= 0 || !has_c_array<T>(std::make_index_sequence<static_cast<size_t>(count < 0 ? 0 : count)>()),
                "tandem::nn: this struct has a C array: make it a std::array, or give the struct  "
                "template <class V> void visit(V&& v) { v(\"name\", name); ... }");
  return count;
}
/// The number of fields; a compile-time error that says what to write where they can't be counted.
template <class T> constexpr int checked_field_count() {
  if constexpr (SaysFieldCount<T>) {
    static_assert(T::fields >= 0 && T::fields <= kMaxFields, "tandem::nn: a class may say that it has 0 to 32 fields");
    return T::fields;
  } else {
    return checked_count<T>();
  }
}
template <class T> inline constexpr int field_count = checked_field_count<T>();

template <class T> struct FieldAddress {
  const T* address;
  constexpr FieldAddress(const T& field) : address(__builtin_addressof(field)) {}
};

#if defined(__clang__)
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wundefined-var-template"
#pragma clang diagnostic ignored "-Wundefined-internal"
#endif

/// An object to take addresses in; never defined, never used.
template <class T> struct Phantom {
  T value;
  static const Phantom instance;
};

template <FieldAddress field> const char* printed_field() { return __PRETTY_FUNCTION__; }
/// g++ prints "… Phantom<Mlp>::value.Mlp::hidden)}]", clang "… &instance.value.hidden}}]": the last
/// identifier.
std::string_view last_identifier(std::string_view printed);

template <FieldAddress... fields> struct FieldList {
  static const std::string_view* names() {
    static const std::string_view list[] = {last_identifier(printed_field<fields>())...};
    return list;
  }
};
template <> struct FieldList<> {
  static const std::string_view* names() { return nullptr; }
};

// clang-format off
#define TANDEM_FIELD_LISTS(X)                                                                     \
  X(1, f0)                                                                                        \
  X(2, f0, f1)                                                                                    \
  X(3, f0, f1, f2)                                                                                \
  X(4, f0, f1, f2, f3)                                                                            \
  X(5, f0, f1, f2, f3, f4)                                                                        \
  X(6, f0, f1, f2, f3, f4, f5)                                                                    \
  X(7, f0, f1, f2, f3, f4, f5, f6)                                                                \
  X(8, f0, f1, f2, f3, f4, f5, f6, f7)                                                            \
  X(9, f0, f1, f2, f3, f4, f5, f6, f7, f8)                                                        \
  X(10, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9)                                                   \
  X(11, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10)                                              \
  X(12, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11)                                         \
  X(13, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12)                                    \
  X(14, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13)                               \
  X(15, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14)                          \
  X(16, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15)                     \
  X(17, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16)                \
  X(18, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17)           \
  X(19, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18)      \
  X(20, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18, f19) \
  X(21, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18, f19, \
    f20)                                                                                          \
  X(22, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18, f19, \
    f20, f21)                                                                                     \
  X(23, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18, f19, \
    f20, f21, f22)                                                                                \
  X(24, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18, f19, \
    f20, f21, f22, f23)                                                                           \
  X(25, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18, f19, \
    f20, f21, f22, f23, f24)                                                                      \
  X(26, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18, f19, \
    f20, f21, f22, f23, f24, f25)                                                                 \
  X(27, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18, f19, \
    f20, f21, f22, f23, f24, f25, f26)                                                            \
  X(28, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18, f19, \
    f20, f21, f22, f23, f24, f25, f26, f27)                                                       \
  X(29, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18, f19, \
    f20, f21, f22, f23, f24, f25, f26, f27, f28)                                                  \
  X(30, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18, f19, \
    f20, f21, f22, f23, f24, f25, f26, f27, f28, f29)                                             \
  X(31, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18, f19, \
    f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30)                                        \
  X(32, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18, f19, \
    f20, f21, f22, f23, f24, f25, f26, f27, f28, f29, f30, f31)

// clang-format on

// Only the type of its result is asked for, so that clang makes no code that looks at the object that is nowhere. g++ makes
// it all the same: optimised and unchecked, it does not look either.
#if defined(__clang__)
#define TANDEM_NAMES_ONLY
#else
#define TANDEM_NAMES_ONLY __attribute__((no_sanitize("undefined", "address"), optimize("O2")))
#endif
template <class T> TANDEM_NAMES_ONLY auto field_list() {
#define TANDEM_NAMES(n, ...)                          \
  else if constexpr (field_count<T> == n) {           \
    auto& [__VA_ARGS__] = Phantom<T>::instance.value; \
    return FieldList<__VA_ARGS__>();                  \
  }
  if constexpr (field_count<T> == 0) return FieldList<>();
  TANDEM_FIELD_LISTS(TANDEM_NAMES)
#undef TANDEM_NAMES
}
#undef TANDEM_NAMES_ONLY

/// Names of the fields of T, in order.
template <class T> const std::string_view* field_names() { return decltype(field_list<T>())::names(); }

#if defined(__clang__)
#pragma clang diagnostic pop
#endif

/// Calls f(field, …) with references to all fields of `value`. If the binding fails to compile, the struct has a C array,
/// whose elements braces take for fields: make it a std::array; or it says another number of `fields` than it has, or some
/// aren't public.
template <class T, class F> void with_fields(T& value, F&& f) {
#define TANDEM_FIELDS(n, ...)                                                                   \
  else if constexpr (field_count<T> == n) {                                                     \
    auto& [__VA_ARGS__] = value; /* an error here: a C array, or another number of `fields`? */ \
    f(__VA_ARGS__);                                                                             \
  }
  if constexpr (field_count<T> == 0) f();
  TANDEM_FIELD_LISTS(TANDEM_FIELDS)
#undef TANDEM_FIELDS
}
#undef TANDEM_FIELD_LISTS

}  // namespace tandem::nn::detail
