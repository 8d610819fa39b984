// The memory plan: what is alive at the same time never overlaps, also in large plans, and packings are as tight as the plain
// method's.
#include "graph/run/memory_plan.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "data/host_random.h"

using namespace tandem::graph;

namespace {

/// As a training has them: activations that live until backward comes by, gradients and temporaries.
std::vector<Lifetime> training(int layers, uint64_t seed) {
  tandem::io::HostRandom random(seed, 0);
  std::vector<Lifetime> values;
  const auto size = [&] { return static_cast<int64_t>(1 + random.below(300)) * 64; };
  for (int i = 0; i < layers; ++i) {
    const int back = 2 * layers - 1 - i;
    values.push_back({.bytes = size(), .first = i, .last = back});
    values.push_back({.bytes = size(), .first = i, .last = i + 1});
    values.push_back({.bytes = size(), .first = back, .last = back + static_cast<int>(random.below(4))});
    values.push_back({.bytes = size(), .first = back, .last = 2 * layers + i});
  }
  return values;
}

/// Of sizes that slots don't suit.
std::vector<Lifetime> uneven(int count, uint64_t seed) {
  tandem::io::HostRandom random(seed, 2);
  std::vector<Lifetime> values = training(count / 4, seed);
  for (Lifetime& value : values)
    value.bytes = static_cast<int64_t>(std::exp2(random.uniform(6, 22))),
    value.last += static_cast<int>(random.below(9));
  return values;
}

std::vector<Lifetime> anything(int count, uint64_t seed) {
  tandem::io::HostRandom random(seed, 1);
  std::vector<Lifetime> values;
  for (int i = 0; i < count; ++i) {
    const int first = static_cast<int>(random.below(static_cast<uint64_t>(count)));
    const uint64_t length = random.below(4) ? random.below(5) : random.below(static_cast<uint64_t>(count));
    values.push_back(
        {.bytes = static_cast<int64_t>(random.below(2000)), .first = first, .last = first + static_cast<int>(length)});
  }
  return values;
}

/// Largest first, each into the smallest gap that is free during its life, looked for among all that are placed.
int64_t plainly_packed(std::vector<Lifetime> values) {
  std::stable_sort(values.begin(), values.end(),
                   [](const Lifetime& a, const Lifetime& b) { return a.bytes > b.bytes; });
  int64_t size = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    Lifetime& value = values[i];
    std::vector<std::pair<int64_t, int64_t>> taken;
    for (size_t j = 0; j < i; ++j)
      if (values[j].first <= value.last && value.first <= values[j].last)
        taken.emplace_back(values[j].offset, values[j].offset + values[j].bytes);
    std::sort(taken.begin(), taken.end());
    int64_t end = 0, best = -1, best_gap = 0;
    for (const auto& [from, to] : taken) {
      const int64_t gap = from - end;
      if (gap >= value.bytes && (best < 0 || gap < best_gap)) best = end, best_gap = gap;
      end = std::max(end, to);
    }
    value.offset = best >= 0 ? best : end;
    size = std::max(size, value.offset + value.bytes);
  }
  return size;
}

