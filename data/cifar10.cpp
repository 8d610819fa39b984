// Cifar10: small colour photographs of ten kinds of things, from the binary files that everybody has.
#include "data/cifar10.h"

#include <algorithm>
#include <filesystem>

#include "formats/files.h"

namespace tandem::io {
namespace {

using tandem::detail::str;
namespace fs = std::filesystem;

constexpr int64_t kSide = 32, kPixels = 3 * kSide * kSide, kRecord = 1 + kPixels;

// The files that `path` stands for. All must be there.
std::vector<std::string> files_of(const std::string& path, Split split, Where where) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return {path};
  std::vector<std::string> names;
  if (split == Split::test) names = {"test_batch.bin"};
  else
    for (int i = 1; i <= 5; ++i) names.push_back(str("data_batch_", i, ".bin"));
  fs::path folder = path;
  for (const char* nested : {"cifar10", "cifar-10-batches-bin"})
    if (!fs::exists(folder / names.front(), error) && fs::is_directory(fs::path(path) / nested, error))
      folder = fs::path(path) / nested;
  std::vector<std::string> files;
  std::string missing;
  for (const std::string& name : names) {
    files.push_back((folder / name).string());
    if (!fs::exists(files.back(), error)) missing += (missing.empty() ? "" : ", ") + name;
  }
  if (!missing.empty())
    throw FileError(
        str("io::Cifar10: not in '", folder.string(), "': ", missing,
            ": give the folder with the files of the binary version, or one such file, or use io::SyntheticShapes"),
        where);
  return files;
}

void append(const std::string& path, std::vector<uint8_t>& pixels, std::vector<uint8_t>& labels, const Limits& limits,
            Where where) {
  const InputFile file("io::Cifar10", path, where);
  if (file.size() == 0) file.fail("is empty: fetch it again");
  const uint64_t records = file.size() / kRecord, rest = file.size() % kRecord;
  if (rest != 0)
    file.fail(str("has ", bytes_text(file.size()), ": ", records, " records of ", bytes_text(kRecord), " and ",
                  bytes_text(rest),
                  " more. It is truncated, or no file of the binary version of CIFAR-10: fetch it again"));
  const std::vector<uint8_t> bytes = file.read_all(limits);
  for (uint64_t i = 0; i < records; ++i) {
    const uint8_t* const record = bytes.data() + i * kRecord;
    if (record[0] > 9)
      file.fail(str("has label ", int(record[0]), " in record ", i, " (byte ", i * kRecord,
                    "), and labels are 0 to 9: it is damaged or of another data set"));
    labels.push_back(record[0]);
    pixels.insert(pixels.end(), record + 1, record + kRecord);
  }
}

LabelledImages load(const std::string& path, const Cifar10Options& options, Where where) {
  std::vector<uint8_t> pixels, labels;
  for (const std::string& file : files_of(path, options.split, where))
    append(file, pixels, labels, options.limits, where);
  return LabelledImages(std::move(pixels), std::move(labels),
                        {.channels = 3, .height = kSide, .width = kSide, .classes = 10}, options.scaling,
                        options.augmentation, where);
}

}  // namespace

Cifar10::Cifar10(const std::string& path, Cifar10Options options, Where where)
    : LabelledImages(load(path, options, where)) {}

const char* cifar10_class(int64_t label, Where where) {
  static constexpr const char* names[] = {"airplane", "automobile", "bird",  "cat",  "deer",
                                          "dog",      "frog",       "horse", "ship", "truck"};
  if (label < 0 || label > 9) throw ValueError(str("io::cifar10_class: label ", label, ", need 0 to 9"), where);
  return names[label];
}

}  // namespace tandem::io
