// Pointwise ops: promotion, broadcasting, and the gradient of each. The expressions themselves
// are in core/pointwise.def. Gradients of broadcast or promoted operands are summed and cast by
// the autograd engine, so rules here are the plain scalar derivatives.
#include <cmath>

#include "tandem/core/dispatch.h"
#include "tandem/core/ops.h"

namespace tandem {

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
        throw DTypeError(detail::str(op.name, ": not defined for bool; use logical ops or where, or cast with to(int64)"),
                         user_line(where));
      break;
    case Domain::integral:
      if (is_floating(type))
        throw DTypeError(detail::str(op.name, ": needs integers or bool, got ", type), user_line(where));
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

/// Same layout as the operands that have the full shape, if they agree; else row-major.
void infer_pointwise(Infer& op) {
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
    if (input.shape() != shape || input.impl()->is_scalar) continue;
    if (!strides) strides = &input.strides();
    else if (*strides != input.strides()) return void(op.output(shape, type));
  }
  if (strides && is_dense(shape, *strides)) op.output(shape, *strides, type);
  else op.output(shape, type);
}

// ---- Gradients.

constexpr double kTwoOverSqrtPi = 1.1283791670955126;
constexpr double kInvSqrtTwoPi = 0.3989422804014327;

void define_gradients(OpTable& table) {
  const auto gradient = [&](const char* name, uint32_t saved, GradFn rule) {
    Op& op = table.at(name);
    op.grad = rule;
    op.saved = saved;
  };
  using Context = const OpContext&;
  gradient("neg", kSaveNothing, [](Context op) { return Tensors{-op.grad_output()}; });
  gradient("abs", in(0), [](Context op) { return Tensors{op.grad_output() * sign(op.input(0))}; });
  gradient("sign", kSaveNothing, [](Context op) { return Tensors{zeros_like(op.grad_output())}; });
  gradient("square", in(0), [](Context op) { return Tensors{op.grad_output() * (op.input(0) * 2)}; });
  gradient("exp", out(0), [](Context op) { return Tensors{op.grad_output() * op.output()}; });
  gradient("log", in(0), [](Context op) { return Tensors{op.grad_output() / op.input(0)}; });
  gradient("sqrt", out(0), [](Context op) { return Tensors{op.grad_output() / (op.output() * 2)}; });
  gradient("rsqrt", out(0), [](Context op) {
    const Tensor y = op.output();
    return Tensors{op.grad_output() * (y * y * y) * -0.5};
  });
  gradient("sin", in(0), [](Context op) { return Tensors{op.grad_output() * cos(op.input(0))}; });
  gradient("cos", in(0), [](Context op) { return Tensors{-(op.grad_output() * sin(op.input(0)))}; });
  gradient("tanh", out(0), [](Context op) { return Tensors{tanh_grad(op.grad_output(), op.output())}; });
  gradient("tanh_grad", in(0) | in(1), [](Context op) {  // g (1 - y^2)
    const Tensor gg = op.grad_output(), g = op.input(0), y = op.input(1);
    return Tensors{tanh_grad(gg, y), gg * g * y * -2};
  });
  gradient("sigmoid", out(0), [](Context op) { return Tensors{sigmoid_grad(op.grad_output(), op.output())}; });
  gradient("sigmoid_grad", in(0) | in(1), [](Context op) {  // g y (1 - y)
    const Tensor gg = op.grad_output(), g = op.input(0), y = op.input(1);
    return Tensors{sigmoid_grad(gg, y), gg * g * (1 - 2 * y)};
  });
  gradient("erf", in(0), [](Context op) {
    return Tensors{op.grad_output() * exp(-square(op.input(0))) * kTwoOverSqrtPi};
  });
  gradient("relu", out(0), [](Context op) { return Tensors{relu_grad(op.grad_output(), op.output())}; });
  gradient("relu_grad", in(1), [](Context op) {
    return Tensors{relu_grad(op.grad_output(), op.input(1)), Tensor()};
  });
  gradient("gelu", in(0), [](Context op) { return Tensors{gelu_grad(op.grad_output(), op.input(0))}; });
  gradient("gelu_grad", in(0) | in(1), [](Context op) {  // g (Phi(x) + x phi(x)); phi'(x) = -x phi(x)
    const Tensor gg = op.grad_output(), g = op.input(0), x = op.input(1);
    const Tensor xx = square(x);
    return Tensors{gelu_grad(gg, x), gg * g * (2 - xx) * exp(xx * -0.5) * kInvSqrtTwoPi};
  });
  gradient("add", kSaveNothing, [](Context op) { return Tensors{op.grad_output(), op.grad_output()}; });
  gradient("sub", kSaveNothing, [](Context op) {
    return Tensors{op.grad_output(), op.needs_grad(1) ? -op.grad_output() : Tensor()};
  });
  gradient("mul", in(0) | in(1), [](Context op) {
    const Tensor g = op.grad_output();
    return Tensors{op.needs_grad(0) ? g * op.input(1) : Tensor(), op.needs_grad(1) ? g * op.input(0) : Tensor()};
  });
  gradient("div", in(1) | out(0), [](Context op) {
    const Tensor g = op.grad_output() / op.input(1);
    return Tensors{g, op.needs_grad(1) ? -(g * op.output()) : Tensor()};
  });
  gradient("pow", in(0) | in(1) | out(0), [](Context op) {
    const Tensor g = op.grad_output(), x = op.input(0), y = op.input(1);
    return Tensors{op.needs_grad(0) ? where(y == 0, 0, g * y * pow(x, y - 1)) : Tensor(),
                   op.needs_grad(1) ? where(x == 0, 0, g * op.output() * log(x)) : Tensor()};
  });
  // Where operands are equal each gets half, as in PyTorch.
  gradient("maximum", in(0) | in(1), [](Context op) {
    const Tensor g = op.grad_output(), x = op.input(0), y = op.input(1);
    const Tensor tie = where(x == y, g * 0.5, 0);
    return Tensors{where(x > y, g, tie), where(y > x, g, tie)};
  });
  gradient("minimum", in(0) | in(1), [](Context op) {
    const Tensor g = op.grad_output(), x = op.input(0), y = op.input(1);
    const Tensor tie = where(x == y, g * 0.5, 0);
    return Tensors{where(x < y, g, tie), where(y < x, g, tie)};
  });
  gradient("where", in(0), [](Context op) {
    const Tensor g = op.grad_output(), condition = op.input(0);
    return Tensors{Tensor(), op.needs_grad(1) ? where(condition, g, 0) : Tensor(),
                   op.needs_grad(2) ? where(condition, 0, g) : Tensor()};
  });
}

