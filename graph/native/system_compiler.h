// Generated C becomes callable code: built by the system compiler, kept in the cache on disk, loaded.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/error.h"

namespace tandem::graph {

/// Loaded kernels. Unloaded when the last user lets go, so that a process that compiles thousands of programs
/// (a search, a fuzzer) doesn't run out of mappings; the few loaded last are held for the next that asks.
class KernelLibrary {
 public:
  KernelLibrary() = default;
  KernelLibrary(const KernelLibrary&) = delete;
  KernelLibrary& operator=(const KernelLibrary&) = delete;
  ~KernelLibrary();

  /// The address of a function or variable; null if there is none of that name.
  void* symbol(const char* name) const;

  double compile_seconds = 0;  ///< what the compiler took; 0 if it wasn't needed
  bool from_cache = false;     ///< found on disk rather than built, when it was loaded
  std::string source_path;     ///< the C source, to be read
  std::string note;            ///< why the cache on disk wasn't used, or what was wrong with it; empty if all is well

 private:
  friend struct LibraryLoader;
  void* handle_ = nullptr;
  std::vector<std::shared_ptr<KernelLibrary>> parts_;
};

struct SystemCompilerStatus {
  std::string compiler;                ///< its path
  std::vector<std::string> arguments;  ///< further words of $CC
  std::string version;                 ///< first line of what it says to --version
  std::string problem;                 ///< why it can't be used, and what to do; empty if it can
};

/// $CC (which may hold arguments), else cc. Looked for and asked for its version once, and again when CC or
/// PATH or the file itself changes.
SystemCompilerStatus system_compiler();

/// Builds `source`, or finds it in memory or on disk, and loads it. The source stands alone: no #include, and
/// no functions but its own, those of <math.h>, and memcpy and the like. Null if there is no compiler that
/// can be used, or no place to build: then `reason`, if given, says why, and the caller runs on eager
/// kernels. So too where what the compiler built is no whole library, or lacks one of `symbols`. Throws CompileError if
/// the compiler refuses the source or takes longer than a minute. Safe from several threads.
///
/// A large source is built in parts by several compilers at once, if `cuts` says where it may be cut: what stands before the
/// first of these offsets begins each part, and what stands between two may be compiled apart from the rest.
std::shared_ptr<KernelLibrary> load_c_source(const std::string& source, Where where, std::string* reason = nullptr,
                                             const std::vector<std::string>& symbols = {},
                                             const std::vector<size_t>& cuts = {});
/// The same where it is found in memory or on disk; null where it has to be built, or is being built.
std::shared_ptr<KernelLibrary> find_c_source(const std::string& source, const std::vector<std::string>& symbols = {});

/// The same for sources that don't use one another, two compilers at a time. symbol() looks in each in turn;
/// compile_seconds is the wall time, from_cache whether none had to be built.
std::shared_ptr<KernelLibrary> load_c_sources(const std::vector<std::string>& sources, Where where,
                                              std::string* reason = nullptr);

namespace testing {
/// The next load looks on disk, as that of a new process would. Libraries in use stay.
void forget_loaded_libraries();
void set_compile_time_limit(double seconds);
/// How large a part is worth a compiler of its own, and how many there may be; 0: as at first.
void set_compiler_parts(size_t bytes, size_t most);
}  // namespace testing

}  // namespace tandem::graph
