#include "server/batch_cost.h"

#include <algorithm>
#include <cmath>

namespace pricer {
namespace {

// Of a batch beside the next one: the last 30 make most of the estimate.
constexpr double kDecay = 0.97;
// Of what a batch is expected to take.
constexpr double kLeastReserve = 0.05;
constexpr double kMostReserve = 0.5;

}  // namespace

void BatchCost::Add(int64_t tokens, absl::Duration time) {
  const auto x = static_cast<double>(tokens);
  double y = absl::ToDoubleSeconds(time);
  if (const double expected = known() ? absl::ToDoubleSeconds(OfBatch(tokens)) : 0; expected > 0) {
    y = std::min(y, kMostSurprise * expected);
    const double off = y / expected - 1;
    surprises_ = kDecay * surprises_ + 1;
    surprise_ = kDecay * surprise_ + off * off;
  }
  weight_ = kDecay * weight_ + 1;
  tokens_ = kDecay * tokens_ + x;
  seconds_ = kDecay * seconds_ + y;
  tokens_tokens_ = kDecay * tokens_tokens_ + x * x;
  tokens_seconds_ = kDecay * tokens_seconds_ + x * y;
}

BatchCost::Line BatchCost::Fit() const {
  const double mean_tokens = tokens_ / weight_;
  const double mean_seconds = seconds_ / weight_;
  const double variance = tokens_tokens_ / weight_ - mean_tokens * mean_tokens;
  const double proportional = mean_tokens > 0 ? mean_seconds / mean_tokens : 0;
  // Batches of nearly one size say nothing of a constant.
  if (variance < 1e-4 * mean_tokens * mean_tokens) return {0, proportional};
  const double covariance = tokens_seconds_ / weight_ - mean_tokens * mean_seconds;
  const double slope = std::clamp(covariance / variance, 0.0, proportional);
  return {mean_seconds - slope * mean_tokens, slope};
}

absl::Duration BatchCost::OfBatch(int64_t tokens) const { return OfQueue(tokens, tokens); }

absl::Duration BatchCost::AtMost(int64_t tokens) const {
  const double deviation = std::sqrt(surprise_ / surprises_);
  return OfBatch(tokens) * (1 + std::clamp(2 * deviation, kLeastReserve, kMostReserve));
}

absl::Duration BatchCost::Constant() const { return absl::Seconds(Fit().constant); }

absl::Duration BatchCost::OfQueue(int64_t tokens, int64_t max_batch_tokens) const {
  const Line line = Fit();
  const auto count = static_cast<double>(tokens);
  const double batches =
      std::ceil(count / static_cast<double>(std::max<int64_t>(1, max_batch_tokens)));
  return absl::Seconds(batches * line.constant + count * line.slope);
}

int64_t BatchCost::TokensIn(absl::Duration time, int64_t max_batch_tokens) const {
  const Line line = Fit();
  const double seconds = absl::ToDoubleSeconds(time);
  if (seconds <= 0) return 0;
  const auto full = static_cast<double>(max_batch_tokens);
  const double batch = line.constant + full * line.slope;
  if (batch <= 0) return INT64_MAX;
  const double batches = std::floor(seconds / batch);
  const double left = seconds - batches * batch - line.constant;
  const double rest = left <= 0 ? 0 : line.slope > 0 ? std::min(full, left / line.slope) : full;
  return static_cast<int64_t>(std::min(batches * full + rest, 9e18));
}

}  // namespace pricer
