#include "trainer/sampler.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
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

absl::StatusOr<SampleOrder> ParseSampleOrder(absl::string_view name) {
  for (const SampleOrder order :
       {SampleOrder::kShuffled, SampleOrder::kSequential, SampleOrder::kLengthGrouped}) {
    if (name == SampleOrderName(order)) return order;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--order is ", name, "; expected shuffled, sequential or length-grouped"));
}

absl::string_view SampleOrderName(SampleOrder order) {
  switch (order) {
    case SampleOrder::kSequential:
      return "sequential";
    case SampleOrder::kLengthGrouped:
      return "length-grouped";
    case SampleOrder::kShuffled:
      break;
  }
  return "shuffled";
}

void GroupByLength(absl::Span<const int64_t> lengths, int64_t step_items,
                   std::vector<int64_t>& order) {
  constexpr int64_t kMostSteps = 50;
  const auto count = static_cast<int64_t>(order.size());
  const int64_t steps = std::clamp<int64_t>(count / (step_items * 4), 1, kMostSteps);
  const int64_t run = steps * step_items;
  int64_t longest = 0;  // place of the longest example, which begins its run
  for (int64_t begin = 0; begin < count; begin += run) {
    std::stable_sort(order.begin() + begin, order.begin() + std::min(begin + run, count),
                     [&](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
    if (lengths[order[begin]] > lengths[order[longest]]) longest = begin;
  }
  if (count > 0) std::swap(order[0], order[longest]);
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

std::vector<std::vector<int64_t>> ShareByTokens(absl::Span<const int64_t> items,
                                                absl::Span<const int64_t> lengths, int shares) {
  std::vector<size_t> by_length(items.size());  // places in `items`
  std::iota(by_length.begin(), by_length.end(), 0);
  std::stable_sort(by_length.begin(), by_length.end(),
                   [&](size_t a, size_t b) { return lengths[items[a]] > lengths[items[b]]; });
  std::vector<int64_t> tokens(shares, 0);
  std::vector<size_t> owner(items.size());
  for (size_t place : by_length) {
    owner[place] = std::min_element(tokens.begin(), tokens.end()) - tokens.begin();
    tokens[owner[place]] += lengths[items[place]];
  }
  std::vector<std::vector<int64_t>> dealt(shares);
  for (size_t place = 0; place < items.size(); ++place) {
    dealt[owner[place]].push_back(items[place]);
  }
  return dealt;
}

Sampler::Sampler(std::vector<int64_t> lengths, const Options& options)
    : lengths_(std::move(lengths)), options_(options) {
  order_ = MakeOrder();
}

std::vector<int64_t> Sampler::MakeOrder() const {
  const auto count = static_cast<int64_t>(lengths_.size());
  if (options_.order == SampleOrder::kSequential) {
    std::vector<int64_t> order(count);
    std::iota(order.begin(), order.end(), 0);
    return order;
  }
  std::vector<int64_t> order = EpochOrder(options_.seed, epoch_, count);
  if (options_.order == SampleOrder::kLengthGrouped) {
    int64_t step_items = options_.batch_items;
    if (step_items == 0) {
      const int64_t tokens = std::accumulate(lengths_.begin(), lengths_.end(), int64_t{0});
      step_items =
          std::max<int64_t>(1, options_.batch_tokens / std::max<int64_t>(1, tokens / count));
    }
    GroupByLength(lengths_, step_items, order);
  }
  return order;
}

void Sampler::Advance() {
  if (++position_ < static_cast<int64_t>(order_.size())) return;
  position_ = 0;
  if (++epoch_ < options_.epochs) order_ = MakeOrder();
}

std::vector<int64_t> Sampler::NextItems() {
  std::vector<int64_t> items;
  const int64_t epoch = epoch_;
  while (!AtEnd() && epoch_ == epoch && static_cast<int64_t>(items.size()) < options_.batch_items) {
    items.push_back(order_[position_]);
    Advance();
  }
  return items;
}

std::vector<int64_t> Sampler::NextStep() {
  if (options_.batch_items > 0) return NextItems();
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
  if (options_.batch_items > 0) {
    const auto count = static_cast<int64_t>(lengths_.size());
    const int64_t epoch_steps = (count + options_.batch_items - 1) / options_.batch_items;
    return static_cast<int64_t>(
        std::min<__int128>(limit, static_cast<__int128>(epoch_steps) * options_.epochs));
  }
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
