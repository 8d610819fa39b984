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
