// An op on cuda(0) against the same op on the CPU, in every order of lanes.
#pragma once

#include "tests/cuda/compare.h"

namespace tandem::against_cpu {

/// Of results that are sums: |a - b| <= absolute + relative |b|.
inline Tolerance tolerance_of_sums(DType type) {
  if (type == float64) return {1e-11, 1e-11};
  if (type == float16) return {2e-3, 2e-3};
  if (type == bfloat16) return {1.6e-2, 1.6e-2};
  return {2e-5, 2e-5};
}

inline Tensor channels_last(const Tensor& x) { return x.permute({0, 2, 3, 1}).contiguous().permute({0, 3, 1, 2}); }
/// The same, contiguous but one element after where packs of 16 bytes could begin.
inline Tensor out_of_step(const Tensor& x) {
  if (x.rank() == 0 || x.numel() == 0) return x;
  const Tensor flat = x.reshape({-1});
  return concat({flat.slice(0, 0, 1), flat}, 0).slice(0, 1, x.numel() + 1).reshape(x.shape());
}

inline bool is_channels_last(const Tensor& x) {
  return x.rank() == 4 && !x.is_contiguous() && x.strides() == channels_last_strides(x.shape());
}

/// The op's results on the CPU, which those of cuda(0) are as close to as `scale` tolerances of their dtype, with the same bits
/// in every order of lanes. `view` is applied to each operand where it lies, so that kernels see its strides.
inline Tensors check_op(const char* name, const Tensors& inputs, const Attributes& attributes = {}, double scale = 1,
                        Tensor (*view)(const Tensor&) = nullptr) {
  INFO(detail::str(name, " of ", inputs[0].shape(), " ", inputs[0].strides(), " ", inputs[0].dtype()));
  const NoGrad guard;
  const Op& op = find_op(name);
  const auto run = [&](Device device) {
    Tensors operands;
    for (const Tensor& input : inputs) {
      operands.push_back(input.to(device));
      if (is_channels_last(input)) operands.back() = channels_last(operands.back());  // copies are dense
      if (view) operands.back() = view(operands.back());
    }
    return dispatch_all(op, operands, attributes, Where::current());
  };
  const Tensors wanted = run(cpu());
  Tensors first;
  in_every_order([&](bool is_first) {
    Tensors got = run(cuda(0));
    REQUIRE(got.size() == wanted.size());
    for (size_t i = 0; i < got.size(); ++i) {
      CHECK(got[i].device() == cuda(0));
      CHECK(got[i].strides() == wanted[i].strides());
      got[i] = got[i].cpu();
      const Tolerance tolerance = tolerance_of_sums(wanted[i].dtype());
      if (is_first) check_same(got[i], wanted[i], {tolerance.relative * scale, tolerance.absolute * scale});
      else check_same(got[i], first[i], {0, 0});
    }
    if (is_first) first = got;
  });
  return wanted;
}

}  // namespace tandem::against_cpu
