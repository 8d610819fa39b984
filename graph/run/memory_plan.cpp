// Two planners: slots by size, and tight packing. See memory_plan.h for when which is taken.
#include "graph/run/memory_plan.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace tandem::graph {

namespace {

constexpr double kSlotsMayCost = 1.25;  ///< times the tight packing
/// Times the tight packing, where all of it fits the caches: there a piece of memory that changes its meaning moves
/// from one core's cache to another's. LeNet's step takes 2.0 ms in slots and 2.9 ms packed, in 1.5 times the bytes.
constexpr double kSlotsMayCostInCache = 2;
constexpr int64_t kCache = 32 << 20;

/// In order of time: a value takes the free slot of its size that was used last, or one that is not much
/// larger, or a new one.
int64_t plan_slots(std::vector<Lifetime>& values) {
  struct Slot {
    int64_t offset, bytes;
    int busy_until;
  };
  std::vector<Slot> slots;
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a].first < values[b].first; });
  int64_t end = 0;
  for (size_t i : order) {
    Lifetime& value = values[i];
    Slot* best = nullptr;
    for (Slot& slot : slots) {
      if (slot.busy_until >= value.first || slot.bytes < value.bytes || slot.bytes > value.bytes + value.bytes / 4)
        continue;
      if (!best || slot.bytes < best->bytes || (slot.bytes == best->bytes && slot.busy_until > best->busy_until))
        best = &slot;
    }
    if (!best) {
      slots.push_back({end, value.bytes, 0});
      end += value.bytes;
      best = &slots.back();
    }
    best->busy_until = value.last;
    value.offset = best->offset;
  }
  return end;
}

/// Greedy by size (Pisarchyk, Lee 2020, "Efficient memory management for deep neural net inference"): the
/// largest first, each into the smallest gap that is free during its life.
int64_t plan_packed(std::vector<Lifetime>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a].bytes > values[b].bytes; });
  std::vector<const Lifetime*> placed;
  int64_t size = 0;
  for (size_t i : order) {
    Lifetime& value = values[i];
    std::vector<std::pair<int64_t, int64_t>> taken;  // begin, end of what is alive meanwhile
    for (const Lifetime* other : placed)
      if (other->first <= value.last && value.first <= other->last)
        taken.emplace_back(other->offset, other->offset + other->bytes);
    std::sort(taken.begin(), taken.end());
    int64_t end = 0, best = -1, best_gap = 0;
    for (const auto& [from, to] : taken) {
      const int64_t gap = from - end;
      if (gap >= value.bytes && (best < 0 || gap < best_gap)) best = end, best_gap = gap;
      end = std::max(end, to);
    }
    value.offset = best >= 0 ? best : end;
    size = std::max(size, value.offset + value.bytes);
    placed.push_back(&value);
  }
  return size;
}

}  // namespace

MemoryPlan plan_memory(std::vector<Lifetime>& values) {
  MemoryPlan plan;
  std::map<int, int64_t> change;  // of the bytes alive, by step
  for (Lifetime& value : values) {
    value.bytes = (value.bytes + 63) / 64 * 64;
    change[value.first] += value.bytes;
    change[value.last + 1] -= value.bytes;
  }
  int64_t alive = 0;
  for (const auto& [step, bytes] : change) plan.lower_bound = std::max(plan.lower_bound, alive += bytes);

  std::vector<Lifetime> packed = values;
  plan.bytes = plan_packed(packed);
  const int64_t slots = plan_slots(values);
  const double may_cost = slots <= kCache ? kSlotsMayCostInCache : kSlotsMayCost;
  if (static_cast<double>(slots) <= may_cost * static_cast<double>(plan.bytes)) plan.bytes = slots;
  else values = std::move(packed);
  return plan;
}

}  // namespace tandem::graph
