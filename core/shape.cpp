// Shapes and strides.
#include "core/shape.h"

#include <algorithm>
#include <array>
#include <ostream>
#include <utility>

#include "core/dispatch.h"

namespace tandem {

namespace {

[[noreturn]] void too_long(int64_t rank, Where where) {
  throw ShapeError(detail::str("a tensor has at most ", kMaxRank, " dimensions; got ", rank), user_line(where));
}

std::string named(std::string_view op, const std::string& message) {
  return op.empty() ? message : detail::str(op, ": ", message);
}

/// What Shape's own methods and check_extents say of a shape.
std::string too_many(const Shape& shape) {
  return detail::str("a shape of ", shape, " has more elements than a tensor may have, which are 2^60 - 1");
}

/// Whether all extents can be one tensor's.
bool fits(const Shape& shape) {
  int64_t numel = 1, signs = 0;
  bool overflows = false;
  for (const int64_t extent : shape) {
    signs |= extent;
    overflows |= __builtin_mul_overflow(numel, std::max<int64_t>(extent, 1), &numel);
  }
  return signs >= 0 && !overflows && numel <= kMaxNumel;
}

}  // namespace

Shape::Shape(std::span<const int64_t> values, Where where) {
  if (values.size() > kMaxRank) too_long(static_cast<int64_t>(values.size()), where);
  size_ = static_cast<uint8_t>(values.size());
  std::copy(values.begin(), values.end(), values_);
}

void Shape::push_back(int64_t value, Where where) {
  if (size_ == kMaxRank) too_long(size_ + 1, where);
  values_[size_++] = value;
}

void Shape::insert(int at, int64_t value, Where where) {
  if (at != size_) check({at, where});
  push_back(value, where);
  std::rotate(values_ + at, values_ + size_ - 1, values_ + size_);
}

void Shape::erase(int at, Where where) {
  check({at, where});
  std::copy(values_ + at + 1, values_ + size_, values_ + at);
  --size_;
}

void Shape::resize(int size, int64_t fill, Where where) {
  if (size < 0 || size > kMaxRank) too_long(size, where);
  for (int i = size_; i < size; ++i) values_[i] = fill;
  size_ = static_cast<uint8_t>(size);
}

void Shape::out_of_range(const Index& i) const {
  throw DimensionError(detail::str("there is no position ", i.value, " in ", *this,
                                   empty() ? std::string(", which is empty")
                                           : detail::str(", only 0 to ", size_ - 1, "; size(-1) counts from the end")),
                       user_line(i.where));
}

void Shape::too_many_elements(Where where) const { throw ShapeError(too_many(*this), user_line(where)); }

void check_extents(const Shape& shape, std::string_view op, Where where) {
  if (fits(shape)) [[likely]]
    return;
  for (const int64_t extent : shape)
    if (extent < 0) throw ShapeError(named(op, detail::str("negative extent in shape ", shape)), user_line(where));
  throw ShapeError(named(op, too_many(shape)), user_line(where));
}

void detail::size_overflows(int64_t a, const char* sign, int64_t b, std::string_view op, Where where) {
  throw ShapeError(named(op, str("a size of ", a, " ", sign, " ", b, " is more than an int64 holds")),
                   user_line(where));
}

std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  out << '[';
  for (int i = 0; i < shape.size(); ++i) out << (i ? ", " : "") << shape[i];
  return out << ']';
}

std::string to_string(const Shape& shape) {
  detail::TextStream out;
  out << shape;
  return out.str();
}

Shape contiguous_strides(const Shape& shape) {
  Shape strides = shape;
  const int64_t* const extents = shape.begin();
  int64_t* const to = strides.begin();
  int64_t stride = 1, signs = 0;
  bool overflows = false;
  for (int i = shape.size() - 1; i >= 0; --i) {
    to[i] = stride;
    signs |= extents[i];
    overflows |= __builtin_mul_overflow(stride, std::max<int64_t>(extents[i], 1), &stride);
  }
  if (signs < 0 || overflows || stride > kMaxNumel) [[unlikely]]
    check_extents(shape);  // finds the same, and says it
  return strides;
}

Shape channels_last_strides(const Shape& shape) {
  check_extents(shape);
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
  for (int i = 1; i < count; ++i)
    for (int j = i; j > 0 && dims[j] < dims[j - 1]; --j) std::swap(dims[j], dims[j - 1]);
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
