#pragma once

#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace pricer {

// A directory that is deleted with all that is in it unless it was renamed away.
class TemporaryDirectory {
 public:
  static constexpr char kPrefix[] = ".tmp-";

  // <parent>/.tmp-<unique>, readable by all, in an existing directory.
  static absl::StatusOr<TemporaryDirectory> Create(const std::string& parent);

  TemporaryDirectory(TemporaryDirectory&& other) noexcept
      : path_(std::exchange(other.path_, std::string())) {}
  TemporaryDirectory& operator=(TemporaryDirectory&&) = delete;
  ~TemporaryDirectory();

  const std::string& path() const { return path_; }

 private:
  explicit TemporaryDirectory(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

}  // namespace pricer
