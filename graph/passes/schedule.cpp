// schedule: the order of steps for which the least memory is alive at one time. Several orders are made of the one that there is,
// each in about linear time, and the first of the best is taken:
//
//   freeing steps first   a step that frees more than it makes runs as soon as it can (an update, once the gradient is complete)
//   making steps last     one that makes more than it reads for the last time runs right before its result is wanted
//   greedy                what frees the most next
//
// Steps with effects keep their order among themselves. State that is assigned costs nothing where all that read the old value have
// run, as it is written in place then; otherwise the new value waits for the end of the call.
#include <algorithm>
#include <numeric>
#include <set>
#include <tuple>

#include "graph/ir/choices.h"
#include "graph/ir/region.h"
#include "graph/ir/views.h"
#include "graph/passes/pass.h"
#include "graph/run/in_place.h"
#include "graph/run/plan.h"

namespace tandem::graph {

namespace {

/// What runs, who reads what, and how large it is. Views are looked through.
struct Steps {
  struct Step {
    int node = -1;
    std::vector<int> after = {}, before = {};  ///< steps that it needs, and that need it
    std::vector<int> reads = {};               ///< values and leaves, each once
  };
  struct Life {
    int64_t bytes = 0;              ///< of a value that a step makes; of a leaf none
    std::vector<int> readers = {};  ///< steps
    bool stays = false;             ///< until the end: a result, or a gradient
    int over = -1;                  ///< the leaf whose memory it is written to, and the other way round
  };

  explicit Steps(const Graph& graph)
      : graph(graph), references(tandem::graph::references(graph)), over(graph, references) {
    find_steps();
    find_lives();
  }
  const Step& step(int s) const { return at(steps, s); }
  const Life& life(int value) const { return at(lives, value); }
  const std::vector<int>& makes(int s) const { return graph.node(step(s).node).outputs; }
  int maker(int value) const { return at(step_of, graph.value(value).node); }

  const Graph& graph;
  const std::vector<Reference> references;
  const InPlace over;
  std::vector<Step> steps;
  std::vector<int> step_of;  ///< of each node
  std::vector<Life> lives;   ///< of each value that is no view

 private:
  void find_steps() {
    step_of.assign(graph.nodes.size(), -1);
    int effect = -1;
    for (int n = 0; n < count(graph.nodes); ++n) {
      const Node& node = graph.node(n);
      if (node.op->kind == OpKind::view) continue;
      const int s = at(step_of, n) = count(steps);
      Step step{.node = n};
      for (const int input : node.inputs) {
        const int base = at(references, input).base;
        step.reads.push_back(base);
        if (graph.value(base).node >= 0) step.after.push_back(maker(base));
      }
      if (has_effect(node)) {
        if (effect >= 0) step.after.push_back(effect);
        effect = s;
      }
      for (std::vector<int>* all : {&step.reads, &step.after}) {
        std::sort(all->begin(), all->end());
        all->erase(std::unique(all->begin(), all->end()), all->end());
      }
      for (const int earlier : step.after) at(steps, earlier).before.push_back(s);
      steps.push_back(std::move(step));
    }
  }

  void find_lives() {
    lives.resize(graph.values.size());
    for (int s = 0; s < count(steps); ++s) {
      for (const int value : makes(s)) at(lives, value).bytes = (bytes_of(graph.type(value)) + 63) / 64 * 64;
      for (const int value : step(s).reads) at(lives, value).readers.push_back(s);
    }
    const auto keep = [&](int value) { at(lives, at(references, value).base).stays = true; };
    for (const int output : graph.outputs) keep(output);
    for (const GradientWrite& write : graph.gradients)
      if (write.value >= 0) keep(write.value);
    for (const StateWrite& write : graph.writes) {
      const int leaf = graph.leaf(write.leaf).value;
      Life& life = at(lives, write.value);
      if (at(references, write.value).base != write.value || graph.value(write.value).node < 0 || life.stays ||
          life.over >= 0 || !(graph.type(write.value) == graph.type(leaf))) {
        keep(write.value);
      } else {
        life.over = leaf;
        at(lives, leaf).over = write.value;
      }
    }
  }
};

/// How much is alive, step by step.
class Alive {
 public:
  explicit Alive(const Steps& steps)
      : steps_(steps), left_(steps.lives.size()), last_(steps.lives.size()), held_(steps.lives.size()) {
    for (size_t v = 0; v < left_.size(); ++v) {
      left_[v] = count(steps.lives[v].readers);
      for (const int s : steps.lives[v].readers) last_[v] += s;
    }
  }

