// SHA-256 (FIPS 180-4): names cache entries, and notices damaged ones.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace tandem::graph {

using Digest = std::array<uint8_t, 32>;

Digest sha256(std::string_view bytes);
std::string hex(const Digest& digest);  ///< 64 digits

}  // namespace tandem::graph
