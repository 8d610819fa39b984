// Average pooling and interpolation on cuda(0) against the CPU's kernels, and their gradients: every mode, channels-last and in
// planes, more pixels and more channels than a block has threads, and fewer.
#include <string>

#include "tests/cuda/against_cpu.h"

using namespace tandem;
using namespace tandem::against_cpu;

namespace {

struct Resizing {
  Shape x, size;
  const char* mode;
  bool corners = false;
  double factor = 0;
};

/// The op forth from x and back from a gradient, both in planes and channels-last.
void check_both(const char* name, const Shape& x, DType type, const Attributes& attributes,
                Tensor (*view)(const Tensor&) = nullptr) {
  const std::string back = name + std::string("_grad");
  Attributes grad = attributes;
  grad.set({"shape", x});
  const Tensor images = numbers(x, type);
  const Tensor y = check_op(name, {images}, attributes, 2, view)[0];
  const Tensor g = numbers(y.shape(), type, 3);
  check_op(back.c_str(), {g}, grad, 4, view);
  if (view) return;
  check_op(name, {channels_last(images)}, attributes, 2);
  check_op(back.c_str(), {channels_last(g)}, grad, 4);
}

void check_interpolation(const Resizing& c, DType type, Tensor (*view)(const Tensor&) = nullptr) {
  const auto step = [&](int d) {
    const double in = static_cast<double>(c.x[d + 2]), out = static_cast<double>(c.size[d]);
    return c.factor > 0 ? 1 / c.factor : c.corners ? (out > 1 ? (in - 1) / (out - 1) : 0) : in / out;
  };
  check_both("interpolate2d", c.x, type,
             {{"size", c.size},
              {"mode", std::string(c.mode)},
              {"align_corners", c.corners},
              {"row_step", step(0)},
              {"column_step", step(1)}},
             view);
}

struct Window {
  Shape x, kernel, stride, padding{0, 0};
  bool counts_padding = true;
};
void check_pool(const Window& w, DType type, Tensor (*view)(const Tensor&) = nullptr) {
  check_both(
      "avg_pool2d", w.x, type,
      {{"kernel", w.kernel}, {"stride", w.stride}, {"padding", w.padding}, {"count_include_pad", w.counts_padding}},
      view);
}

Tensor transposed(const Tensor& x) { return x.transpose(0, 1).contiguous().transpose(0, 1); }
Tensor part_of_rows(const Tensor& x) { return concat({x, x * 2}, 3).slice(3, 0, x.shape()[3]); }

}  // namespace

TEST_CASE("cuda: avg_pool2d and its gradient") {
  for (const DType type : floats) {
    check_pool({{2, 3, 9, 8}, {2, 2}, {2, 2}}, type);
    check_pool({{2, 16, 9, 11}, {3, 2}, {2, 1}, {1, 1}}, type);
    check_pool({{1, 5, 12, 7}, {5, 3}, {1, 2}, {2, 1}, false}, type);
    check_pool({{2, 8, 7, 7}, {2, 3}, {3, 5}}, type);  // gaps
  }
  check_pool({{2, 264, 7, 7}, {7, 7}, {7, 7}}, float32);           // one pixel of many channels
  check_pool({{1, 2, 40, 300}, {3, 3}, {1, 1}, {1, 1}}, float32);  // more pixels than threads
  check_pool({{70, 12, 2, 2}, {2, 2}, {2, 2}}, float32);           // many planes of one pixel
  check_pool({{3, 4, 6, 5}, {2, 2}, {2, 2}}, float32, transposed);
  check_pool({{3, 4, 6, 5}, {2, 2}, {2, 2}}, bfloat16, out_of_step);
  check_pool({{3, 4, 6, 5}, {2, 2}, {2, 2}}, float32, part_of_rows);
  check_pool({{0, 4, 6, 5}, {2, 2}, {2, 2}}, float32);
}

TEST_CASE("cuda: interpolate2d and its gradient in every mode") {
  for (const char* mode : {"nearest", "bilinear", "bicubic", "area"}) {
    for (const DType type : floats) {
      check_interpolation({{2, 3, 5, 6}, {10, 12}, mode}, type);
      check_interpolation({{2, 16, 9, 7}, {4, 17}, mode}, type);
    }
    check_interpolation({{1, 5, 1, 9}, {6, 1}, mode}, float32);
    check_interpolation({{1, 2, 30, 41}, {33, 90}, mode}, float32);
    check_interpolation({{2, 260, 3, 2}, {2, 5}, mode}, float32);
    check_interpolation({{70, 12, 2, 1}, {1, 1}, mode}, float32);
    check_interpolation({{3, 4, 6, 5}, {9, 9}, mode}, float32, transposed);
    check_interpolation({{3, 4, 6, 5}, {9, 9}, mode}, float32, part_of_rows);
    check_interpolation({{0, 4, 6, 5}, {9, 9}, mode}, float32);
  }
  for (const char* mode : {"bilinear", "bicubic"})
    for (const Shape& size : {Shape{10, 12}, {1, 3}, {4, 5}})
      check_interpolation({{2, 4, 5, 6}, size, mode, true}, float64);
  for (const char* mode : {"nearest", "bilinear", "bicubic"})  // steps that the extents don't give
    for (const double factor : {1.7, 0.6, 2.3}) {
      const auto size = [&](int64_t extent) { return static_cast<int64_t>(static_cast<double>(extent) * factor); };
      check_interpolation({{2, 4, 13, 11}, {size(13), size(11)}, mode, false, factor}, float64);
    }
}

TEST_CASE("cuda: adaptive pools, and averages of windows that reach over the edge") {
  const NoGrad guard;
  const Tensor x = numbers({2, 8, 11, 9});
  const auto check = [&](const auto& f) {
    const Tensor wanted = f(x);
    for (const bool last : {false, true}) {
      const Tensor there = last ? channels_last(x.to(cuda(0))) : x.to(cuda(0));
      check_same(f(there).cpu(), wanted, tolerance_of_sums(float32));
    }
  };
  check([](const Tensor& t) { return adaptive_avg_pool2d(t, {1, 1}); });
  check([](const Tensor& t) { return adaptive_avg_pool2d(t, {4, 3}); });
  check([](const Tensor& t) { return adaptive_avg_pool2d(t, {14, 20}); });
  check([](const Tensor& t) { return adaptive_max_pool2d(t, {11, 3}); });
  check([](const Tensor& t) { return avg_pool1d(t[0], 3, {.stride = 2, .padding = 1}); });
  check([](const Tensor& t) { return interpolate(t, {.scale_factor = 2, .mode = Interpolation::bilinear}); });
}
