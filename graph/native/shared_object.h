// Whether bytes are a whole shared library. The system's loader trusts what it maps: one that ends early is answered by
// the signal SIGBUS, not by an error.
#pragma once

#include <string>
#include <string_view>

namespace tandem::graph {

/// What is wrong with an ELF shared library: cut short, a part that points outside of it, no table of symbols. Empty if
/// the loader may be given it.
std::string library_damage(std::string_view bytes);

}  // namespace tandem::graph
