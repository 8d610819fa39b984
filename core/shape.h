// Shapes, strides and lists of dimensions: up to eight integers, held inline.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <span>
#include <string>
#include <vector>

#include "error.h"

namespace tandem {

inline constexpr int kMaxRank = 8;

/// A short list of integers: a shape, strides, or dims. More than eight is a ShapeError.
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
  int64_t operator[](int i) const { return values_[i]; }
  int64_t& operator[](int i) { return values_[i]; }
  int64_t back() const { return values_[size_ - 1]; }
  const int64_t* begin() const { return values_; }
  const int64_t* end() const { return values_ + size_; }
  int64_t* begin() { return values_; }
  int64_t* end() { return values_ + size_; }
  void push_back(int64_t value);
  void insert(int at, int64_t value);
  void erase(int at);
  void resize(int size, int64_t fill = 0);
  bool contains(int64_t value) const { return std::find(begin(), end(), value) != end(); }

  /// Product of the extents; 1 for a 0-d shape.
  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < size_; ++i) n *= values_[i];
    return n;
  }
  bool operator==(const Shape& other) const {
    return size_ == other.size_ && std::equal(begin(), end(), other.begin());
  }

 private:
  uint8_t size_ = 0;
  int64_t values_[kMaxRank];
};

std::string to_string(const Shape& shape);  ///< "[64, 784]"
std::ostream& operator<<(std::ostream& out, const Shape& shape);

/// Strides, in elements, of a row-major tensor.
Shape contiguous_strides(const Shape& shape);
/// Strides of a [batch, channels, …] tensor (height and width, mostly) held as batch, …, channels.
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

}  // namespace tandem
