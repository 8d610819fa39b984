// Files in the making. A file appears whole or not at all by being written under a temporary name beside its own, and
// renamed. The name tells who writes it, and the writer holds a lock on it: so what a killed process left behind is
// told from what another one is writing now, and removed.
#pragma once

#include <string>
#include <vector>

namespace tandem::detail {

/// The names in a folder, but . and ..; none where it can't be read. (The standard library's iterators end the process where
/// there is no memory for them, and so does its remove_all.)
std::vector<std::string> names_in(const std::string& folder);
/// Removes a file, a link, or a folder with all that is in it, as far as that may be done.
void remove_all(const std::string& path) noexcept;

/// A name beside `path` that no other process or thread uses: PATH.tmp-PROCESS-RANDOM-COUNT, the file's own name
/// shortened where that would be longer than the file system allows.
std::string temporary_name(const std::string& path);

/// Marks an open temporary file or folder as being made, until its descriptor is closed.
void mark_in_the_making(int descriptor);

bool is_temporary(const std::string& path);
/// Removes a temporary file or folder of this user if nobody makes it any more. Whether it did.
bool remove_if_abandoned(const std::string& path);
/// The same for all those made for `path`.
void remove_abandoned(const std::string& path);

}  // namespace tandem::detail
