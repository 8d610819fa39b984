// BackgroundJob: work on a thread of its own, beside the program, that outlives neither who asked for it nor the program.
#pragma once

#include <atomic>
#include <functional>
#include <memory>

namespace tandem::graph {

class BackgroundJob {
 public:
  /// Begins. Where no thread can be made, and once the program is about to end, it is done before this returns. What `work`
  /// throws ends it; so does Stopped (process.h), where it waits for a program when it is to stop.
  explicit BackgroundJob(std::function<void()> work);
  /// Stops the work, and waits until it has.
  ~BackgroundJob();
  BackgroundJob(const BackgroundJob&) = delete;
  BackgroundJob& operator=(const BackgroundJob&) = delete;

  /// The work has been done. What it wrote can be read.
  bool done() const;
  /// This is a child process, forked while the work was under way: it goes on in the parent alone. What it would have
  /// written is never to be touched.
  bool lost() const;
  /// Waits until the work has been done, or returns at once if it is lost.
  void wait() const;

 private:
  struct State;
  struct Jobs;
  std::shared_ptr<State> state_;
};

}  // namespace tandem::graph
