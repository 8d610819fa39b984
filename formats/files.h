// Files: read whole or mapped, and written so that a crash leaves the old one or the new one, never a half.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "../core/descriptor.h"
#include "../core/error.h"
#include "limits.h"

namespace tandem::io {

/// "1,234,567 bytes".
std::string bytes_text(uint64_t count);

/// An open file to read from. All errors are FileErrors that begin with `caller` and the file's name.
class InputFile {
 public:
  InputFile(const char* caller, std::string path, Where where);

  uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }
  /// Throws a FileError if there are more bytes than that.
  void limit(const Limits& limits) const;
  /// Reads `count` bytes from `offset` on.
  void read(void* to, uint64_t count, uint64_t offset) const;
  /// OutOfMemoryError where there is no memory for them.
  std::vector<uint8_t> read_all(const Limits& limits) const;
  /// Throws FileError "caller: 'path' what".
  [[noreturn]] void fail(const std::string& what) const;
  int descriptor() const { return descriptor_.get(); }

 private:
  const char* caller_;
  std::string path_;
  Where where_;
  tandem::detail::Descriptor descriptor_;
  uint64_t size_ = 0;
};

/// Bytes that several owners share: a file's, mapped or read, or a string's.
class Bytes {
 public:
  Bytes() = default;
  /// The file's bytes, read now.
  static Bytes read(const InputFile& file, const Limits& limits);
  /// The file's bytes, each page read when it is first looked at. The file must not be shortened meanwhile: the
  /// system answers a look beyond its end with the signal SIGBUS.
  static Bytes map(const InputFile& file);
  static Bytes of(std::string text);
  static Bytes of(std::vector<uint8_t> values);

  std::span<const uint8_t> span() const { return view_; }
  size_t size() const { return view_.size(); }

 private:
  std::shared_ptr<const void> owner_;
  std::span<const uint8_t> view_;
};

/// Writes a file under a temporary name beside it, and gives it its own name only when all of it is on the disk: a
/// crash, a full disk or an exception leaves what was there before, and nothing else; what a killed process left is
/// removed by the next that writes this file. Only regular files are replaced: FileError for a folder, a device, a FIFO,
/// a link to nothing.
///
///   AtomicFile file("nn::save", path, where);
///   file.write(data, size);
///   file.commit();
class AtomicFile {
 public:
  AtomicFile(const char* caller, const std::string& path, Where where);
  ~AtomicFile();  ///< without commit(): removes what was written
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* from, uint64_t count);
  void commit();

 private:
  [[noreturn]] void fail(const char* what, int error) const;

  const char* caller_;
  std::string path_, temporary_;
  Where where_;
  tandem::detail::Descriptor descriptor_;
  uint64_t written_ = 0;
};

}  // namespace tandem::io
