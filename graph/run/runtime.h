// Runtime: what plans ask of a kind of device: code from loop kernels, launches, and a whole step as one launch.
// docs/adding-a-device.md says how a device joins.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/op.h"
#include "graph/ir/loop.h"

namespace tandem::graph {

/// One fused kernel of one Run: holds the addresses of its buffers, which the Run keeps up to date.
class Launch {
 public:
  virtual ~Launch() = default;
  virtual void run() = 0;
  /// Its kernel has been given another size (Kernels::resize).
  virtual void resize() {}
};

/// Tells a launch's owner where the launch keeps the address of a buffer (an index in LoopKernel::buffers).
using PointTo = std::function<void(int buffer, void** address)>;

/// What compiling took.
struct CompileCost {
  double seconds = 0;
  bool cached = true;     ///< found in memory or on disk
  std::string note = {};  ///< why the cache on disk wasn't used
};

/// The fused kernels of one plan on one device: first a source; code, once compiled, by whichever thread. Then all Runs share it.
class Kernels {
 public:
  virtual ~Kernels() = default;
  /// Adds a kernel to the source; returns its number.
  virtual int add(const LoopKernel& kernel) = 0;
  virtual std::string source() const = 0;
  /// False and a reason where nothing can compile it here; CompileError where the compiler refuses it. `where` is the
  /// user's line.
  virtual bool compile(Device device, Where where, std::string* reason, CompileCost& cost) = 0;
  /// Whether its code is at hand, in memory or on disk: then it has it, as after compile().
  virtual bool find(Device, CompileCost&) { return false; }
  /// A kernel with tables of its own. Valid as long as the Kernels.
  virtual std::unique_ptr<Launch> launch(int kernel, const PointTo& point_to) const = 0;
  /// The compiled code for the same kernels in other sizes: they differ in numbers that it reads at run time
  /// (LoopKernel::at_run_time). Null if it doesn't serve these sizes, or no code here reads numbers.
  virtual std::unique_ptr<Kernels> resized(const std::vector<const LoopKernel*>&) const { return nullptr; }
  /// Likewise one of these kernels, and with it all its launches once they are told. False if the code doesn't serve the size: then
  /// they are of no use any more.
  virtual bool resize(int, const LoopKernel&) { return false; }
};

/// The steps of one Run as one launch.
class Recording {
 public:
  virtual ~Recording() = default;
  /// Everything that `steps` launches on the device is recorded instead of run.
  virtual void record(const std::function<void()>& steps) = 0;
  /// Runs it all, on the same addresses.
  virtual void launch() = 0;
};

class Runtime {
 public:
  virtual ~Runtime() = default;
  /// What runs fused kernels, for Stats::tier: "generated C".
  virtual const char* tier() const = 0;
  /// For the fused kernels of a new plan.
  virtual std::unique_ptr<Kernels> kernels() const = 0;
  /// Whether they heed LoopKernel::at_run_time.
  virtual bool resizes() const { return false; }
  /// Whether several threads may run steps at one time.
  virtual bool concurrent() const { return false; }
  /// Whether recording() gives one.
  virtual bool records() const { return false; }
  /// Whether a recording can hold this op's kernel: not if it computes on the host.
  virtual bool can_record(const Op&) const { return true; }
  virtual std::unique_ptr<Recording> recording(Device) const { return nullptr; }
};

/// That of the device's kind.
const Runtime& runtime_for(Device device);
/// Another one for all plans made from now on; returns the one before. It must outlive those plans.
const Runtime& set_runtime(DeviceKind kind, const Runtime& runtime);

// The built-in ones.
const Runtime& cpu_runtime();
const Runtime& cuda_runtime();

}  // namespace tandem::graph
