// SyntheticShapes: coloured shapes, for where no data set of photographs is at hand.
#pragma once

#include <cstdint>

#include "cifar10.h"

namespace tandem::io {

struct SyntheticShapesOptions {
  Split split = Split::train;
  int64_t count = 0;  ///< 0: 5000 to train on, 1000 to test on
  uint64_t seed = 1;
  ImageScaling scaling = kCifar10Scaling;
  ImageAugmentation augmentation = {};
};

/// Pictures in the format of Cifar10, 3 x 32 x 32 and ten classes: disc, ring, square, triangle, diamond, cross, star,
/// crescent, two bars, and hourglass, of any colour, size, place and (but for square and diamond) turn, before an
/// uneven background with grain. The same options give the same images; the two splits share none.
class SyntheticShapes : public LabelledImages {
 public:
  explicit SyntheticShapes(SyntheticShapesOptions options = {}, Where where = Where::current());
};

/// "disc", "ring", … for a label of 0 to 9.
const char* synthetic_shape(int64_t label, Where where = Where::current());

}  // namespace tandem::io
