// Pointwise ops: promotion and broadcasting. The expressions themselves are in core/pointwise.def,
// their gradients in pointwise_grad.cpp.
#include <algorithm>
#include <cmath>
#include <vector>

#include "core/dispatch.h"
#include "core/ops/ops.h"
#include "core/scalar/math.h"

namespace tandem {

void define_pointwise_gradients(OpTable& table);  // pointwise_grad.cpp

namespace {

// ---- Promotion.

int category(DType type) { return is_floating(type) ? 2 : type == bool_ ? 0 : 1; }

/// PyTorch's rule: tensors with dims decide; 0-d tensors and numbers only raise the category.
struct Promotion {
  bool present[3] = {};
  DType type[3] = {};
  void add(int priority, DType t) {
    type[priority] = present[priority] ? promote(type[priority], t) : t;
    present[priority] = true;
  }
  DType result() const {
    DType best = bool_;
    bool any = false;
    for (int p = 0; p < 3; ++p) {
      if (!present[p]) continue;
      if (!any || category(type[p]) > category(best)) best = type[p];
      any = true;
    }
    return best;
  }
};

DType in_domain(const Op& op, DType type, Where where) {
  switch (op.pointwise.domain) {
    case Domain::any: break;
    case Domain::floating: return is_floating(type) ? type : float32;
    case Domain::numeric:
      if (type == bool_)
        throw DTypeError(
            detail::str(op.name, ": not defined for bool; use logical ops or where, or cast with to(int64)"),
            user_line(where));
      break;
    case Domain::integral:
      if (is_floating(type))
        throw DTypeError(detail::str(op.name, ": needs integers or bool, got ", type), user_line(where));
      break;
    case Domain::whole:
      if (is_floating(type) || type == bool_)
        throw DTypeError(detail::str(op.name, ": needs integers, got ", type, "; cast with to(int64)"),
                         user_line(where));
      break;
  }
  return type;
}

/// Handles that neither retain nor release: operands live in the caller's frame.
template <size_t kMost> struct Borrowed {
  Tensor items[kMost];
  ~Borrowed() {
    for (Tensor& item : items) item.leak();
  }
};

// ---- Shapes.

Shape broadcast(const Infer& op) {
  Shape result;
  for (const Tensor& input : op.inputs) {
    const Shape& shape = input.shape();
    while (result.size() < shape.size()) result.insert(0, 1);
    const int shift = result.size() - shape.size();
    for (int i = 0; i < shape.size(); ++i) {
      int64_t& extent = result[i + shift];
      if (extent == shape[i] || shape[i] == 1) continue;
      if (extent != 1) {
        std::string shapes;
        for (const Tensor& each : op.inputs) shapes += (shapes.empty() ? "" : " and ") + to_string(each.shape());
        op.fail<ShapeError>("shapes don't broadcast: ", shapes, " (", extent, " and ", shape[i], " at dim ",
                            i + shift - result.size(), "); extents must be equal or 1");
      }
      extent = shape[i];
    }
  }
  return result;
}

bool computes_in(Domain domain, DType type) {
  switch (domain) {
    case Domain::any: return true;
    case Domain::numeric: return type != bool_;
    case Domain::floating: return is_floating(type);
    case Domain::integral: return !is_floating(type);
    case Domain::whole: return !is_floating(type) && type != bool_;
  }
  return false;
}

/// As promoted() makes them; graph text and calls by name may give others.
void check_types(const Infer& op) {
  const Pointwise& pointwise = op.op.pointwise;
  const DType type = op.inputs.back().dtype();
  for (size_t i = 0; i + 1 < op.inputs.size(); ++i) {
    const DType needed = pointwise.selects && i == 0 ? bool_ : type;
    op.check<DTypeError>(op.inputs[i].dtype() == needed, "operand ", i, " is ", op.inputs[i].dtype(), ", need ", needed,
                         " beside ", type, "; cast one with to()");
  }
  op.check<DTypeError>(computes_in(pointwise.domain, type), "not for ", type, "; cast it with to()");
}

/// Same layout as the dense operands that have the full shape, if they agree; else row-major. Expanded ones, whose strides are 0
/// somewhere, have no layout to keep: the gradient of a mean doesn't turn a network of convolutions row-major.
void infer_pointwise(Infer& op) {
  check_types(op);
  const Tensor& first = op.input(0);
  const DType type = op.op.pointwise.returns_bool ? bool_ : op.inputs.back().dtype();
  bool same = first.is_contiguous();
  for (size_t i = 1; same && i < op.inputs.size(); ++i) {
    const TensorImpl& other = *op.inputs[i].impl();
    if (!(other.contiguous && other.shape == first.shape()) && !other.shape.empty()) same = false;
  }
  if (same && (!first.shape().empty() || op.inputs.size() == 1)) {
    op.output(first.shape(), type);
    return;
  }
  const Shape shape = broadcast(op);
  const Shape* strides = nullptr;
  for (const Tensor& input : op.inputs) {
    if (input.shape() != shape || input.impl()->is_scalar || !is_dense(shape, input.strides())) continue;
    if (!strides) strides = &input.strides();
    else if (*strides != input.strides()) return void(op.output(shape, type));
  }
  if (strides) op.output(shape, *strides, type);
  else op.output(shape, type);
}

template <size_t kMost>
Tensor promoted(const Op& op, std::span<const Arg* const> operands, const Attributes& attributes) {
  const Where where = operands[0]->where();
  const size_t first = op.pointwise.selects ? 1 : 0;
  // Fast path: tensors of one dtype that the op computes in.
  DType common = DType::float32;
  bool uniform = operands[first]->is_tensor();
  if (uniform) {
    common = operands[first]->tensor().dtype();
    for (size_t i = first + 1; i < operands.size(); ++i)
      uniform = uniform && operands[i]->is_tensor() && operands[i]->tensor().dtype() == common;
  }
  if (!uniform) {
    Promotion promotion;
    for (size_t i = first; i < operands.size(); ++i) {
      if (!operands[i]->is_tensor()) promotion.add(2, operands[i]->scalar_kind());
      else if (const Tensor& t = operands[i]->tensor(); t.impl()->is_scalar) promotion.add(2, t.dtype());
      else promotion.add(t.rank() == 0 ? 1 : 0, t.dtype());
    }
    common = promotion.result();
  }
  common = in_domain(op, common, where);

  Borrowed<kMost> borrowed;
  Tensor owned[kMost];
  for (size_t i = 0; i < operands.size(); ++i) {
    const DType wanted = i < first ? DType::bool_ : common;
    if (!operands[i]->is_tensor()) {
      owned[i] = operands[i]->scalar(wanted);
    } else if (const Tensor& tensor = operands[i]->tensor(); tensor.dtype() == wanted) {
      borrowed.items[i] = Tensor::adopt(tensor.impl());
      continue;
    } else if (i < first) {
      throw DTypeError(
          detail::str(op.name, ": the condition must be bool, got ", tensor.dtype(), "; compare it with 0"),
          user_line(where));
    } else {
      owned[i] = to({tensor, where}, wanted);
    }
    borrowed.items[i] = Tensor::adopt(owned[i].impl());
  }
  Tensor output;
  dispatch(op, {borrowed.items, operands.size()}, attributes, {&output, 1}, where);
  return output;
}

/// The functions that an expression of pointwise.def calls.
std::vector<std::string_view> calls_of(std::string_view expression) {
  std::vector<std::string_view> functions;
  for (size_t at = 0; (at = expression.find("td_", at)) != expression.npos;) {
    at += 3;
    functions.push_back(expression.substr(at, expression.find('(', at) - at));
  }
  return functions;
}

}  // namespace

Cost cost_of_calls(std::span<const std::string_view> functions) {
  // minimum stands among the heavy ones: costs decide how loops are cut into chunks, and these the order of sums.
  const auto is_light = [](std::string_view f) { return f == "abs" || f == "relu" || f == "maximum"; };
  const auto is_operator = [](std::string_view f) {
    return f == "add" || f == "subtract" || f == "multiply" || f == "negate";
  };
  if (std::all_of(functions.begin(), functions.end(), is_operator)) return Cost::arithmetic;
  return std::any_of(functions.begin(), functions.end(), is_light) ? Cost::light : Cost::heavy;
}

Tensor dispatch_pointwise(const Op& op, std::span<const Arg* const> operands) {
  static constinit const Attributes none;
  return promoted<3>(op, operands, none);
}
Tensor dispatch_pointwise(const Op& op, std::span<const Arg* const> operands, const Attributes& attributes) {
  return promoted<8>(op, operands, attributes);
}

void define_pointwise(OpTable& table) {
  int id = 0;
  const auto define = [&](const char* name, int inputs, Domain domain, const char* expression) -> Op& {
    Op op;
    op.name = name;
    op.kind = OpKind::pointwise;
    op.inputs = inputs;
    op.infer = infer_pointwise;
    op.in_place = true;
    op.pointwise = {id++, expression, domain};
    op.pointwise.cost = cost_of_calls(calls_of(expression));
    return table.add(op);
  };
#define TANDEM_UNARY(name, domain, ...) define(#name, 1, Domain::domain, #__VA_ARGS__);
#define TANDEM_TEST(name, domain, ...) define(#name, 1, Domain::domain, #__VA_ARGS__).pointwise.returns_bool = true;
#define TANDEM_BINARY(name, domain, ...) define(#name, 2, Domain::domain, #__VA_ARGS__);
#define TANDEM_COMPARE(name, domain, ...) define(#name, 2, Domain::domain, #__VA_ARGS__).pointwise.returns_bool = true;
#define TANDEM_TERNARY(name, domain, ...) define(#name, 3, Domain::domain, #__VA_ARGS__);
#define TANDEM_SELECT(name, domain, ...) define(#name, 3, Domain::domain, #__VA_ARGS__).pointwise.selects = true;
#include "core/pointwise.def"
#undef TANDEM_UNARY
#undef TANDEM_TEST
#undef TANDEM_BINARY
#undef TANDEM_COMPARE
#undef TANDEM_TERNARY
#undef TANDEM_SELECT
  define_pointwise_gradients(table);
  table.at("mul").neutral = {.left = 1, .right = 1};
  table.at("div").neutral = {.right = 1};
  table.at("sub").neutral = {.right = 0};  // not add: -0 + 0 is 0
  table.at("relu_grad").masks = true;
  // Those that leave the range or the precision of 16 bits soonest.
  for (const char* name : {"exp", "expm1", "log", "log1p", "log2", "pow", "rsqrt", "reciprocal", "tan", "asin", "acos",
                           "sinh", "cosh", "softplus", "erfinv", "lgamma", "digamma", "polygamma"})
    table.at(name).autocast = AutocastRule::widen;
}

// The public functions, one for each line of pointwise.def.
#define TANDEM_CALL(name, ...)           \
  static const Op& op = find_op(#name);  \
  const Arg* operands[] = {__VA_ARGS__}; \
  return dispatch_pointwise(op, operands);
#define TANDEM_UNARY(name, ...) \
  Tensor name(const Arg& x) { TANDEM_CALL(name, &x) }
#define TANDEM_TEST TANDEM_UNARY
#define TANDEM_BINARY(name, ...) \
  Tensor name(const Arg& x, const Arg& y) { TANDEM_CALL(name, &x, &y) }
#define TANDEM_COMPARE TANDEM_BINARY
#define TANDEM_TERNARY(name, ...) \
  Tensor name(const Arg& x, const Arg& y, const Arg& z) { TANDEM_CALL(name, &x, &y, &z) }
#define TANDEM_SELECT(name, ...) \
  Tensor name(const Arg& condition, const Arg& y, const Arg& z) { TANDEM_CALL(name, &condition, &y, &z) }
#include "core/pointwise.def"

// Forms of them with other arguments.

Tensor clamp(const Arg& x, Bounds bounds) {
  if (!bounds.min && !bounds.max)
    throw ValueError("clamp: neither min nor max is given, so nothing would be clamped", user_line(x.where()));
  // A whole number beside integers stays whole: a float would make floats of them.
  const bool integers = x.is_tensor() && !is_floating(x.tensor().dtype());
  const auto number = [&](double bound) {
    return integers && std::floor(bound) == bound && std::fabs(bound) < 0x1p62 ? Arg(static_cast<int64_t>(bound))
                                                                               : Arg(bound);
  };
  if (bounds.min && bounds.max) return clamp(x, number(*bounds.min), number(*bounds.max));
  return bounds.min ? clamp_min(x, number(*bounds.min)) : clamp_max(x, number(*bounds.max));
}
Tensor hardtanh(const Arg& x, double min, double max) {
  const auto bound = [&](double value) {  // as x's dtype has it, so that integers stay
    const bool integers = x.is_tensor() && !is_floating(x.tensor().dtype());
    return integers ? Arg(td_f64_to_i64(value)) : Arg(value);
  };
  return hardtanh(x, bound(min), bound(max));
}
Tensor relu6(const Arg& x) { return hardtanh(x, 0.0, 6.0); }
Tensor hardsigmoid(const Arg& x) { return clamp({x + 3, x.where()}, 0, 6) / 6; }
Tensor bitwise_not(const Arg& x) { return x.tensor().dtype() == bool_ ? logical_not(x) : bitwise_xor(x, -1); }
Tensor masked_fill(const Arg& x, const Arg& mask, const Arg& value) {
  const Shape &shape = x.tensor().shape(), &over = mask.tensor().shape();
  bool fits = over.size() <= shape.size();
  for (int d = 1; fits && d <= over.size(); ++d)
    fits = over[over.size() - d] == 1 || over[over.size() - d] == shape[shape.size() - d];
  if (!fits)
    throw ShapeError(detail::str("masked_fill: the mask ", over, " doesn't broadcast to x ", shape,
                                 "; expand x where it is to repeat"),
                     user_line(x.where()));
  const DType type = x.tensor().dtype();
  return where(mask, value.is_tensor() ? to(value, type) : value.scalar(type), x);
}

}  // namespace tandem
