// A whole step as one CUDA graph: recorded once, then launched by one call. Names no CUDA type.
#pragma once

#include <memory>

#include "core/device.h"

namespace tandem::gpu {

/// Everything launched on the device by this thread between begin() and end() is recorded instead of run; what other
/// threads launch meanwhile runs, and is no part of it. launch() runs it all, on the same addresses: whoever records must keep its
/// tensors alive. Workspaces of kernels are kept by the capture, those of one kernel for the next. Copies to and from other
/// devices, work on another CUDA device, and waiting for the device are a KernelError.
///
///     Capture step(device);
///     step.record([&] { … });
///     step.launch();
class Capture {
 public:
  explicit Capture(Device device);
  ~Capture();
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  void begin();
  void end();
  /// Ends a recording that failed; nothing is kept but the workspaces.
  void abandon();
  template <class F> void record(F&& f) {
    begin();
    try {
      f();
    } catch (...) {
      abandon();
      throw;
    }
    end();
  }
  void launch();
  size_t nodes() const;            ///< kernels, copies and fills in the graph
  size_t workspace_bytes() const;  ///< that it keeps

  /// Whether this thread records now. What is kept meanwhile lives as long as the recording.
  static bool recording();
  static void keep(std::shared_ptr<void> thing);

  struct State;

 private:
  void give_back();  ///< the stream
  std::unique_ptr<State> state_;
};

/// Whether each launch is waited for, so that an error of a kernel names its op and line; then nothing is recorded. At first
/// if the environment variable TANDEM_CUDA_SYNC is 1.
bool synchronous();
void set_synchronous(bool each_launch);

}  // namespace tandem::gpu
