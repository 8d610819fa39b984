// What docs/cuda.md says of the op table: every op runs on a CUDA device.
#include <doctest/doctest.h>

#include "core/op.h"

TEST_CASE("every op has a CUDA kernel") {
  for (const tandem::Op* op : tandem::op_table().all()) {
    const bool has =
        op->kind == tandem::OpKind::view || op->user || tandem::kernel_for(*op, {tandem::DeviceKind::cuda});
    CHECK_MESSAGE(has, op->name << " has no CUDA kernel");
  }
}
