// The kernel cache on disk: choice and checks of the directory, sealed entries, the bound on its size.
#include "graph/native/disk_cache.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <map>
#include <mutex>
#include <random>
#include <system_error>

namespace tandem::graph {

namespace fs = std::filesystem;

namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::string because(const std::string& what, int error) { return what + ": " + std::strerror(error); }

// Why kernels can't be built in and loaded from this directory; empty if they can.
std::string refusal(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return because(path, errno);
  if (!S_ISDIR(info.st_mode)) return path + " is not a directory";
  if (info.st_uid != geteuid())
    return path + " belongs to another user (" + std::to_string(info.st_uid) + "), who could put code of his own there";
  if (info.st_mode & (S_IWGRP | S_IWOTH)) {
    char mode[16];
    std::snprintf(mode, sizeof mode, "%04o", static_cast<unsigned>(info.st_mode & 07777));
    return path + " is writable by other users (mode " + mode + "; chmod 700 makes it safe)";
  }
  struct statvfs system;
  if (statvfs(path.c_str(), &system) == 0 && (system.f_flag & ST_NOEXEC))
    return path + " is on a file system mounted noexec, from which no code can be loaded";
  return "";
}

std::string default_directory() {
  if (const std::string chosen = environment("TANDEM_CACHE_DIR"); !chosen.empty()) {
    std::error_code ignored;
    const fs::path absolute = fs::absolute(chosen, ignored);
    return absolute.empty() ? chosen : absolute.string();
  }
  // The XDG base directory specification has relative paths ignored.
  if (const std::string base = environment("XDG_CACHE_HOME"); base.starts_with('/')) return base + "/tandem";
  if (const std::string home = environment("HOME"); !home.empty()) return home + "/.cache/tandem";
  const passwd* user = getpwuid(geteuid());
  return user && user->pw_dir ? std::string(user->pw_dir) + "/.cache/tandem" : "";
}

// As mkdir -p, each new one for its owner alone.
int make_directories(const std::string& path) {
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    struct stat info;
    if (mkdir(part.c_str(), 0700) != 0 && errno != EEXIST) {
      const int error = errno;
      if (stat(part.c_str(), &info) != 0) return error;  // EROFS and EACCES come also where it exists
    }
    if (end == std::string::npos) return 0;
  }
}

// The private directories of this process. A child of fork makes its own: its parent removes these at exit.
struct PrivateDirectories {
  std::mutex mutex;
  pid_t owner = getpid();
  bool keep = false;
  std::map<std::string, std::string> made;  // by the directory they lie in

  ~PrivateDirectories() {
    if (keep || owner != getpid()) return;
    std::error_code ignored;
    for (const auto& [base, path] : made) fs::remove_all(path, ignored);
  }
};

PrivateDirectories& private_directories() {
  static PrivateDirectories directories;
  return directories;
}

// The seal: this word, the size of what it follows, the key, and the checksum of all of that.
constexpr char kSealWord[9] = "TandemK1";
constexpr size_t kSealSize = 8 + 8 + 32 + 32;

std::string seal_of(std::string_view contents, const Digest& key) {
  std::string seal(kSealWord, 8);
  for (int i = 0; i < 8; ++i) seal += static_cast<char>(uint64_t{contents.size()} >> (8 * i));
  seal.append(key.begin(), key.end());
  const Digest sum = sha256(contents);
  Digest all = sha256(seal + std::string(sum.begin(), sum.end()));
  return seal.append(all.begin(), all.end());
}

std::string write_all(int file, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(file, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return std::strerror(written < 0 ? errno : ENOSPC);
    bytes.remove_prefix(written);
  }
  return "";
}

// Null errno on success.
int read_all(const std::string& path, std::string& contents) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return errno;
  struct stat info;
  int error = fstat(file, &info) != 0 ? errno : S_ISREG(info.st_mode) ? 0 : EINVAL;
  if (!error) contents.resize(info.st_size);
  for (size_t at = 0; !error && at < contents.size();) {
    const ssize_t got = read(file, contents.data() + at, contents.size() - at);
    if (got > 0) {
      at += got;
    } else if (got == 0) {
      contents.resize(at);
    } else if (errno != EINTR) {
      error = errno;
    }
  }
  close(file);
  return error;
}

}  // namespace

CacheDirectory cache_directory() {
  if (environment("TANDEM_CACHE") == "0") return {"", "switched off by TANDEM_CACHE=0"};
  const std::string path = default_directory();
  if (path.empty()) return {"", "TANDEM_CACHE_DIR, XDG_CACHE_HOME and HOME are all unset"};
  if (const int error = make_directories(path)) return {path, because("can't make " + path, error)};
  return {path, refusal(path)};
}

