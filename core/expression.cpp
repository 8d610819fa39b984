// Reading, spelling and evaluating expressions: a recursive-descent parser over the characters.
#include "core/expression.h"

#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "core/dtype.h"
#include "core/scalar/math.h"

namespace tandem {

namespace {

using Node = Expression::Node;
using Kind = Expression::Kind;

/// A function of math.h: its td_ name without the prefix, and the same for doubles.
struct Function {
  const char* name;
  int operands;
  double (*value)(double, double);
};
#define TANDEM_ONE(name)                                                         \
  {                                                                              \
#name, 1, [](double a, double) { return static_cast<double>(td_##name(a)); } \
  }
#define TANDEM_TWO(name)                                                              \
  {                                                                                   \
#name, 2, [](double a, double b) { return static_cast<double>(td_##name(a, b)); } \
  }
constexpr Function kFunctions[] = {
    TANDEM_ONE(abs),     TANDEM_ONE(sign),     TANDEM_ONE(square),    TANDEM_ONE(exp),   TANDEM_ONE(expm1),
    TANDEM_ONE(log),     TANDEM_ONE(log1p),    TANDEM_ONE(log2),      TANDEM_ONE(sqrt),  TANDEM_ONE(rsqrt),
    TANDEM_ONE(sin),     TANDEM_ONE(cos),      TANDEM_ONE(tan),       TANDEM_ONE(asin),  TANDEM_ONE(acos),
    TANDEM_ONE(atan),    TANDEM_ONE(sinh),     TANDEM_ONE(cosh),      TANDEM_ONE(tanh),  TANDEM_ONE(sigmoid),
    TANDEM_ONE(erf),     TANDEM_ONE(relu),     TANDEM_ONE(gelu),      TANDEM_ONE(silu),  TANDEM_ONE(softplus),
    TANDEM_ONE(floor),   TANDEM_ONE(ceil),     TANDEM_ONE(round),     TANDEM_ONE(trunc), TANDEM_ONE(isnan),
    TANDEM_ONE(isinf),   TANDEM_ONE(isfinite), TANDEM_TWO(atan2),     TANDEM_TWO(hypot), TANDEM_TWO(maximum),
    TANDEM_TWO(minimum), TANDEM_TWO(pow),      TANDEM_TWO(remainder),
};
#undef TANDEM_ONE
#undef TANDEM_TWO

/// Operators of two operands, those that bind loosest first.
struct Operator {
  const char* text;
  int level;
};
constexpr Operator kOperators[] = {{"||", 0}, {"&&", 1}, {"==", 2}, {"!=", 2}, {"<=", 3}, {">=", 3},
                                   {"<", 3},  {">", 3},  {"+", 4},  {"-", 4},  {"*", 5},  {"/", 5}};
constexpr int kTightest = 5;
constexpr int kDeepest = 200;  ///< parentheses in parentheses
constexpr size_t kMostNodes = 2000;

class Parser {
 public:
  Parser(std::string_view op, const std::string& text, const std::vector<std::string>& names, Where where)
      : op_(op), text_(text), names_(names), where_(where) {}

  std::vector<Node> run() {
    choice();
    space();
    if (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '^' || text_.compare(at_, 2, "**") == 0) fail("powers are written pow(a, b)");
      if (c == '%') fail("remainders are written remainder(a, b)");
      if (c == ')') fail("no parenthesis is open here");
      fail("expected an operator or the end");
    }
    return std::move(nodes_);
  }

 private:
  [[noreturn]] void fail(const std::string& why) const { fail(why, at_); }
  [[noreturn]] void fail(const std::string& why, size_t at) const {
    std::string line = text_;
    for (char& c : line)
      if (c == '\n' || c == '\t') c = ' ';
    throw ValueError(detail::str("pointwise_op ", op_, ": ", why, ":\n    ", line, "\n    ", std::string(at, ' '), "^"),
                     where_);
  }
  void space() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
  }
  bool accept(const char* token) {
    space();
    const size_t length = std::string_view(token).size();
    if (text_.compare(at_, length, token) != 0) return false;
    at_ += length;
    return true;
  }
  void expect(const char* token) {
    if (!accept(token)) fail(detail::str("expected ", token));
  }
  int add(Node node) {
    if (nodes_.size() >= kMostNodes) fail(detail::str("more than ", kMostNodes, " operations"));
    nodes_.push_back(node);
    return static_cast<int>(nodes_.size()) - 1;
  }

