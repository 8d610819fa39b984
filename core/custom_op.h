// Ops of the user's own. They enter the op table, so they work in every mode, in graph text and under autograd.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "expression.h"
#include "op.h"

namespace tandem {

struct NotDifferentiable {};
/// The gradient of an op that has none: its results require no gradient.
inline constexpr NotDifferentiable not_differentiable;

/// How an op is differentiated: a rule, another op, or not at all.
class Gradient {
 public:
  Gradient(NotDifferentiable) {}
  /// One gradient for each operand (undefined: none), written with public functions, so that it can be differentiated again.
  template <class F>
  requires std::is_invocable_r_v<Tensors, F, const OpContext&> Gradient(F rule) : rule_(std::move(rule)) {}
  /// An op that takes the gradients of the results, then the operands, and then the results too if it takes that many, with
  /// the same attributes; it gives the gradient of each operand.
  Gradient(const Op& op);

  const std::function<Tensors(const OpContext&)>& rule() const { return rule_; }

 private:
  std::function<Tensors(const OpContext&)> rule_;
};

/// Operands and results are all there for the gradient rule.
inline constexpr uint32_t kSaveAll = ~0u;

/// What goes into a pointwise expression.
struct PointwiseSignature {
  std::vector<std::string> inputs;           ///< 1 to 8 tensors
  std::vector<std::string> attributes = {};  ///< numbers given at the call
  uint32_t saved = kSaveAll;                 ///< what the gradient rule reads, in(0) | out(0): less memory if less
};

/// Defines an op by one scalar expression (core/expression.h says what it may hold). It computes in floating types, integers
/// become float32 first; operands broadcast and promote. Eagerly it runs as a loop that the system compiler makes of the
/// expression at the first call (kept in the cache on disk), or, where there is no compiler, interpreted. Eagerly on CUDA it
/// calls an op for each step of the expression. In a compiled function it is part of fused kernels, on the CPU and on CUDA.
///
///   const td::Op swish = td::pointwise_op("swish", {.inputs = {"x"}, .attributes = {"beta"}}, "x * sigmoid(beta * x)",
///       [](const td::OpContext& op) { … return td::Tensors{…}; });
///   y = swish(x, {{"beta", 2.0}});
///
/// ValueError if the name is taken or no identifier, or the expression is wrong.
Op pointwise_op(const std::string& name, const PointwiseSignature& signature, const std::string& expression,
                Gradient gradient, Where where = Where::current());

/// An op of any kind.
struct CustomOp {
  /// Shapes and dtypes of the results from those of the operands, which have no values; and every error of the user's.
  std::function<void(Infer&)> infer = nullptr;
  std::function<void(KernelContext&)> cpu = nullptr;
  std::function<void(KernelContext&)> cuda =
      nullptr;  ///< on device pointers; launch on gpu::stream_of(op) (kernels/cuda/context.h)
  std::optional<Gradient> grad = std::nullopt;  ///< required: a rule, an op, or not_differentiable
  int inputs = kVariadic;                       ///< any number, unless given
  int outputs = 1;                              ///< 4 at most
  uint32_t saved = kSaveAll;                    ///< what the gradient rule reads
  AttributeSchema attributes = {};              ///< {{"alpha", td::AttributeType::number, 1.0}}
  bool contiguous_inputs = true;                ///< operands are laid out in rows first: what input<T>() wants
  bool has_effect =
      false;  ///< does something beside its results: never left out of a graph, nor merged with another call
  /// A reduction of one operand, over attributes "dims" (all, unless given) and "keepdim": sum, prod, max or min, under the
  /// gradient given here. It has their infer and kernels where none is given, and the compiler fuses it as it fuses them.
  std::optional<Fold> fold = std::nullopt;
};

/// Defines an op by its functions. In a graph it is a step of its own, unless it is a fold. ValueError if the name is taken or
/// no identifier, or infer (of what is no fold) or grad is missing.
Op custom_op(const std::string& name, CustomOp definition, Where where = Where::current());

// ---- For the engine.

/// A loop over n elements: pointers to the result and the operands, and their strides in bytes; and the attributes.
using ExpressionLoop = void (*)(long n, char* const* pointers, const long* strides, const double* attributes);

/// Who makes machine code of expressions (graph/codegen). Null where there is no compiler.
struct ExpressionCompiler {
  ExpressionLoop (*compile)(const std::string& c_text, size_t inputs, size_t attributes, DType dtype,
                            Where where) = nullptr;
};
ExpressionCompiler& expression_compiler();

/// What the op table's entry of a user's op stands for. Lives as long as the program.
struct UserOp {
  const Op* entry = nullptr;
  std::string name;
  std::function<void(Infer&)> infer;
  std::array<std::function<void(KernelContext&)>, kDeviceKinds> kernels;
  std::function<Tensors(const OpContext&)> grad;
  // Of a pointwise op.
  std::vector<std::string> inputs, attributes;
  std::optional<Expression> expression;
  std::string c_text;

  /// The loop for a dtype, made at first use; null if expressions are interpreted here.
  ExpressionLoop loop(DType dtype, Where where) const;

 private:
  mutable std::mutex mutex_;
  mutable std::atomic<ExpressionLoop> loops_[8] = {};
  mutable bool tried_[8] = {};
};

/// Defined in kernels/cpu/support/expression.cpp: the CPU kernel of pointwise_op's ops.
void expression_kernel(KernelContext& context);
/// The same on any device, by calling an op for each step of the expression.
void composed_expression_kernel(KernelContext& context);

}  // namespace tandem
