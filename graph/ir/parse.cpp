// Reads the text form of a graph back.
#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>
#include <set>

#include "graph/ir/region.h"

namespace tandem {

namespace {

constexpr int kMostArguments = 1 << 20, kDeepest = 32;

class Parser {
 public:
  Parser(const std::string& text, Where where) : text_(text), where_(where) {}
  /// Of a region within another graph's text, from `at` on.
  Parser(const Parser& outer, size_t at) : text_(outer.text_), where_(outer.where_), at_(at), depth_(outer.depth_ + 1) {
    if (depth_ > kDeepest) fail(detail::str("regions within regions, more than ", kDeepest, " deep"));
  }

  Graph run() {
    Graph graph = region();
    space();
    if (at_ < text_.size()) fail("there is more after the graph's end");
    return graph;
  }

 private:
  Graph region() {
    expect("graph");
    expect("{");
    while (!accept("}")) {
      if (accept("assign")) parse_assign();
      else if (accept("gradient")) parse_gradient();
      else if (accept("draws")) graph_.draws = integer_of(0, std::numeric_limits<int64_t>::max(), "draws");
      else if (accept("return")) parse_return();
      else parse_definition();
    }
    return std::move(graph_);
  }
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
  /// What the engine says against something is said of the text.
  template <class F> auto checked(F&& f) const {
    try {
      return f();
    } catch (const Error& error) { fail(error.message()); }
  }
  template <class T> T read(const char* what, const char* too_large) {
    space();
    T value = 0;
    const char* const begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
    if (error == std::errc::result_out_of_range) fail(too_large);
    if (error != std::errc()) fail(detail::str("expected ", what));
    at_ += static_cast<size_t>(end - begin);
    return value;
  }
  int64_t integer() { return read<int64_t>("an integer", "an integer that 64 bits don't hold"); }
  double number() { return read<double>("a number", "a number that a double doesn't hold"); }
  int64_t integer_of(int64_t least, int64_t most, const std::string& what) {
    const int64_t value = integer();
    if (value < least || value > most) fail(detail::str(what, " is ", value, ", need ", least, " to ", most));
    return value;
  }
  /// The place of an argument.
  int position() { return static_cast<int>(integer_of(0, kMostArguments - 1, "an argument's position")); }
  Shape shape() {
    Shape result;
    expect("[");
    if (accept("]")) return result;
    do {
      if (result.size() == kMaxRank) fail(detail::str("more than ", kMaxRank, " dims"));
      result.push_back(integer());
    } while (accept(","));
    expect("]");
    return result;
  }
  DType dtype() {
    const std::string name = word();
    return checked([&] { return parse_dtype(name); });
  }
  int value() {
    if (accept("none")) return -1;
    expect("%");
    const int64_t name = integer();
    const auto found = names_.find(name);
    if (found == names_.end()) fail("%" + std::to_string(name) + " is not defined");
    return found->second;
  }
  /// A name that nothing has yet.
  int64_t new_name() {
    expect("%");
    const int64_t name = integer_of(0, std::numeric_limits<int64_t>::max(), "a value's number");
    if (!taken_.insert(name).second) fail(detail::str("%", name, " is defined twice"));
    return name;
  }
  int defined_value() {
    const int result = value();
    if (result < 0) fail("none is no value here");
    return result;
  }
  void check_strides(const ValueType& type) {
    if (type.strides.size() != type.shape.size())
      fail(detail::str("strides ", type.strides, " for ", type.shape.size(), " dims"));
    int64_t last = 0, step = 0;
    for (int i = 0; i < type.shape.size(); ++i)
      if (type.strides[i] < 0 ||
          __builtin_mul_overflow(type.strides[i], std::max<int64_t>(type.shape[i] - 1, 0), &step) ||
          __builtin_add_overflow(last, step, &last) || last > std::numeric_limits<int64_t>::max() / 8 - 1)
        fail(detail::str("strides ", type.strides, " lead out of memory"));
  }
  static bool same_layout(const ValueType& a, const ValueType& b) {
    for (int i = 0; i < a.shape.size(); ++i)
      if (a.shape[i] > 1 && a.strides[i] != b.strides[i] && !a.shape.contains(0)) return false;
    return true;
  }
  ValueType type() {
    ValueType result;
    result.dtype = dtype();
    result.shape = shape();
    checked([&] { check_extents(result.shape); });
    result.strides = accept("strides") ? shape() : contiguous_strides(result.shape);
    check_strides(result);
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
    uint32_t line = 0;
    if (colon == std::string::npos ||
        std::from_chars(comment.data() + colon + 1, comment.data() + comment.size(), line).ec != std::errc())
      return {};
    return Where::current(graph::intern(comment.substr(0, colon)), line);
  }
  AttributeValue attribute_value(AttributeType type) {
    switch (type) {
      case AttributeType::number: return number();
      case AttributeType::ints: return shape();
      case AttributeType::dtype: return dtype();
      case AttributeType::text: return quoted();
      case AttributeType::region: {
        Parser inner(*this, at_);
        Graph graph = inner.region();
        at_ = inner.at_;
        return std::make_shared<const graph::GraphRegion>(std::move(graph));
      }
      default: return integer();
    }
  }
  std::string quoted() {
    expect("\"");
    std::string result;
    for (; at_ < text_.size() && text_[at_] != '"'; ++at_) {
      const bool escaped = text_[at_] == '\\' && ++at_ < text_.size();
      if (at_ < text_.size()) result += escaped && text_[at_] == 'n' ? '\n' : text_[at_];
    }
    if (at_ == text_.size()) fail("unterminated string");
    ++at_;
    return result;
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
      const int64_t name = new_name();
      expect(":");
      results.emplace_back(name, type());
    } while (accept(","));
    expect("=");
    for (const LeafKind kind :
         {LeafKind::argument, LeafKind::state, LeafKind::gradient, LeafKind::constant, LeafKind::scalar})
      if (accept(std::string(name_of(kind)))) {
        if (results.size() != 1) fail(detail::str(name_of(kind), " gives 1 value, not ", results.size()));
        return parse_leaf(kind, results[0].first, results[0].second);
      }
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
    if (op->outputs != kVariadic && static_cast<size_t>(op->outputs) != results.size())
      fail(detail::str(name, " gives ", op->outputs, " values, not ", results.size()));
    const Node& node = graph_.node(add_node(*op, std::move(inputs), std::move(given)));
    if (node.outputs.size() != results.size())
      fail(detail::str(name, " gives ", node.outputs.size(), " values, not ", results.size()));
    for (size_t i = 0; i < results.size(); ++i) {
      Value& made = graph_.values[static_cast<size_t>(node.outputs[i])];
      if (made.type.shape != results[i].second.shape || made.type.dtype != results[i].second.dtype)
        fail(detail::str("the type of %", results[i].first, " is ", made.type));
      // The kernels of pointwise ops write any dense layout, and passes choose one.
      const ValueType& said = results[i].second;
      if (op->is_pointwise() && is_dense(said.shape, said.strides)) made.type.strides = said.strides;
      if (!same_layout(made.type, results[i].second) || made.type.device != results[i].second.device)
        fail(detail::str("%", results[i].first, " lies as ", made.type, ", not as ", results[i].second));
      names_[results[i].first] = node.outputs[i];
    }
  }

