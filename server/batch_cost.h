#pragma once

#include <cstdint>
#include <optional>

#include "absl/time/time.h"

namespace pricer {

// How long batches take, learnt from those that were computed: a constant and a share for each
// token, by least squares over the latest batches, of which older ones count less. One that took
// over kMostSurprise times what was expected counts as one that took so much: a machine that stood
// still for a while says little about the next batch. Not thread-safe.
class BatchCost {
 public:
  static constexpr double kMostSurprise = 4;

  // A batch of so many tokens took so long.
  void Add(int64_t tokens, absl::Duration time);

  // Whether enough was seen to say anything.
  bool known() const { return weight_ > 0; }

  // Of one batch. REQUIRES: known().
  absl::Duration OfBatch(int64_t tokens) const;
  // What nearly every batch of so many tokens takes at most: two standard deviations more, by what
  // the latest ones were off, in parts of what was expected. REQUIRES: known().
  absl::Duration AtMost(int64_t tokens) const;
  // Of a batch, whatever its size. REQUIRES: known().
  absl::Duration Constant() const;
  // Of so many tokens in batches of at most `max_batch_tokens`. REQUIRES: known().
  absl::Duration OfQueue(int64_t tokens, int64_t max_batch_tokens) const;
  // The tokens that such batches compute in `time`; 0 where it is too short for any. REQUIRES:
  // known().
  int64_t TokensIn(absl::Duration time, int64_t max_batch_tokens) const;

 private:
  struct Line {
    double constant = 0;  // seconds
    double slope = 0;     // seconds a token
  };
  Line Fit() const;

  // Decayed sums over batches: of 1, tokens, seconds and their products.
  double weight_ = 0;
  double tokens_ = 0;
  double seconds_ = 0;
  double tokens_tokens_ = 0;
  double tokens_seconds_ = 0;
  // Decayed sums over batches, begun with one made up: of 1, and of (time / expected - 1)^2.
  double surprises_ = 1;
  double surprise_ = 0.01;
};

}  // namespace pricer
