// Two planners: slots by size, and tight packing. See memory_plan.h for when which is taken.
#include "graph/run/memory_plan.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <map>
#include <numeric>
#include <queue>
#include <set>
#include <tuple>

namespace tandem::graph {

namespace {

constexpr double kSlotsMayCost = 1.02;  ///< times the tight packing
/// Times the tight packing, where all of it fits the caches: there a piece of memory that changes its meaning moves
/// from one core's cache to another's.
constexpr double kSlotsMayCostInCache = 1.05;
constexpr int64_t kCache = 32 << 20;
constexpr int64_t kLeastRoom = 4096;  ///< bytes: smaller ones aren't worth a search
constexpr size_t kMostRooms = 256;
constexpr int kMostOrders = 64;
constexpr int64_t kMostLookedAt = 128;  ///< by packing, for each value: so the time is that of their number

/// In order of time: a value takes the free slot of its size that was used last, or one that is not much
/// larger, or a new one, from `end` on.
int64_t plan_slots(std::vector<Lifetime>& values, int64_t end) {
  struct Slot {
    int64_t offset, bytes;
    int busy_until;
  };
  std::vector<Slot> slots;
  const auto preferred = [&](size_t a, size_t b) {  // of the free ones: small, then used last, then old
    return std::tuple(slots[a].bytes, -slots[a].busy_until, a) < std::tuple(slots[b].bytes, -slots[b].busy_until, b);
  };
  const auto free_later = [&](size_t a, size_t b) { return slots[a].busy_until > slots[b].busy_until; };
  std::set<size_t, decltype(preferred)> free(preferred);
  std::priority_queue<size_t, std::vector<size_t>, decltype(free_later)> busy(free_later);
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a].first < values[b].first; });
  for (size_t i : order) {
    Lifetime& value = values[i];
    for (; !busy.empty() && slots[busy.top()].busy_until < value.first; busy.pop()) free.insert(busy.top());
    slots.push_back({end, value.bytes, std::numeric_limits<int>::max()});  // before all free ones of its size
    size_t taken = slots.size() - 1;
    const auto best = free.lower_bound(taken);
    if (best != free.end() && slots[*best].bytes <= value.bytes + value.bytes / 4) {
      slots.pop_back();
      taken = *best;
      free.erase(best);
    } else {
      end += value.bytes;
    }
    slots[taken].busy_until = value.last;
    busy.push(taken);
    value.offset = slots[taken].offset;
  }
  return end;
}

using Range = std::pair<int64_t, int64_t>;  ///< of bytes: begin, end

/// Ranges, sorted, those that touch joined: in a tight packing there are few.
class Ranges {
 public:
  void add(Range range) {
    const auto first = std::lower_bound(ranges_.begin(), ranges_.end(), range.first,
                                        [](const Range& each, int64_t begin) { return each.second < begin; });
    auto after = first;
    for (; after != ranges_.end() && after->first <= range.second; ++after) {
      range.first = std::min(range.first, after->first);
      range.second = std::max(range.second, after->second);
    }
    if (first == after) ranges_.insert(first, range);
    else *first = range, ranges_.erase(first + 1, after);
  }
  void append_to(std::vector<Range>& all) const { all.insert(all.end(), ranges_.begin(), ranges_.end()); }
  int64_t count() const { return std::ssize(ranges_); }

 private:
  std::vector<Range> ranges_;
};

/// What is taken at which steps: a segment tree over the steps.
class Taken {
 public:
  explicit Taken(int steps) : leaves_(std::bit_ceil(static_cast<size_t>(steps))), nodes_(2 * leaves_) {}

  /// From step `first` to `last`, both included.
  void add(int first, int last, const Range& range) { visit(1, 0, leaves_, first, last, &range, nullptr); }
  /// What is taken at any of these steps, sorted.
  std::vector<Range> during(int first, int last) {
    std::vector<Range> all;
    visit(1, 0, leaves_, first, last, nullptr, &all);
    std::sort(all.begin(), all.end());
    looked_at_ += std::ssize(all);
    return all;
  }
  int64_t looked_at() const { return looked_at_; }

 private:
  struct Node {
    Ranges at_all;   ///< taken at all of the node's steps
    Ranges at_some;  ///< taken at some
  };

