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

void assign_named(const std::vector<NamedTarget>& targets, const SafetensorsFile& file, const char* caller,
                  const std::string& path, const char* what, Where where) {
  NoGrad no_grad;
  std::unordered_map<std::string, const SafetensorsEntry*> held;
  for (const SafetensorsEntry& entry : file.header.entries) held.emplace(entry.name, &entry);
  std::unordered_set<std::string> known;
  Complaint missing("it lacks"), extra("it also has"), different("it has"), torn("tied weights differ in it");
  for (const NamedTarget& target : targets) {
    bool is_there = false;
    for (const std::string& name : target.names) {
      known.insert(name);
      const auto found = held.find(name);
      if (found == held.end()) continue;
      is_there = true;
      const SafetensorsEntry& entry = *found->second;
      if (entry.shape != target.tensor.shape() || entry.dtype != target.tensor.dtype())
        different.add(str(name, " ", name_of(entry.dtype), entry.shape, " where ", name_of(target.tensor.dtype()),
                          target.tensor.shape(), " is needed"));
    }
    if (!is_there) missing.add(joined(target.names));
  }
  for (const SafetensorsEntry& entry : file.header.entries)
    if (!known.contains(entry.name)) extra.add(entry.name);
  const auto complain = [&] {
    std::string all;
    missing.append_to(all), extra.append_to(all), different.append_to(all), torn.append_to(all);
    if (!all.empty()) throw FileError(str(caller, ": '", path, "' doesn't fit ", what, ": ", all), where);
  };
  complain();  // before gigabytes are read for a model of another kind

  Tensors values;
  for (const NamedTarget& target : targets) {
    Tensor value;
    for (const std::string& name : target.names) {
      const auto found = held.find(name);
      if (found == held.end()) continue;
      const Tensor read = file.read(*found->second);
      if (!value.defined()) value = read;
      else if (!are_same(value, read)) torn.add(joined(target.names));
    }
    values.push_back(value);
  }
  complain();

  // All that can still fail, for want of memory, comes before the first change.
  for (size_t i = 0; i < targets.size(); ++i) values[i] = values[i].to(targets[i].tensor.device(), where);
  for (size_t i = 0; i < targets.size(); ++i) Tensor(targets[i].tensor).assign(values[i], where);
}

}  // namespace tandem::io::detail
