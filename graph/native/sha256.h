// SHA-256 (FIPS 180-4): names cache entries; with a key, seals them.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace tandem::graph {

using Digest = std::array<uint8_t, 32>;

Digest sha256(std::string_view bytes);
std::string hex(const Digest& digest);  ///< 64 digits
/// HMAC (RFC 2104): a checksum that only who knows `key` can make.
Digest hmac_sha256(const Digest& key, std::string_view bytes);

}  // namespace tandem::graph
