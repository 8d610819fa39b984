// Run: what one call of a plan needs and no other call may touch meanwhile: pointers, arenas, tensors that kernels are
// given, tables of launches. It is used again by later calls: when a place moves (another argument, a new result), just
// the pointers into it are patched, so a call allocates nothing but results.
#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "graph/run/plan.h"
#include "graph/run/runtime.h"

namespace tandem::graph {

/// What the trace closed over, by leaf. Calls read it; it changes only while none is under way.
struct Bindings {
  std::vector<Tensor> tensors;  ///< of state, gradient and constant leaves
  std::vector<Tensor> numbers;  ///< of scalar leaves

  /// What a leaf reads in a call: an argument, the gradient that there is now, or what is bound.
  const Tensor& tensor_of(const Graph& graph, int leaf, std::span<const Tensor> arguments) const {
    const Leaf& of = graph.leaf(leaf);
    const Tensor& tensor =
        of.argument >= 0 ? arguments[static_cast<size_t>(of.argument)] : tensors[static_cast<size_t>(leaf)];
    return of.kind == LeafKind::gradient ? tensor.impl()->grad : tensor;
  }
};

/// Bytes of a device's allocator.
class Memory {
 public:
  Memory() = default;
  Memory(size_t bytes, Device device) : storage_(Storage::allocate(bytes, device)) {}
  explicit Memory(Storage* storage) : storage_(storage) {}  ///< takes it over
  Memory(Memory&& other) noexcept : storage_(std::exchange(other.storage_, nullptr)) {}
  Memory& operator=(Memory&& other) noexcept {
    std::swap(storage_, other.storage_);
    return *this;
  }
  ~Memory() {
    if (storage_) storage_->release();
  }
  char* data() const { return storage_ ? static_cast<char*>(storage_->data) : nullptr; }

 private:
  Storage* storage_ = nullptr;
};

class Run {
 public:
  /// All three must outlive it. `code[i]` is that of `plan.code[i]`.
  Run(const Plan& plan, const Bindings& bindings, std::span<const std::unique_ptr<Kernels>> code);
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  /// Afterwards state is assigned, grad() set, and the results are new tensors.
  Tensors operator()(const Tensors& arguments);
  /// A region's: the results are written to these, of their types and layouts. Allocates nothing.
  void into(std::span<const Tensor> arguments, std::span<const Tensor> results);
  /// From now on intermediate values lie there, in Plan::arena_bytes() that the caller keeps; null: in memory of the run's own,
  /// which it allocates when it first needs it. The plan has one arena.
  void lend_arena(void* memory);
  /// The plan has been given another size: the layouts of these values, or more.
  void resize(std::span<const int> values);

 private:
  struct Use {
    void** pointer;
    int64_t offset;  ///< bytes
    int value;
  };
  /// Where a place is now, and what points into it.
  struct Spot {
    std::vector<Use> uses;
    void* data = nullptr;
    Memory memory;  ///< its own, if the place is an allocated one, or a recording finds its argument or result there
    void bind(void* to) {
      if (to == data) return;
      data = to;
      for (const Use& use : uses) *use.pointer = to ? static_cast<char*>(to) + use.offset : nullptr;
    }
  };
  struct Step {
    const Op* op;
    const Attributes* attributes;
    Where where;
    KernelFn kernel = nullptr;
    Tensors inputs = {}, outputs = {};
    std::unique_ptr<Launch> launch = nullptr;  ///< of a fused kernel, in the kernel's stead
    const PlanStep* plan = nullptr;            ///< null for a late write
  };

  void bind_arenas();
  void make_steps(std::span<const std::unique_ptr<Kernels>> code);
  Spot& spot(int value) { return spots_[plan_.location(value).place]; }
  void use(int value, void** pointer);
  /// The tensor that steps use for a value; its data pointer follows the place.
  Tensor header(int value);
  void* number_at(int value, Device device) const {
    const auto at = std::find(plan_.devices.begin(), plan_.devices.end(), device) - plan_.devices.begin();
    return on_devices_[static_cast<size_t>(at)].data() + plan_.numbers[plan_.location(value).number].offset;
  }

  /// The key of this call's draws, where it is made in a turn of an eager loop, or in what checkpoint() runs.
  void take_draws();
  void bind_leaves(std::span<const Tensor> arguments);
  /// Memory of the run's own for a place whose tensor is another one at each call.
  void* fixed(Spot& spot, const ValueType& type);
  Tensor fresh(int value);
  void bind_results(std::span<const Tensor> results);
  Tensors make_gradients(const Tensors& arguments);
  void upload_numbers();
  /// What has been bound.
  void run_bound(std::span<const Tensor> results);
  void run_steps();
  /// A recording repeats the same addresses: it is made when two calls in a row had them, after a first run that let
  /// libraries and the allocator settle.
  void run_recorded();
  void run_step(Step& step);

  const Plan& plan_;
  const Bindings& bindings_;
  std::vector<Spot> spots_;      ///< of each place
  std::vector<Tensor> headers_;  ///< of each value in use
  std::vector<Memory> arenas_;   ///< the run's own
  void* lent_ = nullptr;         ///< in their stead
  std::vector<char*> arena_at_;  ///< where the arenas lie
  bool arenas_bound_ = false;
  std::vector<Step> steps_;
  // Numbers of the host that kernels on the device read: copied there if one has changed, so that a recording reads
  // those of the call.
  std::vector<char> numbers_;
  bool numbers_changed_ = false;
  std::vector<Memory> on_devices_;             ///< the numbers, on each of Plan::devices
  std::optional<std::array<int64_t, 2>> key_;  ///< in the place of the generator's state
  std::unique_ptr<Recording> recording_;
  std::vector<void*> recorded_at_, last_at_;
};

}  // namespace tandem::graph
