#pragma once

#include <unistd.h>

#include <utility>

namespace pricer {

// Owns a file descriptor, or none (-1). Movable; closes on destruction.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() { Close(); }
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }

  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }

  // Gives it to whoever closes it from now on.
  int Release() { return std::exchange(fd_, -1); }

  // Closes now; false with errno set where the kernel reports a late write error. No-op without a
  // descriptor.
  bool Close() {
    const int fd = std::exchange(fd_, -1);
    return fd < 0 || close(fd) == 0;
  }

 private:
  int fd_ = -1;
};

}  // namespace pricer
