// nn::save and nn::load: a model's parameters and buffers in a safetensors file.
#include "formats/weights.h"

#include <unordered_map>

#include "core/dispatch.h"
#include "formats/named_state.h"
#include "formats/safetensors.h"
#include "formats/safetensors_file.h"

namespace tandem::nn::detail {
namespace {

// The model's tensors, each with all of its names.
std::vector<io::detail::NamedTarget> targets_of(const Visitor& visitor) {
  std::vector<io::detail::NamedTarget> targets;
  std::unordered_map<const TensorImpl*, size_t> places;
  for (const Visitor::Leaf& leaf : visitor.tensors()) {
    const auto [place, is_new] = places.emplace(leaf.tensor->impl(), targets.size());
    if (is_new) targets.push_back({{leaf.name}, *leaf.tensor});
    else targets[place->second].names.push_back(leaf.name);
  }
  return targets;
}

}  // namespace

void save(const Visitor& visitor, const std::string& path, Where where) {
  std::vector<NamedTensor> tensors;
  for (const io::detail::NamedTarget& target : targets_of(visitor))
    tensors.push_back({target.names.front(), target.tensor});
  io::save_safetensors(path, tensors, {{"format", "pt"}}, where);
}

void load(const Visitor& visitor, const std::string& path, Where where) {
  if (interceptor())
    throw TraceError("nn::load: a file can't be read by a graph; call it outside of the compiled function", where);
  // No limits but the model, with which the header is compared before anything is read.
  const io::Limits none{.file_bytes = UINT64_MAX, .unpacked_bytes = UINT64_MAX, .tensors = UINT64_MAX};
  const io::detail::SafetensorsFile file("io::load_safetensors", path, none, where);
  io::detail::assign_named(targets_of(visitor), file, "nn::load", path, "the model", where);
}

}  // namespace tandem::nn::detail
