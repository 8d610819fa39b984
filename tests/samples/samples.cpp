// What the families' samples share.
#include "samples/samples.h"

#include <cstdlib>

namespace tandem::samples {

namespace {
// The fractional parts of multiples of the golden ratio are spread evenly and never equal.
double fraction(int64_t i, int salt) {
  const double x = 0.6180339887498949 * static_cast<double>(i + 1) + 0.3819660112501051 * 0.7548776662466927 * salt;
  return x - std::floor(x);
}
}  // namespace

Generator spread(double low, double high, int salt) {
  return [=](int64_t i) { return low + (high - low) * fraction(i, salt); };
}
Generator away_from_zero(double low, double high, int salt) {
  return [=](int64_t i) {
    const double x = 2 * fraction(i, salt) - 1;
    return x < 0 ? -low + (high - low) * x : low + (high - low) * x;
  };
}
Generator integers(int64_t low, int64_t high, int salt) {
  return [=](int64_t i) {
    return static_cast<double>(low) + std::floor(static_cast<double>(high - low) * fraction(i, salt));
  };
}
Generator repeat(std::vector<double> values) {
  return [values = std::move(values)](int64_t i) { return values[static_cast<size_t>(i) % values.size()]; };
}

Device test_device() {
  const char* text = std::getenv("TANDEM_TEST_DEVICE");
  return text ? parse_device(text) : cpu();
}

Samples all_samples() {
  Samples samples;
#define TANDEM_FAMILY(family) add_##family##_samples(samples);
#include "core/families.def"
#undef TANDEM_FAMILY
  return samples;
}

Shape unravel(int64_t position, const Shape& shape) {
  Shape index = shape;
  for (int d = shape.size() - 1; d >= 0; --d) {
    index[d] = position % shape[d];
    position /= shape[d];
  }
  return index;
}

int64_t ravel(const Shape& index, const Shape& shape) {
  int64_t position = 0;
  for (int d = 0; d < shape.size(); ++d) position = position * shape[d] + index[d];
  return position;
}

int64_t broadcast_position(int64_t position, const Shape& to, const Shape& from) {
  const Shape index = unravel(position, to);
  Shape own = from;
  for (int d = 0; d < from.size(); ++d) own[d] = from[d] == 1 ? 0 : index[d + to.size() - from.size()];
  return ravel(own, from);
}

Shape broadcast_shapes(const Shape& a, const Shape& b) {
  const Shape &longer = a.size() < b.size() ? b : a, &other = a.size() < b.size() ? a : b;
  Shape result = longer;
  for (int d = 0; d < other.size(); ++d) {
    int64_t& extent = result[d + longer.size() - other.size()];
    if (extent == 1) extent = other[d];
  }
  return result;
}

Call call_op(const char* name, Attributes attributes) {
  return [name, attributes = std::move(attributes)](const Tensors& x) {
    return dispatch_all(find_op(name), x, attributes, Where::current());
  };
}

}  // namespace tandem::samples
