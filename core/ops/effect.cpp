// print and assert_that, which run in their order with the device's other ops.
#include "core/ops/effect.h"

#include "core/dispatch.h"
#include "core/ops/composed.h"

namespace tandem {

namespace {

/// The result says nothing (it is true): a node has one.
void infer_effect(Infer& op) { op.output(Shape{}, bool_); }

void infer_assert(Infer& op) {
  op.check<DTypeError>(op.input(0).dtype() == bool_, "the condition must be bool, got ", op.input(0).dtype());
  infer_effect(op);
}

}  // namespace

void define_effect(OpTable& table) {
  using enum AttributeType;
  table.add({.name = "print",
             .kind = OpKind::effect,
             .attributes = {{"label", text}},
             .infer = infer_effect,
             .transfers = true});
  table.add({.name = "assert_that", .kind = OpKind::effect, .attributes = {{"message", text}}, .infer = infer_assert});
}

void print(const Tensor& x, const std::string& label, Where where) {
  const CallScope scope("print", where);
  const NoGrad no_grad;
  dispatch(find_op("print"), {x}, {{"label", label}}, where);
}

void assert_that(const Tensor& condition, const std::string& message, Where where) {
  const CallScope scope("assert_that", where);
  const NoGrad no_grad;
  dispatch(find_op("assert_that"), {all(condition)}, {{"message", message}}, where);
}

}  // namespace tandem
