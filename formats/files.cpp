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
#include <new>
#include <utility>

#include "core/temporary_file.h"

namespace tandem::io {
namespace {

using tandem::detail::Descriptor, tandem::detail::str;
constexpr uint64_t kMostAtOnce = uint64_t{1} << 30;  // Linux moves at most 2 GiB a call

// A folder's entries are data of their own: without this, a crash may lose the new name of a file that is on the
// disk. Returns 0 or an error. Some file systems don't offer it (EINVAL); there is nothing to be done about that.
int sync_directory(const std::filesystem::path& directory) {
  const Descriptor folder(::open(directory.empty() ? "." : directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder) return errno == EACCES ? 0 : errno;  // a folder that may be written, and not read
  return ::fsync(folder.get()) != 0 && errno != EINVAL && errno != EROFS ? errno : 0;
}

const char* kind_of(mode_t mode) {
  return S_ISDIR(mode)                    ? "a directory"
         : S_ISFIFO(mode)                 ? "a FIFO"
         : S_ISSOCK(mode)                 ? "a socket"
         : S_ISCHR(mode) || S_ISBLK(mode) ? "a device"
                                          : "no regular file";
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
  descriptor_ =
      Descriptor(::open(path_.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));  // a FIFO by now would make it wait
  if (!descriptor_ || ::fstat(descriptor_.get(), &status) != 0) fail(str("can't be opened: ", std::strerror(errno)));
  if (!S_ISREG(status.st_mode)) fail("is no regular file");
  size_ = static_cast<uint64_t>(status.st_size);
}

void InputFile::read(void* to, uint64_t count, uint64_t offset) const {
  for (uint64_t done = 0; done < count;) {
    const ssize_t got = ::pread(descriptor_.get(), static_cast<char*>(to) + done, std::min(count - done, kMostAtOnce),
                                static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(str("can't be read at byte ", offset + done, ": ", std::strerror(errno)));
    if (got == 0)
      fail(str("ends after ", bytes_text(offset + done), ", ", count - done,
               " short: it was shortened while it was read"));
    done += static_cast<uint64_t>(got);
  }
}

void InputFile::limit(const Limits& limits) const {
  if (size_ > limits.file_bytes)
    fail(str("has ", bytes_text(size_), ", more than the limit of ", bytes_text(limits.file_bytes),
             ": if you trust it, raise io::Limits::file_bytes"));
}

std::vector<uint8_t> InputFile::read_all(const Limits& limits) const {
  limit(limits);
  const auto no_memory = [&] {
    return OutOfMemoryError(str(caller_, ": there is no memory for the ", bytes_text(size_), " of '", path_, "'"),
                            where_);
  };
  // Where memory is overcommitted, the allocation would succeed and the process be killed while it is filled.
  const uint64_t machine = static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) * ::sysconf(_SC_PAGESIZE);
  if (size_ > machine) throw no_memory();
  std::vector<uint8_t> bytes;
  try {
    bytes.resize(size_);
  } catch (const std::bad_alloc&) { throw no_memory(); }
  read(bytes.data(), size_, 0);
  return bytes;
}

void InputFile::fail(const std::string& what) const { throw FileError(str(caller_, ": '", path_, "' ", what), where_); }

Bytes Bytes::read(const InputFile& file, const Limits& limits) { return of(file.read_all(limits)); }

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
  const auto refuse = [&](const std::string& what) { throw FileError(str(caller_, ": '", path_, "' ", what), where_); };
  // A link stays one: what it points at is written.
  std::error_code error;
  if (std::filesystem::is_symlink(path_, error)) {
    const std::filesystem::path target = std::filesystem::canonical(path_, error);
    if (error) refuse(str("is a link to what can't be found: ", error.message(), "; remove it, or make what it names"));
    path_ = target.string();
  }
  struct stat old {};
  const bool exists = ::lstat(path_.c_str(), &old) == 0;
  if (exists && S_ISDIR(old.st_mode)) refuse("is a directory: give a file's name");
  if (exists && !S_ISREG(old.st_mode))
    refuse(str("is ", kind_of(old.st_mode), ", and only regular files are replaced: give another name"));
  tandem::detail::remove_abandoned(path_);
  temporary_ = tandem::detail::temporary_name(path_);
  descriptor_ = Descriptor(::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  if (!descriptor_) {
    const int reason = errno;
    temporary_.clear();
    fail(reason == ENOENT ? "its folder doesn't exist, make it first" : "no file can be made in its folder", reason);
  }
  tandem::detail::mark_in_the_making(descriptor_.get());
  if (exists) (void)!::fchmod(descriptor_.get(), old.st_mode & 07777);
}

AtomicFile::~AtomicFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* from, uint64_t count) {
  for (uint64_t done = 0; done < count;) {
    const ssize_t put =
        ::write(descriptor_.get(), static_cast<const char*>(from) + done, std::min(count - done, kMostAtOnce));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail("what stood there before is unchanged", errno);
    done += static_cast<uint64_t>(put), written_ += static_cast<uint64_t>(put);
  }
}

void AtomicFile::commit() {
  if (::fsync(descriptor_.get()) != 0 && errno != EINVAL && errno != EROFS)
    fail("what stood there before is unchanged", errno);
  // Renamed while it is open, and so locked: nobody takes it for what a killed process left.
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("what stood there before is unchanged", errno);
  temporary_.clear();
  descriptor_.close();
  if (const int error = sync_directory(std::filesystem::path(path_).parent_path()))
    throw FileError(str(caller_, ": '", path_, "' is written, but its folder can't be brought to the disk: ",
                        std::strerror(error), "; after a crash, what stood there before may be back"),
                    where_);
}

void AtomicFile::fail(const char* what, int error) const {
  throw FileError(str(caller_, ": '", path_, "' can't be written: ", std::strerror(error), " (after ",
                      bytes_text(written_), "; ", what, ")"),
                  where_);
}

}  // namespace tandem::io
