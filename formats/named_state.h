// Values from a file for tensors that exist: matched by name, checked as a whole, then put there.
#pragma once

#include <string>
#include <vector>

#include "../core/tensor.h"
#include "safetensors_file.h"

namespace tandem::io::detail {

/// A tensor to be filled, and the names that it may have in the file: more than one if weights are tied.
struct NamedTarget {
  std::vector<std::string> names;
  Tensor tensor;
};

/// Overwrites the targets, once the header is found to fit them. If a tensor is missing, unknown or of another shape or dtype, nothing is changed, and a FileError
/// "caller: 'path' doesn't fit `what`: …" lists all of them.
void assign_named(const std::vector<NamedTarget>& targets, const SafetensorsFile& file, const char* caller,
                  const std::string& path, const char* what, Where where);

}  // namespace tandem::io::detail
