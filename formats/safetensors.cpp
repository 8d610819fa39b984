// safetensors: named tensors in a file.
#include "formats/safetensors.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <set>

#include "core/dispatch.h"
#include "core/ops/ops.h"
#include "formats/safetensors_file.h"

namespace tandem::io {
namespace {

using detail::SafetensorsEntry;
using detail::SafetensorsHeader;
using tandem::detail::str;
static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

// Names, dtypes and places. Those of the widest elements come first, so that each is aligned in a mapped file.
SafetensorsHeader header_of(std::span<const nn::NamedTensor> tensors,
                            const std::map<std::string, std::string>& metadata, std::vector<size_t>& order,
                            Where where) {
  SafetensorsHeader header{{}, metadata};
  std::set<std::string> names;
  for (const nn::NamedTensor& named : tensors) {
    if (!named.tensor.defined())
      throw UndefinedError(str("io::save_safetensors: '", named.name, "' is an undefined Tensor; leave it out"), where);
    if (named.name == "__metadata__")
      throw ValueError(
          "io::save_safetensors: a tensor can't be called __metadata__, which names the file's metadata; give it "
          "another name",
          where);
    if (!names.insert(named.name).second)
      throw ValueError(
          str("io::save_safetensors: two tensors are called '", named.name, "'; give each a name of its own"), where);
    header.entries.push_back({.name = named.name, .dtype = named.tensor.dtype(), .shape = named.tensor.shape()});
  }
  order.resize(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return size_of(header.entries[a].dtype) > size_of(header.entries[b].dtype);
  });
  uint64_t at = 0;
  for (size_t i : order) {
    SafetensorsEntry& entry = header.entries[i];
    entry.begin = at;
    entry.end = at += static_cast<uint64_t>(entry.shape.numel() * size_of(entry.dtype));
  }
  return header;
}

}  // namespace

Tensor Safetensors::find(const std::string& name) const {
  for (const nn::NamedTensor& named : tensors)
    if (named.name == name) return named.tensor;
  return {};
}

void save_safetensors(const std::string& path, std::span<const nn::NamedTensor> tensors,
                      const std::map<std::string, std::string>& metadata, Where where) {
  if (interceptor())
    throw TraceError(
        "io::save_safetensors: a file can't be written by a graph; call it outside of the compiled function", where);
  NoGrad no_grad;
  std::vector<size_t> order;
  const SafetensorsHeader header = header_of(tensors, metadata, order, where);
  const std::string text = detail::safetensors_header_text(header, [&](const std::string& what) {
    throw ValueError("io::save_safetensors: " + what + "; safetensors files hold text as UTF-8", where);
  });
  if (text.size() > detail::kLongestSafetensorsHeader)
    throw ValueError(str("io::save_safetensors: the names of ", tensors.size(), " tensors make a header of ",
                         bytes_text(text.size()), ", and the format allows ",
                         bytes_text(detail::kLongestSafetensorsHeader), ": write several files"),
                     where);
  AtomicFile file("io::save_safetensors", path, where);
  const uint64_t length = text.size();
  file.write(&length, sizeof length);
  file.write(text.data(), text.size());
  for (size_t i : order) {
    const Tensor tensor = tensors[i].tensor.cpu(where).contiguous(where);
    file.write(tensor.impl()->data, header.entries[i].end - header.entries[i].begin);
  }
  file.commit();
}

detail::SafetensorsFile::SafetensorsFile(const char* caller, const std::string& path, const Limits& limits, Where where)
    : where_(where), file_(caller, path, where) {
  uint64_t length = 0;
  if (file_.size() < sizeof length)
    file_.fail(str("has ", bytes_text(file_.size()), ", too few for a safetensors file: fetch or save it again"));
  file_.read(&length, sizeof length, 0);
  if (length > kLongestSafetensorsHeader)
    file_.fail(str("is no safetensors file: its header would have ", bytes_text(length), ", and ",
                   bytes_text(kLongestSafetensorsHeader), " are allowed"));
  data_begin_ = sizeof length + length;
  if (data_begin_ > file_.size())
    file_.fail(str("is truncated: its header has ", bytes_text(length), ", and ",
                   bytes_text(file_.size() - sizeof length), " follow: fetch or save it again"));
  std::string text(length, '\0');
  file_.read(text.data(), length, sizeof length);
  header = parse_safetensors_header(
      text, file_.size() - data_begin_, [&](const std::string& what) { file_.fail(what); }, limits);
}

Tensor detail::SafetensorsFile::read(const SafetensorsEntry& entry) const {
  Tensor tensor = empty(entry.shape, {.dtype = entry.dtype}, where_);
  const uint64_t bytes = entry.end - entry.begin;
  if (bytes == 0) return tensor;
  auto* const to = static_cast<uint8_t*>(tensor.impl()->data);
  file_.read(to, bytes, data_begin_ + entry.begin);
  if (entry.dtype == DType::bool_) {
    const auto* const bad = std::find_if(to, to + bytes, [](uint8_t value) { return value > 1; });
    if (bad != to + bytes)
      file_.fail(str("is damaged: its bool tensor '", entry.name, "' has the byte ", int(*bad), " at ", bad - to,
                     ", need 0 or 1"));
  }
  return tensor;
}

Safetensors load_safetensors(const std::string& path, Limits limits, Where where) {
  if (interceptor())
    throw TraceError("io::load_safetensors: a file can't be read by a graph; call it outside of the compiled function",
                     where);
  NoGrad no_grad;
  const detail::SafetensorsFile file("io::load_safetensors", path, limits, where);
  file.file().limit(limits);
  Safetensors result;
  for (const SafetensorsEntry& entry : file.header.entries) result.tensors.push_back({entry.name, file.read(entry)});
  result.metadata = file.header.metadata;
  return result;
}

}  // namespace tandem::io
