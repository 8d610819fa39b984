// Mnist: handwritten digits, from the four files that everybody has.
#include "data/mnist.h"

#include <filesystem>

#include "formats/idx.h"

namespace tandem::io {
namespace {

// `directory`, or mnist/ in it: where one folder holds several data sets.
std::string folder_of(const std::string& directory) {
  std::error_code error;
  const std::filesystem::path nested = std::filesystem::path(directory) / "mnist";
  return std::filesystem::is_directory(nested, error) ? nested.string() : directory;
}

LabelledImages load(const std::string& given, MnistOptions options, Where where) {
  using tandem::detail::str;
  const std::string directory = folder_of(given);
  const std::string prefix = options.split == Split::train ? "train" : "t10k";
  Idx images = read_idx(find_idx(directory, prefix + "-images-idx3-ubyte", where), 3, options.limits, where);
  Idx labels = read_idx(find_idx(directory, prefix + "-labels-idx1-ubyte", where), 1, options.limits, where);
  if (images.shape[0] != labels.shape[0])
    throw FileError(str("io::Mnist: '", images.path, "' has ", images.shape[0], " images, and '", labels.path, "' ",
                        labels.shape[0], " labels: the two files don't belong together"),
                    where);
  for (size_t i = 0; i < labels.values.size(); ++i)
    if (labels.values[i] > 9)
      throw FileError(str("io::Mnist: label ", i, " in '", labels.path, "' is ", int(labels.values[i]),
                          ", and digits are 0 to 9: the file is damaged or of another data set"),
                      where);
  return LabelledImages(std::move(images.values), std::move(labels.values),
                        {.channels = 1, .height = images.shape[1], .width = images.shape[2], .classes = 10},
                        options.scaling, {}, where);
}

}  // namespace

Mnist::Mnist(const std::string& directory, MnistOptions options, Where where)
    : LabelledImages(load(directory, options, where)) {}

}  // namespace tandem::io
