// Descriptor: an open file that is closed on every way out.
#pragma once

#include <unistd.h>

#include <utility>

namespace tandem::detail {

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int open) : open_(open) {}
  Descriptor(Descriptor&& other) noexcept : open_(std::exchange(other.open_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(open_, other.open_);
    return *this;
  }
  ~Descriptor() { close(); }

  explicit operator bool() const { return open_ >= 0; }
  int get() const { return open_; }
  /// 0, or -1 with errno: what the file system had put off may come to light here.
  int close() { return open_ < 0 ? 0 : ::close(std::exchange(open_, -1)); }

 private:
  int open_ = -1;
};

}  // namespace tandem::detail
