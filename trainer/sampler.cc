#include "trainer/sampler.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "model/philox.h"

namespace pricer {
namespace {

// Uniform in [0, bound), by the high half of a product; the bias is below bound / 2^64. The counter
// is (i, epoch).
int64_t Draw(uint64_t seed, int64_t epoch, int64_t i, int64_t bound) {
  const auto low = [](uint64_t x) { return static_cast<uint32_t>(x); };
  const auto high = [](uint64_t x) { return static_cast<uint32_t>(x >> 32); };
  const uint64_t place = static_cast<uint64_t>(i);
  const uint64_t round = static_cast<uint64_t>(epoch);
  const PhiloxCounter random =
      Philox4x32({low(place), high(place), low(round), high(round)}, {low(seed), high(seed)});
  const uint64_t bits = static_cast<uint64_t>(random[0]) << 32 | random[1];
  return static_cast<int64_t>((static_cast<unsigned __int128>(bits) * bound) >> 64);
}

}  // namespace

std::vector<int64_t> EpochOrder(uint64_t seed, int64_t epoch, int64_t count) {
  std::vector<int64_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = count - 1; i > 0; --i) {
    std::swap(order[i], order[Draw(seed, epoch, i, i + 1)]);
  }
  return order;
}

std::vector<std::vector<int64_t>> SplitByTokens(absl::Span<const int64_t> items,
                                                absl::Span<const int64_t> lengths,
                                                int64_t budget_tokens) {
  std::vector<std::vector<int64_t>> runs;
  int64_t tokens = 0;
  for (int64_t item : items) {
    if (runs.empty() || tokens + lengths[item] > budget_tokens) {
      runs.emplace_back();
      tokens = 0;
    }
    runs.back().push_back(item);
    tokens += lengths[item];
  }
  return runs;
}

Sampler::Sampler(std::vector<int64_t> lengths, const Options& options)
    : lengths_(std::move(lengths)), options_(options) {
  order_ = EpochOrder(options_.seed, 0, static_cast<int64_t>(lengths_.size()));
}

void Sampler::Advance() {
  if (++position_ < static_cast<int64_t>(order_.size())) return;
  position_ = 0;
  if (++epoch_ < options_.epochs) {
    order_ = EpochOrder(options_.seed, epoch_, static_cast<int64_t>(lengths_.size()));
  }
}

std::vector<int64_t> Sampler::NextStep() {
  std::vector<int64_t> items;
  int64_t tokens = 0;
  while (!AtEnd()) {
    const int64_t item = order_[position_];
    if (!items.empty() && tokens + lengths_[item] > options_.batch_tokens) break;
    items.push_back(item);
    tokens += lengths_[item];
    Advance();
  }
  return items;
}

int64_t Sampler::CountSteps(int64_t limit) const {
  // No step takes more than its budget, but for an item that alone exceeds it: where even full
  // steps reach the limit nothing need be dealt.
  __int128 epoch_tokens = 0;
  for (int64_t length : lengths_) epoch_tokens += std::min(length, options_.batch_tokens);
  if (epoch_tokens * options_.epochs / options_.batch_tokens >= limit) return limit;
  Sampler dealer(lengths_, options_);
  int64_t steps = 0;
  while (steps < limit && !dealer.NextStep().empty()) ++steps;
  return steps;
}

}  // namespace pricer
