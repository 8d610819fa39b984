// The consumer's own core/tensor.h, which Tandem's headers must not take for theirs, nor hide.
#pragma once

namespace consumer {
struct Tensor {
  int answer = 42;
};
}  // namespace consumer
