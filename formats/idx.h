// Reads IDX files, the format of MNIST, gzipped or not (http://yann.lecun.com/exdb/mnist/).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../core/error.h"
#include "limits.h"

namespace tandem::io {

/// An IDX file of unsigned bytes.
struct Idx {
  std::string path;
  std::vector<int64_t> shape;
  std::vector<uint8_t> values;
};

/// Reads a file of `rank` dimensions whole. FileError where it is missing, unreadable, no IDX file of bytes
/// of that rank, truncated, damaged (the gzip checksum is checked), beyond the limits, or followed by bytes that don't
/// belong to it.
Idx read_idx(const std::string& path, int rank, Limits limits = {}, Where where = Where::current());

/// `directory`/`name` or `directory`/`name`.gz, whichever exists. FileError, with what to do, if neither
/// does.
std::string find_idx(const std::string& directory, const std::string& name, Where where = Where::current());

}  // namespace tandem::io