  int add_node(const Op& op, std::vector<int> inputs, Attributes attributes) {
    const Where where = line_comment();
    return checked([&] { return graph_.add_node(op, std::move(inputs), std::move(attributes), where); });
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
    if (kind == LeafKind::argument) {
      leaf.argument = position();
      if (!arguments_.insert(leaf.argument).second) fail(detail::str("argument ", leaf.argument, " is defined twice"));
      leaf.dynamic = accept("number");
      const bool is_key = type.dtype == DType::int64 && type.shape == Shape{2};  // of random draws
      if (leaf.dynamic && !type.shape.empty() && !is_key) fail(detail::str("a number of shape ", type.shape));
    }
    if (kind == LeafKind::scalar) {
      if (!type.shape.empty()) fail(detail::str("a scalar of shape ", type.shape));
      if (accept("run-time")) leaf.run_time = true;
      else leaf.number = number();
      if (!is_floating(type.dtype)) check_integer(leaf.number, type.dtype);
    }
    if (kind == LeafKind::constant && accept("{")) {
      if (!is_contiguous(type.shape, type.strides)) fail("a constant with elements has no strides");
      if (!type.device.is_cpu()) fail(detail::str("a constant with elements lies on the CPU, not on ", type.device));
      leaf.tensor = is_floating(type.dtype) ? elements<double>(type, [this] { return number(); }).to(type.dtype)
                                            : elements<int64_t>(type, [&] {
                                                const int64_t element = integer();
                                                check_integer(static_cast<double>(element), type.dtype);
                                                return element;
                                              }).to(type.dtype);
    }
    leaf.where = line_comment();
    names_[name] = graph_.add_leaf(std::move(leaf), type);
  }

  void check_integer(double number, DType dtype) {
    const bool is_signed = dtype != uint8 && dtype != bool_;
    const int bits = dtype == bool_ ? 1 : 8 * static_cast<int>(size_of(dtype)) - (is_signed ? 1 : 0);
    const double least = is_signed ? -std::ldexp(1, bits) : 0;
    const double most = std::ldexp(1, bits) - (dtype == int64 ? 0 : 1);
    if (!(number >= least && number <= most)) fail(detail::str(number, " is no ", dtype));
  }

  void parse_assign() {
    const int target = value();
    expect("=");
    const int leaf = target < 0 ? -1 : graph_.leaf_of(target), assigned = value();
    const auto written = [&](LeafKind kind) { return graph_.leaves[static_cast<size_t>(leaf)].kind == kind; };
    if (leaf < 0 || (!written(LeafKind::state) && !written(LeafKind::argument) && !written(LeafKind::gradient)))
      fail("only state, arguments and gradients can be assigned to");
    if (assigned < 0) fail("the assigned value is none");
    const ValueType &state = graph_.type(target), &value = graph_.type(assigned);
    if (state.shape != value.shape || state.dtype != value.dtype || state.device != value.device)
      fail(detail::str("a state ", state, " is assigned ", value));
    if (!assigned_.insert(leaf).second) fail("this state is assigned twice");
    graph_.writes.push_back({leaf, assigned, {}});
  }
  void parse_gradient() {
    GradientWrite write;
    if (accept("argument")) write.argument = position();
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
  int depth_ = 0;
  Graph graph_;
  std::map<int64_t, int> names_;
  std::set<int64_t> taken_;  // names, from where they are written on
  std::set<int> arguments_, assigned_;
};

}  // namespace

Graph parse_graph(const std::string& text, Where where) { return Parser(text, where).run(); }

}  // namespace tandem
