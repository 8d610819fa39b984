// A small random generator for host code (orders, drawn pictures): the same numbers on every machine, which
// the standard library's distributions don't promise.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

#include "../core/error.h"

namespace tandem::io {

/// SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", fig. 16).
class HostRandom {
 public:
  /// Streams of different numbers are independent.
  HostRandom(uint64_t seed, uint64_t stream) : state_(mix(seed ^ mix(stream + 0x9e3779b97f4a7c15u))) {}

  uint64_t next() { return mix(state_ += 0x9e3779b97f4a7c15u); }
  /// In [0, bound), each equally likely. ValueError where bound is 0.
  uint64_t below(uint64_t bound, Where where = Where::current()) {
    if (bound == 0)
      throw ValueError("io::HostRandom: below(0): there is no such number; bound must be at least 1", where);
    const uint64_t rest = (0 - bound) % bound;  // 2^64 mod bound: draws below it would favour small results
    uint64_t draw = next();
    while (draw < rest) draw = next();
    return draw % bound;
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  /// N(0, 1), by Box and Muller.
  double normal() {
    const double radius = std::sqrt(-2 * std::log(1 - uniform()));
    return radius * std::cos(2 * std::numbers::pi * uniform());
  }

 private:
  static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  uint64_t state_;
};

}  // namespace tandem::io
