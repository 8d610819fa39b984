// ByteText: text as bytes, in windows to predict the next byte from.
#include "data/byte_text.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

namespace tandem::io {
namespace {

using tandem::detail::str;
namespace fs = std::filesystem;

// The files that `path` stands for, in the order in which they are read.
std::vector<std::string> files_of(const std::string& path, Where where) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return {path};
  for (const fs::path& folder : {fs::path(path), fs::path(path) / "tinyshakespeare"}) {
    std::vector<std::string> files;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder, error))
      if (entry.path().extension() == ".txt") files.push_back(entry.path().string());
    std::sort(files.begin(), files.end());
    if (!files.empty()) return files;
  }
  throw FileError(str("io::ByteText: no .txt file in '", path, "': give a file, or a folder that has some"), where);
}

std::vector<std::string> files_of(const std::vector<std::string>& paths, Where where) {
  std::vector<std::string> files;
  for (const std::string& path : paths)
    for (std::string& file : files_of(path, where)) files.push_back(std::move(file));
  return files;
}

std::string name_of(const std::vector<std::string>& paths) {
  return paths.size() == 1 ? "'" + paths.front() + "'" : str("the text of ", paths.size(), " files");
}

Bytes text_of(const std::vector<std::string>& paths, Reading reading, const Limits& limits, Where where) {
  if (paths.empty()) throw ValueError("io::ByteText: no files were given: give one or more", where);
  if (paths.size() == 1) {
    const InputFile file("io::ByteText", paths.front(), where);
    if (file.size() == 0) file.fail("is empty: give a file with text");
    return reading == Reading::mapped ? Bytes::map(file) : Bytes::read(file, limits);
  }
  if (reading == Reading::mapped)
    throw ValueError(str("io::ByteText: ", paths.size(),
                         " files can't be mapped as one text: join them to one file, or use Reading::whole"),
                     where);
  std::vector<uint8_t> all;
  Limits left = limits;
  for (const std::string& path : paths) {
    const std::vector<uint8_t> bytes = InputFile("io::ByteText", path, where).read_all(left);
    all.insert(all.end(), bytes.begin(), bytes.end());
    left.file_bytes -= bytes.size();
  }
  return Bytes::of(std::move(all));
}

}  // namespace

ByteText::ByteText(const std::string& path, ByteTextOptions options, Where where)
    : ByteText(std::vector<std::string>{path}, options, where) {}

ByteText::ByteText(const std::vector<std::string>& paths, ByteTextOptions options, Where where)
    : ByteText(text_of(files_of(paths, where), options.reading, options.limits, where), name_of(paths), options,
               where) {}

ByteText ByteText::of(std::string text, ByteTextOptions options, Where where) {
  return ByteText(Bytes::of(std::move(text)), "the text", options, where);
}

ByteText::ByteText(Bytes text, std::string name, ByteTextOptions options, Where where)
    : text_(std::move(text)), options_(options) {
  if (options.context < 1)
    throw ValueError(str("io::ByteText: context is ", options.context, ", need at least 1"), where);
  if (!(options.held_out >= 0 && options.held_out < 1))
    throw ValueError(
        str("io::ByteText: held_out is ", options.held_out, ", need 0 to below 1: it is a part of the text"), where);
  if (options.samples < 0)
    throw ValueError(str("io::ByteText: samples is ", options.samples, ", need 0 or more"), where);
  const size_t all = text_.size(),
               training = all - static_cast<size_t>(std::llround(static_cast<double>(all) * options.held_out));
  bytes_ = options.split == Split::train ? text_.span().first(training) : text_.span().subspan(training);
  const int64_t windows = (static_cast<int64_t>(bytes_.size()) - 1) / options.context;
  if (windows < 1)
    throw ValueError(
        str("io::ByteText: ", name, " has ", bytes_text(all), ", of which ", bytes_text(bytes_.size()), " are for ",
            options.split == Split::train ? "training" : "testing", ": a window of context ", options.context,
            " needs ", static_cast<uint64_t>(options.context) + 1, "; give more text, or a smaller context"),
        where);
  count_ = options.windows == Windows::random && options.samples > 0 ? options.samples : windows;
}

std::pair<Tensor, Tensor> ByteText::get(int64_t index, Where where) const {
  auto [inputs, targets] = batch(std::span(&index, 1), {}, where);
  return {inputs[0], targets[0]};
}

std::pair<Tensor, Tensor> ByteText::batch(std::span<const int64_t> indices, EpochRandom random, Where where) const {
  const int64_t count = static_cast<int64_t>(indices.size()), context = options_.context;
  Tensor inputs = empty({count, context}, {.dtype = int64}), targets = empty({count, context}, {.dtype = int64});
  int64_t *input = inputs.mutable_data<int64_t>().data(), *target = targets.mutable_data<int64_t>().data();
  for (int64_t index : indices) {
    if (index < 0 || index >= count_)
      throw DimensionError(str("io::ByteText: there is no window ", index, ", only 0 to ", count_ - 1), where);
    const uint64_t begins = bytes_.size() - static_cast<uint64_t>(context);  // places where a window fits
    const uint64_t begin =
        options_.windows == Windows::random ? random.at(index).below(begins) : static_cast<uint64_t>(index * context);
    const uint8_t* const from = bytes_.data() + begin;
    input = std::copy_n(from, context, input);
    target = std::copy_n(from + 1, context, target);
  }
  return {inputs, targets};
}

}  // namespace tandem::io
