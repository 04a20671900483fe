#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/file_descriptor.h"
#include "client/batch_version.h"

namespace pricer {

struct BatchOutputOptions {
  std::string path;
  // A JSON object of strings that says what is computed: lines of another job are not gone on with.
  std::string job;
  // Whether an earlier run of the same job is gone on with; else it is begun anew.
  bool resume = true;
  // Whether lines are kept for a later run at all: not where the input can be read only once.
  bool keep = true;
  // The lines that have errors, once more; no file where there are none. Empty path, or lines that
  // are not kept: not written.
  std::string rejects = {};
};

// The lines of a batch job as they come, in a way that a run that was killed, even by a power loss,
// can be gone on with: they are in PATH.partial, and PATH.job says of which job they are, how many
// of them are known to be on the disk, and which version prices them. Commit gives the former its
// name and removes the latter. Without `keep`, lines are in a temporary file, and a PATH that is a
// stream (see OutputPlace) gets them as they come: then nothing is kept. One thread; one run at a
// time has a PATH.
class BatchOutput {
 public:
  // How often, at least, a power loss costs no more than what came since.
  static constexpr absl::Duration kSaveInterval = absl::Seconds(5);

  // FailedPrecondition where another run writes to it, and where an earlier run was of another job:
  // the message says what differs.
  static absl::StatusOr<std::unique_ptr<BatchOutput>> Open(const BatchOutputOptions& options,
                                                           const Clock* clock);
  // Without a commit what was appended is kept; of nothing, nothing is.
  ~BatchOutput();
  BatchOutput(const BatchOutput&) = delete;
  BatchOutput& operator=(const BatchOutput&) = delete;

  // Lines so far, those of earlier runs included, and how many of them are errors.
  int64_t rows() const { return rows_; }
  int64_t errors() const { return errors_; }
  // Whether they are kept without a commit.
  bool keeps() const { return !unkept_.has_value() && !committed_; }
  const std::optional<BatchVersion>& version() const { return version_; }

  // Before lines of the version are appended; survives whatever they survive.
  absl::Status SetVersion(const BatchVersion& version);
  // A line with its end.
  absl::Status Append(absl::string_view line, bool is_error);
  // What was appended survives a kill.
  absl::Status Flush();
  // Puts the lines, and before them the rejects, into place. Call at most once, last.
  absl::Status Commit();

  // Where the lines are until the commit.
  const std::string& partial_path() const { return partial_path_; }

 private:
  BatchOutput(const BatchOutputOptions& options, std::string path, const Clock* clock);
  absl::Status OpenPartial();
  // Where an earlier run can be gone on with: takes over what it says.
  absl::StatusOr<bool> ReadRecord();
  absl::Status CheckTail();
  // The buffer, to the file.
  absl::Status Write();
  // Everything appended, on the disk and in the record.
  absl::Status Save();
  absl::Status WriteRecord();

  const BatchOutputOptions options_;
  const std::string path_;  // behind links
  const std::string partial_path_;
  const std::string record_path_;
  const Clock* const clock_;
  std::optional<AtomicFileWriter> unkept_;
  FileDescriptor file_;  // of the partial file; locked
  std::string buffer_;
  int64_t rows_ = 0;
  int64_t errors_ = 0;
  int64_t bytes_ = 0;  // in the file and the buffer
  std::optional<BatchVersion> version_;
  absl::Time saved_;
  bool opened_ = false;  // what is there belongs to it
  bool committed_ = false;
  bool failed_ = false;  // to write: what is on the disk is not known
};

// Writes those lines of a file that have errors to another, compressed as its name says; removes
// that where there are none.
absl::Status WriteRejects(const std::string& lines, const std::string& rejects);

}  // namespace pricer