  /// What the step would add to the bytes that are alive once it has run.
  int64_t change(int s) const {
    int64_t bytes = 0;
    for (const int value : steps_.makes(s))
      if (at(left_, value) > 0 || steps_.life(value).stays || steps_.life(value).over >= 0) bytes += made(s, value);
    for (const int value : steps_.step(s).reads)
      if (at(left_, value) == 1) bytes -= at(held_, value);
    return bytes;
  }

  /// Runs it. Calls f with each step whose change may be another one now.
  template <class F> void run(int s, F&& f) {
    int64_t taken_over = 0;
    std::vector<int> ends;
    for (const int value : steps_.step(s).reads)
      if (at(left_, value) == 1 && at(held_, value) > 0) ends.push_back(value);
    int64_t now = bytes_;
    for (const int value : steps_.makes(s)) {
      const int64_t bytes = made(s, value);
      now += bytes;
      const bool freed = !steps_.life(value).stays && (steps_.life(value).over < 0 || bytes == 0);
      if (at(left_, value) > 0 && freed) at(held_, value) = bytes;
      if (at(left_, value) > 0 || !freed) bytes_ += bytes;
      if (bytes == 0) continue;
      const auto under = std::find_if(ends.begin(), ends.end(), [&](int end) {
        return steps_.life(end).bytes == steps_.life(value).bytes &&
               steps_.over.may_take_over(steps_.step(s).node, end, value);
      });
      if (under == ends.end()) continue;
      taken_over += bytes;
      ends.erase(under);
    }
    peak_ = std::max(peak_, now - taken_over);
    for (const int value : steps_.step(s).reads) {
      at(last_, value) -= s;
      const int left = --at(left_, value);
      if (left == 0) bytes_ -= at(held_, value);
      if (left == 1) f(static_cast<int>(at(last_, value)));
      if (const int over = steps_.life(value).over; left <= 1 && over >= 0 && steps_.graph.value(value).node < 0)
        f(steps_.maker(over));
    }
  }

  int64_t peak() const { return peak_; }

 private:
  /// Bytes of memory that the step needs for the value: none if it may write over state.
  int64_t made(int s, int value) const {
    const int leaf = steps_.life(value).over;
    if (leaf < 0 || at(left_, leaf) > 1) return steps_.life(value).bytes;
    if (at(left_, leaf) == 0) return 0;
    const bool mine = at(last_, leaf) == s && steps_.over.reads_before_writing(steps_.step(s).node, leaf, value);
    return mine ? 0 : steps_.life(value).bytes;
  }

  const Steps& steps_;
  std::vector<int> left_;      ///< of each value: how many steps are still to read it
  std::vector<int64_t> last_;  ///< the sum of these steps: the last one, once only that is left
  std::vector<int64_t> held_;  ///< of each value that is alive: what its last reader frees
  int64_t bytes_ = 0, peak_ = 0;
};

class Scheduler {
 public:
  explicit Scheduler(const Graph& graph) : steps_(graph) {}

  std::vector<int> best() const {
    std::vector<int> first(steps_.steps.size());
    std::iota(first.begin(), first.end(), 0);
    std::vector<int> order = first;
    int64_t least = peak(order);
    const int64_t bound = most_needed();
    const auto consider = [&](std::vector<int> other) {
      if (const int64_t needed = peak(other); needed < least) least = needed, order = std::move(other);
    };
    if (least <= bound) return order;
    const std::vector<int> freeing = forwards(first, false), late = backwards(first);
    consider(freeing);
    consider(late);
    consider(forwards(late, false));
    consider(backwards(freeing));
    consider(forwards(first, true));
    return order;
  }

  bool can_run(const std::vector<int>& order) const {
    std::vector<bool> done(steps_.steps.size());
    for (const int s : order) {
      if (s >= count(steps_.steps) || at(done, s)) return false;
      for (const int before : steps_.step(s).after)
        if (!at(done, before)) return false;
      at(done, s) = true;
    }
    return order.size() == done.size();
  }

  Graph in_order(const std::vector<int>& order) const {
    const Graph& graph = steps_.graph;
    Rewriter rewriter(graph);
    const auto copy_views = [&](int value) {
      std::vector<int> views;
      for (; rewriter.mapped(value) < 0; value = graph.node(views.back()).inputs[0])
        views.push_back(graph.value(value).node);
      for (; !views.empty(); views.pop_back()) rewriter.copy(graph.node(views.back()));
    };
    for (const int s : order) {
      const Node& node = graph.node(steps_.step(s).node);
      for (const int input : node.inputs) copy_views(input);
      rewriter.copy(node);
    }
    for (const Node& node : graph.nodes)
      if (node.op->kind == OpKind::view) copy_views(node.outputs[0]);
    return rewriter.finish();
  }

