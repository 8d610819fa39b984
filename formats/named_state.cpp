// Values from a file for tensors that exist.
#include "formats/named_state.h"

#include <cstring>
#include <unordered_map>
#include <unordered_set>

#include "core/dispatch.h"
#include "core/ops/ops.h"

namespace tandem::io::detail {
namespace {

using tandem::detail::str;

// What is wrong, kind by kind. A file of quite another model has thousands of differences: the first are named, all counted.
class Complaint {
 public:
  explicit Complaint(const char* kind) : kind_(kind) {}
  void add(const std::string& what) {
    if (++count_ <= kShown) text_ += (count_ > 1 ? ", " : "") + what;
  }
  void append_to(std::string& all) const {
    if (count_ == 0) return;
    all += str(all.empty() ? "" : "; ", kind_, ": ", text_);
    if (count_ > kShown) all += str(" and ", count_ - kShown, " more");
  }

 private:
  static constexpr int kShown = 20;
  const char* kind_;
  int count_ = 0;
  std::string text_;
};

std::string joined(const std::vector<std::string>& names) {
  std::string text = names.front();
  for (size_t i = 1; i < names.size(); ++i) text += " = " + names[i];
  return text;
}

bool are_same(const Tensor& a, const Tensor& b) {
  const size_t bytes = static_cast<size_t>(a.numel() * size_of(a.dtype()));
  return a.dtype() == b.dtype() && a.shape() == b.shape() &&
         (bytes == 0 || std::memcmp(a.impl()->data, b.impl()->data, bytes) == 0);
}

}  // namespace

void assign_named(const std::vector<NamedTarget>& targets, const Safetensors& file, const char* caller,
                  const std::string& path, const char* what, Where where) {
  std::unordered_map<std::string, Tensor> held;
  for (const nn::NamedTensor& named : file.tensors) held.emplace(named.name, named.tensor);
  std::unordered_set<std::string> known;
  Complaint missing("it lacks"), extra("it also has"), different("it has"), torn("tied weights differ in it");
  Tensors values;
  for (const NamedTarget& target : targets) {
    Tensor value;
    for (const std::string& name : target.names) {
      known.insert(name);
      const auto found = held.find(name);
      if (found == held.end()) continue;
      if (!value.defined()) value = found->second;
      else if (!are_same(value, found->second)) torn.add(joined(target.names));
      else continue;
      if (value.shape() != target.tensor.shape() || value.dtype() != target.tensor.dtype())
        different.add(str(name, " ", name_of(value.dtype()), value.shape(), " where ", name_of(target.tensor.dtype()),
                          target.tensor.shape(), " is needed"));
    }
    if (!value.defined()) missing.add(joined(target.names));
    values.push_back(value);
  }
  for (const nn::NamedTensor& named : file.tensors)
    if (!known.contains(named.name)) extra.add(named.name);
  std::string all;
  missing.append_to(all), extra.append_to(all), different.append_to(all), torn.append_to(all);
  if (!all.empty()) throw FileError(str(caller, ": '", path, "' doesn't fit ", what, ": ", all), where);

  // All that can still fail, for want of memory, comes before the first change.
  NoGrad no_grad;
  for (size_t i = 0; i < targets.size(); ++i) values[i] = values[i].to(targets[i].tensor.device(), where);
  for (size_t i = 0; i < targets.size(); ++i) Tensor(targets[i].tensor).assign(values[i], where);
}

}  // namespace tandem::io::detail
