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
std::string defined(bool was) { return was ? "defined -> undefined" : "undefined -> defined"; }
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
    arguments_.push_back({type_of(call.arguments[i]), impl.requires_grad, impl.requires_grad && impl.grad.defined(),
                          same_as(call.arguments, i)});
  }
}

void Signature::reads(std::vector<FlagGuard> flags, std::vector<GradientGuard> gradients) {
  flags_ = std::move(flags);
  gradients_ = std::move(gradients);
}

// The number of arguments comes first: those behind it read as many.
struct Signature::Guards {
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
                     now.strides == was.type.strides &&
                     (!now.requires_grad || now.grad.defined() == was.has_gradient) &&
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
              if (now.requires_grad() && was.has_gradient != now.impl()->grad.defined())
                return argument + "grad() " + defined(was.has_gradient);
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
      Guard{[](const Signature& s, const Call&, size_t i) { return *s.flags_[i].flag == s.flags_[i].value; },
            [](const Signature& s, const Call&, size_t i) {
              return changed("a flag that the function reads (training mode): ", s.flags_[i].value, *s.flags_[i].flag);
            },
            [](const Signature& s) { return s.flags_.size(); }},
      Guard{[](const Signature& s, const Call&, size_t i) {
              return s.gradients_[i].tensor.impl()->grad.defined() == s.gradients_[i].defined;
            },
            [](const Signature& s, const Call&, size_t i) {
              const GradientGuard& was = s.gradients_[i];
              return detail::str("grad() of a tensor ", was.tensor.shape(), ": ", defined(was.defined));
            },
            [](const Signature& s) { return s.gradients_.size(); }}};
};

bool Signature::holds(const Call& call) const {
  const auto all = [&](const auto& guard) {
    for (size_t i = 0, end = guard.count(*this); i < end; ++i)
      if (!guard.holds(*this, call, i)) return false;
    return true;
  };
  return std::apply([&](const auto&... guards) { return (all(guards) && ...); }, Guards::list);
}

std::string Signature::describe(const Call& call) const {
  std::string result;
  const auto fails = [&](const auto& guard) {
    for (size_t i = 0, end = guard.count(*this); i < end; ++i)
      if (!guard.holds(*this, call, i)) return result = guard.describe(*this, call, i), true;
    return false;
  };
  std::apply([&](const auto&... guards) { (fails(guards) || ...); }, Guards::list);
  return result;
}

}  // namespace tandem::graph
