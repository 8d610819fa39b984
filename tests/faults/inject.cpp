#include "faults/inject.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <new>

namespace faults {

namespace {

std::atomic<int> armed{-1};  // the kind of call, or none
std::atomic<int64_t> left{0};
std::atomic<bool> has_failed{false};
Fault fault;

bool fails(Call call) {
  if (armed.load(std::memory_order_acquire) != static_cast<int>(call)) return false;
  const int64_t now = left.fetch_sub(1);
  if (now > 0 || (now < 0 && fault != Fault::all_fail)) return false;
  has_failed = true;
  return true;
}
int error_or_interrupt(int error) { return errno = fault == Fault::interrupted ? EINTR : error, -1; }

}  // namespace

const char* name_of(Call call) {
  static constexpr const char* names[kCalls] = {"allocation", "open",        "read",   "write",
                                                "fsync",      "mmap",        "rename", "link",
                                                "mkdir",      "posix_spawn", "dlopen", "pthread_create"};
  return names[static_cast<int>(call)];
}

Injection::Injection(Call call, int64_t n, Fault wanted) {
  fault = wanted;
  left = n;
  has_failed = false;
  armed.store(static_cast<int>(call), std::memory_order_release);
}
bool Injection::end() {
  armed.store(-1, std::memory_order_release);
  return has_failed;
}
Injection::~Injection() { end(); }

}  // namespace faults

using faults::Call, faults::fails, faults::error_or_interrupt;

/// The C library's function.
#define REAL(name)                                                                          \
  ([] {                                                                                     \
    static const auto found = reinterpret_cast<decltype(&::name)>(dlsym(RTLD_NEXT, #name)); \
    return found;                                                                           \
  }())

void* operator new(size_t bytes) {
  void* const memory = fails(Call::allocate) ? nullptr : std::malloc(bytes ? bytes : 1);
  if (!memory) throw std::bad_alloc();
  return memory;
}
void* operator new(size_t bytes, std::align_val_t alignment) {
  const size_t step = static_cast<size_t>(alignment);
  void* const memory = fails(Call::allocate) ? nullptr : std::aligned_alloc(step, (bytes + step - 1) / step * step);
  if (!memory) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }

extern "C" {

int posix_memalign(void** memory, size_t alignment, size_t bytes) noexcept {
  return fails(Call::allocate) ? ENOMEM : REAL(posix_memalign)(memory, alignment, bytes);
}

int open(const char* path, int flags, ...) {
  if (fails(Call::open)) return error_or_interrupt(EMFILE);
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return REAL(open)(path, flags, mode);
}
ssize_t read(int file, void* to, size_t count) {
  return fails(Call::read) ? error_or_interrupt(EIO) : REAL(read)(file, to, count);
}
ssize_t pread(int file, void* to, size_t count, off_t offset) {
  return fails(Call::read) ? error_or_interrupt(EIO) : REAL(pread)(file, to, count, offset);
}
ssize_t write(int file, const void* from, size_t count) {
  return fails(Call::write) ? error_or_interrupt(ENOSPC) : REAL(write)(file, from, count);
}
int fsync(int) { return fails(Call::fsync) ? error_or_interrupt(EIO) : 0; }  // nothing here outlives the machine
int rename(const char* from, const char* to) noexcept {
  return fails(Call::rename) ? error_or_interrupt(EIO) : REAL(rename)(from, to);
}
int link(const char* from, const char* to) noexcept {
  return fails(Call::link) ? error_or_interrupt(EPERM) : REAL(link)(from, to);
}
int mkdir(const char* path, mode_t mode) noexcept {
  return fails(Call::make_directory) ? error_or_interrupt(ENOSPC) : REAL(mkdir)(path, mode);
}
void* mmap(void* at, size_t count, int protection, int flags, int file, off_t offset) noexcept {
  if (fails(Call::map)) return errno = ENOMEM, MAP_FAILED;
  return REAL(mmap)(at, count, protection, flags, file, offset);
}
int posix_spawn(pid_t* child, const char* path, const posix_spawn_file_actions_t* files,
                const posix_spawnattr_t* attributes, char* const arguments[], char* const environment[]) {
  return fails(Call::spawn) ? EAGAIN : REAL(posix_spawn)(child, path, files, attributes, arguments, environment);
}
void* dlopen(const char* path, int flags) noexcept { return fails(Call::load) ? nullptr : REAL(dlopen)(path, flags); }
int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*), void* context) noexcept {
  return fails(Call::thread) ? EAGAIN : REAL(pthread_create)(thread, attributes, run, context);
}

}  // extern "C"
