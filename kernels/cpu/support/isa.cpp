// Which instruction set the vector loops run with: chosen once, from the CPU's flags or TANDEM_ISA.
#include "kernels/cpu/support/isa.h"

#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace tandem {

namespace portable {
const Loops& loops();
}
#ifdef TANDEM_WITH_AVX2
namespace avx2 {
const Loops& loops();
}
#endif
#ifdef TANDEM_WITH_AVX512
namespace avx512 {
const Loops& loops();
}
#endif

namespace {

constexpr Isa kAll[] = {Isa::portable, Isa::avx2, Isa::avx512};

/// Null where this build lacks it. Asking for one that the CPU lacks would already run its instructions.
const Loops* loops_of(Isa isa) {
#ifdef TANDEM_WITH_AVX512
  if (isa == Isa::avx512) {
    static const Loops& loops = avx512::loops();
    return &loops;
  }
#endif
#ifdef TANDEM_WITH_AVX2
  if (isa == Isa::avx2) {
    static const Loops& loops = avx2::loops();
    return &loops;
  }
#endif
  if (isa != Isa::portable) return nullptr;
  static const Loops& loops = portable::loops();
  return &loops;
}

#if defined(__x86_64__)
// Registers that the operating system saves (XCR0); without it a CPU's AVX flags mean nothing.
unsigned saved_registers() {
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

Isa cpu_offers() {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return Isa::portable;
  const bool fma = c & (1u << 12), osxsave = c & (1u << 27), avx = c & (1u << 28), f16c = c & (1u << 29);
  if (!osxsave || !avx || !fma || !f16c) return Isa::portable;
  const unsigned saved = saved_registers();
  if ((saved & 0x6) != 0x6) return Isa::portable;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return Isa::portable;
  const bool bmi1 = b & (1u << 3), avx2 = b & (1u << 5), bmi2 = b & (1u << 8);
  if (!avx2 || !bmi1 || !bmi2) return Isa::portable;
  const unsigned wanted = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31);  // F, DQ, BW, VL
  if ((b & wanted) != wanted || (saved & 0xe6) != 0xe6) return Isa::avx2;
  return Isa::avx512;
}
#else
Isa cpu_offers() { return Isa::portable; }
#endif

std::atomic<Isa> chosen = Isa::portable;

}  // namespace

const char* name_of(Isa isa) {
  constexpr const char* names[] = {"portable", "avx2", "avx512"};
  return names[static_cast<int>(isa)];
}

Isa best_isa() {
  static const Isa best = [] {
    int level = static_cast<int>(cpu_offers());
    while (level > 0 && !loops_of(static_cast<Isa>(level))) --level;
    return static_cast<Isa>(level);
  }();
  return best;
}

Isa current_isa() {
  loops();
  return chosen;
}

bool set_isa(Isa isa) {
  if (isa > best_isa() || !loops_of(isa)) return false;
  chosen = isa;
  detail::chosen_loops.store(loops_of(isa), std::memory_order_release);
  return true;
}

namespace detail {

std::atomic<const Loops*> chosen_loops = nullptr;

const Loops& choose_loops() {
  static const Isa first = [] {
    Isa isa = best_isa();
    if (const char* wanted = std::getenv("TANDEM_ISA"))
      for (Isa candidate : kAll)
        if (std::strcmp(wanted, name_of(candidate)) == 0 && candidate < isa) isa = candidate;
    set_isa(isa);
    return isa;
  }();
  (void)first;
  return *chosen_loops.load();
}

}  // namespace detail
}  // namespace tandem
