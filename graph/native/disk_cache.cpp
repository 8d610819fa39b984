// The kernel cache on disk: choice and checks of the directory, sealed entries, the bound on its size.
#include "graph/native/disk_cache.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/random.h>
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
#include <optional>
#include <system_error>
#include <utility>

#include "core/temporary_file.h"

namespace tandem::graph {

namespace fs = std::filesystem;

namespace {

using tandem::detail::Descriptor;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::string because(const std::string& what, int error) { return what + ": " + std::strerror(error); }

std::string mode_text(mode_t mode) {
  char text[16];
  std::snprintf(text, sizeof text, "%04o", static_cast<unsigned>(mode & 07777));
  return text;
}

// A folder in which any user may replace another's: what lies below it isn't safe, whatever its own mode. "" if none.
std::string open_parent(const std::string& path) {
  std::error_code ignored;
  for (const fs::path& start : {fs::path(path), fs::canonical(path, ignored)})
    for (fs::path parent = start.parent_path(); !parent.empty(); parent = parent.parent_path()) {
      struct stat info;
      if (stat(parent.c_str(), &info) == 0 && (info.st_mode & S_IWOTH) && !(info.st_mode & S_ISVTX))
        return parent.string() + " (mode " + mode_text(info.st_mode) + ")";
      if (parent == parent.parent_path()) break;
    }
  return "";
}

// Why kernels can't be built in and loaded from this directory; empty if they can.
std::string refusal(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return because(path, errno);
  if (!S_ISDIR(info.st_mode)) return path + " is not a directory";
  if (info.st_uid != geteuid())
    return path + " belongs to another user (" + std::to_string(info.st_uid) + "), who could put code of his own there";
  if (info.st_mode & (S_IWGRP | S_IWOTH))
    return path + " is writable by other users (mode " + mode_text(info.st_mode) +
           "), who may have put code there: remove it with all that is in it, and it is made again for you alone";
  if (const std::string parent = open_parent(path); !parent.empty())
    return path + " lies below " + parent +
           ", where any user may put another folder in its place: set TANDEM_CACHE_DIR to a folder of your own";
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

// A new directory for this user alone, that is swept by a later process if this one is killed. Returns 0 or an error.
int make_own_directory(const std::string& path, Descriptor& descriptor) {
  if (mkdir(path.c_str(), 0700) != 0) return errno;
  descriptor = Descriptor(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!descriptor) {
    const int error = errno;
    rmdir(path.c_str());
    return error;
  }
  tandem::detail::mark_in_the_making(descriptor.get());
  return 0;
}

// The private directories of this process. A child of fork makes its own: its parent removes these at exit.
struct PrivateDirectories {
  struct Made {
    std::string path = {};
    Descriptor descriptor = {};
  };
  std::mutex mutex;
  pid_t owner = getpid();
  std::map<std::string, Made> made;  // by the directory they lie in

  ~PrivateDirectories() {
    if (owner != getpid()) return;
    for (const auto& [base, own] : made) tandem::detail::remove_all(own.path);
  }
};

PrivateDirectories& private_directories() {
  static PrivateDirectories directories;
  return directories;
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

// Writes a file of mode 0600 under a temporary name and has `place` give it its own. Returns the reason it couldn't.
template <class Place> std::string write_and(const std::string& path, std::string_view contents, Place&& place) {
  const std::string temporary = tandem::detail::temporary_name(path);
  Descriptor file(open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file) return because("can't write to " + fs::path(path).parent_path().string(), errno);
  const struct Unlink {  // gone already, where it was renamed
    const std::string& path;
    ~Unlink() { unlink(path.c_str()); }
  } at_end{temporary};
  tandem::detail::mark_in_the_making(file.get());
  std::string problem = write_all(file.get(), contents);
  if (problem.empty() && !place(temporary)) problem = std::strerror(errno);
  if (file.close() != 0 && problem.empty()) problem = std::strerror(errno);
  return problem.empty() ? "" : "can't write " + path + ": " + problem;
}

// No kernels are larger, and nothing that was put there is read for hours.
constexpr off_t kLargestEntry = off_t{256} << 20;

struct Read {
  enum { absent, refused, unreadable, done } state = absent;  // unreadable: now, which says nothing of the file
  std::string problem = {}, contents = {};
  mode_t mode = 0;
  Descriptor descriptor = {};
};

// Reads a regular file of this user (or root) that nobody else may write. Never waits, never follows a link.
Read read_own(const std::string& path) {
  Read result;
  const auto refused = [&](const std::string& why) {
    result.state = Read::refused;
    result.problem = path + " " + why;
    return std::move(result);
  };
  const auto unreadable = [&](int error) {
    result.state = Read::unreadable;
    result.problem = because(path + " can't be read", error);
    return std::move(result);
  };
  result.descriptor = Descriptor(open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!result.descriptor) {
    const int error = errno;
    if (error == ENOENT) return result;
    if (error == EMFILE || error == ENFILE || error == ENOMEM || error == EINTR || error == EIO)
      return unreadable(error);
    return refused(error == ELOOP ? "is a link" : because("can't be read", error));
  }
  struct stat info;
  if (fstat(result.descriptor.get(), &info) != 0) return unreadable(errno);
  if (!S_ISREG(info.st_mode)) return refused("is no regular file");
  if (info.st_uid != geteuid() && info.st_uid != 0)
    return refused("belongs to another user (" + std::to_string(info.st_uid) + ")");
  if (info.st_mode & (S_IWGRP | S_IWOTH))
    return refused("is writable by other users (mode " + mode_text(info.st_mode) + ")");
  if (info.st_size > kLargestEntry)
    return refused("is larger than kernels are (" + std::to_string(info.st_size) + " bytes)");
  result.mode = info.st_mode;
  result.contents.resize(static_cast<size_t>(info.st_size));
  for (size_t at = 0; at < result.contents.size();) {
    const ssize_t got = read(result.descriptor.get(), result.contents.data() + at, result.contents.size() - at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return unreadable(errno);
    if (got == 0) result.contents.resize(at);
    at += static_cast<size_t>(got);
  }
  result.state = Read::done;
  return result;
}

// What makes seals this user's: random bytes in a file that nobody else can read.
constexpr std::string_view kSecretWord = "TandemS1";

std::optional<Digest> secret_of(const std::string& directory, std::string& problem) {
  const std::string path = directory + "/secret";
  Digest secret;
  for (int attempt = 0; attempt < 3; ++attempt) {
    const Read found = read_own(path);
    if (found.state == Read::unreadable) {
      problem = found.problem;
      return {};
    }
    if (found.state == Read::done && (found.mode & 077) == 0 && found.contents.starts_with(kSecretWord) &&
        found.contents.size() == kSecretWord.size() + secret.size()) {
      std::copy_n(found.contents.begin() + kSecretWord.size(), secret.size(), secret.begin());
      return secret;
    }
    if (found.state != Read::absent) tandem::detail::remove_all(path);
    if (getrandom(secret.data(), secret.size(), 0) != static_cast<ssize_t>(secret.size())) {
      problem = because("no random numbers", errno);
      return {};
    }
    // By link: of several that make one at the same time, the first has made it. Some file systems have no links.
    problem = write_and(
        path, std::string(kSecretWord) + std::string(secret.begin(), secret.end()), [&](const std::string& made) {
          return link(made.c_str(), path.c_str()) == 0 || errno == EEXIST || rename(made.c_str(), path.c_str()) == 0;
        });
    if (!problem.empty()) return {};
  }
  problem = path + " can't be read back";
  return {};
}

// The seal: this word, the size of what it follows, the key, and the checksum of all of that.
constexpr std::string_view kSealWord = "TandemK2";
constexpr size_t kSealSize = 8 + 8 + 32 + 32;

std::string seal_of(std::string_view contents, const Digest& key, const Digest& secret) {
  std::string seal(kSealWord);
  for (int i = 0; i < 8; ++i) seal += static_cast<char>(uint64_t{contents.size()} >> (8 * i));
  seal.append(key.begin(), key.end());
  const Digest sum = sha256(contents);
  const Digest all = hmac_sha256(secret, seal + std::string(sum.begin(), sum.end()));
  return seal.append(all.begin(), all.end());
}

// What compilers name their temporary files, which versions before Workplace let them leave here.
bool is_rest_of_compiler(const std::string& name) {
  const size_t dot = name.find('.');
  if (!name.starts_with("cc") || dot != 8) return false;
  const std::string ending = name.substr(dot);
  return ending == ".o" || ending == ".s" || ending == ".c" || ending == ".res" || ending == ".ld" || ending == ".le";
}

}  // namespace

CacheDirectory cache_directory() {
  if (environment("TANDEM_CACHE") == "0") return {"", "switched off by TANDEM_CACHE=0"};
  const std::string path = default_directory();
  if (path.empty()) return {"", "TANDEM_CACHE_DIR, XDG_CACHE_HOME and HOME are all unset"};
  if (const int error = make_directories(path)) return {path, because("can't make " + path, error)};
  return {path, refusal(path)};
}

void prepare_private_directories() { private_directories(); }

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
  PrivateDirectories::Made& own = all.made[base];
  if (own.path.empty() || !refusal(own.path).empty()) {
    tandem::detail::remove_abandoned(base + "/tandem-kernels");
    own = {.path = tandem::detail::temporary_name(base + "/tandem-kernels"), .descriptor = {}};
    if (const int error = make_own_directory(own.path, own.descriptor)) {
      all.made.erase(base);
      return {base, because("can't make a directory in " + base, error)};
    }
  }
  return {own.path, refusal(own.path)};
}

std::string keep_private_file(const std::string& path) {
  std::string kept = fs::path(path).parent_path().parent_path().string() + "/tandem-XXXXXX";
  const int file = mkstemp(kept.data());
  if (file < 0) return path;
  close(file);
  const std::string named = kept + fs::path(path).extension().string();
  const bool moved = link(kept.c_str(), named.c_str()) == 0 && rename(path.c_str(), named.c_str()) == 0;
  unlink(kept.c_str());
  return moved ? named : path;
}

Workplace::Workplace(const std::string& path) : path_(tandem::detail::temporary_name(path)) {
  if (const int error = make_own_directory(path_, descriptor_))
    problem_ = because("can't write to " + fs::path(path).parent_path().string(), error);
}

Workplace::~Workplace() { tandem::detail::remove_all(path_); }

std::string write_file(const std::string& path, std::string_view contents) {
  return write_and(path, contents,
                   [&](const std::string& written) { return rename(written.c_str(), path.c_str()) == 0; });
}

std::string read_own_file(const std::string& path, std::string& contents) {
  chmod(path.c_str(), 0600);  // the umask may let a group write what the compiler wrote
  Read found = read_own(path);
  contents = std::move(found.contents);
  return found.state == Read::absent ? because(path, ENOENT) : found.problem;
}

std::string store_sealed(const std::string& path, std::string_view contents, const Digest& key) {
  std::string problem;
  const std::optional<Digest> secret = secret_of(fs::path(path).parent_path().string(), problem);
  return secret ? write_file(path, std::string(contents) + seal_of(contents, key, *secret)) : problem;
}

Entry check_sealed(const std::string& path, const Digest& key, std::string& problem, SealedFile& file) {
  Read found = read_own(path);
  if (found.state == Read::absent) return Entry::absent;
  file.descriptor = std::move(found.descriptor);
  problem = found.problem;
  if (found.state == Read::unreadable) return Entry::damaged;
  const std::string_view all = found.contents;
  if (found.state == Read::done) {
    const std::optional<Digest> secret = secret_of(fs::path(path).parent_path().string(), problem);
    if (!secret) return Entry::damaged;
    const std::string_view sealed = all.substr(0, all.size() - std::min(all.size(), kSealSize));
    if (all.size() < kSealSize || all.substr(sealed.size(), kSealWord.size()) != kSealWord)
      problem = path + " is cut short (" + std::to_string(all.size()) + " bytes, without its seal)";
    else if (all.substr(sealed.size()) != seal_of(sealed, key, *secret))
      problem = path + " does not have the checksum that it was written with by this user";
  }
  if (!problem.empty()) {
    tandem::detail::remove_all(path);
    return Entry::damaged;
  }
  futimens(file.descriptor.get(), nullptr);  // used now; a cache that can only be read stays as it is
  found.contents.resize(found.contents.size() - kSealSize);
  file.contents = std::move(found.contents);
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
  for (const std::string& name : tandem::detail::names_in(directory)) {
    const std::string path = directory + "/" + name;
    if (tandem::detail::remove_if_abandoned(path) || tandem::detail::is_temporary(name)) continue;
    const size_t digits = std::min(name.find_first_not_of("0123456789abcdef"), name.size());
    const bool is_rest = is_rest_of_compiler(name), is_entry = digits == 64 && name.size() > 64 && name[64] == '.';
    struct stat info;
    if (!(is_rest || is_entry) || lstat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
    if (is_rest ? info.st_mtime + 3600 < std::time(nullptr) : info.st_size > kLargestEntry) {
      unlink(path.c_str());
      continue;
    }
    if (is_rest) continue;
    Group& group = groups[name.substr(0, digits)];
    group.size += info.st_size;
    group.used = std::max(group.used, info.st_mtime);
    group.files.push_back(path);
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
