// tandem info: what this build and this machine offer.
#include <cstdio>

#include "core/device.h"
#include "core/threads.h"
#include "graph/native/disk_cache.h"
#include "graph/native/system_compiler.h"
#include "kernels/cpu/support/gemm.h"
#include "kernels/cpu/support/isa.h"
#include "tools/tandem/commands.h"

namespace tandem::tools {

namespace {

void print(const char* what, const std::string& value) { std::printf("%-16s %s\n", what, value.c_str()); }

void run() {
  print("instruction set",
        std::string(name_of(current_isa())) + " (best here: " + name_of(best_isa()) + "; TANDEM_ISA lowers it)");
  print("threads", std::to_string(num_threads()));
  print("matmul, conv2d", matmul_library() == MatmulLibrary::onednn ? "oneDNN" : "kernels of our own");
  const char* reason = backend(DeviceKind::cuda).unavailable;
  print("CUDA", cuda_is_available() ? std::to_string(cuda_device_count()) + " devices"
                                    : std::string("none: ") + (reason ? reason : "no device was found"));
  const graph::SystemCompilerStatus compiler = graph::system_compiler();
  print("C compiler",
        compiler.problem.empty() ? compiler.compiler + ": " + compiler.version : "none: " + compiler.problem);
  const graph::CacheDirectory cache = graph::cache_directory();
  print("kernel cache", cache.problem.empty() ? cache.path : "none: " + cache.problem);
}

}  // namespace

void add_info(CLI::App& app) {
  app.add_subcommand("info", "says what this build and this machine offer")->callback(run);
}

}  // namespace tandem::tools
