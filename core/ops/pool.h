// Pooling and resizing of images.
#pragma once

#include <optional>

#include "../dispatch.h"
#include "../tensor.h"
#include "reduce.h"

namespace tandem {

// Pools take [batch, channels, height, width], or one image without the batch; those of one dim [batch, channels, length],
// or without the batch.
struct Pool2dOptions {
  Pair stride = 0;  ///< 0: as the kernel
  Pair padding = 0;
  Pair dilation = 1;       ///< how far apart the elements of a window lie
  bool ceil_mode = false;  ///< a last window may reach over the end, if it begins before
};
Tensor max_pool2d(const Arg& x, Pair kernel, Pool2dOptions options = {});
/// And where in the plane each greatest one is, row * width + column, int64; without dilation and ceil_mode.
ValuesAndIndices max_pool2d_with_indices(const Arg& x, Pair kernel, Pool2dOptions options = {});
struct Pool1dOptions {
  int64_t stride = 0;  ///< 0: as the kernel
  int64_t padding = 0;
  int64_t dilation = 1;
  bool ceil_mode = false;
};
Tensor max_pool1d(const Arg& x, int64_t kernel, Pool1dOptions options = {});
struct AvgPool2dOptions {
  Pair stride = 0;  ///< 0: as the kernel
  Pair padding = 0;
  bool count_include_pad = true;                 ///< padding counts as zeros in the average
  bool ceil_mode = false;                        ///< a last window may reach over the end, where nothing counts
  std::optional<int64_t> divisor_override = {};  ///< what sums are divided by
};
Tensor avg_pool2d(const Arg& x, Pair kernel, AvgPool2dOptions options = {});
struct AvgPool1dOptions {
  int64_t stride = 0;  ///< 0: as the kernel
  int64_t padding = 0;
  bool count_include_pad = true;
  bool ceil_mode = false;
};
Tensor avg_pool1d(const Arg& x, int64_t kernel, AvgPool1dOptions options = {});
/// To `size`, by windows as equal as can be; {1, 1} is the mean of each image.
Tensor adaptive_avg_pool2d(const Arg& x, Pair size);
Tensor adaptive_max_pool2d(const Arg& x, Pair size);  ///< at most 65,536 windows along a dim that they don't divide
Tensor adaptive_avg_pool1d(const Arg& x, int64_t size);
Tensor adaptive_max_pool1d(const Arg& x, int64_t size);
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
/// Channels [groups, channels / groups] in the order of [channels / groups, groups].
Tensor channel_shuffle(const Arg& x, int64_t groups);
/// pixel_shuffle back.
Tensor pixel_unshuffle(const Arg& x, int64_t factor);

}  // namespace tandem
