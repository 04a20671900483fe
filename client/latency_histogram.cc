#include "client/latency_histogram.h"

#include <algorithm>
#include <cmath>

#include "absl/numeric/bits.h"
#include "absl/strings/str_format.h"

namespace pricer {
namespace {

// Each power of two above 2^kLinearBits is cut into half as many buckets as there are values below
// it: at most 1/1024 of a value wide.
constexpr int kLinearBits = 11;
constexpr int64_t kHalf = int64_t{1} << (kLinearBits - 1);
constexpr int64_t kMost = 3'600'000'000;
// Rows of an .hgrm for each halving of what is left above.
constexpr double kRowsPerHalving = 5;

int ShiftOf(int64_t value) {
  return std::max(0, static_cast<int>(absl::bit_width(static_cast<uint64_t>(value))) - kLinearBits);
}

size_t BucketOf(int64_t value) {
  const int shift = ShiftOf(value);
  return static_cast<size_t>(shift * kHalf + (value >> shift));
}

// Longest value that falls into it.
int64_t TopOf(size_t bucket) {
  const auto index = static_cast<int64_t>(bucket);
  const int64_t shift = std::max<int64_t>(0, index / kHalf - 1);
  return ((index - shift * kHalf + 1) << shift) - 1;
}

double Milliseconds(absl::Duration duration) { return absl::ToDoubleMilliseconds(duration); }

}  // namespace

LatencyHistogram::LatencyHistogram() : buckets_(BucketOf(kMost) + 1) {}

void LatencyHistogram::Record(absl::Duration latency) {
  const int64_t value = std::clamp<int64_t>(absl::ToInt64Microseconds(latency), 0, kMost);
  ++buckets_[BucketOf(value)];
  ++count_;
  max_ = std::max(max_, value);
  const auto x = static_cast<double>(value);
  sum_ += x;
  square_sum_ += x * x;
}

void LatencyHistogram::Merge(const LatencyHistogram& other) {
  for (size_t i = 0; i < buckets_.size(); ++i) buckets_[i] += other.buckets_[i];
  count_ += other.count_;
  max_ = std::max(max_, other.max_);
  sum_ += other.sum_;
  square_sum_ += other.square_sum_;
}

absl::Duration LatencyHistogram::Mean() const {
  if (count_ == 0) return absl::ZeroDuration();
  return absl::Microseconds(sum_ / static_cast<double>(count_));
}

double LatencyHistogram::StandardDeviation() const {
  if (count_ == 0) return 0;
  const auto n = static_cast<double>(count_);
  return std::sqrt(std::max(0.0, square_sum_ / n - (sum_ / n) * (sum_ / n)));
}

absl::Duration LatencyHistogram::Quantile(double share) const {
  if (count_ == 0) return absl::ZeroDuration();
  // Shares such as 0.55 are no binary fractions.
  constexpr double kRounding = 1e-6;
  const double exact = std::ceil(share * static_cast<double>(count_) - kRounding);
  const auto rank = std::clamp<int64_t>(static_cast<int64_t>(exact), 1, count_);
  int64_t seen = 0;
  size_t bucket = 0;
  while ((seen += buckets_[bucket]) < rank) ++bucket;
  return absl::Microseconds(std::min(TopOf(bucket), max_));
}

int64_t LatencyHistogram::CountUpTo(absl::Duration value) const {
  const size_t last = BucketOf(absl::ToInt64Microseconds(value));
  int64_t count = 0;
  for (size_t i = 0; i <= last; ++i) count += buckets_[i];
  return count;
}

std::string LatencyHistogram::Hgrm() const {
  std::string text = absl::StrFormat("%12s %14s %10s %14s\n\n", "Value", "Percentile", "TotalCount",
                                     "1/(1-Percentile)");
  for (double share = 0; count_ > 0;) {
    const absl::Duration value = Quantile(share);
    const int64_t count = CountUpTo(value);
    if (count == count_) break;
    absl::StrAppendFormat(&text, "%12.3f %2.12f %10d %14.2f\n", Milliseconds(value), share, count,
                          1 / (1 - share));
    const double halvings = std::floor(std::log2(1 / (1 - share))) + 1;
    share += 1 / (kRowsPerHalving * std::exp2(halvings));
  }
  absl::StrAppendFormat(&text, "%12.3f %2.12f %10d\n", Milliseconds(max()), 1.0, count_);
  absl::StrAppendFormat(&text, "#[Mean    = %12.3f, StdDeviation   = %12.3f]\n",
                        Milliseconds(Mean()), StandardDeviation() / 1000);
  absl::StrAppendFormat(&text, "#[Max     = %12.3f, Total count    = %12d]\n", Milliseconds(max()),
                        count_);
  absl::StrAppendFormat(&text, "#[Buckets = %12d, SubBuckets     = %12d]\n", ShiftOf(kMost) + 1,
                        2 * kHalf);
  return text;
}

}  // namespace pricer