CacheDirectory private_directory(size_t index) {
  std::vector<std::string> bases = {"/tmp", "/var/tmp", "/dev/shm"};
  if (const std::string chosen = environment("TMPDIR"); chosen.starts_with('/') && chosen != "/tmp")
    bases.insert(bases.begin(), chosen);
  if (index >= bases.size()) return {};
  const std::string& base = bases[index];

  PrivateDirectories& all = private_directories();
  const std::lock_guard lock(all.mutex);
  if (all.owner != getpid()) {
    all.owner = getpid();
    all.made.clear();
  }
  std::string& path = all.made[base];
  if (path.empty() || !refusal(path).empty()) {
    std::string pattern = base + "/tandem-XXXXXX";
    if (!mkdtemp(pattern.data())) {
      all.made.erase(base);
      return {base, because("can't make a directory in " + base, errno)};
    }
    path = pattern;
  }
  return {path, refusal(path)};
}

void keep_private_directories() {
  PrivateDirectories& all = private_directories();
  const std::lock_guard lock(all.mutex);
  all.keep = true;
}

std::string temporary_name(const std::string& path) {
  // Random, not the process's number alone: containers that share a cache count their processes each for
  // itself.
  std::random_device random;
  static std::atomic<unsigned> count{0};
  char text[64];
  std::snprintf(text, sizeof text, ".%08x-%d-%u.tmp", random(), static_cast<int>(getpid()), count++);
  return path + text;
}

std::string write_file(const std::string& path, std::string_view contents) {
  const std::string temporary = temporary_name(path);
  const int file = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) return because("can't write to " + fs::path(path).parent_path().string(), errno);
  std::string problem = write_all(file, contents);
  if (close(file) != 0 && problem.empty()) problem = std::strerror(errno);
  if (problem.empty() && rename(temporary.c_str(), path.c_str()) != 0) problem = std::strerror(errno);
  if (problem.empty()) return "";
  unlink(temporary.c_str());
  return "can't write " + path + ": " + problem;
}

std::string store_sealed(const std::string& temporary, const std::string& path, const Digest& key) {
  std::string contents;
  if (const int error = read_all(temporary, contents)) return because(temporary, error);
  const int file = open(temporary.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (file < 0) return because(temporary, errno);
  std::string problem = write_all(file, seal_of(contents, key));
  if (close(file) != 0 && problem.empty()) problem = std::strerror(errno);
  if (problem.empty() && rename(temporary.c_str(), path.c_str()) != 0) problem = std::strerror(errno);
  return problem.empty() ? "" : "can't write " + path + ": " + problem;
}

Entry check_sealed(const std::string& path, const Digest& key, std::string& problem, std::string* contents) {
  std::string bytes;
  if (const int error = read_all(path, bytes)) {
    if (error == ENOENT) return Entry::absent;
    problem = because(path, error);
    return Entry::damaged;
  }
  const std::string_view all = bytes;
  if (all.size() < kSealSize || all.substr(all.size() - kSealSize, 8) != std::string_view(kSealWord, 8)) {
    problem = path + " is cut short (" + std::to_string(all.size()) + " bytes, without its seal)";
    return Entry::damaged;
  }
  const std::string_view sealed = all.substr(0, all.size() - kSealSize);
  if (all.substr(sealed.size()) != seal_of(sealed, key)) {
    problem = path + " does not have the checksum that it was written with";
    return Entry::damaged;
  }
  utimensat(AT_FDCWD, path.c_str(), nullptr, 0);  // used now; a cache that can only be read stays as it is
  if (contents) {
    bytes.resize(sealed.size());
    *contents = std::move(bytes);
  }
  return Entry::whole;
}

void limit_cache(const std::string& directory, const std::string& newest) {
  uintmax_t limit = 512;
  if (const std::string chosen = environment("TANDEM_CACHE_LIMIT"); !chosen.empty())
    limit = std::strtoull(chosen.c_str(), nullptr, 10);
  limit *= 1024 * 1024;

  struct Group {
    uintmax_t size = 0;
    time_t used = 0;
    std::vector<std::string> files;
  };
  std::map<std::string, Group> groups;
  uintmax_t total = 0;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    const size_t digits = std::min(name.find_first_not_of("0123456789abcdef"), name.size());
    if (digits != 64 || digits == name.size() || name[digits] != '.') continue;
    struct stat info;
    if (lstat(it->path().c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
    if (name.ends_with(".tmp") && info.st_mtime + 3600 < std::time(nullptr)) {  // its writer was killed
      unlink(it->path().c_str());
      continue;
    }
    Group& group = groups[name.substr(0, digits)];
    group.size += info.st_size;
    group.used = std::max(group.used, info.st_mtime);
    group.files.push_back(it->path().string());
    total += info.st_size;
  }
  if (total <= limit) return;
  std::vector<std::pair<time_t, std::string>> order;
  for (const auto& [key, group] : groups)
    if (key != newest) order.emplace_back(group.used, key);
  std::sort(order.begin(), order.end());
  for (const auto& [used, key] : order) {
    if (total <= limit) break;
    for (const std::string& file : groups[key].files) unlink(file.c_str());
    total -= groups[key].size;
  }
}

}  // namespace tandem::graph
