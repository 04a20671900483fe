#pragma once

#include <sys/mount.h>

#include <filesystem>
#include <string>
#include <utility>

namespace pricer::testing {

// A file system of its own, in memory.
class SmallDisk {
 public:
  explicit SmallDisk(std::string path) : path_(std::move(path)) {}
  ~SmallDisk() {
    if (mounted_) umount2(path_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  // False where this process may not mount anything.
  bool Mount(const std::string& size) {
    std::filesystem::create_directories(path_);
    mounted_ = mount("pricer-test", path_.c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0;
    return mounted_;
  }
  bool Resize(const std::string& size) {
    return mount("pricer-test", path_.c_str(), "tmpfs", MS_REMOUNT, ("size=" + size).c_str()) == 0;
  }
  bool ForbidWriting() {
    return mount("pricer-test", path_.c_str(), "tmpfs", MS_REMOUNT | MS_RDONLY, nullptr) == 0;
  }

 private:
  const std::string path_;
  bool mounted_ = false;
};

}  // namespace pricer::testing
