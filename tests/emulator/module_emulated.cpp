// Generated CUDA sources in the emulated build: compiled by the system's C++ compiler against the emulator, loaded
// with dlopen.
#include <dlfcn.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

#include "core/error.h"
#include "graph/native/sha256.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/module.h"

extern char** environ;

namespace tandem::gpu {

/// Bytes of arguments that CUDA passes to a kernel, and how many they can be: pointers, and a few others.
constexpr std::size_t argument_bytes = 4096, most_arguments = argument_bytes / sizeof(void*);
namespace {

// A private folder that vanishes with the object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    const char* base = std::getenv("TMPDIR");
    std::string pattern = std::string(base ? base : "/tmp") + "/tandem-emulator-XXXXXX";
    if (!mkdtemp(pattern.data()))
      throw CompileError("no temporary folder could be made at " + pattern, Where::current());
    path_ = pattern;
  }
  ~TemporaryFolder() {
    for (const char* name : {"/kernels.cpp", "/kernels.so", "/log"}) (void)std::remove((path_ + name).c_str());
    (void)rmdir(path_.c_str());
  }
  std::string operator/(const char* name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

std::string read_file(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

// For each kernel, a function that calls it with the arguments that an array of pointers points at: what the
// driver knows from the binary, the compiler knows from the type.
constexpr const char* entry_points = R"(
namespace {
template <class... P, std::size_t... i>
void tandem_call(void (*kernel)(P...), void** arguments, std::index_sequence<i...>) {
  kernel(*static_cast<std::remove_reference_t<P>*>(arguments[i])...);
}
template <class... P> void tandem_call(void (*kernel)(P...), void** arguments) {
  tandem_call(kernel, arguments, std::index_sequence_for<P...>());
}
template <class... P> std::size_t tandem_sizes(void (*)(P...), std::size_t* sizes) {
  std::size_t all[] = {sizeof(P)..., 0};
  for (std::size_t i = 0; i < sizeof...(P); ++i) sizes[i] = all[i];
  return sizeof...(P);
}
}
extern "C" void tandem_attach(void* context) {
  tandem_emulator::context = static_cast<tandem_emulator::Context*>(context);
}
#define TANDEM_ENTRY(name)                                                                         \
  extern "C" void tandem_call_##name(void** arguments) { tandem_call(&name, arguments); }          \
  extern "C" std::size_t tandem_sizes_##name(std::size_t* sizes) { return tandem_sizes(&name, sizes); }
)";

struct Kernel {
  void (*call)(void**) = nullptr;
  std::vector<std::size_t> sizes;  // of its arguments
};

}  // namespace

const char* const source_prelude = "";

// The headers that a source is compiled against are part of it.
std::string compiler_identity(Device) {
  static const std::string identity = [] {
    std::vector<std::filesystem::path> headers;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(TANDEM_EMULATOR_SOURCE "/tests/emulator"))
      if (entry.path().extension() == ".h") headers.push_back(entry.path());
    std::sort(headers.begin(), headers.end());
    std::string text;
    for (const auto& header : headers) text += read_file(header);
    return std::string("emulator, ") + TANDEM_EMULATOR_COMPILER + " " __VERSION__ ", " +
           graph::hex(graph::sha256(text));
  }();
  return identity;
}