  struct Depth {
    explicit Depth(Parser& parser) : parser(parser) {
      if (++parser.depth_ > kDeepest) parser.fail("nested too deep");
    }
    ~Depth() { --parser.depth_; }
    Parser& parser;
  };

  int choice() {
    const Depth depth(*this);
    const int condition = binary(0);
    if (!accept("?")) return condition;
    const int yes = choice();
    expect(":");
    const int no = choice();
    return add({.kind = Kind::choose, .operand = {condition, yes, no}});
  }

  int binary(int level) {
    if (level > kTightest) return unary();
    int left = binary(level + 1);
    for (;;) {
      int found = -1;
      for (int i = 0; i < static_cast<int>(std::size(kOperators)) && found < 0; ++i)
        if (kOperators[i].level == level && (space(), text_.compare(at_, 2, "**") != 0) && accept(kOperators[i].text))
          found = i;
      if (found < 0) return left;
      const int right = binary(level + 1);
      left = add({.kind = Kind::binary, .index = found, .operand = {left, right, -1}});
    }
  }

  int unary() {
    const Depth depth(*this);
    if (accept("-")) return add({.kind = Kind::negate, .operand = {unary(), -1, -1}});
    if (accept("+")) return unary();
    space();
    if (text_.compare(at_, 2, "!=") != 0 && accept("!"))
      return add({.kind = Kind::logical_not, .operand = {unary(), -1, -1}});
    return primary();
  }

  int primary() {
    space();
    if (at_ >= text_.size()) fail("expected a value, but the expression ends");
    const char c = text_[at_];
    if (accept("(")) {
      const int inside = choice();
      expect(")");
      return inside;
    }
    if (std::isdigit(static_cast<unsigned char>(c)) || c == '.') return number();
    if (std::isalpha(static_cast<unsigned char>(c)) || c == '_') return name_or_call();
    fail("expected a value");
  }

  int number() {
    const char* begin = text_.c_str() + at_;
    char* end = nullptr;
    const double value = std::strtod(begin, &end);
    if (end == begin) fail("expected a number");
    at_ += static_cast<size_t>(end - begin);
    if (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) || text_[at_] == '_'))
      fail(text_[at_] == 'f' ? "numbers have no suffix; they take the type that is computed in"
                             : "a number runs into a name; is a * missing?");
    return add({.kind = Kind::number, .number = value});
  }

  int name_or_call() {
    const size_t begin = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) || text_[at_] == '_')) ++at_;
    const std::string name = text_.substr(begin, at_ - begin);
    space();
    if (at_ < text_.size() && text_[at_] == '(') return call(name, begin);
    for (size_t i = 0; i < names_.size(); ++i)
      if (names_[i] == name) return add({.kind = Kind::name, .index = static_cast<int>(i)});
    std::string known;
    for (const std::string& each : names_) known += (known.empty() ? "" : ", ") + each;
    fail(detail::str("\"", name, "\" is neither an input nor an attribute (", known, ")"), begin);
  }

  int call(const std::string& given, size_t begin) {
    const std::string name = given.starts_with("td_") ? given.substr(3) : given;
    int function = -1;
    for (int i = 0; i < static_cast<int>(std::size(kFunctions)); ++i)
      if (name == kFunctions[i].name) function = i;
    if (function < 0) {
      std::string known;
      for (const Function& each : kFunctions) known += detail::str(known.empty() ? "" : ", ", each.name);
      fail(detail::str("no function is called \"", given, "\"; there are ", known), begin);
    }
    expect("(");
    Node node{.kind = Kind::call, .index = function};
    for (int i = 0; i < kFunctions[function].operands; ++i) {
      if (i > 0 && !accept(",")) fail(detail::str(name, " takes ", kFunctions[function].operands, " operands"));
      node.operand[i] = choice();
    }
    space();
    if (at_ < text_.size() && text_[at_] == ',')
      fail(detail::str(name, " takes ", kFunctions[function].operands,
                       kFunctions[function].operands == 1 ? " operand" : " operands"));
    expect(")");
    return add(node);
  }

  std::string_view op_;
  const std::string& text_;
  const std::vector<std::string>& names_;
  Where where_;
  size_t at_ = 0;
  int depth_ = 0;
  std::vector<Node> nodes_;
};

