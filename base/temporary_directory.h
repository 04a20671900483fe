#pragma once

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace pricer {

// A directory that is deleted with all that is in it unless it was renamed away.
class TemporaryDirectory {
 public:
  // <parent>/.tmp-<unique>, readable by all, in an existing directory.
  static absl::StatusOr<TemporaryDirectory> Create(const std::string& parent);

  // Whether `path` is such a directory, of a process that was killed: neither it nor what is right
  // in it has changed in the hour before `now`. Links are not followed.
  static bool IsAbandoned(const std::string& path, absl::Time now);

  TemporaryDirectory(TemporaryDirectory&& other) noexcept
      : path_(std::exchange(other.path_, std::string())) {}
  TemporaryDirectory& operator=(TemporaryDirectory&&) = delete;
  ~TemporaryDirectory();

  const std::string& path() const { return path_; }

 private:
  static constexpr char kPrefix[] = ".tmp-";
  explicit TemporaryDirectory(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

}  // namespace pricer
