// What a faulty kernel raises, on the launching thread.
#pragma once

#include <stdexcept>

namespace tandem_emulator {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace tandem_emulator
