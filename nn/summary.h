// summary: a model's layers, the shapes of their outputs, and how many parameters they have, as a table.
#pragma once

#include <functional>
#include <iosfwd>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "reflect.h"

namespace tandem::nn {

struct SummaryRow {
  std::string name;             ///< "hidden"; empty for the model itself
  std::string type;             ///< "Linear"
  std::optional<Shape> output;  ///< of the last op that read a parameter of the layer, where one did
  int64_t parameters = 0;       ///< elements; tied ones count where they stand first
};

/// Prints with <<.
struct Summary {
  std::vector<SummaryRow> rows;  ///< layers without layers of their own, and those with parameters of their own
  int64_t parameters = 0;        ///< elements that are trained
  int64_t buffers = 0;           ///< elements that aren't: running statistics, frozen weights
  int64_t bytes = 0;             ///< of both
};
std::ostream& operator<<(std::ostream& out, const Summary& summary);

namespace detail {

Summary summarise(const Visitor& visitor, const std::function<void()>& call);
/// An operand that has a shape and a dtype and no values.
Tensor without_values(const Shape& shape, DType dtype);
inline Tensor as_input(const Tensor& x) { return x; }
inline Tensor as_input(const Shape& shape) { return without_values(shape, DType::float32); }

}  // namespace detail

/// What calling model(inputs...) makes of inputs, each an example tensor or the Shape of a float32 one. Only shapes are
/// computed, so it costs nothing, however large the model. Without inputs, the outputs' shapes are left out.
///
///   std::cout << nn::summary(model, {64, 1, 28, 28});
template <class Model, class... Inputs>
requires(std::is_convertible_v<const Inputs&, Tensor> || ...) || (std::is_same_v<Inputs, Shape> || ...) ||
    (sizeof...(Inputs) == 0) Summary summary(Model& model, const Inputs&... inputs) {
  const Visitor visitor = detail::visited(model, Visitor::Names::kept);
  if constexpr (sizeof...(Inputs) == 0) return detail::summarise(visitor, {});
  else return detail::summarise(visitor, [&] { (void)model(detail::as_input(inputs)...); });
}
template <class Model> Summary summary(Model& model, const Shape& input) {
  return detail::summarise(detail::visited(model, Visitor::Names::kept), [&] { (void)model(detail::as_input(input)); });
}

}  // namespace tandem::nn
