#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "trainer/launch_environment.h"

namespace pricer {

// The processes that tune one adapter together. Every one of them calls the same functions in the
// same order with tensors of the same shapes; each call waits for all. Unavailable names the rank
// that is gone; the group is of no more use then. One thread.
class ProcessGroup {
 public:
  struct Options {
    // For all to start.
    absl::Duration join_timeout = absl::Minutes(10);
    // After this long without a sign of life, which each process gives in a thread of its own, a
    // rank counts as gone. One whose connection breaks is noticed at once.
    absl::Duration rank_timeout = absl::Minutes(1);
  };

  // Waits for all processes of `launch`; a single one needs no other. Unavailable where they do not
  // come.
  static absl::StatusOr<std::unique_ptr<ProcessGroup>> Join(const LaunchEnvironment& launch,
                                                            const Options& options);

  virtual ~ProcessGroup() = default;
  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  // Who writes files and speaks to people.
  bool leads() const { return rank_ == 0; }

  // Replaces the values by their sums over all ranks, the same bits on each: contiguous.
  virtual absl::Status Sum(const at::Tensor& values) = 0;
  // Replaces the values by those of rank 0: contiguous.
  virtual absl::Status Broadcast(const at::Tensor& values) = 0;
  absl::Status Broadcast(std::string* bytes);
  // Of one number, that of rank 0.
  absl::Status Broadcast(double* value);
  // Ok where `own` is it on every rank. Else each gets its own error, or one that names the first
  // rank that has one.
  absl::Status Agree(const absl::Status& own);

 protected:
  ProcessGroup(int rank, int size) : rank_(rank), size_(size) {}

 private:
  const int rank_;
  const int size_;
};

// The same over libtorch's Gloo. From now on the process ignores SIGPIPE. REQUIRES: launch.size
// > 1.
absl::StatusOr<std::unique_ptr<ProcessGroup>> JoinGloo(const LaunchEnvironment& launch,
                                                       const ProcessGroup::Options& options);

}  // namespace pricer
