// kernels/cuda/missing.def names the ops that have no CUDA kernel: all of them, and no other.
#include <doctest/doctest.h>

#include <set>
#include <string>

#include "core/op.h"

TEST_CASE("missing.def lists the ops without a CUDA kernel") {
  const std::set<std::string> listed = {
#define TANDEM_NO_CUDA_KERNEL(op) #op,
#include "kernels/cuda/missing.def"
  };
  std::set<std::string> missing;
  for (const tandem::Op* op : tandem::op_table().all())
    if (op->kind != tandem::OpKind::view && !op->user && !tandem::kernel_for(*op, {tandem::DeviceKind::cuda}))
      missing.insert(op->name);
  for (const std::string& name : missing)
    CHECK_MESSAGE(listed.count(name), name << " has no CUDA kernel, and kernels/cuda/missing.def doesn't say so");
  for (const std::string& name : listed)
    CHECK_MESSAGE(missing.count(name),
                  name << " has a CUDA kernel, or doesn't exist: kernels/cuda/missing.def lists it");
}
