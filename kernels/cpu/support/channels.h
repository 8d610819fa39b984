// What batch and group normalisation share: the loops over channels for T, and numbers for each channel.
#pragma once

#include "kernels/cpu/support/layout.h"
#include "kernels/cpu/support/rows.h"

namespace tandem {

template <class T> const ChannelLoops<T>& channel_loops() {
  if constexpr (sizeof(T) == 4) return *loops().channels_f32;
  else return *loops().channels_f64;
}

/// A number for each channel, as T.
template <class T> class ChannelNumbers {
 public:
  explicit ChannelNumbers(int64_t channels) : scratch_(channels * static_cast<int64_t>(sizeof(T))) {}
  T* data() const { return scratch_.template as<T>(); }
  T& operator[](int64_t channel) const { return data()[channel]; }

 private:
  const Scratch scratch_;
};

}  // namespace tandem
