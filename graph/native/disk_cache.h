// Where built kernels are kept from one run to the next, and the checks that make it safe to load them.
//
// A directory of mode 0700 holds, for each key, the source (KEY.c, to be read by people) and what was built from it
// (KEY.so). What was built ends in a seal: its key, size, and a checksum that needs the file "secret" beside it, which
// only this user can read. So an entry that another user put there, while the folder was open to him, say, doesn't
// verify. Files appear by rename, so readers and any number of writers at once see whole files or none; a machine that
// lost power may still leave a cut one, and the seal shows that. What is no entry of this user's is removed.
//
// Environment: TANDEM_CACHE_DIR (else $XDG_CACHE_HOME/tandem, else ~/.cache/tandem), TANDEM_CACHE=0 for no
// cache, TANDEM_CACHE_LIMIT in MiB (512).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/descriptor.h"
#include "graph/native/sha256.h"

namespace tandem::graph {

/// A directory that kernels may be built in and loaded from, or the reason why not.
struct CacheDirectory {
  std::string path;     ///< absolute
  std::string problem;  ///< empty if usable
};

/// The user's cache, made if need be. Looks afresh at each call: environment and permissions may change.
CacheDirectory cache_directory();

/// A directory of this process alone below the `index`-th of $TMPDIR, /tmp, /var/tmp, /dev/shm; removed at
/// exit. Beyond the last: both texts are empty.
CacheDirectory private_directory(size_t index);
/// What private_directory() makes is removed later at exit than what is destroyed that was made after this call.
void prepare_private_directories();
/// Moves a file out of its private directory, so that it can still be read after exit. Where it is then.
std::string keep_private_file(const std::string& path);

/// A directory for one run of the compiler, made beside `path`. What is in it goes with it.
class Workplace {
 public:
  explicit Workplace(const std::string& path);
  ~Workplace();
  Workplace(const Workplace&) = delete;
  Workplace& operator=(const Workplace&) = delete;

  const std::string& path() const { return path_; }
  const std::string& problem() const { return problem_; }  ///< why there is none

 private:
  std::string path_, problem_;
  tandem::detail::Descriptor descriptor_;  ///< while it is open, no other process sweeps the directory
};

/// Writes a file of mode 0600 so that it is either there whole or not at all. Returns the reason it couldn't.
std::string write_file(const std::string& path, std::string_view contents);

/// Puts `contents` at `path` as write_file does, sealed. Returns the reason it couldn't.
std::string store_sealed(const std::string& path, std::string_view contents, const Digest& key);

/// An entry whose seal was found right.
struct SealedFile {
  std::string contents;                   ///< what was sealed
  tandem::detail::Descriptor descriptor;  ///< open on the file that was checked, whatever stands at its path by now
};

enum class Entry { absent, whole, damaged };
/// Checks that the file at `path` is a regular one of this user (or root) that nobody else may write, of a size that
/// kernels have, and its seal against its contents and `key`. A whole entry counts as used now; a damaged one is
/// removed, unless it or the secret could only not be read now, and `problem` says what was wrong.
Entry check_sealed(const std::string& path, const Digest& key, std::string& problem, SealedFile& file);

/// Reads a regular file in a Workplace. Returns the reason it couldn't.
std::string read_own_file(const std::string& path, std::string& contents);

/// Removes the entries used longest ago until all together are within the limit, never that of `newest`; and what
/// killed processes and compilers left. Touches no file that isn't named like an entry or such a rest.
void limit_cache(const std::string& directory, const std::string& newest);

}  // namespace tandem::graph
