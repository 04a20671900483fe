#include "server/top_versions.h"

#include <utility>

namespace pricer {
namespace {

constexpr int64_t kItemsUntilHalving = 100'000;
// Looking for the least busy takes as long as there are places.
constexpr int64_t kItemsUntilLook = 64;
// A place changes hands only for so much more, so that series do not come and go.
constexpr double kMoreToDisplace = 2;

}  // namespace

AdapterKey TopVersions::Count(const AdapterKey& version, int64_t items,
                              std::optional<AdapterKey>* displaced) {
  const int64_t before = std::exchange(counted_, counted_ + items);
  const double busy = items_[version] += static_cast<double>(items);
  if (before / kItemsUntilHalving != counted_ / kItemsUntilHalving) Halve();
  const AdapterKey name = NameOf(version);
  if (name == version || before / kItemsUntilLook == counted_ / kItemsUntilLook) return name;
  const std::optional<AdapterKey> least = LeastBusy();
  if (!least.has_value() || busy <= kMoreToDisplace * items_[*least]) return name;
  top_.erase(*least);
  top_.insert(version);
  *displaced = least;
  return version;
}

AdapterKey TopVersions::NameOf(const AdapterKey& version) {
  if (top_.count(version) > 0) return version;
  if (top_.size() >= capacity_) return Other();
  top_.insert(version);
  return version;
}

void TopVersions::Remove(const AdapterKey& version) {
  items_.erase(version);
  top_.erase(version);
}

void TopVersions::Halve() {
  for (auto& [version, items] : items_) items /= 2;
}

std::optional<AdapterKey> TopVersions::LeastBusy() const {
  std::optional<AdapterKey> least;
  double fewest = 0;
  for (const AdapterKey& version : top_) {
    const auto found = items_.find(version);
    const double items = found == items_.end() ? 0 : found->second;
    if (least.has_value() && items >= fewest) continue;
    least = version;
    fewest = items;
  }
  return least;
}

}  // namespace pricer
