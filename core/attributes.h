// Named constants of an op call: dims, strides, probabilities.
#pragma once

#include <bit>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "dtype.h"
#include "shape.h"

namespace tandem {

/// A function of tensors that an op is given: a branch, the body of a loop (graph/ir/region.h).
class Region {
 public:
  virtual ~Region() = default;
  virtual std::string to_string() const = 0;
  virtual bool equals(const Region& other) const = 0;
};
using RegionPtr = std::shared_ptr<const Region>;

/// Value of an attribute. bool is held as int64.
using AttributeValue = std::variant<int64_t, double, Shape, DType, std::string, RegionPtr>;

struct Attribute {
  const char* name;  ///< static storage (a literal, or interned)
  AttributeValue value;
  Attribute(const char* name, int64_t v) : name(name), value(v) {}
  Attribute(const char* name, int v) : name(name), value(static_cast<int64_t>(v)) {}
  Attribute(const char* name, bool v) : name(name), value(static_cast<int64_t>(v)) {}
  Attribute(const char* name, double v) : name(name), value(v) {}
  Attribute(const char* name, const Shape& v) : name(name), value(v) {}
  Attribute(const char* name, DType v) : name(name), value(v) {}
  Attribute(const char* name, std::string v) : name(name), value(std::move(v)) {}
  Attribute(const char* name, RegionPtr v) : name(name), value(std::move(v)) {}
  Attribute(const char* name, AttributeValue v) : name(name), value(std::move(v)) {}
  /// Numbers are compared by their bits: -0 is another number than 0, and a NaN is itself.
  bool operator==(const Attribute& other) const {
    if (std::string_view(name) != other.name) return false;
    const RegionPtr *f = std::get_if<RegionPtr>(&value), *g = std::get_if<RegionPtr>(&other.value);
    if (f && g) return (*f)->equals(**g);
    const double *x = std::get_if<double>(&value), *y = std::get_if<double>(&other.value);
    return x && y ? std::bit_cast<uint64_t>(*x) == std::bit_cast<uint64_t>(*y) : value == other.value;
  }
};

class Attributes {
 public:
  Attributes() = default;
  Attributes(std::initializer_list<Attribute> values) : values_(values) {}

  const AttributeValue* find(std::string_view name) const {
    for (const Attribute& attribute : values_)
      if (name == attribute.name) return &attribute.value;
    return nullptr;
  }
  // Typed access; a missing name or another type is an engine bug (asserts).
  int64_t integer(std::string_view name) const;
  double number(std::string_view name) const;  ///< also reads an integer
  const Shape& integers(std::string_view name) const;
  DType dtype(std::string_view name) const;
  const std::string& text(std::string_view name) const;
  const RegionPtr& region(std::string_view name) const;
  bool flag(std::string_view name) const { return integer(name) != 0; }

  void set(Attribute attribute);
  bool empty() const { return values_.empty(); }
  auto begin() const { return values_.begin(); }
  auto end() const { return values_.end(); }
  bool operator==(const Attributes&) const = default;

 private:
  std::vector<Attribute> values_;
};

/// The same as text, numbers as short as reads back exactly.
std::string to_string(const AttributeValue& value);

enum class AttributeType : uint8_t { integer, flag, number, ints, dtype, text, region };
std::string_view name_of(AttributeType type);

/// What an op's definition says of one of its attributes.
struct AttributeSpec {
  const char* name;  ///< static storage
  AttributeType type;
  std::optional<AttributeValue> otherwise = {};  ///< what it is in a call that doesn't give it
  bool may_lack = false;                         ///< without `otherwise`: a call may do without it
};
inline AttributeSpec optional_attribute(const char* name, AttributeType type) { return {name, type, {}, true}; }
using AttributeSchema = std::vector<AttributeSpec>;
/// "stride: ints = [1, 1], groups: integer", for errors and docs/ops.md.
std::string to_string(const AttributeSchema& schema);

/// Puts attributes in the order of the schema, with what it says of those that are missing, and integers as numbers where
/// it has numbers. If one is unknown, missing or of another type they stay as they are, and the result says what is wrong.
[[nodiscard]] std::string fit(const AttributeSchema& schema, Attributes& attributes);
/// Those that the schema has.
Attributes select(const AttributeSchema& schema, const Attributes& attributes);

}  // namespace tandem
