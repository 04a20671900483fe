#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace pricer {

// Where the output of a batch job is wanted, and where its lines are until all are there. The two
// are one for a plain file. An output that is compressed (.gz, .zst) or an object (s3://) is made
// of the whole lines: until then these are in a file of their own, so that a run can be gone on
// with. Thread-compatible.
class BatchDelivery {
 public:
  BatchDelivery() = default;
  // `output` as given; lines of one that is made of them are in the folder `work`, or beside an
  // output that is a file. `rejects` as given, or empty: OUTPUT with .rejects in its name.
  // InvalidArgument names the flag of `pricer batch`.
  static absl::StatusOr<BatchDelivery> Create(const std::string& output, const std::string& rejects,
                                              const std::string& work);

  // Of an output that is there already.
  static BatchDelivery OfLines(const std::string& output);

  const std::string& output() const { return output_; }
  // A local file, as the lines of a job or the output of a merge.
  const std::string& lines() const { return lines_; }
  // Where the lines with errors of the whole go, a local file; "" where there is no such place.
  const std::string& rejects() const { return rejects_; }
  // Whether the output is something else than the lines.
  bool needed() const { return output_ != lines_; }

  // Makes the output of the lines; it appears when it is whole. An object's rejects go beside it,
  // and are removed there where there are none; what could not be removed is told in `note`.
  absl::Status Deliver(std::string* note) const;
  // The lines of what was delivered, and what says that they are whole.
  void RemoveLines() const;

 private:
  absl::Status DeliverRejects(std::string* note) const;

  std::string output_;
  std::string lines_;
  std::string rejects_;
  bool rejects_are_given_ = false;
};

// out.jsonl -> out.rejects.jsonl, out.jsonl.gz -> out.rejects.jsonl.gz; "" where `output` is no
// place for a file beside it, as a pipe.
std::string DefaultRejects(const std::string& output);

}  // namespace pricer
