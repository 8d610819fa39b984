// Mnist: handwritten digits, from the four files that everybody has.
#pragma once

#include <string>

#include "../formats/limits.h"
#include "labelled_images.h"

namespace tandem::io {

struct MnistOptions {
  Split split = Split::train;
  ImageScaling scaling = kMnistScaling;
  Limits limits = {};  ///< of each file
};

/// Reads train-images-idx3-ubyte and train-labels-idx1-ubyte (or t10k-… for Split::test), gzipped or not,
/// from `directory`; Fashion-MNIST and others of this format too. Pixels are scaled to (value / 255 - 0.1307)
/// / 0.3081, or as `scaling` says. FileError names the file, what is wrong with it and what to do.
class Mnist : public LabelledImages {
 public:
  explicit Mnist(const std::string& directory, MnistOptions options = {}, Where where = Where::current());
};

}  // namespace tandem::io