double combine(int op, double a, double b) {
  const std::string_view text = kOperators[op].text;
  if (text == "+") return a + b;
  if (text == "-") return a - b;
  if (text == "*") return a * b;
  if (text == "/") return a / b;
  if (text == "==") return a == b;
  if (text == "!=") return a != b;
  if (text == "<=") return a <= b;
  if (text == ">=") return a >= b;
  if (text == "<") return a < b;
  if (text == ">") return a > b;
  return text == "&&" ? a != 0 && b != 0 : a != 0 || b != 0;
}

}  // namespace

std::string parameter_name(size_t i) { return i < 3 ? std::string(1, "xyz"[i]) : "x" + std::to_string(i); }

Expression::Expression(std::string_view op, std::string text, const std::vector<std::string>& names, Where where)
    : text_(std::move(text)) {
  nodes_ = Parser(op, text_, names, where).run();
}

const char* Expression::function_name(int index) { return kFunctions[index].name; }
const char* Expression::operator_text(int index) { return kOperators[index].text; }

double Expression::evaluate(std::span<const double> values) const {
  return value_of(static_cast<int>(nodes_.size()) - 1, values);
}

double Expression::value_of(int n, std::span<const double> values) const {
  const Node& node = nodes_[static_cast<size_t>(n)];
  const auto operand = [&](int i) { return value_of(node.operand[i], values); };
  switch (node.kind) {
    case Kind::number: return node.number;
    case Kind::name: return values[static_cast<size_t>(node.index)];
    case Kind::negate: return -operand(0);
    case Kind::logical_not: return operand(0) == 0;
    case Kind::binary: return combine(node.index, operand(0), operand(1));
    case Kind::choose: return operand(0) != 0 ? operand(1) : operand(2);
    case Kind::call:
      return kFunctions[node.index].value(operand(0), kFunctions[node.index].operands > 1 ? operand(1) : 0);
  }
  return 0;
}

std::string Expression::c_text() const { return spell(static_cast<int>(nodes_.size()) - 1); }

/// Everything is of type T, so that generic functions find their form.
std::string Expression::spell(int n) const {
  const Node& node = nodes_[static_cast<size_t>(n)];
  const auto operand = [&](int i) { return spell(node.operand[i]); };
  switch (node.kind) {
    case Kind::number: {
      char text[40];
      std::snprintf(text, sizeof text, "((T)%a)", node.number);
      return std::isfinite(node.number) ? text : "((T)1e999)";
    }
    case Kind::name: return parameter_name(static_cast<size_t>(node.index));
    case Kind::negate: return "(-" + operand(0) + ")";
    case Kind::logical_not: return "((T)(" + operand(0) + " == (T)0))";
    case Kind::binary: {
      const Operator& op = kOperators[node.index];
      if (op.level >= 4) return "(" + operand(0) + " " + op.text + " " + operand(1) + ")";
      const char* test = op.level < 2 ? " != (T)0" : "";  // && and || look at truth
      return detail::str("((T)((", operand(0), test, ") ", op.text, " (", operand(1), test, ")))");
    }
    case Kind::choose: return "(" + operand(0) + " != (T)0 ? " + operand(1) + " : " + operand(2) + ")";
    case Kind::call:
      return detail::str("((T)td_", kFunctions[node.index].name, "(", operand(0),
                         kFunctions[node.index].operands > 1 ? ", " + operand(1) : "", "))");
  }
  return {};
}

}  // namespace tandem
