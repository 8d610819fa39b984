// safetensors: named tensors in a file.
#include "formats/safetensors.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <set>

#include "core/dispatch.h"
#include "core/ops/ops.h"
#include "formats/files.h"
#include "formats/safetensors_header.h"

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

Tensor read_tensor(const InputFile& file, const SafetensorsEntry& entry, uint64_t data_begin, Where where) {
  Tensor tensor = empty(entry.shape, {.dtype = entry.dtype}, where);
  const uint64_t bytes = entry.end - entry.begin;
  if (bytes == 0) return tensor;
  auto* const to = static_cast<uint8_t*>(tensor.impl()->data);
  file.read(to, bytes, data_begin + entry.begin);
  if (entry.dtype == DType::bool_) {
    const auto* const bad = std::find_if(to, to + bytes, [](uint8_t value) { return value > 1; });
    if (bad != to + bytes)
      file.fail(str("is damaged: its bool tensor '", entry.name, "' has the byte ", int(*bad), " at ", bad - to,
                    ", need 0 or 1"));
  }
  return tensor;
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

Safetensors load_safetensors(const std::string& path, Where where) {
  if (interceptor())
    throw TraceError("io::load_safetensors: a file can't be read by a graph; call it outside of the compiled function",
                     where);
  NoGrad no_grad;
  const InputFile file("io::load_safetensors", path, where);
  uint64_t length = 0;
  if (file.size() < sizeof length)
    file.fail(str("has ", bytes_text(file.size()), ", too few for a safetensors file: fetch or save it again"));
  file.read(&length, sizeof length, 0);
  if (length > detail::kLongestSafetensorsHeader)
    file.fail(str("is no safetensors file: its header would have ", bytes_text(length), ", and ",
                  bytes_text(detail::kLongestSafetensorsHeader), " are allowed"));
  const uint64_t data_begin = sizeof length + length;
  if (data_begin > file.size())
    file.fail(str("is truncated: its header has ", bytes_text(length), ", and ",
                  bytes_text(file.size() - sizeof length), " follow: fetch or save it again"));
  std::string text(length, '\0');
  file.read(text.data(), length, sizeof length);
  Safetensors result;
  SafetensorsHeader header = detail::parse_safetensors_header(text, file.size() - data_begin,
                                                              [&](const std::string& what) { file.fail(what); });
  result.metadata = std::move(header.metadata);
  for (const SafetensorsEntry& entry : header.entries)
    result.tensors.push_back({entry.name, read_tensor(file, entry, data_begin, where)});
  return result;
}

}  // namespace tandem::io
