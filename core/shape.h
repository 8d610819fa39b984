// Shapes, strides and lists of dimensions: up to eight integers, held inline.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "error.h"

namespace tandem {

inline constexpr int kMaxRank = 8;
/// Most elements of a tensor, extents of 0 counted as 1: so products of some of its extents, offsets of its elements and their
/// bytes, whatever the dtype, fit into an int64.
inline constexpr int64_t kMaxNumel = (int64_t{1} << 60) - 1;

/// x[i]: a position, with the line of the call.
struct Index {
  int64_t value;
  Where where;
  template <std::integral T>
  Index(T value, Where where = Where::current()) : value(static_cast<int64_t>(value)), where(where) {}
};

/// A short list of integers: a shape, strides, or dims. More than eight is a ShapeError, a position that it doesn't have a
/// DimensionError.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> values, Where where = Where::current())
      : Shape(std::span(values.begin(), values.size()), where) {}
  Shape(const std::vector<int64_t>& values, Where where = Where::current()) : Shape(std::span(values), where) {}
  explicit Shape(std::span<const int64_t> values, Where where = Where::current());
  Shape(const Shape& other) : size_(other.size_) { std::copy_n(other.values_, size_, values_); }
  Shape& operator=(const Shape& other) {
    size_ = other.size_;
    std::copy_n(other.values_, size_, values_);
    return *this;
  }
  static Shape filled(int rank, int64_t value) {
    Shape result;
    for (int i = 0; i < rank; ++i) result.push_back(value);
    return result;
  }

  int size() const { return size_; }
  bool empty() const { return size_ == 0; }
  int64_t operator[](Index i) const {
    check(i);
    return values_[i.value];
  }
  int64_t& operator[](Index i) {
    check(i);
    return values_[i.value];
  }
  int64_t back(Where where = Where::current()) const { return (*this)[{size_ - 1, where}]; }
  const int64_t* begin() const { return values_; }
  const int64_t* end() const { return values_ + size_; }
  int64_t* begin() { return values_; }
  int64_t* end() { return values_ + size_; }
  void push_back(int64_t value, Where where = Where::current());
  void insert(int at, int64_t value, Where where = Where::current());
  void erase(int at, Where where = Where::current());
  void resize(int size, int64_t fill = 0, Where where = Where::current());
  bool contains(int64_t value) const { return std::find(begin(), end(), value) != end(); }

  /// Product of the extents; 1 for a 0-d shape. ShapeError if it doesn't fit into an int64.
  int64_t numel(Where where = Where::current()) const {
    int64_t n = 1;
    for (int i = 0; i < size_; ++i)
      if (__builtin_mul_overflow(n, values_[i], &n)) [[unlikely]]
        too_many_elements(where);
    return n;
  }
  bool operator==(const Shape& other) const {
    return size_ == other.size_ && std::equal(begin(), end(), other.begin());
  }

 private:
  void check(const Index& i) const {
    if (static_cast<uint64_t>(i.value) >= size_) [[unlikely]]
      out_of_range(i);
  }
  [[noreturn]] void out_of_range(const Index& i) const;
  [[noreturn]] void too_many_elements(Where where) const;

  uint8_t size_ = 0;
  int64_t values_[kMaxRank];
};

std::string to_string(const Shape& shape);  ///< "[64, 784]"
std::ostream& operator<<(std::ostream& out, const Shape& shape);

// ---- Sizes that are computed from a user's numbers. What can't be one is a ShapeError in the name of `op`, which infer leaves
// out: Infer::run puts it there.

/// No extent may be negative, and there may be kMaxNumel elements at most.
void check_extents(const Shape& shape, std::string_view op = {}, Where where = Where::current());
namespace detail {
[[noreturn]] void size_overflows(int64_t a, const char* sign, int64_t b, std::string_view op, Where where);
}
inline int64_t checked_add(int64_t a, int64_t b, std::string_view op = {}, Where where = Where::current()) {
  int64_t result;
  if (__builtin_add_overflow(a, b, &result)) [[unlikely]]
    detail::size_overflows(a, "+", b, op, where);
  return result;
}
inline int64_t checked_mul(int64_t a, int64_t b, std::string_view op = {}, Where where = Where::current()) {
  int64_t result;
  if (__builtin_mul_overflow(a, b, &result)) [[unlikely]]
    detail::size_overflows(a, "*", b, op, where);
  return result;
}

/// Strides, in elements, of a row-major tensor. Checks the extents: so does whatever gives a tensor its layout.
Shape contiguous_strides(const Shape& shape);
/// Strides of a [batch, channels, …] tensor (height and width, mostly) held as batch, …, channels. Checks the extents.
Shape channels_last_strides(const Shape& shape);
/// True if elements lie in row-major order without gaps (dims of extent 1 don't count).
bool is_contiguous(const Shape& shape, const Shape& strides);
/// True if the strides are a permutation of row-major ones: all memory used, none twice.
bool is_dense(const Shape& shape, const Shape& strides);
/// True if two positions may lie on one another: a dim is repeated (stride 0), or strides are smaller than what the dims
/// within them span.
bool may_overlap(const Shape& shape, const Shape& strides);

/// Dimensions to reduce or permute: one integer or a list; negative ones count from the end.
class Dims : public Shape {
 public:
  Dims() = default;
  template <std::integral I> Dims(I dim) : Shape{static_cast<int64_t>(dim)} {}
  Dims(std::initializer_list<int64_t> dims, Where where = Where::current()) : Shape(dims, where) {}
  Dims(const std::vector<int64_t>& dims, Where where = Where::current()) : Shape(dims, where) {}
  Dims(const Shape& dims) : Shape(dims) {}
};

/// Height and width; one number means both.
struct Pair {
  int64_t height = 0, width = 0;
  Pair() = default;
  template <std::integral I> Pair(I both) : height(both), width(both) {}
  Pair(int64_t height, int64_t width) : height(height), width(width) {}
  operator Shape() const { return {height, width}; }
};

/// Depth, height and width; one number means all.
struct Triple {
  int64_t depth = 0, height = 0, width = 0;
  Triple() = default;
  template <std::integral I> Triple(I all) : depth(all), height(all), width(all) {}
  Triple(int64_t depth, int64_t height, int64_t width) : depth(depth), height(height), width(width) {}
  operator Shape() const { return {depth, height, width}; }
};

}  // namespace tandem
