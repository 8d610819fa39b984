// The emulator's core: a block's lanes as fibers, its collectives and barriers, and the knobs of a test.
//
// Blocks run one after another, and so do the lanes of a block: a lane keeps the processor until it waits
// for others (at a warp collective or at a block barrier) or ends. A lane that never waits needs no
// fiber of its own, so a kernel without collectives runs as a plain loop over its lanes.
//
// What that finds: results that depend on the order of lanes (a missing __syncthreads or __syncwarp), reads
// of shared memory that nobody wrote (it is filled with NaN for each block), barriers that some lanes never
// reach, collectives whose lanes disagree about mask or place. What it can't find: memory-order races
// between lanes that run truly at once, and anything about speed.
#pragma once

#include <cstddef>  // and little else: every generated source is compiled against this
#include <cstdint>

namespace tandem_emulator {

struct Index3 {
  unsigned x = 0, y = 0, z = 0;
};

enum class Order { forward, reverse, random };

// The order of lanes (and blocks) in launches from now on. Starts as TANDEM_EMULATOR_ORDER says: `forward`,
// `reverse`, `random` or `random:SEED`.
void set_order(Order order, std::uint64_t seed = 0);
Order order();

// How many kernels have been launched in this process, for tests that count them.
std::uint64_t launches();

struct Site {
  const char* file;
  int line;
};

// The frame that a lane leaves at a collective: where its operands lie and where its result goes.
// `resolve` runs once, when the last lane has arrived, with the frame of each lane in `lanes`.
using Resolve = void (*)(void** frames, unsigned lanes, unsigned mask);

// One per process; code that is compiled at run time gets its address (see `attach`). Everything that
// device code touches is data or a function pointer here, so that it needs no symbol of ours.
struct Context {
  Index3 thread_index, block_index, block_size, grid_size;
  unsigned lane = 0;               // in the warp
  std::uint64_t block_serial = 0;  // counts the blocks of all launches
  void* dynamic_shared = nullptr;

  void (*collective)(unsigned mask, void* frame, Resolve resolve, Site site) = nullptr;
  // Waits for all live lanes; returns how many of them gave a true `predicate`, and of how many.
  int (*barrier)(bool predicate, int* live, Site site) = nullptr;
  unsigned (*live_lanes)() = nullptr;
  void (*trap)() = nullptr;
};

inline Context* context = nullptr;
Context* process_context();

struct Launch {
  Index3 grid, block;
  std::size_t dynamic_shared_bytes = 0;
};

// Runs the kernel now. `lane` is called once for each lane of each block.
void run(const Launch& launch, void (*lane)(void* argument), void* argument);

}  // namespace tandem_emulator