std::string compile_source(const std::string& source, std::span<const std::string> kernel_names, Device) {
  const TemporaryFolder folder;
  {
    std::ofstream file(folder / "kernels.cpp");
    file << "#include <cuda_runtime.h>\n#line 1 \"generated.cu\"\n" << source << entry_points;
    for (const std::string& name : kernel_names) file << "TANDEM_ENTRY(" << name << ")\n";
  }
  const std::string include = std::string("-I") + TANDEM_EMULATOR_SOURCE,
                    emulator = include + "/tests/emulator/include", from = folder / "kernels.cpp",
                    to = folder / "kernels.so", log = folder / "log";
  const char* arguments[] = {
      TANDEM_EMULATOR_COMPILER, "-std=c++20",     "-O1",        "-w", "-fPIC",    "-shared", "-ffp-contract=off",
      include.c_str(),          emulator.c_str(), from.c_str(), "-o", to.c_str(), nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 2, log.c_str(), 0x241 /* write, create, truncate */, 0600);
  pid_t child = 0;
  int status = -1;
  const int failed = posix_spawnp(&child, arguments[0], &actions, nullptr, const_cast<char**>(arguments), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failed == 0) waitpid(child, &status, 0);
  if (failed != 0 || status != 0) {
    throw CompileError("generated CUDA source was refused by " + std::string(arguments[0]) + ":\n" + read_file(log),
                       Where::current());
  }
  return read_file(to);
}

struct Module::State {
  void* library = nullptr;
  std::vector<std::unique_ptr<Kernel>> kernels;
};

Module::Module(const std::string& binary, Device) : state_(new State) {
  const TemporaryFolder folder;  // once it is loaded the file isn't needed any more
  const std::string path = folder / "kernels.so";
  std::ofstream(path, std::ios::binary) << binary;
  state_->library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!state_->library)
    throw CompileError(std::string("compiled kernels could not be loaded: ") + dlerror(), Where::current());
  reinterpret_cast<void (*)(void*)>(dlsym(state_->library, "tandem_attach"))(tandem_emulator::process_context());
}

Module::~Module() { dlclose(state_->library); }

void* Module::kernel(const std::string& name) const {
  auto kernel = std::make_unique<Kernel>();
  kernel->call = reinterpret_cast<void (*)(void**)>(dlsym(state_->library, ("tandem_call_" + name).c_str()));
  TANDEM_ASSERT(kernel->call, "no kernel is called ", name);
  std::size_t sizes[most_arguments + 1];
  const auto count =
      reinterpret_cast<std::size_t (*)(std::size_t*)>(dlsym(state_->library, ("tandem_sizes_" + name).c_str()))(sizes);
  kernel->sizes.assign(sizes, sizes + count);
  state_->kernels.push_back(std::move(kernel));
  return state_->kernels.back().get();
}

void launch(void* handle, Extent grid, Extent block, size_t shared_bytes, void** arguments, Device device) {
  const auto& kernel = *static_cast<Kernel*>(handle);
  // The call that the emulator runs, or records: it has copies of the arguments right behind it.
  struct Recorded {
    void (*call)(void**);
    std::size_t count, offset[most_arguments];
    alignas(16) char bytes[argument_bytes];
  } recorded{kernel.call, kernel.sizes.size(), {}, {}};
  TANDEM_ASSERT(recorded.count <= most_arguments, recorded.count, " kernel arguments");
  std::size_t at = 0;
  for (std::size_t i = 0; i < recorded.count; ++i) {
    const std::size_t alignment = std::min<std::size_t>(16, kernel.sizes[i] & (~kernel.sizes[i] + 1));  // or more
    at = (at + alignment - 1) / alignment * alignment;
    recorded.offset[i] = at;
    TANDEM_ASSERT(at + kernel.sizes[i] <= argument_bytes, "kernel arguments of more than ", argument_bytes, " bytes");
    std::memcpy(recorded.bytes + at, arguments[i], kernel.sizes[i]);
    at += kernel.sizes[i];
  }
  tandem_emulator::context = tandem_emulator::process_context();
  const auto lane = [](void* self) {
    auto& r = *static_cast<Recorded*>(self);
    void* pointers[most_arguments];
    for (std::size_t i = 0; i < r.count; ++i) pointers[i] = r.bytes + r.offset[i];
    r.call(pointers);
  };
  const cudaStream_t stream = stream_of(device);
  check_launch(tandem_emulator::launch(handle, dim3(grid.x, grid.y, grid.z), dim3(block.x, block.y, block.z),
                                       shared_bytes, stream, lane, &recorded, sizeof recorded),
               "launch of a generated kernel", stream);
}

}  // namespace tandem::gpu