  void visit(size_t n, size_t begin, size_t end, int first, int last, const Range* add, std::vector<Range>* find) {
    const auto from = static_cast<size_t>(first), to = static_cast<size_t>(last) + 1;
    if (to <= begin || end <= from) return;
    Node& node = nodes_[n];
    const bool whole = from <= begin && end <= to;
    if (add) {
      looked_at_ += node.at_some.count() / 16;  // they are moved, not looked at
      node.at_some.add(*add);
      if (whole) node.at_all.add(*add);
    } else {
      (whole ? node.at_some : node.at_all).append_to(*find);
    }
    if (whole) return;
    const size_t middle = (begin + end) / 2;
    visit(2 * n, begin, middle, first, last, add, find);
    visit(2 * n + 1, middle, end, first, last, add, find);
  }

  size_t leaves_;
  std::vector<Node> nodes_;
  int64_t looked_at_ = 0;
};

/// In this order, each into the smallest gap that is free during its life. Where that takes too long, those that are left follow
/// one another in slots behind.
int64_t plan_in_order(std::vector<Lifetime>& values, const std::vector<size_t>& order, int64_t& looked_at) {
  int steps = 1;
  for (const Lifetime& value : values) steps = std::max(steps, value.last + 1);
  Taken taken(steps);
  int64_t size = 0;
  size_t placed = 0;
  for (; placed < order.size() && taken.looked_at() <= kMostLookedAt * std::ssize(order); ++placed) {
    Lifetime& value = values[order[placed]];
    int64_t end = 0, best = -1, best_gap = 0;
    for (const auto& [from, to] : taken.during(value.first, value.last)) {
      const int64_t gap = from - end;
      if (gap >= value.bytes && (best < 0 || gap < best_gap)) best = end, best_gap = gap;
      end = std::max(end, to);
    }
    value.offset = best >= 0 ? best : end;
    size = std::max(size, value.offset + value.bytes);
    taken.add(value.first, value.last, {value.offset, value.offset + value.bytes});
  }
  looked_at += taken.looked_at();
  std::vector<Lifetime> left;
  for (size_t i = placed; i < order.size(); ++i) left.push_back(values[order[i]]);
  size = plan_slots(left, size);
  for (size_t i = placed; i < order.size(); ++i) values[order[i]] = left[i - placed];
  return size;
}

/// Greedy by size (Pisarchyk, Lee 2020, "Efficient memory management for deep neural net inference"): the
/// largest first. As long as there is time, and the bound is not met: once more, with those first that lie on top.
int64_t plan_packed(std::vector<Lifetime>& values, int64_t bound, int64_t& looked_at) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a].bytes > values[b].bytes; });
  int64_t least = plan_in_order(values, order, looked_at);
  std::vector<Lifetime> now = values;
  for (int64_t top = least, i = 0; least > bound && i < kMostOrders; ++i) {
    if (looked_at > kMostLookedAt / 8 * std::ssize(order)) break;
    std::stable_partition(order.begin(), order.end(), [&](size_t v) { return now[v].offset + now[v].bytes == top; });
    top = plan_in_order(now, order, looked_at);
    if (top < least) least = top, values = now;
  }
  return least;
}

/// Gives what fits a room, the largest first, each in the smallest gap that is free during its life.
void fill_rooms(std::vector<Lifetime>& values, const std::vector<Room>& rooms) {
  std::vector<int> order;  // of the rooms
  for (int r = 0; r < std::ssize(rooms); ++r)
    if (rooms[static_cast<size_t>(r)].bytes >= kLeastRoom) order.push_back(r);
  const auto room = [&](int r) -> const Room& { return rooms[static_cast<size_t>(r)]; };
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return room(a).bytes > room(b).bytes; });
  if (order.size() > kMostRooms) order.resize(kMostRooms);
  int steps = 1, latest = 0;
  for (const Lifetime& value : values) steps = std::max(steps, value.last + 1);
  for (const int r : order) steps = std::max(steps, room(r).until + 1), latest = std::max(latest, room(r).until);
  // The rooms side by side, with walls between them.
  Taken taken(steps);
  std::vector<int64_t> begins;
  int64_t end = 0;
  for (const int r : order) {
    begins.push_back(end + 64);
    taken.add(0, steps - 1, {end, end + 64});
    end += 64 + room(r).bytes / 64 * 64;
    taken.add(room(r).until, steps - 1, {begins.back(), end});
  }
  taken.add(0, steps - 1, {end, end + 64});
  std::vector<size_t> by_size;
  for (size_t i = 0; i < values.size(); ++i)
    if (values[i].last < latest && values[i].bytes > 0) by_size.push_back(i);
  std::stable_sort(by_size.begin(), by_size.end(),
                   [&](size_t a, size_t b) { return values[a].bytes > values[b].bytes; });
  for (const size_t i : by_size) {
    if (taken.looked_at() > kMostLookedAt * std::ssize(by_size)) break;
    Lifetime& value = values[i];
    int64_t last = 0, best = -1, best_gap = 0;
    for (const auto& [from, to] : taken.during(value.first, value.last)) {
      const int64_t gap = from - last;
      if (gap >= value.bytes && (best < 0 || gap < best_gap)) best = last, best_gap = gap;
      last = std::max(last, to);
    }
    if (best < 0) continue;
    taken.add(value.first, value.last, {best, best + value.bytes});
    const auto behind = std::upper_bound(begins.begin(), begins.end(), best) - begins.begin() - 1;
    value.room = order[static_cast<size_t>(behind)];
    value.offset = best - begins[static_cast<size_t>(behind)];
  }
}

}  // namespace

