// What a file from elsewhere may ask for.
#pragma once

#include <cstdint>

namespace tandem::io {

/// Readers refuse what is larger with a FileError, before they take memory for it. The defaults are what a laptop
/// survives; whoever trusts a larger file raises them: io::load_safetensors(path, {.file_bytes = uint64_t{64} << 30}).
struct Limits {
  uint64_t file_bytes = uint64_t{16} << 30;     ///< of a file that is read whole
  uint64_t unpacked_bytes = uint64_t{1} << 30;  ///< of what a compressed file unpacks to
  uint64_t tensors = 100'000;                   ///< in one file
};

}  // namespace tandem::io
