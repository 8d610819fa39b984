// Making ops of the user's, and calling ops by their handles.
#include "core/custom_op.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <memory>

#include "core/dispatch.h"
#include "core/ops/reduce_shared.h"

namespace tandem {

namespace {

constexpr size_t kMostInputs = 8;

bool is_identifier(const std::string& text) {
  if (text.empty() || std::isdigit(static_cast<unsigned char>(text[0]))) return false;
  return std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isalnum(c) || c == '_'; });
}

void check_name(const char* function, const std::string& name, Where where) {
  if (!is_identifier(name))
    throw ValueError(detail::str(function, ": \"", name, "\" is no name for an op; use letters, digits and _"), where);
  if (const Op* taken = op_table().find(name))
    throw ValueError(
        detail::str(function, ": an op called ", name, " exists already",
                    taken->user ? "; define each op once, at namespace scope or as a static" : "; choose another name"),
        where);
}

/// Bits of saved that exist for these numbers of operands and results.
uint32_t existing(uint32_t saved, int inputs, int outputs) {
  const uint32_t operands = inputs == kVariadic || inputs >= 16 ? 0xffffu : (1u << inputs) - 1;
  return saved & (operands | ((1u << outputs) - 1) << 16);
}

void call_kernel(KernelContext& context) {
  context.op.user->kernels[static_cast<size_t>(context.outputs[0].device().kind)](context);
}
Tensors call_gradient(const OpContext& context) { return context.op().user->grad(context); }

/// The table's entry for a handle, which is a copy of it.
const Op& entry(const Op& handle) {
  return handle.user ? *handle.user->entry : handle.id >= 0 ? find_op(handle.name) : handle;
}

/// The attributes as the op's schema has them, and a reduction's dims sorted and counted from the front: equal calls have
/// equal attributes.
Attributes fitted(const Op& op, const Tensor& first, Attributes given, Where where) {
  if (const std::string problem = fit(op.attributes, given); !problem.empty())
    throw ValueError(detail::str(op.name, ": ", problem), where);
  if (op.user && op.fold) {
    const auto* dims = given.find("dims");
    given.set({"dims", normalized_dims(op.name, Arg(first, where), dims ? Dims(std::get<Shape>(*dims)) : Dims())});
  }
  return given;
}

void check_count(const Op& op, size_t operands, Where where) {
  if (op.inputs != kVariadic && static_cast<size_t>(op.inputs) != operands)
    throw ValueError(
        detail::str(op.name, ": takes ", op.inputs, op.inputs == 1 ? " operand" : " operands", ", got ", operands),
        where);
}

Tensor call(const Op& handle, std::span<const Arg* const> operands, const Attributes& given) {
  const Op& op = entry(handle);
  const Where where = user_line(operands[0]->where());
  check_count(op, operands.size(), where);
  const Attributes attributes = fitted(op, operands[0]->tensor(), given, where);
  if (op.is_pointwise() && op.pointwise.expression) return dispatch_pointwise(op, operands, attributes);
  if (op.outputs != 1)
    throw ValueError(detail::str(op.name, ": has ", op.outputs, " results; call it with Tensors{…} to get them all"),
                     where);
  std::array<Tensor, 3> tensors;
  for (size_t i = 0; i < operands.size(); ++i) tensors[i] = operands[i]->tensor();
  Tensor output;
  dispatch(op, {tensors.data(), operands.size()}, attributes, {&output, 1}, where);
  return output;
}

}  // namespace

Tensor Op::operator()(const Arg& x, const Attributes& attributes) const {
  const Arg* operands[] = {&x};
  return call(*this, operands, attributes);
}
Tensor Op::operator()(const Arg& x, const Arg& y, const Attributes& attributes) const {
  const Arg* operands[] = {&x, &y};
  return call(*this, operands, attributes);
}
Tensor Op::operator()(const Arg& x, const Arg& y, const Arg& z, const Attributes& attributes) const {
  const Arg* operands[] = {&x, &y, &z};
  return call(*this, operands, attributes);
}
Tensors Op::operator()(const Tensors& operands, const Attributes& given, Where where) const {
  where = user_line(where);
  const Op& op = entry(*this);
  check_count(op, operands.size(), where);
  const Attributes attributes = fitted(op, operands.empty() ? Tensor() : operands[0], given, where);
  if (!(op.is_pointwise() && op.pointwise.expression)) return dispatch_all(op, operands, attributes, where);
  std::vector<Arg> args;
  for (const Tensor& operand : operands) args.emplace_back(operand, where);
  std::vector<const Arg*> pointers;
  for (const Arg& arg : args) pointers.push_back(&arg);
  return {dispatch_pointwise(op, pointers, attributes)};
}

Gradient::Gradient(const Op& handle) {
  const Op* op = &entry(handle);
  rule_ = [op](const OpContext& context) {
    Tensors operands;
    const int results = context.op().outputs, inputs = context.input_count();
    for (int i = 0; i < results; ++i) operands.push_back(context.grad_output(i));
    for (int i = 0; i < inputs; ++i) operands.push_back(context.input(i));
    if (op->inputs == 2 * results + inputs)
      for (int i = 0; i < results; ++i) operands.push_back(context.output(i));
    return (*op)(operands, context.attributes(), Where());
  };
}

namespace {
Cost cost_of(const Expression& expression) {
  std::vector<std::string_view> functions;
  for (const Expression::Node& node : expression.nodes())
    if (node.kind == Expression::Kind::call) functions.push_back(Expression::function_name(node.index));
  return cost_of_calls(functions);
}

/// Into the table, from where it lives as long as the program. A definition that was refused before leaves nothing.
const Op& enter(const Op& op, std::unique_ptr<UserOp> user) {
  Op& made = op_table().add(op);
  user.release()->entry = &made;
  return made;
}
}  // namespace

