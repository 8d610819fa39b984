// The conditions of a signature. They are checked at every call: in line, and without allocating.
#include "graph/trace/signature.h"

#include <tuple>

#include "core/dispatch.h"

namespace tandem::graph {

namespace {

int same_as(const Tensors& arguments, size_t i) {
  for (size_t j = 0; j < i; ++j)
    if (arguments[j].impl() == arguments[i].impl()) return static_cast<int>(j);
  return -1;
}

template <class T> std::string changed(const char* what, const T& was, const T& now) {
  return detail::str(what, was, " -> ", now);
}
/// Whether the tensor has the gradient that it had: none, or one of that type and layout.
bool same_gradient(const std::optional<ValueType>& was, const TensorImpl& tensor) {
  const TensorImpl* now = tensor.grad.impl();
  if (!was || !now) return !was == !now;
  return now->dtype == was->dtype && now->strides == was->strides && now->shape == was->shape &&
         now->device == was->device;
}
std::string gradient_change(const std::optional<ValueType>& was, const Tensor& tensor) {
  const std::optional<ValueType> now = gradient_type(tensor);
  if (!was) return "undefined -> defined";
  if (!now) return "defined -> undefined";
  return detail::str(*was, " strides ", was->strides, " -> ", *now, " strides ", now->strides);
}
/// The type in the sizes that the tensor has. False if it differs in more.
bool resize(ValueType& type, const TensorImpl& now) {
  const int rank = type.shape.size();
  if (now.shape.size() != rank) return false;
  for (int i = 0; i < rank; ++i) {
    const int64_t was_extent = type.shape[i], extent = now.shape[i], was = type.strides[i], stride = now.strides[i];
    if (was_extent != extent && (was_extent <= 1 || extent <= 1)) return false;
    if (was != stride && (was <= 1 || stride <= 1)) return false;
    for (int j = 0; j < i; ++j)
      if ((type.strides[j] <=> was) != (now.strides[j] <=> stride)) return false;
  }
  type.shape = now.shape;
  type.strides = now.strides;
  return true;
}
std::string spell(const AutocastState& state) { return state.enabled ? std::string(name_of(state.dtype)) : "off"; }

/// One condition on each of `count` things: arguments, flags, gradients.
template <class Holds, class Describe, class Count> struct Guard {
  Holds holds;
  Describe describe;
  Count count;
};
template <class Holds, class Describe, class Count> Guard(Holds, Describe, Count) -> Guard<Holds, Describe, Count>;
constexpr auto once = [](const Signature&) { return size_t{1}; };

}  // namespace

Signature::Signature(const Call& call)
    : static_key_(call.static_key), grad_enabled_(tandem::grad_enabled()), autocast_(autocast_state()) {
  for (size_t i = 0; i < call.arguments.size(); ++i) {
    const TensorImpl& impl = *call.arguments[i].impl();
    arguments_.push_back({type_of(call.arguments[i]), impl.requires_grad,
                          impl.requires_grad ? gradient_type(call.arguments[i]) : std::nullopt,
                          same_as(call.arguments, i)});
  }
}

void Signature::reads(Guards guards) { guards_ = std::move(guards); }

// The number of arguments comes first: those behind it read as many.
struct Signature::Conditions {
  static constexpr auto list = std::tuple{
      Guard{[](const Signature& s, const Call& call, size_t) { return call.arguments.size() == s.arguments_.size(); },
            [](const Signature& s, const Call& call, size_t) {
              return detail::str(call.arguments.size(), " tensors instead of ", s.arguments_.size());
            },
            once},
      Guard{[](const Signature& s, const Call& call, size_t i) {
              const Argument& was = s.arguments_[i];
              const TensorImpl& now = *call.arguments[i].impl();
              return now.dtype == was.type.dtype && now.device == was.type.device &&
                     now.requires_grad == was.requires_grad && now.shape == was.type.shape &&
                     now.strides == was.type.strides && (!now.requires_grad || same_gradient(was.gradient, now)) &&
                     (i == 0 || same_as(call.arguments, i) == was.same_as);
            },
            [](const Signature& s, const Call& call, size_t i) {
              const Argument& was = s.arguments_[i];
              const Tensor& now = call.arguments[i];
              const std::string argument = detail::str("argument ", i, ": ");
              if (was.type.shape != now.shape()) return argument + changed("shape ", was.type.shape, now.shape());
              if (was.type.dtype != now.dtype()) return argument + changed("dtype ", was.type.dtype, now.dtype());
              if (was.type.device != now.device()) return argument + changed("device ", was.type.device, now.device());
              if (was.type.strides != now.strides())
                return argument + changed("strides ", was.type.strides, now.strides());
              if (was.requires_grad != now.requires_grad())
                return argument + changed("requires_grad ", was.requires_grad, now.requires_grad());
              if (now.requires_grad() && !same_gradient(was.gradient, *now.impl()))
                return argument + "grad() " + gradient_change(was.gradient, now);
              return argument + "is the same tensor as another argument, or no longer";
            },
            [](const Signature& s) { return s.arguments_.size(); }},
      Guard{[](const Signature& s, const Call& call, size_t) { return call.static_key == s.static_key_; },
            [](const Signature& s, const Call& call, size_t) {
              return changed("static arguments ", s.static_key_, call.static_key);
            },
            once},
      Guard{[](const Signature& s, const Call&, size_t) { return s.grad_enabled_ == tandem::grad_enabled(); },
            [](const Signature& s, const Call&, size_t) {
              return std::string(s.grad_enabled_ ? "gradients on -> off" : "gradients off -> on");
            },
            once},
      Guard{[](const Signature& s, const Call&, size_t) { return s.autocast_ == autocast_state(); },
            [](const Signature& s, const Call&, size_t) {
              return changed("autocast ", spell(s.autocast_), spell(autocast_state()));
            },
            once},
      Guard{[](const Signature& s, const Call&, size_t i) {
              return *s.guards_.flags[i].flag == s.guards_.flags[i].value;
            },
            [](const Signature& s, const Call&, size_t i) {
              const FlagGuard& was = s.guards_.flags[i];
              return changed("a flag that the function reads (training mode): ", was.value, *was.flag);
            },
            [](const Signature& s) { return s.guards_.flags.size(); }},
      Guard{[](const Signature& s, const Call&, size_t i) {
              const GradientGuard& was = s.guards_.gradients[i];
              return same_gradient(was.gradient, *was.tensor.impl());
            },
            [](const Signature& s, const Call&, size_t i) {
              const GradientGuard& was = s.guards_.gradients[i];
              return detail::str("grad() of a tensor ", was.tensor.shape(), ": ",
                                 gradient_change(was.gradient, was.tensor));
            },
            [](const Signature& s) { return s.guards_.gradients.size(); }},
      Guard{[](const Signature& s, const Call&, size_t i) {
              const RequiresGradGuard& was = s.guards_.requires_grad[i];
              return was.tensor.impl()->requires_grad == was.requires_grad;
            },
            [](const Signature& s, const Call&, size_t i) {
              const RequiresGradGuard& was = s.guards_.requires_grad[i];
              return detail::str("a tensor ", was.tensor.shape(), " from outside: ",
                                 changed("requires_grad ", was.requires_grad, was.tensor.requires_grad()));
            },
            [](const Signature& s) { return s.guards_.requires_grad.size(); }}};
};

bool Signature::holds(const Call& call) const {
  const auto all = [&](const auto& guard) {
    for (size_t i = 0, end = guard.count(*this); i < end; ++i)
      if (!guard.holds(*this, call, i)) return false;
    return true;
  };
  return std::apply([&](const auto&... guards) { return (all(guards) && ...); }, Conditions::list);
}

std::optional<Signature> Signature::resized(const Call& call) const {
  if (call.arguments.size() != arguments_.size()) return std::nullopt;
  std::optional<Signature> result(*this);
  for (size_t i = 0; i < arguments_.size(); ++i) {
    Argument& argument = result->arguments_[i];
    const TensorImpl& now = *call.arguments[i].impl();
    if (!resize(argument.type, now)) return std::nullopt;
    if (const TensorImpl* gradient = now.grad.impl(); argument.gradient && gradient)
      if (!resize(*argument.gradient, *gradient)) return std::nullopt;
  }
  if (!result->holds(call)) return std::nullopt;
  return result;
}

std::string Signature::describe(const Call& call) const {
  std::string result;
  const auto fails = [&](const auto& guard) {
    for (size_t i = 0, end = guard.count(*this); i < end; ++i)
      if (!guard.holds(*this, call, i)) return result = guard.describe(*this, call, i), true;
    return false;
  };
  std::apply([&](const auto&... guards) { (fails(guards) || ...); }, Conditions::list);
  return result;
}

}  // namespace tandem::graph
