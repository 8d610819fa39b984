// A case: a sample with a dtype and a layout chosen for its operands.
#pragma once

#include "samples/layouts.h"
#include "samples/samples.h"

namespace tandem::samples {

/// A layout for each operand.
using LayoutChoice = std::vector<Layout>;
/// All operands in one layout, for each that makes a difference, and two mixtures.
std::vector<LayoutChoice> layout_choices(const Sample& sample);

class Case {
 public:
  Case(const Sample& sample, DType dtype, LayoutChoice layouts, Device device);

  const Sample& sample() const { return *sample_; }
  DType dtype() const { return dtype_; }
  std::string name() const;
  int64_t numel() const;  ///< of the largest base

  /// What the operands are views of.
  const Tensors& bases() const { return bases_; }
  /// The sample's call on views of these bases.
  Tensors call(const Tensors& bases) const;
  /// Throws std::runtime_error where the results differ from the reference's.
  void check_forward() const;
  /// Throws where `actual` differs from what eager mode gave; exactly, or as the sample allows.
  void check_same(const Tensor& actual, const Tensor& eager, bool exactly) const;

  /// For finite differences: the bases to differentiate by, and the call of those with one result.
  Tensors differentiable_bases() const;
  std::function<Tensor(const Tensors&)> differentiable_call() const;

 private:
  Numbers operand_numbers(size_t i) const;

  const Sample* sample_;
  DType dtype_;
  LayoutChoice layouts_;
  Tensors bases_;
};

}  // namespace tandem::samples
