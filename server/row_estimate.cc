#include "server/row_estimate.h"

#include <algorithm>
#include <cmath>

namespace pricer {
namespace {

// Few enough to follow another kind of items, enough to be steady among items of one kind.
constexpr int64_t kItemsOfMean = 64;

}  // namespace

int64_t RowEstimate::rows() const { return std::llround(mean_.load(std::memory_order_relaxed)); }

void RowEstimate::Add(int64_t rows) {
  items_ = std::min(items_ + 1, kItemsOfMean);
  const double mean = mean_.load(std::memory_order_relaxed);
  mean_.store(mean + (static_cast<double>(rows) - mean) / static_cast<double>(items_),
              std::memory_order_relaxed);
}

}  // namespace pricer
