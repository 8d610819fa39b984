// Maximum flow, for minimum cuts.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "graph/ir/at.h"

namespace tandem::graph {

/// Maximum flow by blocking flows on levels (Dinic 1970).
class Flow {
 public:
  static constexpr int64_t kUnbounded = std::numeric_limits<int64_t>::max() / 4;

  explicit Flow(int vertices) : edges_of_(static_cast<size_t>(vertices)) {}

  void connect(int from, int to, int64_t capacity) {
    at(edges_of_, from).push_back(count(edges_));
    edges_.push_back({to, capacity});
    at(edges_of_, to).push_back(count(edges_));
    edges_.push_back({from, 0});
  }

  /// Which vertices don't reach the sink once the flow is at its most: of all minimum cuts, the one next to the sink.
  std::vector<bool> all_but_sink_side(int source, int sink) {
    fill(source, sink);
    std::vector<bool> result(edges_of_.size(), true);
    at(result, sink) = false;
    std::vector<int> queue{sink};
    for (size_t i = 0; i < queue.size(); ++i)
      for (const int edge : at(edges_of_, queue[i])) {
        const int from = at(edges_, edge).to;
        if (at(edges_, edge ^ 1).left == 0 || !at(result, from)) continue;
        at(result, from) = false;
        queue.push_back(from);
      }
    return result;
  }
  /// Which vertices the source still reaches once the flow is at its most: the cut next to the source.
  std::vector<bool> source_side(int source, int sink) {
    fill(source, sink);
    std::vector<bool> reached;
    for (const int level : level_) reached.push_back(level >= 0);
    return reached;
  }

 private:
  struct Edge {
    int to;
    int64_t left;
  };

  void fill(int source, int sink) {
    while (rank(source, sink)) {
      next_.assign(edges_of_.size(), 0);
      while (push(source, sink)) {}
    }
  }

  bool rank(int source, int sink) {
    level_.assign(edges_of_.size(), -1);
    at(level_, source) = 0;
    std::vector<int> queue{source};
    for (size_t i = 0; i < queue.size(); ++i)
      for (const int edge : at(edges_of_, queue[i])) {
        const Edge& each = at(edges_, edge);
        if (each.left == 0 || at(level_, each.to) >= 0) continue;
        at(level_, each.to) = at(level_, queue[i]) + 1;
        queue.push_back(each.to);
      }
    return at(level_, sink) >= 0;
  }

  /// Along one path. Without recursion: the path of a deep graph is long.
  bool push(int source, int sink) {
    std::vector<int> path;
    int v = source;
    while (v != sink) {
      size_t& i = at(next_, v);
      const std::vector<int>& edges = at(edges_of_, v);
      while (i < edges.size()) {
        const Edge& edge = at(edges_, edges[i]);
        if (edge.left > 0 && at(level_, edge.to) == at(level_, v) + 1) break;
        ++i;
      }
      if (i < edges.size()) {
        path.push_back(edges[i]);
        v = at(edges_, edges[i]).to;
      } else {  // a dead end
        if (path.empty()) return false;
        v = at(edges_, path.back() ^ 1).to;
        path.pop_back();
        ++at(next_, v);
      }
    }
    int64_t least = kUnbounded;
    for (const int edge : path) least = std::min(least, at(edges_, edge).left);
    for (const int edge : path) {
      at(edges_, edge).left -= least;
      at(edges_, edge ^ 1).left += least;
    }
    return true;
  }

  std::vector<Edge> edges_;  ///< edge i ^ 1 is edge i the other way
  std::vector<std::vector<int>> edges_of_;
  std::vector<int> level_;
  std::vector<size_t> next_;
};

}  // namespace tandem::graph
