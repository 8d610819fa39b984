// Where built kernels are kept from one run to the next, and the checks that make it safe to load them.
//
// A directory of mode 0700 holds, for each key, the source (KEY.c, to be read by people) and what was built
// from it (KEY.so). What was built ends in a seal: its key, size and checksum. Files appear by rename, so
// readers and any number of writers at once see whole files or none; a machine that lost power may still
// leave a cut one, and the seal shows that.
//
// Environment: TANDEM_CACHE_DIR (else $XDG_CACHE_HOME/tandem, else ~/.cache/tandem), TANDEM_CACHE=0 for no
// cache, TANDEM_CACHE_LIMIT in MiB (512).
#pragma once

#include <string>
#include <string_view>
#include <vector>

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
/// The private directories stay after exit: a source in them is to be read by the user.
void keep_private_directories();

/// Writes a file of mode 0600 so that it is either there whole or not at all. Returns the reason it couldn't.
std::string write_file(const std::string& path, std::string_view contents);
/// A name in the same directory that no other process or thread uses.
std::string temporary_name(const std::string& path);

/// Seals the file at `temporary` and renames it to `path`. Returns the reason it couldn't.
std::string store_sealed(const std::string& temporary, const std::string& path, const Digest& key);

enum class Entry { absent, whole, damaged };
/// Checks the seal of `path` against its contents and `key`; a whole entry counts as used now. `problem` says
/// what is wrong with a damaged one. `contents`, if not null, gets what was sealed.
Entry check_sealed(const std::string& path, const Digest& key, std::string& problem, std::string* contents = nullptr);

/// Removes the entries used longest ago until all together are within the limit; never that of `newest`.
/// Touches no file that isn't named like an entry.
void limit_cache(const std::string& directory, const std::string& newest);

}  // namespace tandem::graph
