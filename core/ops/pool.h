// Pooling and resizing of images.
#pragma once

#include "../dispatch.h"
#include "../tensor.h"

namespace tandem {

struct Pool2dOptions {
  Pair stride = 0;  ///< 0: as the kernel
  Pair padding = 0;
};
Tensor max_pool2d(const Arg& x, Pair kernel, Pool2dOptions options = {});
struct Pool1dOptions {
  int64_t stride = 0;  ///< 0: as the kernel
  int64_t padding = 0;
};
Tensor max_pool1d(const Arg& x, int64_t kernel, Pool1dOptions options = {});  ///< on [batch, channels, length]
struct AvgPool2dOptions {
  Pair stride = 0;  ///< 0: as the kernel
  Pair padding = 0;
  bool count_include_pad = true;  ///< padding counts as zeros in the average
};
Tensor avg_pool2d(const Arg& x, Pair kernel, AvgPool2dOptions options = {});
struct AvgPool1dOptions {
  int64_t stride = 0;  ///< 0: as the kernel
  int64_t padding = 0;
  bool count_include_pad = true;
};
Tensor avg_pool1d(const Arg& x, int64_t kernel, AvgPool1dOptions options = {});
/// To `size`, by windows as equal as can be; {1, 1} is the mean of each image.
Tensor adaptive_avg_pool2d(const Arg& x, Pair size);
Tensor adaptive_max_pool2d(const Arg& x, Pair size);  ///< at most 65,536 windows along a dim that they don't divide
enum class Interpolation : uint8_t { nearest, bilinear, bicubic, area };
struct InterpolateOptions {
  Pair size = 0;            ///< height and width of the result, or
  double scale_factor = 0;  ///< what they are multiplied by
  Interpolation mode = Interpolation::nearest;
  bool align_corners = false;  ///< the corner pixels' centres stay where they are, rather than the image's edges
};
/// Images resized as by torch.nn.functional.interpolate.
Tensor interpolate(const Arg& x, const InterpolateOptions& options);
/// [batch, channels factor², height, width] to [batch, channels, height factor, width factor] (Shi et al. 2016).
Tensor pixel_shuffle(const Arg& x, int64_t factor);

}  // namespace tandem
