// Normalisation on cuda(0) against the CPU's kernels: rows in registers of a warp and of a block, longer ones, columns that make
// packs and that don't, sums over more rows than a block takes.
#include "tests/cuda/against_cpu.h"

using namespace tandem;
using namespace tandem::against_cpu;

TEST_CASE("cuda: rms_norm and its gradient") {
  const Attributes epsilon{{"epsilon", 1e-6}};
  for (const DType type : floats) {
    for (const int64_t columns : {1, 10, 96, 300, 1024, 1500, 2048, 9000}) {
      if (columns > 1024 && type != float32 && type != bfloat16) continue;
      const Tensor x = numbers({3, 7, columns}, type), w = numbers({columns}, type, 2);
      const Tensors y = check_op("rms_norm", {x, w}, epsilon);
      check_op("rms_norm_grad", {numbers({3, 7, columns}, type, 4), x, w, y[1]}, {}, 4);
    }
    const Tensor x = numbers({700, 40}, type), w = numbers({40}, type, 2);
    check_op("rms_norm_grad", {numbers({700, 40}, type, 4), x, w, check_op("rms_norm", {x, w}, epsilon)[1]}, {}, 8);
  }
  check_op("rms_norm", {numbers({9, 64}), numbers({64})}, epsilon, 1, out_of_step);
  check_op("rms_norm_grad", {numbers({9, 64}), numbers({9, 64}, float32, 2), numbers({64}), numbers({9}, float32, 3)},
           {}, 4, out_of_step);
  check_op("rms_norm", {numbers({0, 8}), numbers({8})}, epsilon);
  check_op("rms_norm_grad", {numbers({0, 8}), numbers({0, 8}), numbers({8}), numbers({0})});
  check_op("rms_norm_grad", {numbers({3, 0}), numbers({3, 0}), numbers({0}), numbers({3})});
}

TEST_CASE("cuda: layer_norm's gradients of weight and bias over many rows, in packs and without") {
  for (const DType type : floats)
    for (const int64_t columns : {17, 40, 264}) {
      const Tensor x = numbers({600, columns}, type), w = numbers({columns}, type, 2), b = numbers({columns}, type, 3);
      const Tensors y = check_op("layer_norm", {x, w, b}, {{"epsilon", 1e-5}}, 4);
      check_op("layer_norm_grad", {numbers({600, columns}, type, 4), x, w, y[1], y[2]}, {}, 8);
    }
}

namespace {

Tensor transposed(const Tensor& x) { return x.rank() < 2 ? x : x.transpose(0, 1).contiguous().transpose(0, 1); }

/// All ops of batch normalisation on x and a gradient that lie as `x` and `g` do.
void check_batch_norm(const Tensor& x, const Tensor& g, DType numbers_type, Tensor (*view)(const Tensor&) = nullptr,
                      double scale = 1) {
  const Attributes epsilon{{"epsilon", 1e-5}};
  const Shape channels{x.shape()[1]};
  const DType wide = x.dtype() == float64 ? float64 : float32;
  const Tensor w = numbers(channels, numbers_type, 2) + 1.5, b = numbers(channels, numbers_type, 3);
  check_op("batch_norm", {x, w, b}, epsilon, 2 * scale, view);
  const Tensors statistics = check_op("batch_norm_statistics", {x}, {}, 2 * scale, view);
  check_op("batch_norm_apply", {x, w, b, statistics[0].to(numbers_type), statistics[1].to(numbers_type)}, epsilon,
           2 * scale, view);
  CHECK(statistics[0].dtype() == wide);
  check_op("batch_norm_grad", {g, x, w, statistics[0], statistics[1]}, epsilon, 16 * scale, view);
}

}  // namespace

TEST_CASE("cuda: batch_norm, its parts and its gradient, channels-last and in planes") {
  // A tile of columns and several, packs and none, pieces of rows and one; planes by packs and without, by warps and by blocks.
  for (const Shape& shape :
       {Shape{2, 3, 5, 7}, {4, 64, 9, 8}, {2, 264, 6, 6}, {2, 80, 4, 5}, {1, 8, 70, 64}, {3, 1, 40, 40}, {5, 20, 1, 1}})
    for (const DType type : floats) {
      if (type != float32 && type != bfloat16 && shape.numel() > 6000) continue;
      const Tensor x = numbers(shape, type) * 3 + 1, g = numbers(shape, type, 5);
      for (const DType numbers_type : {type, type == float64 ? float64 : float32}) {
        check_batch_norm(x, g, numbers_type);
        check_batch_norm(channels_last(x), channels_last(g), numbers_type);
        if (numbers_type == type && type != float32) break;
      }
    }
  for (const Shape& shape : {Shape{700, 40}, {3, 5, 2000}, {40, 6, 2, 3, 4}})
    check_batch_norm(numbers(shape), numbers(shape, float32, 5), float32);
  // Large enough that a channel's elements are cut into pieces.
  check_batch_norm(numbers({2, 3, 160, 160}), numbers({2, 3, 160, 160}, float32, 5), float32);
  check_batch_norm(channels_last(numbers({2, 5, 160, 160})), channels_last(numbers({2, 5, 160, 160}, float32, 5)),
                   float32);
}

