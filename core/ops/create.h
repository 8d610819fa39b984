// Tensors from values, counts and memory.
#pragma once

#include <concepts>
#include <initializer_list>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "../dispatch.h"
#include "../tensor.h"

namespace tandem {

// Creation.
Tensor empty(const Shape& shape, TensorOptions options = {}, Where where = Where::current());
Tensor zeros(const Shape& shape, TensorOptions options = {}, Where where = Where::current());
Tensor ones(const Shape& shape, TensorOptions options = {}, Where where = Where::current());
Tensor full(const Shape& shape, double value, TensorOptions options = {}, Where where = Where::current());
struct LikeOptions {
  std::optional<DType> dtype = {};    ///< that of the other tensor, if absent
  std::optional<Device> device = {};  ///< and its device
  bool requires_grad = false;
};
Tensor zeros_like(const Tensor& like, LikeOptions options = {}, Where where = Where::current());
Tensor ones_like(const Tensor& like, LikeOptions options = {}, Where where = Where::current());
Tensor full_like(const Tensor& like, double value, LikeOptions options = {}, Where where = Where::current());
Tensor empty_like(const Tensor& like, LikeOptions options = {}, Where where = Where::current());
/// [rows, columns] with ones on the diagonal; columns defaults to rows.
Tensor eye(int64_t rows, std::optional<int64_t> columns = {}, TensorOptions options = {},
           Where where = Where::current());
/// 0, 1, … end-1 as int64; the other forms count from begin by step until end, which is not reached: integers as int64, and
/// as float32 where one of the numbers is floating. Elements are begin + i * step in double, converted to the dtype.
Tensor arange(int64_t end, Where where = Where::current());
Tensor arange(int64_t begin, int64_t end, int64_t step = 1, TensorOptions options = {.dtype = DType::int64},
              Where where = Where::current());
Tensor arange_of_doubles(double begin, double end, double step, TensorOptions options, Where where);
template <class Begin, class End, class Step = int>
requires(std::floating_point<Begin> || std::floating_point<End> || std::floating_point<Step>) Tensor
    arange(Begin begin, End end, Step step = 1, TensorOptions options = {}, Where where = Where::current()) {
  return arange_of_doubles(static_cast<double>(begin), static_cast<double>(end), static_cast<double>(step), options,
                           where);
}
template <std::floating_point End> Tensor arange(End end, Where where = Where::current()) {
  return arange(0, end, 1, {}, where);
}
/// `count` numbers from begin to end, both included.
Tensor linspace(double begin, double end, int64_t count, TensorOptions options = {}, Where where = Where::current());
/// A tensor on memory that the caller keeps alive.
Tensor from_blob(void* data, const Shape& shape, TensorOptions options = {}, Where where = Where::current());
/// Copies `count` host elements of `dtype` to a new tensor.
Tensor from_host(const void* data, DType dtype, const Shape& shape, TensorOptions options, Where where);

struct ValueOptions {
  std::optional<DType> dtype = {};  ///< that of the values, if absent
  Device device = {};
  bool requires_grad = false;
};

namespace detail {

/// The dtype of numbers written in a program: int stands for int64, and double for float32, as in PyTorch.
template <class T> constexpr DType dtype_of_literal() {
  return std::is_same_v<T, double> ? DType::float32 : std::is_same_v<T, int> ? DType::int64 : dtype_of<T>;
}
Tensor from_values(const void* data, DType held, DType wanted, const Shape& shape, ValueOptions options, Where where);

/// The numbers of nested lists, row by row, and their shape.
template <class T> struct Nested {
  std::vector<std::conditional_t<std::is_same_v<T, bool>, uint8_t, T>> values;
  Shape shape;

  template <class List> void add(int depth, const std::initializer_list<List>& list, bool first, Where where) {
    const auto count = static_cast<int64_t>(list.size());
    if (first) shape.push_back(count);
    else if (shape[depth] != count)
      throw ShapeError(str("tensor: rows of different lengths: ", shape[depth], " and ", count), where);
    bool first_of_list = first;
    for (const List& item : list) {
      if constexpr (std::is_same_v<List, T>) values.push_back(item);
      else add(depth + 1, item, std::exchange(first_of_list, false), where);
    }
  }
};
template <class T, class List> Tensor from_list(const List& list, ValueOptions options, Where where) {
  Nested<T> nested;
  nested.add(0, list, true, where);
  return from_values(nested.values.data(), dtype_of<T>, options.dtype.value_or(dtype_of_literal<T>()), nested.shape,
                     options, where);
}

}  // namespace detail

/// From numbers in the program: tensor(3.f), tensor({1.f, 2.f}), tensor({{1, 2}, {3, 4}}). They are float32, int64 for
/// integers, or bool, unless their type or options.dtype says otherwise.
template <class T>
requires std::is_arithmetic_v<T> Tensor tensor(T value, ValueOptions options = {}, Where where = Where::current()) {
  return detail::from_values(&value, dtype_of<T>, options.dtype.value_or(detail::dtype_of_literal<T>()), {}, options,
                             where);
}
template <class T>
Tensor tensor(std::initializer_list<T> values, ValueOptions options = {}, Where where = Where::current()) {
  return detail::from_list<T>(values, options, where);
}
template <class T>
Tensor tensor(std::initializer_list<std::initializer_list<T>> rows, ValueOptions options = {},
              Where where = Where::current()) {
  return detail::from_list<T>(rows, options, where);
}
template <class T>
Tensor tensor(std::initializer_list<std::initializer_list<std::initializer_list<T>>> planes, ValueOptions options = {},
              Where where = Where::current()) {
  return detail::from_list<T>(planes, options, where);
}
template <class T>
Tensor tensor(std::initializer_list<std::initializer_list<std::initializer_list<std::initializer_list<T>>>> images,
              ValueOptions options = {}, Where where = Where::current()) {
  return detail::from_list<T>(images, options, where);
}
/// A vector's elements, in its type as they are.
template <class T>
Tensor tensor(const std::vector<T>& values, ValueOptions options = {}, Where where = Where::current()) {
  return detail::from_values(values.data(), dtype_of<T>, options.dtype.value_or(dtype_of<T>),
                             Shape{static_cast<int64_t>(values.size())}, options, where);
}

}  // namespace tandem
