// Ops whose CUDA kernel is the host's, on copies of the operands (on_host.def). Names no CUDA type.
#pragma once

#include "core/op.h"

namespace tandem::gpu {

/// Whether the op's kernel for CUDA waits for the device and computes on the host: no capture can hold it.
bool runs_on_host(const Op& op);

}  // namespace tandem::gpu
