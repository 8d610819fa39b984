// Which instruction set the vector loops run with: chosen once, from the CPU's flags or TANDEM_ISA.
#pragma once

#include <atomic>

#include "kernels/cpu/vector/loops.h"

namespace tandem {

enum class Isa : int { portable, avx2, avx512 };

const char* name_of(Isa isa);
/// The best instruction set that this build has and this CPU and system offer. Never looks at the CPU's name.
Isa best_isa();
/// The instruction set in use. The environment variable TANDEM_ISA (portable, avx2, avx512) lowers it.
Isa current_isa();
/// For tests: use another one from now on. False, and no change, where it can't run here.
bool set_isa(Isa isa);

namespace detail {
extern std::atomic<const Loops*> chosen_loops;  // null until first used, also before static initialisers have run
const Loops& choose_loops();
}  // namespace detail

/// The loops of the instruction set in use.
inline const Loops& loops() {
  const Loops* chosen = detail::chosen_loops.load(std::memory_order_acquire);
  return chosen ? *chosen : detail::choose_loops();
}

}  // namespace tandem
