// Reads the text form of a graph back.
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <map>
#include <sstream>

#include "graph/ir/graph.h"

namespace tandem {

namespace {

class Parser {
 public:
  Parser(const std::string& text, Where where) : text_(text), where_(where) {}

  Graph run() {
    expect("graph");
    expect("{");
    while (!accept("}")) {
      if (accept("assign")) parse_assign();
      else if (accept("gradient")) parse_gradient();
      else if (accept("draws")) graph_.draws = integer();
      else if (accept("return")) parse_return();
      else parse_definition();
    }
    return std::move(graph_);
  }

 private:
  [[noreturn]] void fail(const std::string& why) const {
    const auto line = 1 + std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(at_), '\n');
    const size_t begin = at_ == 0 ? 0 : text_.rfind('\n', at_ - 1) + 1, end = text_.find('\n', at_);
    throw GraphError(detail::str("parse_graph: line ", line, ": ", why, ", in: ", text_.substr(begin, end - begin)),
                     where_);
  }
  void space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  bool accept(const std::string& token) {
    space();
    if (text_.compare(at_, token.size(), token) != 0) return false;
    const char next = at_ + token.size() < text_.size() ? text_[at_ + token.size()] : ' ';
    if (std::isalpha(static_cast<unsigned char>(token.back())) &&
        (std::isalnum(static_cast<unsigned char>(next)) || next == '_'))
      return false;
    at_ += token.size();
    return true;
  }
  void expect(const std::string& token) {
    if (!accept(token)) fail("expected \"" + token + "\"");
  }
  std::string word() {
    space();
    const size_t begin = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) || text_[at_] == '_')) ++at_;
    if (begin == at_) fail("expected a name");
    return text_.substr(begin, at_ - begin);
  }
  int64_t integer() {
    space();
    char* end = nullptr;
    const int64_t value = std::strtoll(text_.c_str() + at_, &end, 10);
    if (end == text_.c_str() + at_) fail("expected an integer");
    at_ = static_cast<size_t>(end - text_.c_str());
    return value;
  }
  double number() {
    space();
    char* end = nullptr;
    const double value = std::strtod(text_.c_str() + at_, &end);
    if (end == text_.c_str() + at_) fail("expected a number");
    at_ = static_cast<size_t>(end - text_.c_str());
    return value;
  }
  Shape shape() {
    Shape result;
    expect("[");
    if (accept("]")) return result;
    do result.push_back(integer());
    while (accept(","));
    expect("]");
    return result;
  }
  DType dtype() {
    const std::string name = word();
    try {
      return parse_dtype(name);
    } catch (const ValueError& error) { fail(error.message()); }
  }
  int value() {
    if (accept("none")) return -1;
    expect("%");
    const int64_t name = integer();
    const auto found = names_.find(name);
    if (found == names_.end()) fail("%" + std::to_string(name) + " is not defined");
    return found->second;
  }
  int defined_value() {
    const int result = value();
    if (result < 0) fail("none is no value here");
    return result;
  }
  ValueType type() {
    ValueType result;
    result.dtype = dtype();
    result.shape = shape();
    for (int64_t extent : result.shape)
      if (extent < 0) fail(detail::str("negative extent in ", result.shape));
    result.strides = accept("strides") ? shape() : contiguous_strides(result.shape);
    if (accept("on")) {
      std::string device = word();
      if (accept(":")) device += ":" + std::to_string(integer());
      const std::optional<Device> read = read_device(device);
      if (!read) fail("no device is called " + device);
      result.device = *read;
    }
    return result;
  }
  Where line_comment() {
    size_t i = at_;
    while (i < text_.size() && text_[i] == ' ') ++i;
    if (i >= text_.size() || text_[i] != '#') return {};
    const size_t end = std::min(text_.find('\n', i), text_.size());
    const std::string comment = end > i + 2 ? text_.substr(i + 2, end - i - 2) : std::string();
    at_ = end;
    const size_t colon = comment.rfind(':');
    if (colon == std::string::npos) return {};
    return Where::current(graph::intern(comment.substr(0, colon)),
                          static_cast<uint32_t>(std::atoi(comment.c_str() + colon + 1)));
  }
  AttributeValue attribute_value(AttributeType type) {
    switch (type) {
      case AttributeType::number: return number();
      case AttributeType::ints: return shape();
      case AttributeType::dtype: return dtype();
      case AttributeType::text: return quoted();
      default: return integer();
    }
  }
  std::string quoted() {
    expect("\"");
    const size_t begin = at_, end = text_.find('"', at_);
    if (end == std::string::npos) fail("unterminated string");
    at_ = end + 1;
    return text_.substr(begin, end - begin);
  }
  Attributes attributes(const Op& op) {
    Attributes result;
    if (accept("{")) {
      do {
        const std::string name = word();
        expect("=");
        const auto spec = std::find_if(op.attributes.begin(), op.attributes.end(),
                                       [&](const AttributeSpec& each) { return name == each.name; });
        if (spec == op.attributes.end())
          fail(detail::str(op.name, " has no attribute ", name, "; it has ",
                           op.attributes.empty() ? "none" : to_string(op.attributes)));
        result.set({spec->name, attribute_value(spec->type)});
      } while (accept(","));
      if (!accept("}"))
        fail(detail::str("expected \"}\" after the attributes of ", op.name, ": ", to_string(op.attributes)));
    }
    if (const std::string problem = fit(op.attributes, result); !problem.empty())
      fail(detail::str(op.name, ": ", problem));
    return result;
  }

  void parse_definition() {
    std::vector<std::pair<int64_t, ValueType>> results;
    do {
      expect("%");
      const int64_t name = integer();
      expect(":");
      results.emplace_back(name, type());
    } while (accept(","));
    expect("=");
    for (const LeafKind kind :
         {LeafKind::argument, LeafKind::state, LeafKind::gradient, LeafKind::constant, LeafKind::scalar})
      if (accept(std::string(name_of(kind)))) return parse_leaf(kind, results[0].first, results[0].second);
    const std::string name = word();
    const Op* op = op_table().find(name);
    if (!op) fail("no op is called " + name);
    expect("(");
    std::vector<int> inputs;
    if (!accept(")")) {
      do inputs.push_back(defined_value());
      while (accept(","));
      expect(")");
    }
    if (op->inputs != kVariadic && static_cast<size_t>(op->inputs) != inputs.size())
      fail(detail::str(name, " takes ", op->inputs, " operands, not ", inputs.size()));
    Attributes given = attributes(*op);
    if (static_cast<size_t>(op->outputs) != results.size())
      fail(detail::str(name, " gives ", op->outputs, " values, not ", results.size()));
    const Node& node =
        graph_.nodes[static_cast<size_t>(graph_.add_node(*op, std::move(inputs), std::move(given), line_comment()))];
    for (size_t i = 0; i < results.size(); ++i) {
      Value& made = graph_.values[static_cast<size_t>(node.outputs[i])];
      if (made.type.shape != results[i].second.shape || made.type.dtype != results[i].second.dtype)
        fail(detail::str("the type of %", results[i].first, " is ", made.type));
      made.type = results[i].second;
      names_[results[i].first] = node.outputs[i];
    }
  }

  /// The elements of a constant, up to the closing brace.
  template <class T, class Next> Tensor elements(const ValueType& type, Next&& next) {
    std::vector<T> data;
    if (!accept("}")) {
      do data.push_back(next());
      while (accept(","));
      expect("}");
    }
    if (static_cast<int64_t>(data.size()) != type.shape.numel())
      fail(detail::str("a constant ", type.shape, " needs ", type.shape.numel(), " numbers, got ", data.size()));
    Tensor result = Tensor::adopt(TensorImpl::create());
    result.impl()->dtype = dtype_of<T>;
    result.impl()->set_contiguous_layout(type.shape);
    result.impl()->allocate();
    std::copy(data.begin(), data.end(), static_cast<T*>(result.impl()->data));
    return result;
  }

  void parse_leaf(LeafKind kind, int64_t name, const ValueType& type) {
    Leaf leaf{.kind = kind};
    if (kind == LeafKind::argument) leaf.argument = static_cast<int>(integer());
    if (kind == LeafKind::scalar) {
      if (accept("run-time")) leaf.run_time = true;
      else leaf.number = number();
    }
    if (kind == LeafKind::constant && accept("{")) {
      leaf.tensor = type.dtype == int64 ? elements<int64_t>(type, [this] { return integer(); })
                                        : elements<double>(type, [this] { return number(); }).to(type.dtype);
    }
    leaf.where = line_comment();
    names_[name] = graph_.add_leaf(std::move(leaf), type);
  }

  void parse_assign() {
    const int target = value();
    expect("=");
    const int leaf = target < 0 ? -1 : graph_.leaf_of(target), assigned = value();
    if (leaf < 0 || graph_.leaves[static_cast<size_t>(leaf)].kind != LeafKind::state)
      fail("only state can be assigned to");
    if (assigned < 0) fail("the assigned value is none");
    graph_.writes.push_back({leaf, assigned, {}});
  }
  void parse_gradient() {
    GradientWrite write;
    if (accept("argument")) write.argument = static_cast<int>(integer());
    else {
      expect("state");
      integer();
    }
    expect("=");
    write.value = value();
    graph_.gradients.push_back(write);
  }
  void parse_return() {
    space();
    if (at_ >= text_.size() || (text_[at_] != '%' && text_.compare(at_, 4, "none") != 0)) return;
    do graph_.outputs.push_back(defined_value());
    while (accept(","));
  }

  const std::string& text_;
  Where where_;
  size_t at_ = 0;
  Graph graph_;
  std::map<int64_t, int> names_;
};

}  // namespace

Graph parse_graph(const std::string& text, Where where) { return Parser(text, where).run(); }

}  // namespace tandem