void check_apart(const std::vector<Lifetime>& values, const MemoryPlan& plan) {
  std::vector<std::tuple<int, bool, const Lifetime*>> changes;  // at each step what ends comes first
  int64_t wrong = 0;
  for (const Lifetime& value : values) {
    wrong += value.offset < 0 || value.offset % 64 != 0 || value.offset + value.bytes > plan.bytes;
    if (value.bytes == 0) continue;
    changes.emplace_back(value.first, true, &value);
    changes.emplace_back(value.last + 1, false, &value);
  }
  std::sort(changes.begin(), changes.end());
  std::map<int64_t, int64_t> alive;  // where each ends, by where it begins
  for (const auto& [step, begins, value] : changes) {
    const int64_t end = value->offset + value->bytes;
    if (!begins) {
      alive.erase(value->offset);
      continue;
    }
    const auto after = alive.lower_bound(value->offset);
    wrong += after != alive.end() && after->first < end;
    wrong += after != alive.begin() && std::prev(after)->second > value->offset;
    alive[value->offset] = end;
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("memory plan: values alive at the same time lie apart, and no looser than when packed plainly") {
  for (uint64_t seed = 0; seed < 40; ++seed)
    for (std::vector<Lifetime> values : {training(40, seed), uneven(200, seed), anything(150, seed)}) {
      CAPTURE(seed);
      const MemoryPlan plan = plan_memory(values);
      check_apart(values, plan);
      const int64_t packed = plainly_packed(values);  // bytes are whole lines by now
      CHECK(plan.bytes >= plan.lower_bound);
      CHECK(static_cast<double>(plan.bytes) <= 2 * static_cast<double>(packed));
      for (Lifetime& value : values) value.bytes *= 1 << 16;  // beyond the caches slots may cost less
      const MemoryPlan large = plan_memory(values);
      check_apart(values, large);
      CHECK((large.bytes == packed << 16 ||
             static_cast<double>(large.bytes) <= 1.25 * static_cast<double>(packed << 16)));
    }
}

TEST_CASE("memory plan: gaps and rooms are memory that nothing else lies in") {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    CAPTURE(seed);
    std::vector<Lifetime> values = uneven(120, seed);
    int steps = 0;
    for (const Lifetime& value : values) steps = std::max(steps, value.last + 1);
    std::vector<Room> rooms;
    for (int i = 1; i < 6; ++i) rooms.push_back({.bytes = i * 100000, .until = steps * i / 6});
    const MemoryPlan plan = plan_memory(values, rooms);
    const std::vector<Gap> all = gaps(values, plan.bytes, steps);
    REQUIRE(all.size() == static_cast<size_t>(steps));
    int64_t wrong = 0, guests = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      const Lifetime& value = values[i];
      guests += value.room >= 0;
      if (value.room >= 0) {
        const Room& room = rooms[static_cast<size_t>(value.room)];
        wrong += value.last >= room.until || value.offset < 0 || value.offset + value.bytes > room.bytes;
      } else {
        for (int step = value.first; step <= value.last; ++step) {
          const Gap& gap = all[static_cast<size_t>(step)];
          wrong += gap.offset < value.offset + value.bytes && value.offset < gap.offset + gap.bytes;
        }
      }
      for (size_t j = 0; j < i; ++j)
        wrong += values[j].room == value.room && values[j].first <= value.last && value.first <= values[j].last &&
                 values[j].offset < value.offset + value.bytes && value.offset < values[j].offset + values[j].bytes;
    }
    CHECK(wrong == 0);
    CHECK(guests > 0);
  }
}

TEST_CASE("memory plan: many values") {
  for (const auto kind : {training, uneven, anything}) {
    std::vector<Lifetime> values = kind(kind == training ? 12500 : 5000, 1);
    for (Lifetime& value : values) value.bytes *= 1 << 16;
    const MemoryPlan plan = plan_memory(values);
    check_apart(values, plan);
    CHECK(plan.bytes >= plan.lower_bound);
    CHECK(static_cast<double>(plan.bytes) <= 1.5 * static_cast<double>(plan.lower_bound));
  }
}

TEST_CASE(
    "memory plan: packing looks at so much for each value, however many there are, and stays tight where it stops") {
  for (const auto kind : {uneven, anything}) {
    for (const int count : {5000, 40000}) {
      CAPTURE(count);
      std::vector<Lifetime> values = kind(count, 3);
      for (Lifetime& value : values) value.bytes *= 1 << 16;
      const MemoryPlan plan = plan_memory(values);
      check_apart(values, plan);
      CHECK(plan.looked_at <= 150 * int64_t{count});
      CHECK(static_cast<double>(plan.bytes) <= 1.5 * static_cast<double>(plan.lower_bound));
    }
  }
}
