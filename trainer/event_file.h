#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/clock.h"
#include "base/file_descriptor.h"

namespace pricer {

// Figures of a run for TensorBoard, which shows a directory of such files while they grow. Each
// process that works on the run writes a file of its own. A record is
//
//   uint64 length | masked CRC-32C of it | Event (proto/tensorboard/event.proto) | masked CRC-32C
//
// in little-endian, as TensorFlow's tsl/lib/io/record_writer.h has it. One thread.
class EventFile {
 public:
  struct Scalar {
    absl::string_view tag;  // UTF-8
    double value = 0;       // stored as fp32
  };

  // Makes a new <directory>/events.out.tfevents.<seconds>.pricer, and the directory where there is
  // none. TensorBoard reads files in the order of their names, so the seconds, which are those of
  // the clock, are later than in any file that is there. `first_step` is the first that will be
  // added: of what earlier files say TensorBoard drops this step and later ones. (Its fast loader
  // drops them for each tag when that tag comes again.)
  static absl::StatusOr<EventFile> Create(const std::string& directory, int64_t first_step,
                                          const Clock* clock = Clock::System());

  const std::string& path() const { return path_; }

  // One record, handed to the system (but not flushed to the disk) on return. On an error, which
  // names the file, it ends with the record before.
  absl::Status Add(int64_t step, absl::Span<const Scalar> scalars);

 private:
  EventFile(std::string path, FileDescriptor file, const Clock* clock)
      : path_(std::move(path)), file_(std::move(file)), clock_(clock) {}
  absl::Status Append(absl::string_view records);

  std::string path_;
  FileDescriptor file_;
  const Clock* clock_;
  int64_t size_bytes_ = 0;
};

}  // namespace pricer
