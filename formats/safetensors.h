// safetensors: named tensors in a file, the format of huggingface/safetensors.
//
// A file is the header's length (8 bytes, little-endian), the header (JSON: {"name": {"dtype": "F32", "shape": [2, 3],
// "data_offsets": [begin, end]}, …, "__metadata__": {"key": "text"}}) and the tensors' bytes, row by row.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "../core/tensor.h"
#include "../nn/reflect.h"
#include "limits.h"

namespace tandem::io {

struct Safetensors {
  std::vector<nn::NamedTensor> tensors;         ///< in the header's order
  std::map<std::string, std::string> metadata;  ///< free text; {"format", "pt"} is usual

  /// The tensor of that name, undefined if there is none.
  Tensor find(const std::string& name) const;
};

/// Writes tensors of any dtype, device and layout, atomically: a crash or an error leaves what stood there before.
/// Opens in Python with safetensors.numpy.load_file and the like. ValueError for a name that occurs twice, is
/// "__metadata__" or is not UTF-8; FileError if the file can't be written.
void save_safetensors(const std::string& path, std::span<const nn::NamedTensor> tensors,
                      const std::map<std::string, std::string>& metadata = {}, Where where = Where::current());

/// Reads a file whole, to the CPU. FileError, and nothing read, where it is missing, truncated, longer than its header
/// says, damaged, beyond the limits, or holds a dtype or rank that Tandem doesn't have.
Safetensors load_safetensors(const std::string& path, Limits limits = {}, Where where = Where::current());

}  // namespace tandem::io
