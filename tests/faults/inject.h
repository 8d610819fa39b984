// Faults: the n-th call of a kind that the program makes to the system fails, as it may on a machine that has run out of
// memory, disk, descriptors or processes. The functions that inject.cpp defines stand before those of the C library.
#pragma once

#include <cstdint>

namespace faults {

enum class Call { allocate, open, read, write, fsync, map, rename, link, make_directory, spawn, load, thread };
inline constexpr int kCalls = 12;
const char* name_of(Call call);

/// What becomes of the call.
enum class Fault {
  fails,       ///< with the error that is usual for it
  all_fail,    ///< this one and all that follow
  interrupted  ///< read, write and open: EINTR, and the next one goes on
};

/// While it lives, the n-th call (from 0) of that kind, by any thread, fails.
class Injection {
 public:
  Injection(Call call, int64_t n, Fault fault = Fault::fails);
  ~Injection();
  Injection(const Injection&) = delete;
  Injection& operator=(const Injection&) = delete;
  /// From now on nothing fails. Whether something has.
  bool end();
};

}  // namespace faults
