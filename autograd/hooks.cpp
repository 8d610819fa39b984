// Hooks on gradients: where they are kept. autograd/walk.cpp calls them.
#include <algorithm>

#include "autograd/tape.h"
#include "core/dispatch.h"

namespace tandem {

HookHandle Tensor::register_hook(std::function<Tensor(const Tensor&)> hook, Where where) const {
  where = user_line(where);
  if (!defined()) throw UndefinedError("register_hook: the tensor is undefined", where);
  if (!requires_grad())
    throw AutogradError(
        detail::str("register_hook: this tensor ", shape(),
                    " requires no gradient, so the hook would never be called; call requires_grad(true) first"),
        where);
  if (!hook) throw ValueError("register_hook: the hook is an empty function", where);
  if (Interceptor* tracer = interceptor()) tracer->known_to_tape("register_hook", where);
  std::shared_ptr<GradientHooks>* place = nullptr;
  if (auto* node = static_cast<TapeNode*>(impl_->node)) {
    // What a checkpointed function makes has its tape in the second run; the hook is registered then.
    if (impl_->output_index == kNotAResult) return {};
    auto& hooks = node->make_extra().hooks;
    hooks.resize(std::max<size_t>(hooks.size(), impl_->output_index + 1));
    place = &hooks[impl_->output_index];
  } else {
    place = &make_extra(*impl_).hooks;
  }
  if (!*place) *place = std::make_shared<GradientHooks>();
  const int64_t id = (*place)->next_id++;
  (*place)->hooks.push_back({id, std::move(hook)});
  return HookHandle([weak = std::weak_ptr(*place), id] {
    if (const auto hooks = weak.lock())
      std::erase_if(hooks->hooks, [id](const GradientHooks::Hook& each) { return each.id == id; });
  });
}

}  // namespace tandem
