// Typed reading of attributes, and their schemas.
#include "core/attributes.h"

#include <charconv>

#include "core/error.h"

namespace tandem {

namespace {
template <class T> const T& get(const Attributes& attributes, std::string_view name) {
  const AttributeValue* value = attributes.find(name);
  TANDEM_ASSERT(value, "no attribute ", name);
  TANDEM_ASSERT(std::holds_alternative<T>(*value), "attribute ", name, " has another type");
  return std::get<T>(*value);
}
}  // namespace

int64_t Attributes::integer(std::string_view name) const { return get<int64_t>(*this, name); }
const Shape& Attributes::integers(std::string_view name) const { return get<Shape>(*this, name); }
DType Attributes::dtype(std::string_view name) const { return get<DType>(*this, name); }
const std::string& Attributes::text(std::string_view name) const { return get<std::string>(*this, name); }
const RegionPtr& Attributes::region(std::string_view name) const { return get<RegionPtr>(*this, name); }

double Attributes::number(std::string_view name) const {
  const AttributeValue* value = find(name);
  if (value && std::holds_alternative<int64_t>(*value)) return static_cast<double>(std::get<int64_t>(*value));
  return get<double>(*this, name);
}

void Attributes::set(Attribute attribute) {
  for (Attribute& existing : values_)
    if (std::string_view(existing.name) == attribute.name) {
      existing.value = std::move(attribute.value);
      return;
    }
  values_.push_back(std::move(attribute));
}

// ---- Schemas.

std::string to_string(const AttributeValue& value) {
  if (const auto* i = std::get_if<int64_t>(&value)) return std::to_string(*i);
  if (const auto* d = std::get_if<double>(&value)) {
    char buffer[40];
    const std::string text(buffer, std::to_chars(buffer, buffer + sizeof buffer, *d).ptr);
    return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
  }
  if (const auto* s = std::get_if<Shape>(&value)) return to_string(*s);
  if (const auto* t = std::get_if<DType>(&value)) return std::string(name_of(*t));
  if (const auto* r = std::get_if<RegionPtr>(&value)) return (*r)->to_string();
  std::string quoted = "\"";
  for (const char c : std::get<std::string>(value))
    quoted += c == '\n' ? std::string("\\n") : c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
  return quoted + '"';
}

std::string_view name_of(AttributeType type) {
  constexpr std::string_view names[] = {"integer", "flag", "number", "ints", "dtype", "text", "region"};
  return names[static_cast<size_t>(type)];
}

std::string to_string(const AttributeSchema& schema) {
  std::string result;
  for (const AttributeSpec& spec : schema) {
    result += detail::str(result.empty() ? "" : ", ", spec.name, ": ", name_of(spec.type));
    if (spec.otherwise) result += " = " + to_string(*spec.otherwise);
    else if (spec.may_lack) result += ", optional";
  }
  return result;
}

namespace {
/// The place of its type in AttributeValue.
size_t held_as(AttributeType type) {
  constexpr size_t places[] = {0, 0, 1, 2, 3, 4, 5};
  return places[static_cast<size_t>(type)];
}
const AttributeSpec* find(const AttributeSchema& schema, std::string_view name) {
  for (const AttributeSpec& spec : schema)
    if (name == spec.name) return &spec;
  return nullptr;
}
}  // namespace

std::string fit(const AttributeSchema& schema, Attributes& attributes) {
  const std::string has = "; it has " + (schema.empty() ? std::string("none") : to_string(schema));
  for (const Attribute& each : attributes)
    if (!find(schema, each.name)) return detail::str("has no attribute ", each.name, has);
  Attributes fitted;
  for (const AttributeSpec& spec : schema) {
    const AttributeValue* given = attributes.find(spec.name);
    if (!given && spec.otherwise) given = &*spec.otherwise;
    if (!given && spec.may_lack) continue;
    if (!given) return detail::str("attribute ", spec.name, " is missing", has);
    AttributeValue value = *given;
    if (const auto* i = std::get_if<int64_t>(&value); i && spec.type == AttributeType::number)
      value = static_cast<double>(*i);
    if (const auto* i = std::get_if<int64_t>(&value); i && spec.type == AttributeType::ints) value = Shape{*i};
    if (value.index() != held_as(spec.type))
      return detail::str("attribute ", spec.name, " is ", to_string(value), ", which is no ", name_of(spec.type), has);
    fitted.set({spec.name, std::move(value)});
  }
  attributes = std::move(fitted);
  return {};
}

Attributes select(const AttributeSchema& schema, const Attributes& attributes) {
  Attributes result;
  for (const Attribute& each : attributes)
    if (find(schema, each.name)) result.set(each);
  return result;
}

}  // namespace tandem
