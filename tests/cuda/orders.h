// Every order of lanes that a test should hold in: three in the emulated build, the one there is on a GPU.
#pragma once

#ifdef TANDEM_EMULATOR
#include "tests/emulator/emulator.h"
#endif

namespace tandem {

/// Calls `f(first)` once for each order; `first` is true at the first call.
template <class F> void in_every_order(F f) {
#ifdef TANDEM_EMULATOR
  using tandem_emulator::Order;
  for (const Order order : {Order::forward, Order::reverse, Order::random}) {
    tandem_emulator::set_order(order, 7);
    f(order == Order::forward);
  }
  tandem_emulator::set_order(Order::forward);
#else
  f(true);
  f(false);  // and the same bits at a second run
#endif
}

}  // namespace tandem
