// Shapes and strides.
#include "core/shape.h"

#include <algorithm>
#include <array>
#include <ostream>
#include <sstream>
#include <utility>

#include "core/error.h"

namespace tandem {

namespace {
[[noreturn]] void too_long(int64_t rank, Where where = Where::current()) {
  throw ShapeError(detail::str("a tensor has at most ", kMaxRank, " dimensions; got ", rank), where);
}
}  // namespace

Shape::Shape(std::span<const int64_t> values, Where where) {
  if (values.size() > kMaxRank) too_long(static_cast<int64_t>(values.size()), where);
  size_ = static_cast<uint8_t>(values.size());
  std::copy(values.begin(), values.end(), values_);
}

void Shape::push_back(int64_t value) {
  if (size_ == kMaxRank) too_long(size_ + 1);
  values_[size_++] = value;
}

void Shape::insert(int at, int64_t value) {
  push_back(value);
  std::rotate(values_ + at, values_ + size_ - 1, values_ + size_);
}

void Shape::erase(int at) {
  std::copy(values_ + at + 1, values_ + size_, values_ + at);
  --size_;
}

void Shape::resize(int size, int64_t fill) {
  if (size > kMaxRank) too_long(size);
  for (int i = size_; i < size; ++i) values_[i] = fill;
  size_ = static_cast<uint8_t>(size);
}

std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  out << '[';
  for (int i = 0; i < shape.size(); ++i) out << (i ? ", " : "") << shape[i];
  return out << ']';
}

std::string to_string(const Shape& shape) {
  std::ostringstream out;
  out << shape;
  return out.str();
}

Shape contiguous_strides(const Shape& shape) {
  Shape strides = shape;
  int64_t stride = 1;
  for (int i = shape.size() - 1; i >= 0; --i) {
    strides[i] = stride;
    stride *= std::max<int64_t>(shape[i], 1);
  }
  return strides;
}

Shape channels_last_strides(const Shape& shape) {
  Shape strides = shape;
  int64_t stride = std::max<int64_t>(shape[1], 1);
  for (int i = shape.size() - 1; i >= 2; --i) {
    strides[i] = stride;
    stride *= std::max<int64_t>(shape[i], 1);
  }
  strides[0] = stride;
  strides[1] = 1;
  return strides;
}

bool is_contiguous(const Shape& shape, const Shape& strides) {
  int64_t expected = 1;
  for (int i = shape.size() - 1; i >= 0; --i) {
    if (shape[i] == 0) return true;
    if (shape[i] != 1 && strides[i] != expected) return false;
    expected *= shape[i];
  }
  return true;
}

bool may_overlap(const Shape& shape, const Shape& strides) {
  std::array<std::pair<int64_t, int64_t>, kMaxRank> dims;  // stride and extent of those that are walked
  int count = 0;
  for (int i = 0; i < shape.size(); ++i) {
    if (shape[i] == 0) return false;
    if (shape[i] > 1) dims[count++] = {strides[i], shape[i]};
  }
  std::sort(dims.begin(), dims.begin() + count);
  int64_t span = 0;  // the greatest offset within the dims so far
  for (int i = 0; i < count; ++i) {
    if (dims[i].first <= span) return true;
    span += dims[i].first * (dims[i].second - 1);
  }
  return false;
}

bool is_dense(const Shape& shape, const Shape& strides) {
  if (is_contiguous(shape, strides)) return true;
  int order[kMaxRank];
  int rank = 0;
  for (int i = 0; i < shape.size(); ++i) {
    if (shape[i] == 1) continue;
    int at = rank++;
    for (; at > 0 && strides[order[at - 1]] > strides[i]; --at) order[at] = order[at - 1];
    order[at] = i;
  }
  int64_t expected = 1;
  for (int i = 0; i < rank; ++i) {
    if (strides[order[i]] != expected) return false;
    expected *= shape[order[i]];
  }
  return true;
}

}  // namespace tandem
