// Cifar10: small colour photographs of ten kinds of things, from the binary files that everybody has.
#pragma once

#include <string>

#include "../formats/limits.h"
#include "labelled_images.h"

namespace tandem::io {

/// What the pixels of CIFAR-10 average to, and their deviation, for red, green and blue.
inline constexpr ImageScaling kCifar10Scaling{.mean = {0.4914f, 0.4822f, 0.4465f},
                                              .deviation = {0.2470f, 0.2435f, 0.2616f}};

struct Cifar10Options {
  Split split = Split::train;              ///< of a folder; a single file is what it is
  ImageScaling scaling = kCifar10Scaling;  ///< `.scaling = {}` leaves values of 0 to 1
  ImageAugmentation augmentation = {};     ///< usual to train with: {.crop_padding = 4, .horizontal_flip = true}
  Limits limits = {};                      ///< of each file
};

/// Reads data_batch_1.bin to data_batch_5.bin (or test_batch.bin, for Split::test) from a folder, from cifar10/ or
/// cifar-10-batches-bin/ in it, or a single file of that format: records of 3,073 bytes, a label of 0 to 9 and 3 x 32 x 32
/// pixels (https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version"). FileError names the file, what is wrong with
/// it and what to do; nothing is kept of a set of files of which one is damaged.
class Cifar10 : public LabelledImages {
 public:
  explicit Cifar10(const std::string& path, Cifar10Options options = {}, Where where = Where::current());
};

/// "airplane", "automobile", … for a label of 0 to 9.
const char* cifar10_class(int64_t label, Where where = Where::current());

}  // namespace tandem::io
