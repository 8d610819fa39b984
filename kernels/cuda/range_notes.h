// Values out of range that kernels on the device find: noted there, told at the next synchronisation. Names no CUDA type.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/device.h"
#include "core/range_check.h"

struct td_range_note;

namespace tandem::gpu {

/// What a launch checks that is made many times: known as long as this exists, and until the device has been synchronised
/// after that.
class RangeNotes {
 public:
  RangeNotes(std::vector<ValueCheck> checks, Device device);
  ~RangeNotes();
  RangeNotes(const RangeNotes&) = delete;
  RangeNotes& operator=(const RangeNotes&) = delete;
  /// The kernel's argument. It names a check by its index.
  td_range_note& note() const { return *note_; }

 private:
  Device device_;
  std::unique_ptr<td_range_note> note_;
};

/// The device's table, before its first kernel.
void make_range_checks(Device device);
/// After a synchronisation: throws what a kernel has noted since the last time, once.
void raise_noted(Device device);

}  // namespace tandem::gpu
