#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace pricer {

// A directory that appears whole or not at all: it is filled under the name of a temporary sibling
// and renamed into place. Without a Commit nothing is left behind. One thread each.
class NewDirectory {
 public:
  // AlreadyExists where `directory` is a file or has something in it; InvalidArgument where it does
  // not name a directory to make ("..").
  static absl::StatusOr<NewDirectory> Create(const std::string& directory);
  NewDirectory(NewDirectory&& other) noexcept;
  NewDirectory& operator=(NewDirectory&&) = delete;
  ~NewDirectory();

  // Where to write; every file must be flushed to the disk before Commit.
  const std::string& path() const { return temporary_; }
  std::string File(absl::string_view name) const;

  // Flushes the directory and renames. Call at most once, last.
  absl::Status Commit();

 private:
  NewDirectory() = default;
  std::string target_;
  std::string temporary_;  // empty after a commit or a move
};

}  // namespace pricer
