// Stands in for kernels/cuda where the build has no CUDA: no device is ever made, so nothing here is reached.
#include "core/op.h"
#include "kernels/cuda/capture.h"
#include "kernels/cuda/host.h"
#include "kernels/cuda/module.h"
#include "kernels/cuda/range_notes.h"

struct td_range_note {};

namespace tandem {

void install_cuda_kernels(OpTable&) {}

namespace gpu {
namespace {
[[noreturn]] void no_cuda() { throw DeviceError("this build of Tandem has no CUDA support", Where::current()); }
}  // namespace

const char* const source_prelude = "";
std::string compiler_identity(Device) { no_cuda(); }
std::string compile_source(const std::string&, std::span<const std::string>, Device) { no_cuda(); }
struct Module::State {};
Module::Module(const std::string&, Device) { no_cuda(); }
Module::~Module() = default;
void* Module::kernel(const std::string&) const { no_cuda(); }
void launch(void*, Extent, Extent, size_t, void**, Device) { no_cuda(); }

struct Capture::State {};
Capture::Capture(Device) { no_cuda(); }
Capture::~Capture() = default;
void Capture::begin() { no_cuda(); }
void Capture::end() { no_cuda(); }
void Capture::abandon() {}
void Capture::launch() { no_cuda(); }
size_t Capture::nodes() const { no_cuda(); }

RangeNotes::RangeNotes(std::vector<ValueCheck>, Device) { no_cuda(); }
RangeNotes::~RangeNotes() = default;

bool runs_on_host(const Op&) { no_cuda(); }
bool synchronous() { no_cuda(); }

}  // namespace gpu
}  // namespace tandem