Op pointwise_op(const std::string& name, const PointwiseSignature& signature, const std::string& expression,
                Gradient gradient, Where where) {
  where = user_line(where);
  check_name("pointwise_op", name, where);
  if (signature.inputs.empty() || signature.inputs.size() > kMostInputs)
    throw ValueError(
        detail::str("pointwise_op ", name, ": has ", signature.inputs.size(), " inputs, need 1 to ", kMostInputs),
        where);
  std::vector<std::string> names = signature.inputs;
  names.insert(names.end(), signature.attributes.begin(), signature.attributes.end());
  for (size_t i = 0; i < names.size(); ++i) {
    if (!is_identifier(names[i]))
      throw ValueError(detail::str("pointwise_op ", name, ": \"", names[i], "\" is no name for an input or attribute"),
                       where);
    if (std::find(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(i), names[i]) !=
        names.begin() + static_cast<std::ptrdiff_t>(i))
      throw ValueError(detail::str("pointwise_op ", name, ": two inputs or attributes are called ", names[i]), where);
  }
  auto user = std::make_unique<UserOp>();
  user->name = name;
  user->inputs = signature.inputs;
  user->attributes = signature.attributes;
  user->expression.emplace(name, expression, names, where);
  user->c_text = user->expression->c_text();
  user->grad = gradient.rule();
  Op op;
  op.name = user->name.c_str();
  op.kind = OpKind::pointwise;
  op.inputs = static_cast<int>(signature.inputs.size());
  for (const std::string& attribute : user->attributes)
    op.attributes.push_back({attribute.c_str(), AttributeType::number});
  op.infer = find_op("exp").infer;  // that of every pointwise op
  op.pointwise.expression = user->c_text.c_str();
  op.pointwise.domain = Domain::floating;
  op.pointwise.cost = cost_of(*user->expression);
  op.in_place = true;
  op.user = user.get();
  op.kernels = {expression_kernel, composed_expression_kernel};
  if (user->grad) {
    op.grad = call_gradient;
    op.saved = existing(signature.saved, op.inputs, 1);
  }
  return enter(op, std::move(user));
}

Op custom_op(const std::string& name, CustomOp definition, Where where) {
  where = user_line(where);
  check_name("custom_op", name, where);
  if (!definition.infer && !definition.fold)
    throw ValueError(
        detail::str("custom_op ", name,
                    ": needs .infer, which gives the results' shapes: [](td::Infer& op) { op.output(op.input(0)); }"),
        where);
  if (!definition.grad)
    throw ValueError(detail::str("custom_op ", name, ": needs .grad: a rule, another op, or td::not_differentiable"),
                     where);
  if (definition.outputs < 1 || definition.outputs > kMaxOutputs)
    throw ValueError(detail::str("custom_op ", name, ": has ", definition.outputs, " outputs, need 1 to ", kMaxOutputs),
                     where);
  auto user = std::make_unique<UserOp>();
  user->name = name;
  user->infer = std::move(definition.infer);
  user->kernels = {std::move(definition.cpu), std::move(definition.cuda)};
  user->grad = definition.grad->rule();
  Op op;
  op.name = user->name.c_str();
  op.kind = definition.has_effect ? OpKind::effect : OpKind::opaque;
  op.inputs = definition.inputs;
  op.outputs = definition.outputs;
  op.attributes = std::move(definition.attributes);
  op.contiguous_inputs = definition.contiguous_inputs;
  op.user = user.get();
  op.infer = [](Infer& infer) {
    infer.op.user->infer(infer);
    infer.check<ValueError>(infer.output_count() == infer.op.outputs, "its infer made ", infer.output_count(),
                            " outputs, but the op has ", infer.op.outputs, "; call output(…) once for each");
  };
  for (size_t kind = 0; kind < kDeviceKinds; ++kind)
    if (user->kernels[kind]) op.kernels[kind] = call_kernel;
  if (definition.fold) {
    constexpr const char* folds[] = {"sum", "prod", "max", "min"};
    const Op& like = find_op(folds[static_cast<int>(*definition.fold)]);
    op.kind = OpKind::reduce;
    op.attributes = {optional_attribute("dims", AttributeType::ints), {"keepdim", AttributeType::flag, false}};
    op.fold = like.fold;
    op.keeps_values = like.keeps_values;
    op.inputs = op.outputs = 1;
    if (!user->infer) op.infer = like.infer;
    if (!user->kernels[0]) op.contiguous_inputs = like.contiguous_inputs;
    for (size_t kind = 0; kind < kDeviceKinds; ++kind)
      if (!user->kernels[kind]) op.kernels[kind] = like.kernels[kind];
  }
  if (user->grad) {
    op.grad = call_gradient;
    op.saved = existing(definition.saved, op.inputs, op.outputs);
  }
  return enter(op, std::move(user));
}

// ---- Expressions as machine code.

ExpressionCompiler& expression_compiler() {
  static constinit ExpressionCompiler instance;
  return instance;
}

ExpressionLoop UserOp::loop(DType dtype, Where where) const {
  const size_t type = static_cast<size_t>(dtype);
  if (ExpressionLoop known = loops_[type].load(std::memory_order_acquire)) return known;
  const std::lock_guard lock(mutex_);
  if (!tried_[type] && expression_compiler().compile) {
    tried_[type] = true;
    loops_[type].store(expression_compiler().compile(c_text, inputs.size(), attributes.size(), dtype, where),
                       std::memory_order_release);
  }
  return loops_[type].load(std::memory_order_acquire);
}

}  // namespace tandem
