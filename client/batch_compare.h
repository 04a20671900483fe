#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace pricer {

struct CompareOptions {
  static constexpr int kMostMoves = 100'000;

  // Outputs of batch jobs.
  std::string before = {};
  std::string after = {};
  // A price that has moved by more than this share of it has moved far: 0.2 is from below 0.8 to
  // above 1.2 of what it was.
  double threshold = 0.2;
  // Of the prices that are in both, at most such a share may have moved far.
  double max_far_share = 1;
  // How many of the largest moves are told.
  int largest = 10;

  // InvalidArgument names the flag of `pricer batch`.
  absl::Status Validate() const;
};

// What has changed from one run to another.
struct CompareReport {
  // Bounds of after / before - 1; a price is in the first whose bound it does not exceed, or in the
  // one behind them.
  static constexpr std::array<double, 12> kBounds = {-0.5, -0.2, -0.1, -0.05, -0.01, 0,
                                                     0.01, 0.05, 0.1,  0.2,   0.5,   1};

  struct Move {
    std::string id;
    double before = 0;
    double after = 0;
  };

  int64_t both = 0;         // ids with a price in both
  int64_t unchanged = 0;    // of them
  int64_t only_before = 0;  // ids that have lost their price, or are gone
  int64_t only_after = 0;
  int64_t failed_before = 0;  // rows with errors
  int64_t failed_after = 0;
  int64_t far = 0;  // moved by more than the threshold
  std::array<int64_t, kBounds.size() + 1> histogram = {};
  double mean_log_ratio = 0;   // of ln(after / before)
  std::vector<Move> largest;   // by |ln(after / before)|, the largest first
  std::string version_before;  // "shop/7"; "shop/7 and others" where there are several
  std::string version_after;

  double far_share() const {
    return both == 0 ? 0 : static_cast<double>(far) / static_cast<double>(both);
  }
  // Whether the change is one that may be published. One where no price can be compared is not.
  bool passes(const CompareOptions& options) const {
    return both > 0 && far_share() <= options.max_far_share;
  }

  std::string ToText(const CompareOptions& options) const;
  std::string ToJson(const CompareOptions& options) const;
};

// Compares by ids: each row of `after` with the last one of `before`. Takes 40 to 110 bytes of
// memory for a row of `before`. DataLoss names the file and line that is not of a batch job's
// output.
absl::StatusOr<CompareReport> CompareBatches(const CompareOptions& options);

}  // namespace pricer
