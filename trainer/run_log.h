#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file_descriptor.h"
#include "trainer/metrics.h"

namespace pricer {

// What a run leaves behind in RUNS/<run>/: options.json, and metrics.jsonl with one object for each
// step, each validation and each warning about a step. A line is on its way to the disk when Append
// returns. One thread; one process for each run, which a lock on RUNS/<run>/lock sees to.
class RunLog {
 public:
  // Claims the first free RUNS/<name>-<n>, n from 1, by making the directory.
  static absl::StatusOr<RunLog> Create(const std::string& runs, const std::string& name);

  // Goes on with the run in an existing directory: of metrics.jsonl stays what is of `last_step` or
  // before. FailedPrecondition where another process has the run open.
  static absl::StatusOr<RunLog> Reopen(const std::string& directory, int64_t last_step);

  const std::string& directory() const { return directory_; }

  // Texts by name, as the options were in effect.
  absl::Status WriteOptions(const std::vector<std::pair<std::string, std::string>>& options);

  absl::Status Append(const std::vector<std::pair<std::string, double>>& fields);
  // {"step", "validation": {...}}.
  absl::Status AppendValidation(int64_t step, const Metrics& metrics);
  // {"step", "warning": text}.
  absl::Status AppendWarning(int64_t step, const std::string& text);

 private:
  struct Closer {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  RunLog(std::string directory, FileDescriptor lock, std::FILE* metrics)
      : directory_(std::move(directory)), lock_(std::move(lock)), metrics_(metrics) {}
  static absl::StatusOr<RunLog> Open(const std::string& directory, FileDescriptor lock);
  absl::Status AppendLine(const std::string& json);

  std::string directory_;
  FileDescriptor lock_;
  std::unique_ptr<std::FILE, Closer> metrics_;
};

}  // namespace pricer
