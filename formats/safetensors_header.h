// The header of a safetensors file: its text and what it promises.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "../core/dtype.h"
#include "../core/shape.h"
#include "limits.h"

namespace tandem::io::detail {

/// No header is longer, says the format.
inline constexpr uint64_t kLongestSafetensorsHeader = 100'000'000;

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::float32;
  Shape shape;
  uint64_t begin = 0, end = 0;  ///< of its bytes, from the end of the header on
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;
  std::map<std::string, std::string> metadata;
};

/// Reads and checks a header for `data_size` bytes of data. `fail` is called with what is wrong, and must throw.
SafetensorsHeader parse_safetensors_header(std::string_view text, uint64_t data_size,
                                           const std::function<void(const std::string&)>& fail,
                                           const Limits& limits = {});

/// The text for these entries, padded with spaces to a multiple of 8. `fail` as above, for names that JSON can't hold.
std::string safetensors_header_text(const SafetensorsHeader& header,
                                    const std::function<void(const std::string&)>& fail);

}  // namespace tandem::io::detail
