// Typed reading of attributes.
#include "core/attributes.h"

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

}  // namespace tandem
