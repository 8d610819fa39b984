// Files in the making. A file appears whole or not at all by being written under a temporary name beside its own, and
// renamed. The name tells who writes it, and the writer holds a lock on it: so what a killed process left behind is
// told from what another one is writing now, and removed.
#pragma once

#include <string>

namespace tandem::detail {

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
