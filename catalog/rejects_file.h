#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "catalog/item_parser.h"

namespace pricer {

// The rejected rows of one run over one file, as JSON lines {"file","row","field","reason"}. The
// file exists only while there is something in it: Create removes the one of an earlier run. One
// thread.
class RejectsFile {
 public:
  // `path` may be empty: nothing is written. `source` is the file that is read; InvalidArgument if
  // the two are the same file.
  static absl::StatusOr<RejectsFile> Create(const std::string& path, const std::string& source);

  absl::Status Add(int64_t row, const Reject& reject);

  // Writes out what is buffered. Adds may follow.
  absl::Status Flush();

  const std::string& path() const { return path_; }

 private:
  struct Closer {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  RejectsFile(const std::string& path, const std::string& source) : path_(path), source_(source) {}

  std::string path_;
  std::string source_;
  std::unique_ptr<std::FILE, Closer> file_;
};

}  // namespace pricer