TEST_CASE("cuda: batch_norm of operands that lie otherwise, of none elements, and far from zero") {
  const Tensor x = numbers({6, 10, 5, 4}), g = numbers({6, 10, 5, 4}, float32, 5);
  check_batch_norm(x, g, float32, transposed);
  check_batch_norm(x, g, float32, out_of_step);
  check_batch_norm(numbers({70, 8}, bfloat16), numbers({70, 8}, bfloat16, 5), bfloat16, out_of_step);
  check_batch_norm(x, channels_last(g), float32);
  check_batch_norm(channels_last(x), g, float32);
  check_batch_norm(x, expand(numbers({1, 10, 1, 1}), {6, 10, 5, 4}), float32);
  for (const Shape& shape : {Shape{0, 3}, {2, 3, 0, 2}, {2, 0, 3, 2}})
    check_batch_norm(numbers(shape), numbers(shape), float32);
  // Here a mean that is rounded the other way moves results by a ten-thousandth.
  const Tensor far = numbers({40, 6, 5, 4}) + 1000, far_g = numbers({40, 6, 5, 4}, float32, 5);
  check_batch_norm(far, far_g, float32, nullptr, 8);
  check_batch_norm(channels_last(far), channels_last(far_g), float32, nullptr, 8);
}

namespace {

void check_group_norm(const Tensor& x, const Tensor& g, int64_t groups, DType numbers_type,
                      Tensor (*view)(const Tensor&) = nullptr, double scale = 1) {
  const Attributes attributes{{"groups", groups}, {"epsilon", 1e-5}};
  const Shape channels{x.shape()[1]};
  const Tensor w = numbers(channels, numbers_type, 2) + 1.5, b = numbers(channels, numbers_type, 3);
  const Tensors y = check_op("group_norm", {x, w, b}, attributes, 2 * scale, view);
  check_op("group_norm_grad", {g, x, w, y[1], y[2]}, attributes, 16 * scale, view);
}

}  // namespace

TEST_CASE("cuda: group_norm and its gradient, channels-last and in planes") {
  struct Groups {
    Shape x;
    int64_t groups;
  };
  for (const Groups& c :
       {Groups{{2, 6, 5, 7}, 3}, {{3, 64, 9, 8}, 8}, {{2, 264, 4, 4}, 33}, {{2, 8, 5, 4}, 8}, {{2, 8, 5, 4}, 1}})
    for (const DType type : floats) {
      const Tensor x = numbers(c.x, type) * 3 + 1, g = numbers(c.x, type, 5);
      check_group_norm(x, g, c.groups, type);
      check_group_norm(channels_last(x), channels_last(g), c.groups, type == float64 ? float64 : float32);
    }
  const Tensor x = numbers({6, 10, 5, 4}), g = numbers({6, 10, 5, 4}, float32, 5);
  check_group_norm(x, g, 5, float32, transposed);
  check_group_norm(x, g, 5, float32, out_of_step);
  check_group_norm(channels_last(x), g, 2, float32);
  check_group_norm(x + 1000, g, 2, float32, nullptr, 8);
  // A group of one image that is cut into pieces; more channels, and more images, than a warp adds up.
  const Tensor large = numbers({1, 6, 160, 160}), large_g = numbers({1, 6, 160, 160}, float32, 5);
  check_group_norm(large, large_g, 2, float32);
  check_group_norm(channels_last(large), channels_last(large_g), 2, float32);
  check_group_norm(numbers({2, 1100, 3, 3}), numbers({2, 1100, 3, 3}, float32, 5), 1, float32, nullptr, 2);
  check_group_norm(channels_last(numbers({2, 1100, 3, 3})), channels_last(numbers({2, 1100, 3, 3}, float32, 5)), 1,
                   float32, nullptr, 2);
  check_group_norm(numbers({1100, 12}), numbers({1100, 12}, float32, 5), 2, float32, nullptr, 4);
  for (const Groups& c : {Groups{{0, 4, 2}, 2}, {{2, 4, 0}, 2}, {{2, 0, 3}, 1}})
    check_group_norm(numbers(c.x), numbers(c.x), c.groups, float32);
}
