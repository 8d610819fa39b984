// What a compiled function takes and returns: tensors, and what is made of them.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "../../core/tensor.h"
#include "../../nn/fields.h"
#include "../../nn/reflect.h"

namespace tandem {

template <class T>
requires std::is_arithmetic_v<T>
class Dynamic;

namespace graph {

template <class T> inline constexpr bool is_dynamic = false;
template <class T> inline constexpr bool is_dynamic<Dynamic<T>> = true;
template <class T> inline constexpr bool is_optional = false;
template <class T> inline constexpr bool is_optional<std::optional<T>> = true;
template <class T>
inline constexpr bool is_static = std::is_arithmetic_v<T> || std::is_enum_v<T> || std::is_convertible_v<T, std::string>;

void describe_number(std::string& text, double value);  ///< with all its digits
void describe_string(std::string& text,
                     const std::string& value);  ///< with its length, so that none runs into the next
template <class T> void describe(std::string& text, const T& value) {
  // A generic function does another thing with 2 than with 2.0.
  if constexpr (std::is_floating_point_v<T>)
    describe_number(text += sizeof(T) == 4 ? "f32 " : "f64 ", static_cast<double>(value));
  else if constexpr (std::is_same_v<T, bool>) text += value ? "true;" : "false;";
  else if constexpr (std::is_arithmetic_v<T>)
    text += (std::is_signed_v<T> ? 'i' : 'u') + std::to_string(8 * sizeof(T)) + ' ' + std::to_string(value) + ";";
  else if constexpr (std::is_enum_v<T>) text += std::to_string(static_cast<long long>(value)) + ";";
  else describe_string(text, value);
}

template <class T> constexpr bool has_references() {
  return []<size_t... I>(std::index_sequence<I...>) { return (std::is_reference_v<std::tuple_element_t<I, T>> || ...); }
  (std::make_index_sequence<std::tuple_size<T>::value>());
}
/// A range whose copies have elements of their own, which a std::span's have not.
template <class T>
concept OwningRange = nn::detail::Range<T> &&
    (is_static<typename T::value_type> ||
     !std::is_same_v<decltype(*std::declval<T&>().begin()), decltype(*std::declval<const T&>().begin())>);
/// The same of a tuple; one that std::tie makes has references.
template <class T>
concept OwningTuple = nn::detail::TupleLike<T> && !has_references<T>();

/// Calls f.tensor(tensor) for the tensors in `value`, and f.rest(number, enum, string, size, or whether an optional holds
/// something) for all else that makes it what it is, in order.
template <class Qualified, class F> void for_each_part(Qualified& value, F& f) {
  using T = std::remove_const_t<Qualified>;
  if constexpr (std::is_same_v<T, Tensor> && requires { f.tensor(value); }) {  // not a const one, or a reference to one
    f.tensor(value);
  } else if constexpr (is_dynamic<T>) {
    f.rest("dynamic");
    f.tensor(value.number_);
  } else if constexpr (is_static<T>) {
    f.rest(value);
  } else if constexpr (is_optional<T>) {
    f.rest(value.has_value());
    if (value) for_each_part(*value, f);
  } else if constexpr (OwningRange<T>) {
    f.rest(static_cast<int64_t>(std::distance(value.begin(), value.end())));
    for (auto&& each : value)
      if constexpr (is_static<typename T::value_type>) f.rest(static_cast<const typename T::value_type&>(each));
      else for_each_part(each, f);
  } else if constexpr (OwningTuple<T>) {
    std::apply([&](auto&... each) { (for_each_part(each, f), ...); }, value);
  } else if constexpr (std::is_class_v<T> && std::is_empty_v<T>) {
  } else if constexpr (nn::detail::has_fields<T>) {
    nn::detail::with_fields(value, [&](auto&... fields) { (for_each_part(fields, f), ...); });
  } else {
    static_assert(
        nn::detail::is_never<T>,
        "tandem::compile: arguments and results of a compiled function are Tensors, numbers, Dynamic numbers, "
        "enums, strings, and vectors, arrays, tuples, optionals and plain structs of these, not references to them, "
        "pointers or spans; capture anything else by reference in the lambda");
  }
}

/// Adds the tensors of an argument, and spells the rest of it, which is baked into the trace.
struct Collected {
  Tensors& tensors;
  std::string& key;
  void tensor(const Tensor& each) { tensors.push_back(each); }
  template <class T> void rest(const T& value) { describe(key, value); }
};

/// Puts the next of `from` in the place of each tensor.
struct Replaced {
  const Tensors& from;
  size_t& next;
  void tensor(Tensor& each) { each = from[next++]; }
  template <class T> void rest(const T&) {}
};
template <class T> decltype(auto) with_tensors(const T& argument, const Tensors& from, size_t& next) {
  if constexpr (is_static<T>) {
    return (argument);
  } else {
    T copy = argument;
    Replaced replaced{from, next};
    for_each_part(copy, replaced);
    return copy;
  }
}

/// A result as the trace returned it, without its tensors: what a call fills anew.
struct Kept {
  std::shared_ptr<const void> value;
  std::vector<bool> defined;  ///< of each tensor: undefined ones stay so
  std::string text;           ///< all but the tensors, and which of these are defined
};

/// Takes the tensors out of a result.
struct Taken {
  Tensors& tensors;
  Kept& kept;
  void tensor(Tensor& each) {
    kept.defined.push_back(each.defined());
    describe(kept.text, each.defined());
    if (each.defined()) tensors.push_back(std::exchange(each, Tensor()));
  }
  template <class T> void rest(const T& value) { describe(kept.text, value); }
};
template <class R> Tensors take_tensors(R result, std::shared_ptr<const Kept>* kept) {
  if constexpr (std::is_same_v<R, Tensor>) {
    return {std::move(result)};
  } else {
    Tensors tensors;
    const auto own = std::make_shared<Kept>();
    Taken taken{tensors, *own};
    for_each_part(result, taken);
    if (kept) {
      own->value = std::make_shared<R>(std::move(result));
      *kept = own;
    }
    return tensors;
  }
}

/// Calls `function` with these arguments, but for their tensors those of `from`, and takes the tensors out of its result.
template <class F, class... Args>
Tensors call_with(F& function, const Tensors& from, std::shared_ptr<const Kept>* kept, const Args&... args) {
  size_t next = 0;
  const std::tuple<decltype(with_tensors(args, from, next))...> own{with_tensors(args, from, next)...};
  using Result = decltype(std::apply(function, own));
  if constexpr (std::is_void_v<Result>) {
    std::apply(function, own);
    return {};
  } else {
    return take_tensors<std::decay_t<Result>>(std::apply(function, own), kept);
  }
}

struct Filled {
  Tensors& from;
  const Kept& kept;
  size_t place = 0, next = 0;
  void tensor(Tensor& each) {
    if (kept.defined[place++]) each = std::move(from[next++]);
  }
  template <class T> void rest(const T&) {}
};
template <class R> R filled(Tensors results, const Kept* kept) {
  if constexpr (std::is_same_v<R, Tensor>) {
    return std::move(results[0]);
  } else {
    R result = *static_cast<const R*>(kept->value.get());
    Filled fill{results, *kept};
    for_each_part(result, fill);
    return result;
  }
}

}  // namespace graph
}  // namespace tandem
