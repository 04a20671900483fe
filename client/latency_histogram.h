#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace pricer {

// How long things took, to three digits and in memory that does not grow: log-linear buckets of
// microseconds, as HdrHistogram's (hdrhistogram.org). Thread-compatible.
class LatencyHistogram {
 public:
  LatencyHistogram();

  // Below 0 counts as 0, more than an hour as an hour.
  void Record(absl::Duration latency);
  void Merge(const LatencyHistogram& other);

  int64_t count() const { return count_; }
  // Zero where nothing was recorded.
  absl::Duration max() const { return absl::Microseconds(max_); }
  absl::Duration Mean() const;
  // The longest of the fastest `share` of all, 0 to 1: Quantile(0.99) is p99.
  absl::Duration Quantile(double share) const;

  // HdrHistogram's text of percentiles in milliseconds (.hgrm), which its plotter reads.
  std::string Hgrm() const;

 private:
  double StandardDeviation() const;
  // Of all that lie in buckets up to that of `value`.
  int64_t CountUpTo(absl::Duration value) const;

  std::vector<int64_t> buckets_;
  int64_t count_ = 0;
  int64_t max_ = 0;  // microseconds
  double sum_ = 0;   // microseconds
  double square_sum_ = 0;
};

}  // namespace pricer
