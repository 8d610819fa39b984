// What is done with the tensors that a walk over a model has found.
#include "nn/reflect.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "core/dispatch.h"
#include "core/ops/ops.h"

namespace tandem::nn {

std::string_view detail::last_identifier(std::string_view printed) {
  const auto is_letter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || (c & 0x80);
  };
  size_t end = printed.size();
  while (end > 0 && !is_letter(printed[end - 1])) --end;
  size_t begin = end;
  while (begin > 0 && is_letter(printed[begin - 1])) --begin;
  return printed.substr(begin, end - begin);
}

// gcc prints "… [with T = ns::Linear; …]", clang "… [T = ns::Linear]".
std::string_view detail::class_name(std::string_view printed) {
  const size_t begin = printed.rfind("T = ");
  if (begin == std::string_view::npos) return "?";
  printed.remove_prefix(begin + 4);
  printed = printed.substr(0, printed.find_first_of("<;]"));
  return last_identifier(printed);
}

size_t Visitor::enter(std::string_view name) {
  const size_t length = path_.size();
  if (keeps_names_) {
    if (length) path_ += '.';
    path_ += name;
  }
  return length;
}

size_t Visitor::enter(size_t index) { return keeps_names_ ? enter(std::to_string(index)) : path_.size(); }

void Visitor::not_copied(const std::string& path) {
  throw ValueError(tandem::detail::str("nn::clone: what ", path.empty() ? "the model" : path,
                                       " points at can't be copied: its class has no copy, or others derive from it"),
                   user_line(Where::current()));
}

void Visitor::found(Tensor& tensor) {
  if (tensor.defined()) tensors_.push_back({path_, &tensor});
}

namespace detail {
namespace {

// Calls f(leaf) for the first field of each tensor that has the role.
template <class F> void for_each_once(const Visitor& visitor, Role role, F&& f) {
  const std::vector<Visitor::Leaf>& leaves = visitor.tensors();
  std::unordered_set<const TensorImpl*> seen;
  const bool is_large = leaves.size() > 32;  // below, looking back is cheaper than a set
  for (size_t i = 0; i < leaves.size(); ++i) {
    const TensorImpl* impl = leaves[i].tensor->impl();
    if (role != Role::any && impl->requires_grad != (role == Role::parameter)) continue;
    bool is_new = true;
    if (is_large) is_new = seen.insert(impl).second;
    else
      for (size_t j = 0; j < i && is_new; ++j) is_new = leaves[j].tensor->impl() != impl;
    if (is_new) f(leaves[i]);
  }
}

// Puts convert(tensor) in the place of each tensor; fields that shared one go on sharing.
template <class Convert> void replace(const Visitor& visitor, Where where, Convert&& convert) {
  NoGrad no_grad;
  std::unordered_map<const TensorImpl*, Tensor> converted;
  std::vector<Tensor> replaced;  // kept until the end, so that no address is used twice
  for (const Visitor::Leaf& leaf : visitor.tensors()) {
    Tensor& tensor = *leaf.tensor;
    if (const auto found = converted.find(tensor.impl()); found != converted.end()) {
      tensor = found->second;
      continue;
    }
    const Tensor result = convert(tensor);
    if (result.impl() == tensor.impl()) continue;
    Tensor leaf_result = result;
    if (tensor.requires_grad()) {
      leaf_result.requires_grad(true, where);
      if (const Tensor gradient = tensor.grad(); gradient.defined()) leaf_result.set_grad(convert(gradient), where);
    }
    converted.emplace(tensor.impl(), leaf_result);
    converted.emplace(leaf_result.impl(), leaf_result);
    replaced.push_back(tensor);
    tensor = leaf_result;
  }
}

}  // namespace

std::vector<NamedTensor> named(const Visitor& visitor, Role role) {
  std::vector<NamedTensor> result;
  for_each_once(visitor, role, [&](const Visitor::Leaf& leaf) { result.push_back({leaf.name, *leaf.tensor}); });
  return result;
}

Tensors unnamed(const Visitor& visitor, Role role) {
  Tensors result;
  result.reserve(visitor.tensors().size());
  for_each_once(visitor, role, [&](const Visitor::Leaf& leaf) { result.push_back(*leaf.tensor); });
  return result;
}

void set_training(const Visitor& visitor, bool value) {
  for (TrainingFlag* flag : visitor.flags()) flag->set(value);
}

void move_to(const Visitor& visitor, Device device, Where where) {
  replace(visitor, where, [&](const Tensor& tensor) { return tensor.to(device, where); });
}

void cast_to(const Visitor& visitor, DType dtype, Where where) {
  if (!is_floating(dtype))
    throw DTypeError(tandem::detail::str("nn::to: parameters must be floating, and ", name_of(dtype),
                                         " isn't: use float32, float64, float16 or bfloat16"),
                     where);
  replace(visitor, where,
          [&](const Tensor& tensor) { return is_floating(tensor.dtype()) ? tensor.to(dtype, where) : tensor; });
}

void make_own(const Visitor& copy, Where where) {
  if (interceptor())
    throw TraceError("nn::clone: the copy's tensors would outlive the trace; clone the model outside", where);
  for (TrainingFlag* flag : copy.flags()) *flag = TrainingFlag(static_cast<bool>(*flag));
  const NoGrad no_grad;
  std::unordered_map<const TensorImpl*, Tensor> copies;  // keyed by tensors that the model keeps alive
  for (const Visitor::Leaf& leaf : copy.tensors()) {
    Tensor& tensor = *leaf.tensor;
    Tensor& own = copies[tensor.impl()];
    if (!own.defined()) {
      own = tensor.detach(where).clone(where);
      if (tensor.requires_grad()) own.requires_grad(true, where);
    }
    tensor = own;
  }
}

void copy_values(const Visitor& target, const Visitor& source, Where where) {
  where = user_line(where);
  const std::vector<Visitor::Leaf>&to = target.tensors(), &from = source.tensors();
  using tandem::detail::str;
  for (size_t i = 0; i < std::max(to.size(), from.size()); ++i) {
    const std::string there = i < to.size() ? to[i].name : "none", here = i < from.size() ? from[i].name : "none";
    if (there != here)
      throw ValueError(
          str("nn::copy_into: the models differ: tensor ", i, " of the target is ", there, ", of the source ", here),
          where);
    const Tensor &a = *to[i].tensor, &b = *from[i].tensor;
    if (a.shape() != b.shape())
      throw ShapeError(
          str("nn::copy_into: ", there, " is ", a.shape(), " in the target, ", b.shape(), " in the source"), where);
    if (a.impl() == b.impl() || a.shares_storage(b))
      throw ValueError(str("nn::copy_into: ", there,
                           " is the same tensor in both, as in a plain copy of a model; "
                           "nn::clone(model) makes one with weights of its own"),
                       where);
  }
  const NoGrad no_grad;
  for (size_t i = 0; i < to.size(); ++i) to[i].tensor->assign(*from[i].tensor, where);
}

}  // namespace detail
}  // namespace tandem::nn
