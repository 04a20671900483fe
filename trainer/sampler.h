#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

// Which examples a step trains on. Pure arithmetic: the order depends on seed and epoch alone,
// never on what ran before.

namespace pricer {

// A permutation of 0 .. count - 1: Fisher-Yates with Philox4x32-10 keyed by `seed`.
std::vector<int64_t> EpochOrder(uint64_t seed, int64_t epoch, int64_t count);

// Cuts `items` (indices into `lengths`), in their order, into runs of at most `budget_tokens`. An
// item that is longer than the budget stands alone.
std::vector<std::vector<int64_t>> SplitByTokens(absl::Span<const int64_t> items,
                                                absl::Span<const int64_t> lengths,
                                                int64_t budget_tokens);

// Deals the examples of `epochs` epochs, one epoch's order after the other, into steps of at most
// `batch_tokens` tokens. A step may reach into the next epoch; only the last one is short.
// Thread-compatible.
class Sampler {
 public:
  struct Options {
    uint64_t seed = 0;
    int64_t epochs = 1;
    int64_t batch_tokens = 0;
  };

  // REQUIRES: at least one example, all lengths >= 1, epochs >= 1, batch_tokens >= 1.
  Sampler(std::vector<int64_t> lengths, const Options& options);

  // Example indices of the next step; empty after the last one.
  std::vector<int64_t> NextStep();

  // Steps that all epochs make, but at most `limit`. Costs one pass over the lengths for each
  // epoch, or one in all where the epochs hold tokens for `limit` full steps.
  int64_t CountSteps(int64_t limit) const;

  const std::vector<int64_t>& lengths() const { return lengths_; }

 private:
  bool AtEnd() const { return epoch_ == options_.epochs; }
  void Advance();

  std::vector<int64_t> lengths_;
  Options options_;
  int64_t epoch_ = 0;
  int64_t position_ = 0;  // in order_
  std::vector<int64_t> order_;
};

}  // namespace pricer
