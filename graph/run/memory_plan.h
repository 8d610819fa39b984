// Memory planning: one arena for all intermediate values of a program.
#pragma once

#include <cstdint>
#include <vector>

namespace tandem::graph {

/// A value that needs `bytes` from step `first` to step `last`, both included.
struct Lifetime {
  int64_t bytes = 0;
  int first = 0, last = 0;
  int64_t offset = 0;  ///< given by plan_memory: in the arena, or in the room
  int room = -1;       ///< given by plan_memory: which; -1: the arena
};

/// Memory beside the arena that is free before a step: a result's, or a gradient's, until it is made.
struct Room {
  int64_t bytes = 0;
  int until = 0;
};

struct MemoryPlan {
  int64_t bytes = 0;        ///< size of the arena
  int64_t lower_bound = 0;  ///< most bytes alive at one step that are in no room: no arena for them is smaller
  int64_t looked_at = 0;    ///< what tight packing has compared with, or moved: at most so much for each value
};

/// Offsets are multiples of 64. Values follow one another in slots of about their size, as long as that
/// costs little over the tightest packing: a slot's cache lines then stay with the core that also works
/// on that part of the next value, where a region shared by values of different sizes is torn between
/// cores. What fits into rooms lies there, the largest first.
MemoryPlan plan_memory(std::vector<Lifetime>& values, const std::vector<Room>& rooms = {});

/// The largest part of the arena that nothing lies in, for each of `steps` steps.
struct Gap {
  int64_t offset = 0, bytes = 0;
};
std::vector<Gap> gaps(const std::vector<Lifetime>& values, int64_t arena_bytes, int steps);

}  // namespace tandem::graph
