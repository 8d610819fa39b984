// Pooling and resizing of images.
#pragma once

#include <optional>

#include "../dispatch.h"
#include "../tensor.h"
#include "reduce.h"

namespace tandem {

// Pools take [batch, channels, height, width], or one image without the batch; those of one dim [batch, channels, length],
// or without the batch.
template <class Extents> struct PoolOptions {
  Extents stride = 0;  ///< 0: as the kernel
  Extents padding = 0;
  Extents dilation = 1;    ///< how far apart the elements of a window lie
  bool ceil_mode = false;  ///< a last window may reach over the end, if it begins before
};
using Pool1dOptions = PoolOptions<int64_t>;
using Pool2dOptions = PoolOptions<Pair>;
using Pool3dOptions = PoolOptions<Triple>;
Tensor max_pool2d(const Arg& x, Pair kernel, Pool2dOptions options = {});
/// And where in the plane each greatest one is, row * width + column, int64; without dilation and ceil_mode.
ValuesAndIndices max_pool2d_with_indices(const Arg& x, Pair kernel, Pool2dOptions options = {});
Tensor max_pool1d(const Arg& x, int64_t kernel, Pool1dOptions options = {});
template <class Extents> struct AvgPoolOptions {
  Extents stride = 0;  ///< 0: as the kernel
  Extents padding = 0;
  bool count_include_pad = true;                 ///< padding counts as zeros in the average
  bool ceil_mode = false;                        ///< a last window may reach over the end, where nothing counts
  std::optional<int64_t> divisor_override = {};  ///< what sums are divided by
};
using AvgPool2dOptions = AvgPoolOptions<Pair>;
using AvgPool3dOptions = AvgPoolOptions<Triple>;
Tensor avg_pool2d(const Arg& x, Pair kernel, AvgPool2dOptions options = {});
struct AvgPool1dOptions {
  int64_t stride = 0;  ///< 0: as the kernel
  int64_t padding = 0;
  bool count_include_pad = true;
  bool ceil_mode = false;
};
Tensor avg_pool1d(const Arg& x, int64_t kernel, AvgPool1dOptions options = {});
// Of volumes [batch, channels, depth, height, width], or of one without the batch.
Tensor max_pool3d(const Arg& x, Triple kernel, Pool3dOptions options = {});
Tensor avg_pool3d(const Arg& x, Triple kernel, AvgPool3dOptions options = {});
Tensor adaptive_avg_pool3d(const Arg& x, Triple size);
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
/// Where windows lie: for unfold and fold.
struct PatchOptions {
  Pair stride = 1, padding = 0, dilation = 1;
};
/// Windows of images as columns: x [batch, channels, height, width], or one image, gives [batch, channels kh kw, windows], where
/// windows go along rows (torch.nn.functional.unfold).
Tensor unfold(const Arg& x, Pair kernel, PatchOptions options = {});
/// Columns as unfold makes them of images of `size`, added up where windows overlap: [batch, channels, size.height, size.width].
Tensor fold(const Arg& x, Pair size, Pair kernel, PatchOptions options = {});
enum class GridPadding : uint8_t {
  zeros,       ///< outside an image are zeros
  border,      ///< positions outside are moved to the edge
  reflection,  ///< mirrored at the edges until they are inside
};
struct GridSampleOptions {
  Interpolation mode = Interpolation::bilinear;  ///< or nearest
  GridPadding padding = GridPadding::zeros;
  bool align_corners = false;  ///< -1 and 1 are the centres of the outermost pixels, rather than their outer edges
};
/// x [batch, channels, height, width] at grid [batch, h, w, 2], whose last dim has a column and a row between -1 and 1 (NaN counts
/// as -1): [batch, channels, h, w]. Gradients go to both.
Tensor grid_sample(const Arg& x, const Tensor& grid, GridSampleOptions options = {});
struct AffineGridOptions {
  bool align_corners = false;
};
/// The grid [batch, height, width, 2] by which grid_sample applies theta [batch, 2, 3] to images of `size` [batch, channels,
/// height, width].
Tensor affine_grid(const Arg& theta, const Shape& size, AffineGridOptions options = {});
/// [batch, channels factor², height, width] to [batch, channels, height factor, width factor] (Shi et al. 2016).
Tensor pixel_shuffle(const Arg& x, int64_t factor);
/// Channels [groups, channels / groups] in the order of [channels / groups, groups].
Tensor channel_shuffle(const Arg& x, int64_t groups);
/// pixel_shuffle back.
Tensor pixel_unshuffle(const Arg& x, int64_t factor);

}  // namespace tandem
