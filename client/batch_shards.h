#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file_descriptor.h"
#include "client/batch_version.h"

namespace pricer {

// A part of a job: of the input's rows, in blocks of kRowsPerBlock, every count-th block from
// `index` on. So shards are equally long, whatever the input's length, and what they write is put
// together again without looking into it.
struct Shard {
  static constexpr int64_t kRowsPerBlock = 1024;
  static constexpr int kMaxCount = 10'000;

  int index = 0;
  int count = 1;

  // "3/8": the fourth of eight. InvalidArgument for anything else.
  static absl::StatusOr<Shard> Parse(const std::string& text);

  bool whole() const { return count == 1; }
  // Whether it has the row, counted from 0.
  bool Has(int64_t row) const { return row / kRowsPerBlock % count == index; }
};

// Where a shard's lines go: out.jsonl becomes out-00003-of-00008.jsonl. `output` itself of the
// whole.
std::string ShardPath(const std::string& output, const Shard& shard);
// There is such a file when the shard is done, with what MergeShards wants to know of it.
std::string ShardMarkerPath(const std::string& output, const Shard& shard);

struct ShardMarker {
  std::string job;  // BatchOutputOptions::job, which is the same for all shards
  int64_t input_rows = 0;
  int64_t rows = 0;
  int64_t errors = 0;
  // Empty where no row has a price.
  std::string adapter;
  int64_t version = 0;
  std::string digest;
};

absl::Status WriteShardMarker(const std::string& path, const ShardMarker& marker);
// NotFound where the shard is not done; DataLoss says what is wrong with the file.
absl::StatusOr<ShardMarker> ReadShardMarker(const std::string& path);

// Where the shards of a job that asks for a label write down which version it led to, so that all
// of them ask for that: OUTPUT.version.
std::string SharedVersionPath(const std::string& output);
// The version that shards of the job have written down; nothing where none has, or of another job.
absl::StatusOr<std::optional<BatchVersion>> ReadSharedVersion(const std::string& output,
                                                              const std::string& job);
// Writes `mine` down unless another shard of the job was before it; returns what is written then.
// Shards may be of several machines that lock files by flock.
absl::StatusOr<BatchVersion> AgreeOnVersion(const std::string& output, const std::string& job,
                                            const BatchVersion& mine);

// How many of the shards are done with the job.
absl::StatusOr<int> CountShardsDone(const std::string& output, int count, const std::string& job);

// Waits until no other process holds this lock of the job's shards, which ends with the descriptor.
// None where shard 0 is not done.
absl::StatusOr<FileDescriptor> LockShards(const std::string& output, int count);

struct MergeResult {
  int64_t rows = 0;
  int64_t errors = 0;
};

// Writes the lines of `count` shards to `output` as one run would have, in the order of the input,
// under its name when it is whole; leaves the shards where they are. FailedPrecondition names
// shards that are not done and those that are of another job, input or version than the first, and
// says where the system does not let the process have all shards open at once, whose limit is
// raised. DataLoss names one with more or fewer lines than its marker says. Memory does not grow
// with the rows. `progress` is called with the rows done so far.
absl::StatusOr<MergeResult> MergeShards(const std::string& output, int count,
                                        const std::function<void(int64_t rows)>& progress);

}  // namespace pricer
