// Tensors from values, counts and memory.
#pragma once

#include <concepts>
#include <initializer_list>
#include <optional>
#include <type_traits>
#include <vector>

#include "../dispatch.h"
#include "../tensor.h"

namespace tandem {

// Creation.
Tensor empty(const Shape& shape, TensorOptions options = {}, Where where = Where::current());
Tensor zeros(const Shape& shape, TensorOptions options = {}, Where where = Where::current());
Tensor ones(const Shape& shape, TensorOptions options = {}, Where where = Where::current());
Tensor full(const Shape& shape, double value, TensorOptions options = {}, Where where = Where::current());
Tensor zeros_like(const Tensor& like, Where where = Where::current());
Tensor ones_like(const Tensor& like, Where where = Where::current());
Tensor full_like(const Tensor& like, double value, Where where = Where::current());
Tensor empty_like(const Tensor& like, Where where = Where::current());
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

/// From C++ values: tensor(3.f), tensor({1.f, 2.f}), tensor({{1, 2}, {3, 4}}), tensor(vector).
/// The dtype is that of T; options.dtype is not looked at.
template <class T>
requires std::is_arithmetic_v<T> Tensor tensor(T value, TensorOptions options = {}, Where where = Where::current()) {
  return from_host(&value, dtype_of<T>, {}, options, where);
}
template <class T>
Tensor tensor(const std::vector<T>& values, TensorOptions options = {}, Where where = Where::current()) {
  return from_host(values.data(), dtype_of<T>, Shape{static_cast<int64_t>(values.size())}, options, where);
}
template <class T>
Tensor tensor(std::initializer_list<T> values, TensorOptions options = {}, Where where = Where::current()) {
  return from_host(values.begin(), dtype_of<T>, Shape{static_cast<int64_t>(values.size())}, options, where);
}
template <class T>
Tensor tensor(std::initializer_list<std::initializer_list<T>> rows, TensorOptions options = {},
              Where where = Where::current()) {
  std::vector<T> values;
  const size_t width = rows.size() ? rows.begin()->size() : 0;
  for (const auto& row : rows) {
    if (row.size() != width)
      throw ShapeError(detail::str("tensor: rows of different lengths: ", width, " and ", row.size()), where);
    values.insert(values.end(), row.begin(), row.end());
  }
  return from_host(values.data(), dtype_of<T>, Shape{static_cast<int64_t>(rows.size()), static_cast<int64_t>(width)},
                   options, where);
}

}  // namespace tandem
