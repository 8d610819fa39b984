// SyntheticDigits: digits drawn as if by hand, for where no data set is at hand.
#pragma once

#include <cstdint>

#include "labelled_images.h"

namespace tandem::io {

struct SyntheticDigitsOptions {
  Split split = Split::train;
  int64_t count = 0;  ///< 0: 8000 to train on, 2000 to test on
  uint64_t seed = 1;
  ImageScaling scaling = kMnistScaling;  ///< `{}` leaves values of 0 to 1
};

/// Draws digits with a pen of random width along distorted strokes, in the ways that people write them (an
/// open or a closed 4, a 7 with and without a bar, …): 28 x 28, scaled as Mnist is. The same options give the
/// same images; the two splits share none.
class SyntheticDigits : public LabelledImages {
 public:
  explicit SyntheticDigits(SyntheticDigitsOptions options = {}, Where where = Where::current());
};

}  // namespace tandem::io
