// A safetensors file that is open: its header, read and checked, and its tensors, read one by one.
#pragma once

#include <string>

#include "../core/tensor.h"
#include "files.h"
#include "safetensors_header.h"

namespace tandem::io::detail {

class SafetensorsFile {
 public:
  /// FileError where the header is not that of a whole file, or has more tensors than the limits say.
  SafetensorsFile(const char* caller, const std::string& path, const Limits& limits, Where where);

  SafetensorsHeader header;
  const InputFile& file() const { return file_; }
  /// The tensor of an entry of `header`, on the CPU.
  Tensor read(const SafetensorsEntry& entry) const;

 private:
  Where where_;
  InputFile file_;
  uint64_t data_begin_ = 0;
};

}  // namespace tandem::io::detail
