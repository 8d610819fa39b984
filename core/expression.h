// Scalar expressions of the user's: read, checked, spelled in C, or evaluated as they are.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "error.h"

namespace tandem {

/// An expression over named numbers, as C writes them: + - * / and unary -, comparisons, && || !, c ? a : b, parentheses,
/// numbers, and the functions of core/scalar/math.h by their plain names: exp, log1p, tanh, maximum(a, b), …
/// Comparisons and logic give 1 or 0.
class Expression {
 public:
  enum class Kind : unsigned char { number, name, call, negate, logical_not, binary, choose };
  struct Node {
    Kind kind = Kind::number;
    double number = 0;
    int index = 0;  ///< of the name, function or operator
    int operand[3] = {-1, -1, -1};
  };

  /// `op` is named in errors. ValueError with the text and a mark below the place that is wrong.
  Expression(std::string_view op, std::string text, const std::vector<std::string>& names, Where where);

  const std::string& text() const { return text_; }
  /// In C, C++ and CUDA, for any floating type T, over parameter_name(0), … in the order of the names.
  std::string c_text() const;
  /// Its value in double arithmetic.
  double evaluate(std::span<const double> values) const;
  /// What it is made of: operands before their users, the whole last.
  const std::vector<Node>& nodes() const { return nodes_; }
  static const char* function_name(int index);
  static const char* operator_text(int index);

 private:
  double value_of(int node, std::span<const double> values) const;
  std::string spell(int node) const;

  std::string text_;
  std::vector<Node> nodes_;  ///< operands before their users; the last is the whole
};

/// What parameter i of a pointwise expression is called in sources: x, y, z, x3, x4, …
std::string parameter_name(size_t i);

}  // namespace tandem
