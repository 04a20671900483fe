#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
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

// Deals `items` to `shares` processes so that each gets about as many tokens: the longest first, to
// whom has the fewest so far, the first of equals. A share keeps the order of `items` and may be
// empty.
std::vector<std::vector<int64_t>> ShareByTokens(absl::Span<const int64_t> items,
                                                absl::Span<const int64_t> lengths, int shares);

// In which order an epoch goes through the examples.
enum class SampleOrder {
  kShuffled,
  // As they stand in the file, in every epoch.
  kSequential,
  // Shuffled, then sorted by falling length inside runs of 50 steps (fewer of few examples), and
  // the longest example swapped to the front. As transformers' LengthGroupedSampler.
  kLengthGrouped,
};
// "shuffled", "sequential" or "length-grouped".
absl::StatusOr<SampleOrder> ParseSampleOrder(absl::string_view name);
absl::string_view SampleOrderName(SampleOrder order);

// `order` sorted by length as kLengthGrouped says, for steps of `step_items` examples.
void GroupByLength(absl::Span<const int64_t> lengths, int64_t step_items,
                   std::vector<int64_t>& order);

// Deals the examples of `epochs` epochs, one epoch's order after the other, into steps. A step of
// at most `batch_tokens` tokens may reach into the next epoch, so that only the last one is short;
// a step of `batch_items` examples does not, so that each epoch's last one may be short, as with
// transformers' Trainer. Thread-compatible.
class Sampler {
 public:
  struct Options {
    uint64_t seed = 0;
    int64_t epochs = 1;
    int64_t batch_tokens = 0;
    int64_t batch_items = 0;  // above 0: instead of batch_tokens
    SampleOrder order = SampleOrder::kShuffled;
  };

  // REQUIRES: at least one example, all lengths >= 1, epochs >= 1, batch_tokens or batch_items >=
  // 1.
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
  std::vector<int64_t> MakeOrder() const;
  std::vector<int64_t> NextItems();

  std::vector<int64_t> lengths_;
  Options options_;
  int64_t epoch_ = 0;
  int64_t position_ = 0;  // in order_
  std::vector<int64_t> order_;
};

}  // namespace pricer
