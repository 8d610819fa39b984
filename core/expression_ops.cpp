// An expression as a composition of ops: slow, but on any device that these have kernels for.
#include "core/autocast.h"
#include "core/custom_op.h"
#include "core/dispatch.h"
#include "core/ops/ops.h"

namespace tandem {

namespace {

struct Composer {
  const UserOp& op;
  KernelContext& context;
  DType type;

  Tensor value(int n) const {
    const Expression::Node& node = op.expression->nodes()[static_cast<size_t>(n)];
    const auto operand = [&](int i) { return value(node.operand[i]); };
    const auto truth = [&](const Tensor& condition) { return to(condition, type); };
    using Kind = Expression::Kind;
    switch (node.kind) {
      case Kind::number: return number(node.number);
      case Kind::name: {
        const auto i = static_cast<size_t>(node.index);
        return i < op.inputs.size() ? context.inputs[i].detach()
                                    : number(context.attributes.number(op.attributes[i - op.inputs.size()]));
      }
      case Kind::negate: return -operand(0);
      case Kind::logical_not: return truth(operand(0) == 0);
      case Kind::choose: return where(operand(0) != 0, operand(1), operand(2));
      case Kind::call: return call(node);
      case Kind::binary: break;
    }
    const Tensor a = operand(0), b = operand(1);
    const std::string_view text = Expression::operator_text(node.index);
    if (text == "+") return a + b;
    if (text == "-") return a - b;
    if (text == "*") return a * b;
    if (text == "/") return a / b;
    if (text == "==") return truth(a == b);
    if (text == "!=") return truth(a != b);
    if (text == "<=") return truth(a <= b);
    if (text == ">=") return truth(a >= b);
    if (text == "<") return truth(a < b);
    if (text == ">") return truth(a > b);
    return text == "&&" ? truth(where(a != 0, b != 0, a != 0)) : truth(where(a != 0, a != 0, b != 0));
  }

  Tensor number(double value) const { return Arg(value).scalar(type); }

  Tensor call(const Expression::Node& node) const {
    const char* name = Expression::function_name(node.index);
    const Op* function = op_table().find(name);
    if (!function || !function->is_pointwise())
      context.fail<KernelError>("its function ", name, " is no op yet, so there is no kernel for ",
                                context.outputs[0].device(),
                                "; call it inside a compiled function, or move the operands to cpu()");
    const Tensor a = value(node.operand[0]), b = node.operand[1] >= 0 ? value(node.operand[1]) : Tensor();
    const Arg x(a, context.where), y(b, context.where);
    const Arg* operands[] = {&x, &y};
    return to(dispatch_pointwise(*function, {operands, b.defined() ? 2u : 1u}), type);
  }
};

}  // namespace

void composed_expression_kernel(KernelContext& context) {
  const NoGrad no_grad;
  const AutocastOff autocast_off;
  const InterceptorScope eager(nullptr);
  if (context.out().shape.numel() == 0) return;
  const Composer composer{*context.op.user, context, context.out().dtype};
  const Tensor result = composer.value(static_cast<int>(context.op.user->expression->nodes().size()) - 1);
  const Tensor whole = expand({result, context.where}, context.out().shape);
  static const Op& copy = find_op("copy");
  run_kernel(copy, {&whole, 1}, {}, context.outputs, context.where);
}

}  // namespace tandem
