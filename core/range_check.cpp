// Checks of ranges.
#include "core/range_check.h"

#include "core/dispatch.h"

namespace tandem {

std::string RangeCheck::text(int64_t value, const std::optional<Shape>& position) const {
  if (lengths)
    return detail::str(what, " ", value, " of sequence ", position ? (*position)[0] : 0, " is not within 0 to ", bound);
  std::string at;
  if (position) at = classes ? detail::str(" at row ", (*position)[0]) : detail::str(" at ", *position);
  return detail::str(what, " ", value, at, " is out of range for ", bound, classes ? " classes" : "", " (0 to ",
                     bound - 1, ")",
                     classes && !ignored ? "; .ignore_index leaves out rows with a label of your choice" : "");
}

void ValueCheck::fail(int64_t value, int64_t place) const {
  if (range.interval) fail();
  Shape position = shape;
  for (int d = shape.size() - 1; d >= 0; --d) position[d] = place % shape[d], place /= shape[d];
  if (range.lengths) throw ValueError(op + ": " + range.text(value, position), where);
  throw DimensionError(op + ": " + range.text(value, position), where);
}

void ValueCheck::fail() const {
  if (range.interval) throw ValueError(op + ": " + range.what, where);
  throw DimensionError(
      detail::str(op, ": ", range.what, " out of range for ", range.bound, " (0 to ", range.bound - 1, ")"), where);
}

Op range_checked_op() {
  using enum AttributeType;
  return {.name = "range_checked",
          .kind = OpKind::view,
          .attributes = {{"op", text},
                         {"what", text},
                         {"bound", integer},
                         {"classes", flag},
                         optional_attribute("ignored", integer),
                         optional_attribute("low", number),
                         optional_attribute("high", number)},
          .infer =
              [](Infer& infer) {
                const bool interval = infer.attributes.find("low") != nullptr;
                if (interval) infer.check_floating(0);
                infer.check<ValueError>(interval == (infer.attributes.find("high") != nullptr),
                                        "attributes low and high come together");
                infer.check<DTypeError>(interval || infer.input(0).dtype() == int64, "positions must be int64, got ",
                                        infer.input(0).dtype());
                infer.integer("bound", 0);
                infer.view(infer.input(0).shape(), infer.input(0).strides());
              },
          .checks_range = true};
}

Tensor range_checked(const char* name, const Tensor& values, const RangeCheck& check) {
  static const Op& op = find_op("range_checked");
  Attributes attributes{
      {"op", std::string(name)}, {"what", check.what}, {"bound", check.bound}, {"classes", check.classes}};
  if (check.ignored) attributes.set({"ignored", *check.ignored});
  if (check.interval) attributes.set({"low", check.interval->low}), attributes.set({"high", check.interval->high});
  return dispatch(op, {values}, attributes, Where::current());
}

RangeCheck range_check_of(const Attributes& attributes) {
  RangeCheck check{
      .what = attributes.text("what"), .bound = attributes.integer("bound"), .classes = attributes.flag("classes")};
  if (attributes.find("ignored")) check.ignored = attributes.integer("ignored");
  if (attributes.find("low")) check.interval = {attributes.number("low"), attributes.number("high")};
  return check;
}

}  // namespace tandem