template <size_t kMost> Tensor promoted(const Op& op, std::span<const Arg* const> operands, const Attributes& attributes) {
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
      throw DTypeError(detail::str(op.name, ": the condition must be bool, got ", tensor.dtype(), "; compare it with 0"),
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

}  // namespace

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
    return table.add(op);
  };
#define TANDEM_UNARY(name, domain, ...) define(#name, 1, Domain::domain, #__VA_ARGS__);
#define TANDEM_BINARY(name, domain, ...) define(#name, 2, Domain::domain, #__VA_ARGS__);
#define TANDEM_COMPARE(name, domain, ...) define(#name, 2, Domain::domain, #__VA_ARGS__).pointwise.returns_bool = true;
#define TANDEM_TERNARY(name, domain, ...) define(#name, 3, Domain::domain, #__VA_ARGS__);
#define TANDEM_SELECT(name, domain, ...) define(#name, 3, Domain::domain, #__VA_ARGS__).pointwise.selects = true;
#include "tandem/core/pointwise.def"
#undef TANDEM_UNARY
#undef TANDEM_BINARY
#undef TANDEM_COMPARE
#undef TANDEM_TERNARY
#undef TANDEM_SELECT
  define_gradients(table);
  // Those that leave the range or the precision of 16 bits soonest.
  for (const char* name : {"exp", "log", "pow", "rsqrt"}) table.at(name).autocast = AutocastRule::widen;
}

// The public functions, one for each line of pointwise.def.
#define TANDEM_CALL(name, ...)                          \
  static const Op& op = find_op(#name);                 \
  const Arg* operands[] = {__VA_ARGS__};                \
  return dispatch_pointwise(op, operands);
#define TANDEM_UNARY(name, ...) \
  Tensor name(const Arg& x) { TANDEM_CALL(name, &x) }
#define TANDEM_BINARY(name, ...) \
  Tensor name(const Arg& x, const Arg& y) { TANDEM_CALL(name, &x, &y) }
#define TANDEM_COMPARE TANDEM_BINARY
#define TANDEM_TERNARY(name, ...) \
  Tensor name(const Arg& x, const Arg& y, const Arg& z) { TANDEM_CALL(name, &x, &y, &z) }
#define TANDEM_SELECT(name, ...) \
  Tensor name(const Arg& condition, const Arg& y, const Arg& z) { TANDEM_CALL(name, &condition, &y, &z) }
#include "tandem/core/pointwise.def"

}  // namespace tandem