MemoryPlan plan_memory(std::vector<Lifetime>& values, const std::vector<Room>& rooms) {
  for (Lifetime& value : values) value.bytes = (value.bytes + 63) / 64 * 64;
  if (!rooms.empty()) {
    fill_rooms(values, rooms);
    std::vector<Lifetime> rest;
    for (const Lifetime& value : values)
      if (value.room < 0) rest.push_back(value);
    const MemoryPlan plan = plan_memory(rest);
    auto next = rest.begin();
    for (Lifetime& value : values)
      if (value.room < 0) value = *next++;
    return plan;
  }
  MemoryPlan plan;
  std::map<int, int64_t> change;  // of the bytes alive, by step
  for (const Lifetime& value : values) {
    change[value.first] += value.bytes;
    change[value.last + 1] -= value.bytes;
  }
  int64_t alive = 0;
  for (const auto& [step, bytes] : change) plan.lower_bound = std::max(plan.lower_bound, alive += bytes);

  std::vector<Lifetime> packed = values;
  const int64_t slots = plan_slots(values, 0);
  const double may_cost = slots <= kCache ? kSlotsMayCostInCache : kSlotsMayCost;
  plan.bytes = slots;
  if (static_cast<double>(slots) <= may_cost * static_cast<double>(plan.lower_bound)) return plan;
  const int64_t tight = plan_packed(packed, plan.lower_bound, plan.looked_at);
  if (static_cast<double>(slots) <= may_cost * static_cast<double>(tight)) return plan;
  plan.bytes = tight;
  values = std::move(packed);
  return plan;
}

std::vector<Gap> gaps(const std::vector<Lifetime>& values, int64_t arena_bytes, int steps) {
  std::vector<std::vector<size_t>> begin(static_cast<size_t>(steps) + 1), end(static_cast<size_t>(steps) + 1);
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i].room >= 0 || values[i].bytes == 0 || values[i].first >= steps) continue;
    begin[static_cast<size_t>(values[i].first)].push_back(i);
    end[static_cast<size_t>(std::min(values[i].last + 1, steps))].push_back(i);
  }
  std::map<int64_t, int64_t> taken{{-1, 0}, {arena_bytes, arena_bytes}};  // begins, and their ends; walls at both ends
  std::set<std::pair<int64_t, int64_t>> free{{arena_bytes, 0}};           // bytes, offset
  std::vector<Gap> result;
  for (size_t step = 0; step < static_cast<size_t>(steps); ++step) {
    for (const size_t i : end[step]) {
      const auto mine = taken.find(values[i].offset);
      const int64_t before = std::prev(mine)->second, after = std::next(mine)->first;
      free.erase({mine->first - before, before});
      free.erase({after - mine->second, mine->second});
      free.emplace(after - before, before);
      taken.erase(mine);
    }
    for (const size_t i : begin[step]) {
      const int64_t from = values[i].offset, to = from + values[i].bytes;
      const auto next = taken.upper_bound(from);
      const int64_t before = std::prev(next)->second, after = next->first;
      free.erase({after - before, before});
      free.emplace(from - before, before);
      free.emplace(after - to, to);
      taken.emplace(from, to);
    }
    result.push_back({free.rbegin()->second, free.rbegin()->first});
  }
  return result;
}

}  // namespace tandem::graph
