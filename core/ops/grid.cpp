// Windows of images as columns and back (unfold, fold), and images at positions that are data (grid_sample, affine_grid). All
// made of index_select and index_add, each the other's gradient.
#include "core/dispatch.h"
#include "core/ops/windows.h"

namespace tandem {

namespace {

/// 0, 1, .. as dim `dim` of four, times `step`.
Tensor steps(int64_t count, int dim, int64_t step, Device device) {
  Shape shape{1, 1, 1, 1};
  shape[dim] = count;
  return reshape(arange(0, count, 1, {.dtype = int64, .device = device}) * step, shape);
}

/// Where the windows of padded images read.
struct Patches {
  Shape padded;   ///< height, width
  Shape windows;  ///< how many along each
  int64_t taps;   ///< of a window

  Patches(const char* name, const Arg& x, const Shape& size, const Shape& kernel, const PatchOptions& options) {
    const Windows along{name, kernel, options.stride, options.dilation, options.padding, options.padding};
    along.check_numbers(x);
    for (int i = 0; i < 2; ++i) {
      windows.push_back(along.count(x, size, i));
      padded.push_back(along.padded(x, size, i));
    }
    check_extents(padded, name, x.where());
    check_extents({kernel[0], kernel[1], windows[0], windows[1]}, name, x.where());
    taps = kernel[0] * kernel[1];
  }
  /// Positions in a padded image, of tap after tap, window after window.
  Tensor positions(const Shape& kernel, const PatchOptions& options, Device device) const {
    return flatten(steps(kernel[0], 0, options.dilation.height * padded[1], device) +
                   steps(kernel[1], 1, options.dilation.width, device) +
                   steps(windows[0], 2, options.stride.height * padded[1], device) +
                   steps(windows[1], 3, options.stride.width, device));
  }
};

}  // namespace

Tensor unfold(const Arg& x, Pair kernel, PatchOptions options) {
  return batched(x, 4, [&](const Arg& images) {
    const CallScope scope("unfold", x.where());
    const Shape& from = images.tensor().shape();
    check<ShapeError>(from.size() == 4, x, "unfold: needs x [batch, channels, height, width], got ", from);
    const Patches patches("unfold", x, {from[2], from[3]}, kernel, options);
    const Pair padding = options.padding;
    const Tensor padded = padding.height == 0 && padding.width == 0
                              ? images.tensor()
                              : pad(images, {padding.width, padding.width, padding.height, padding.height});
    const Tensor planes = reshape(padded, {from[0], from[1], patches.padded.numel()});
    const Tensor columns = index_select(planes, 2, patches.positions(kernel, options, images.tensor().device()));
    return reshape(columns, {from[0], checked_mul(from[1], patches.taps), patches.windows.numel()});
  });
}

Tensor fold(const Arg& x, Pair size, Pair kernel, PatchOptions options) {
  return batched(x, 3, [&](const Arg& columns) {
    const CallScope scope("fold", x.where());
    const Shape& from = columns.tensor().shape();
    check<ShapeError>(from.size() == 3, x, "fold: needs x [batch, channels kh kw, windows], got ", from);
    const Patches patches("fold", x, size, kernel, options);
    check<ShapeError>(from[1] % patches.taps == 0 && from[2] == patches.windows.numel(), x, "fold: x ", from,
                      " is not [batch, channels ", patches.taps, ", ", patches.windows.numel(), "], as images of ",
                      Shape(size), " with kernel ", Shape(kernel), " give");
    const int64_t channels = from[1] / patches.taps;
    const Device device = columns.tensor().device();
    const Tensor zero = zeros({}, {.dtype = columns.tensor().dtype(), .device = device});
    const Tensor planes = index_add(expand(zero, {from[0], channels, patches.padded.numel()}), 2,
                                    patches.positions(kernel, options, device),
                                    reshape(columns, {from[0], channels, checked_mul(patches.taps, from[2])}));
    const Tensor images = reshape(planes, {from[0], channels, patches.padded[0], patches.padded[1]});
    const Pair padding = options.padding;
    return slice(slice(images, 2, padding.height, padding.height + size.height), 3, padding.width,
                 padding.width + size.width);
  });
}

namespace {

/// Positions between -1 and 1 as pixels of an image of this extent, those outside moved as the padding says.
Tensor pixels(const Tensor& position, int64_t count, const GridSampleOptions& options) {
  const double extent = static_cast<double>(count), last = extent - 1;
  const Tensor x = options.align_corners ? (position + 1) / 2 * last : ((position + 1) * extent - 1) / 2;
  if (options.padding == GridPadding::zeros) return x;
  if (options.padding == GridPadding::border) return clamp(x, 0, last);
  // Mirrored at the centres of the outermost pixels, or at their outer edges.
  const double low = options.align_corners ? 0 : -0.5, span = options.align_corners ? last : extent;
  if (span == 0) return zeros_like(x);
  const Tensor above = x - low, distance = where(above < 0, -above, above);
  const Tensor rest = fmod(distance, span), odd = remainder(floor(distance / span), 2) != 0;
  return clamp(where(odd, span - rest, rest) + low, 0, last);
}

}  // namespace

Tensor grid_sample(const Arg& x, const Tensor& grid, GridSampleOptions options) {
  const CallScope scope("grid_sample", x.where());
  const Tensor& images = x.tensor();
  const Shape &from = images.shape(), &to_shape = grid.shape(x.where());
  check<ShapeError>(from.size() == 4 && to_shape.size() == 4 && to_shape[3] == 2 && from[0] == to_shape[0], x,
                    "grid_sample: needs x [batch, channels, height, width] and grid [batch, h, w, 2], got ", from,
                    " and ", to_shape);
  check<ShapeError>(from[2] >= 1 && from[3] >= 1, x, "grid_sample: x ", from, " has no pixels");
  check<DTypeError>(is_floating(images.dtype()) && images.dtype() == grid.dtype(), x,
                    "grid_sample: needs operands of one floating dtype, got ", images.dtype(), " and ", grid.dtype(),
                    "; cast one with to()");
  check<ValueError>(options.mode == Interpolation::bilinear || options.mode == Interpolation::nearest, x,
                    "grid_sample: has the modes bilinear and nearest");
  const DType type = wide_type(images.dtype());
  const int64_t batch = from[0], channels = from[1], height = from[2], width = from[3];
  const Tensor rows =
      reshape(movedim(to(images, type), 1, 3), {checked_mul(checked_mul(batch, height), width), channels});
  // Of infinite positions weights would be NaN, and gradients of pixels, too.
  const Tensor positions = where(isnan(grid), -1, clamp(to(grid, type), -1e30, 1e30));
  const Tensor column = pixels(select(positions, 3, 0), width, options),
               row = pixels(select(positions, 3, 1), height, options);
  const Tensor first =
      reshape(arange(0, batch, 1, {.dtype = int64, .device = images.device()}) * (height * width), {batch, 1, 1});
  // The pixel of each position, times its weight if there is one; 0 outside.
  const auto pixel = [&](const Tensor& at_row, const Tensor& at_column, const Tensor& weight) {
    const Tensor inside = (at_row >= 0) & (at_row < height) & (at_column >= 0) & (at_column < width);
    const Tensor index = to(where(inside, at_row, 0), int64) * width + to(where(inside, at_column, 0), int64) + first;
    const Tensor values = reshape(index_select(rows, 0, flatten(index)), {batch, to_shape[1], to_shape[2], channels});
    return where(unsqueeze(inside, 3), weight.defined() ? values * unsqueeze(weight, 3) : values, 0);
  };
  Tensor result;
  if (options.mode == Interpolation::nearest) {
    result = pixel(round(row), round(column), {});
  } else {
    const Tensor top = floor(row), left = floor(column), down = row - top, right = column - left;
    const Tensor bottom = top + 1, end = left + 1, up = bottom - row, back = end - column;
    result = pixel(top, left, up * back) + pixel(top, end, up * right) + pixel(bottom, left, down * back) +
             pixel(bottom, end, down * right);
  }
  return to(movedim(result, 3, 1), images.dtype());
}

Tensor affine_grid(const Arg& theta, const Shape& size, AffineGridOptions options) {
  const CallScope scope("affine_grid", theta.where());
  const Tensor& maps = theta.tensor();
  check<ShapeError>(maps.rank() == 3 && maps.shape()[1] == 2 && maps.shape()[2] == 3 && size.size() == 4 &&
                        size[0] == maps.shape()[0],
                    theta,
                    "affine_grid: needs theta [batch, 2, 3] and a size of [batch, channels, height, width], got ",
                    maps.shape(), " and ", size);
  check_floating("affine_grid", theta);
  check<ValueError>(size[2] >= 1 && size[3] >= 1, theta, "affine_grid: size ", size, " has no pixels");
  check_extents({size[0], size[2], size[3], 3}, "affine_grid", theta.where());
  const TensorOptions like{.dtype = maps.dtype(), .device = maps.device()};
  const auto centres = [&](int64_t count) {
    const double extent = static_cast<double>(count), edge = options.align_corners ? 1 : (extent - 1) / extent;
    return count == 1 ? zeros({1}, like) : linspace(-edge, edge, count, like);
  };
  const Shape plane{size[2], size[3]};
  const Tensor columns = expand(centres(size[3]), plane), rows = expand(unsqueeze(centres(size[2]), 1), plane);
  const Tensor base = reshape(stack({columns, rows, ones(plane, like)}, 2), {1, plane.numel(), 3});
  const Tensor grid = matmul(expand(base, {size[0], plane.numel(), 3}), transpose(maps, 1, 2));
  return reshape(grid, {size[0], size[2], size[3], 2});
}

}  // namespace tandem
