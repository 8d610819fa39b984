// The host's side of range_note.cuh: which launch checks what, and the errors.
#include "kernels/cuda/range_notes.h"

#include <mutex>
#include <unordered_map>
#include <utility>

#include "kernels/cuda/capture.h"
#include "kernels/cuda/kernels.h"

namespace tandem::gpu {

namespace {

using Launch = unsigned long long;

/// The checks of a device's launches, by number. Those of a launch that is made once are forgotten when it has ended: two
/// synchronisations later, since another thread may be between this table and its launch.
class Checks {
 public:
  explicit Checks(Device device) : device_(device) {
    void* flag = nullptr;
    check(cudaMalloc(&flag, sizeof *flag_), "cudaMalloc");
    flag_ = static_cast<td_range_flag*>(flag);
    check(cudaMemset(flag_, 0, sizeof *flag_), "clearing a flag");
    check(cudaDeviceSynchronize(), "clearing a flag");  // the device's stream doesn't wait for the default one
    void* mark = nullptr;
    check(cudaHostAlloc(&mark, sizeof *mark_, cudaHostAllocMapped), "cudaHostAlloc");
    mark_ = static_cast<unsigned*>(mark);
    *mark_ = 0;
    void* seen = nullptr;
    check(cudaHostGetDevicePointer(&seen, mark, 0), "cudaHostGetDevicePointer");
    mark_on_device_ = static_cast<unsigned*>(seen);
  }

  td_range_note add(std::vector<ValueCheck> checks, bool once) {
    bool full = false;
    td_range_note note{flag_, mark_on_device_, 0};
    {
      const std::lock_guard lock(mutex_);
      note.launch = ++last_;
      checks_.emplace(note.launch, std::move(checks));
      if (once) ended_.push_back(note.launch);
      full = ended_.size() > kMostWaiting;
    }
    if (full && !Capture::recording())
      backend(DeviceKind::cuda).synchronize(device_);  // a program that never does would fill the memory
    return note;
  }

  void remove(Launch launch) {
    const std::lock_guard lock(mutex_);
    ended_.push_back(launch);
  }

  void raise() {
    ValueCheck found;
    td_range_flag flag{};
    {
      const std::lock_guard lock(mutex_);
      const bool noted = *static_cast<volatile unsigned*>(mark_) != 0;
      if (noted) {
        *mark_ = 0;
        const cudaStream_t stream = stream_of(device_);
        check(cudaMemcpyAsync(&flag, flag_, sizeof flag, cudaMemcpyDefault, stream), "copy between devices");
        check(cudaStreamSynchronize(stream), "copy between devices");
        check(cudaMemsetAsync(flag_, 0, sizeof *flag_, stream), "clearing a flag");
        const auto known = checks_.find(flag.launch);
        TANDEM_ASSERT(known != checks_.end(), "a launch that is not known has noted a value out of range");
        found = known->second[flag.key >> 48];
      }
      for (const Launch launch : ended_before_) checks_.erase(launch);
      ended_before_ = std::exchange(ended_, {});
      if (!noted) return;
    }
    const auto place = static_cast<int64_t>(flag.key & ((Launch{1} << 48) - 1)) - 1;
    if (place < 0) found.fail();
    found.fail(flag.value, place);
  }

 private:
  static constexpr size_t kMostWaiting = size_t{1} << 12;

  Device device_;
  std::mutex mutex_;
  Launch last_ = 0;
  std::unordered_map<Launch, std::vector<ValueCheck>> checks_;
  std::vector<Launch> ended_, ended_before_;
  td_range_flag* flag_ = nullptr;
  unsigned *mark_ = nullptr, *mark_on_device_ = nullptr;
};

std::mutex all_mutex;
std::unordered_map<int, Checks*>& all_checks() {  // never destroyed: see device.cu
  static auto* const all = new std::unordered_map<int, Checks*>;
  return *all;
}
Checks& checks_of(Device device) {
  const std::lock_guard lock(all_mutex);
  return *all_checks().at(device.index);
}

}  // namespace

RangeNotes::RangeNotes(std::vector<ValueCheck> checks, Device device) : device_(device) {
  stream_of(device);  // which makes the table
  note_.reset(new td_range_note(checks_of(device).add(std::move(checks), false)));
}
RangeNotes::~RangeNotes() { checks_of(device_).remove(note_->launch); }

void make_range_checks(Device device) {
  const std::lock_guard lock(all_mutex);
  all_checks()[device.index] = new Checks(device);
}

void raise_noted(Device device) { checks_of(device).raise(); }

td_range_note range_note(const KernelContext& op, RangeCheck range, const Shape& shape, std::string name) {
  if (name.empty()) name = op.op.name;
  return range_note(op, {{.range = std::move(range), .op = std::move(name), .where = op.where, .shape = shape}});
}

td_range_note range_note(const KernelContext& op, std::vector<ValueCheck> checks) {
  const Device device = op.outputs[0].device();
  if (!Capture::recording()) return checks_of(device).add(std::move(checks), true);
  auto notes = std::make_shared<RangeNotes>(std::move(checks), device);
  Capture::keep(notes);
  return notes->note();
}

}  // namespace tandem::gpu
