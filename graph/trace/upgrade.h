// Upgrade: programs of a specialisation that are compiled on a thread of their own, while calls run those of the tier below.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace tandem::graph {

class Program;

class Upgrade {
 public:
  struct Result {
    std::shared_ptr<Program> program;   ///< of the function; null: it has its code already
    std::shared_ptr<Program> gradient;  ///< of its results' gradient, likewise
    bool compiled = false;
    std::string failure = {};  ///< why not
    bool refused = false;      ///< there was a compiler, and it failed
    double seconds = 0;        ///< what it took
  };

  /// Begins. `lowered` is Sizes::lowered() of the graph that `program` is for.
  Upgrade(std::shared_ptr<Program> program, std::shared_ptr<Program> gradient, int64_t lowered);
  /// Stops it, if it isn't done.
  ~Upgrade();
  Upgrade(const Upgrade&) = delete;
  Upgrade& operator=(const Upgrade&) = delete;

  /// There is a result, or there never will be one.
  bool settled() const;
  /// This is a child of fork, and only its parent compiles.
  bool lost() const;
  void wait() const;
  /// Once it is settled, and not lost.
  const Result& result() const;
  /// Those that are being compiled take the place of these. Their plans and sources can be read meanwhile.
  void programs(const Program*& program, const Program*& gradient) const;
  int64_t lowered() const { return lowered_; }

 private:
  struct State;
  std::unique_ptr<State> state_;
  int64_t lowered_;
};

}  // namespace tandem::graph
