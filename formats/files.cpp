// Files: read whole or mapped, and written atomically.
#include "formats/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

namespace tandem::io {
namespace {

using tandem::detail::str;
constexpr uint64_t kMostAtOnce = uint64_t{1} << 30;  // Linux moves at most 2 GiB a call

// A folder's entries are data of their own: without this, a crash may lose the new name of a file that is on the
// disk. Some file systems don't offer it (EINVAL); there is nothing to be done about that.
void sync_directory(const std::filesystem::path& directory) {
  const int descriptor = ::open(directory.empty() ? "." : directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

}  // namespace

std::string bytes_text(uint64_t count) {
  std::string digits = std::to_string(count);
  for (size_t at = digits.size(); at > 3;) digits.insert(at -= 3, ",");
  return digits + (count == 1 ? " byte" : " bytes");
}

InputFile::InputFile(const char* caller, std::string path, Where where)
    : caller_(caller), path_(std::move(path)), where_(where) {
  struct stat status {};
  if (::stat(path_.c_str(), &status) != 0) fail(str("can't be opened: ", std::strerror(errno)));
  if (S_ISDIR(status.st_mode)) fail("is a directory: give the file in it");
  if (!S_ISREG(status.st_mode)) fail("is no regular file");
  descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor_ < 0) fail(str("can't be opened: ", std::strerror(errno)));
  if (::fstat(descriptor_, &status) == 0) size_ = static_cast<uint64_t>(status.st_size);
}

InputFile::~InputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void InputFile::read(void* to, uint64_t count, uint64_t offset) const {
  for (uint64_t done = 0; done < count;) {
    const ssize_t got = ::pread(descriptor_, static_cast<char*>(to) + done, std::min(count - done, kMostAtOnce),
                                static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(str("can't be read at byte ", offset + done, ": ", std::strerror(errno)));
    if (got == 0)
      fail(str("ends after ", bytes_text(offset + done), ", ", count - done,
               " short: it was shortened while it was read"));
    done += static_cast<uint64_t>(got);
  }
}

std::vector<uint8_t> InputFile::read_all() const {
  std::vector<uint8_t> bytes(size_);
  read(bytes.data(), size_, 0);
  return bytes;
}

void InputFile::fail(const std::string& what) const { throw FileError(str(caller_, ": '", path_, "' ", what), where_); }

Bytes Bytes::read(const InputFile& file) { return of(file.read_all()); }

Bytes Bytes::map(const InputFile& file) {
  if (file.size() == 0) return {};  // which mmap refuses
  void* const memory = ::mmap(nullptr, file.size(), PROT_READ, MAP_PRIVATE, file.descriptor(), 0);
  if (memory == MAP_FAILED) file.fail(str("can't be mapped: ", std::strerror(errno), ": read it whole instead"));
  const size_t size = file.size();
  Bytes bytes;
  bytes.owner_ =
      std::shared_ptr<const void>(memory, [size](const void* mapped) { ::munmap(const_cast<void*>(mapped), size); });
  bytes.view_ = {static_cast<const uint8_t*>(memory), size};
  return bytes;
}

Bytes Bytes::of(std::string text) {
  const auto owner = std::make_shared<const std::string>(std::move(text));
  Bytes bytes;
  bytes.view_ = {reinterpret_cast<const uint8_t*>(owner->data()), owner->size()};
  bytes.owner_ = owner;
  return bytes;
}

Bytes Bytes::of(std::vector<uint8_t> values) {
  const auto owner = std::make_shared<const std::vector<uint8_t>>(std::move(values));
  Bytes bytes;
  bytes.view_ = *owner;
  bytes.owner_ = owner;
  return bytes;
}

AtomicFile::AtomicFile(const char* caller, const std::string& path, Where where)
    : caller_(caller), path_(path), where_(where) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path_, ignored))
    throw FileError(str(caller_, ": '", path_, "' is a directory: give a file's name"), where_);
  // A link stays one: what it points at is written.
  if (std::filesystem::is_symlink(path_, ignored)) {
    const std::filesystem::path target = std::filesystem::weakly_canonical(path_, ignored);
    if (!ignored) path_ = target.string();
  }
  static std::atomic<unsigned> counter{0};  // with the process id: a name that no other writer has
  for (int attempt = 0; attempt < 100 && descriptor_ < 0; ++attempt) {
    temporary_ = str(path_, ".tmp-", ::getpid(), "-", counter.fetch_add(1, std::memory_order_relaxed));
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ < 0 && errno != EEXIST) break;
  }
  if (descriptor_ < 0) {
    const int error = errno;
    temporary_.clear();
    fail(error == ENOENT ? "its folder doesn't exist, make it first" : "no file can be made in its folder", error);
  }
  struct stat old {};
  if (::stat(path_.c_str(), &old) == 0 && S_ISREG(old.st_mode)) (void)!::fchmod(descriptor_, old.st_mode & 07777);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* from, uint64_t count) {
  for (uint64_t done = 0; done < count;) {
    const ssize_t put =
        ::write(descriptor_, static_cast<const char*>(from) + done, std::min(count - done, kMostAtOnce));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail("what stood there before is unchanged", errno);
    done += static_cast<uint64_t>(put), written_ += static_cast<uint64_t>(put);
  }
}

void AtomicFile::commit() {
  if (::fsync(descriptor_) != 0 && errno != EINVAL && errno != EROFS)
    fail("what stood there before is unchanged", errno);
  const int closed = ::close(std::exchange(descriptor_, -1));
  if (closed != 0 && errno != EINTR) fail("what stood there before is unchanged", errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("what stood there before is unchanged", errno);
  temporary_.clear();
  sync_directory(std::filesystem::path(path_).parent_path());
}

void AtomicFile::fail(const char* what, int error) const {
  throw FileError(str(caller_, ": '", path_, "' can't be written: ", std::strerror(error), " (after ",
                      bytes_text(written_), "; ", what, ")"),
                  where_);
}

}  // namespace tandem::io