 private:
  int64_t peak(const std::vector<int>& order) const {
    Alive alive(steps_);
    for (const int s : order) alive.run(s, [](int) {});
    return alive.peak();
  }

  /// What one step needs alone, whatever the order.
  int64_t most_needed() const {
    int64_t most = 0;
    for (int s = 0; s < count(steps_.steps); ++s) {
      int64_t reads = 0, makes = 0;
      for (const int value : steps_.step(s).reads) reads += steps_.life(value).over < 0 ? steps_.life(value).bytes : 0;
      for (const int value : steps_.makes(s)) makes += steps_.life(value).over < 0 ? steps_.life(value).bytes : 0;
      most = std::max({most, reads, makes});
    }
    return most;
  }

  /// Steps that are ready, those with the least key first, then the first of another order.
  class Ready {
   public:
    explicit Ready(const std::vector<int>& order) : position_(order.size()), key_(order.size()), waits_(order.size()) {
      for (int i = 0; i < count(order); ++i) at(position_, at(order, i)) = i;
    }
    void add(int s, int64_t key) {
      at(waits_, s) = true;
      at(key_, s) = key;
      queue_.emplace(key, at(position_, s), s);
    }
    bool has(int s) const { return at(waits_, s); }
    void change(int s, int64_t key) {
      if (key == at(key_, s)) return;
      queue_.erase({at(key_, s), at(position_, s), s});
      add(s, key);
    }
    bool empty() const { return queue_.empty(); }
    int take() {
      const int s = std::get<2>(*queue_.begin());
      queue_.erase(queue_.begin());
      at(waits_, s) = false;
      return s;
    }

   private:
    std::vector<int> position_;
    std::vector<int64_t> key_;
    std::vector<bool> waits_;
    std::set<std::tuple<int64_t, int, int>> queue_;
  };

  /// Steps that free memory as soon as they are ready; of the others, what frees the most, or else the first.
  std::vector<int> forwards(const std::vector<int>& like, bool greedy) const {
    Alive alive(steps_);
    Ready ready(like);
    const auto key = [&](int s) { return greedy ? alive.change(s) : std::min<int64_t>(alive.change(s), 0); };
    std::vector<int> waits_for, order;
    for (int s = 0; s < count(steps_.steps); ++s) {
      waits_for.push_back(count(steps_.step(s).after));
      if (waits_for.back() == 0) ready.add(s, key(s));
    }
    while (!ready.empty()) {
      const int s = ready.take();
      order.push_back(s);
      alive.run(s, [&](int other) {
        if (ready.has(other)) ready.change(other, key(other));
      });
      for (const int next : steps_.step(s).before)
        if (--at(waits_for, next) == 0) ready.add(next, key(next));
    }
    return order;
  }

  /// From the end: steps that make more than they need, as late as they can; of the others, the last.
  std::vector<int> backwards(std::vector<int> like) const {
    std::reverse(like.begin(), like.end());
    std::vector<bool> alive(steps_.lives.size());
    for (size_t v = 0; v < alive.size(); ++v) alive[v] = steps_.lives[v].stays;
    Ready ready(like);
    const auto key = [&](int s) {
      int64_t bytes = 0;
      for (const int value : steps_.step(s).reads) bytes += at(alive, value) ? 0 : steps_.life(value).bytes;
      for (const int value : steps_.makes(s)) bytes -= at(alive, value) ? steps_.life(value).bytes : 0;
      return std::min<int64_t>(bytes, 0);
    };
    std::vector<int> waits_for, order;
    for (int s = 0; s < count(steps_.steps); ++s) waits_for.push_back(count(steps_.step(s).before));
    for (int s = 0; s < count(steps_.steps); ++s)
      if (at(waits_for, s) == 0) ready.add(s, key(s));
    while (!ready.empty()) {
      const int s = ready.take();
      order.push_back(s);
      for (const int value : steps_.step(s).reads) {
        if (at(alive, value)) continue;
        at(alive, value) = true;
        for (const int other : steps_.life(value).readers)
          if (ready.has(other)) ready.change(other, key(other));
      }
      for (const int next : steps_.step(s).after)
        if (--at(waits_for, next) == 0) ready.add(next, key(next));
    }
    std::reverse(order.begin(), order.end());
    return order;
  }

  Steps steps_;
};

}  // namespace

Graph schedule(const Graph& graph, Choices* choices) {
  const Scheduler scheduler(graph);
  if (choices && choices->order() && scheduler.can_run(*choices->order())) return scheduler.in_order(*choices->order());
  const std::vector<int> order = scheduler.best();
  if (choices) choices->chose(order);
  return scheduler.in_order(order);
}

}  // namespace tandem::graph
