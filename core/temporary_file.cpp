// Names of files in the making, and what becomes of those whose maker was killed.
#include "core/temporary_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <memory>
#include <random>
#include <string_view>

#include "core/descriptor.h"

namespace tandem::detail {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kMark = ".tmp-";
constexpr size_t kLongestEnd = 5 + 10 + 1 + 8 + 1 + 10;  // the mark, a process, eight digits, a count

std::string name_in(const std::string& path) { return fs::path(path).filename().string(); }

// What the temporary names of `path` begin with.
std::string stem_of(const std::string& path) {
  const fs::path whole(path);
  const fs::path folder = whole.has_parent_path() ? whole.parent_path() : ".";
  const long allowed = ::pathconf(folder.c_str(), _PC_NAME_MAX);
  const size_t longest = allowed > 64 ? static_cast<size_t>(allowed) : 255;
  std::string name = whole.filename().string();
  if (name.size() + kLongestEnd > longest) {
    size_t size = longest - kLongestEnd;
    while (size > 0 && (static_cast<unsigned char>(name[size]) & 0xc0) == 0x80) --size;  // whole characters of UTF-8
    name.resize(size);
  }
  return (whole.parent_path() / name).string() + std::string(kMark);
}

// The process that makes a file of that name; 0 if it is no temporary name.
pid_t maker_of(const std::string& name) {
  const size_t mark = name.rfind(kMark);
  if (mark == name.npos) return 0;
  int process = 0, end = 0;
  unsigned random = 0, count = 0;
  const char* const text = name.c_str() + mark + kMark.size();
  if (std::sscanf(text, "%d-%8x-%u%n", &process, &random, &count, &end) != 3 || text[end] != 0) return 0;
  return std::max(process, 0);
}

}  // namespace

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, int (*)(DIR*)> open(::opendir(folder.c_str()), ::closedir);
  while (const dirent* const entry = open ? ::readdir(open.get()) : nullptr)
    if (const std::string_view name = entry->d_name; name != "." && name != "..") names.emplace_back(name);
  return names;
}

void remove_all(const std::string& path) noexcept {
  const auto remove = [](const char* each, const struct stat*, int, FTW*) { return ::remove(each), 0; };
  ::nftw(path.c_str(), remove, 16, FTW_DEPTH | FTW_PHYS);
}

std::string temporary_name(const std::string& path) {
  // Random, not the process's number alone: containers that share a folder count their processes each for itself.
  static std::atomic<unsigned> count{0};
  std::random_device random;
  char end[40];
  std::snprintf(end, sizeof end, "%d-%08x-%u", static_cast<int>(::getpid()), random(), count++);
  return stem_of(path) + end;
}

void mark_in_the_making(int descriptor) { (void)::flock(descriptor, LOCK_EX | LOCK_NB); }

bool is_temporary(const std::string& path) { return maker_of(name_in(path)) != 0; }

bool remove_if_abandoned(const std::string& path) {
  const pid_t maker = maker_of(name_in(path));
  if (maker == 0) return false;
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!file) return false;
  struct stat info {};
  bool abandoned =
      ::fstat(file.get(), &info) == 0 && info.st_uid == ::geteuid() && (S_ISREG(info.st_mode) || S_ISDIR(info.st_mode));
  if (abandoned) {
    // A maker takes its lock just after it made the file; one in another container has no number here.
    const bool is_gone = ::kill(maker, 0) != 0 && errno == ESRCH;
    const auto age = std::time(nullptr) - info.st_mtime;
    if (::flock(file.get(), LOCK_EX | LOCK_NB) == 0) abandoned = is_gone || age > 60;
    else abandoned = errno != EWOULDBLOCK && is_gone && age > 3600;  // a file system without locks
  }
  if (!abandoned) return false;
  remove_all(path);
  return ::lstat(path.c_str(), &info) != 0;
}

void remove_abandoned(const std::string& path) {
  const std::string stem = stem_of(path), beginning = name_in(stem);
  const fs::path folder = fs::path(stem).has_parent_path() ? fs::path(stem).parent_path() : ".";
  for (const std::string& name : names_in(folder.string()))
    if (name.starts_with(beginning)) remove_if_abandoned((folder / name).string());
}

}  // namespace tandem::detail
