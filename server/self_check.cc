#include "server/self_check.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/loaded_adapter.h"

namespace pricer {
namespace {

struct Item {
  AdapterHandle adapter;
  size_t index = 0;
};

// Golden items of all versions that answer by default, the first of each, then the second of each.
std::vector<Item> ItemsToPrice(const AdapterRegistry& registry) {
  std::vector<Item> items;
  for (const AdapterStatus& status : registry.List()) {
    if (!status.serves_by_default) continue;
    // Of those that wait on disk nothing would be known but that the folder can be read.
    if (status.place.tier == MemoryTier::kDisk) continue;
    const absl::StatusOr<AdapterHandle> adapter =
        registry.Find(status.key.name, status.key.version);
    if (!adapter.ok()) continue;  // gone since
    for (size_t i = 0; i < (*adapter)->manifest.golden.size(); ++i) items.push_back({*adapter, i});
  }
  return items;
}

}  // namespace

SelfCheck::SelfCheck(const AdapterRegistry* registry, GoldenChecker* golden, absl::Duration timeout,
                     const Clock* clock, ReportFunction report)
    : registry_(registry),
      golden_(golden),
      timeout_(timeout),
      clock_(clock),
      report_(std::move(report)) {}

void SelfCheck::Check() {
  const std::vector<Item> items = ItemsToPrice(*registry_);
  absl::Status status;
  std::string name;
  if (!items.empty()) {
    const Item& item = items[next_++ % items.size()];
    name = absl::StrCat(item.adapter->key.name, " version ", item.adapter->key.version);
    {
      MutexLock lock(&mutex_);
      began_ = clock_->Now();
    }
    status = golden_->CheckItem(item.adapter, item.index);
  }
  {
    MutexLock lock(&mutex_);
    began_ = absl::InfiniteFuture();
    // The server stops, and says so itself.
    if (absl::IsCancelled(status)) return;
    problem_ = status.ok() ? "" : absl::StrCat(name, ": ", status.message());
  }
  Report();
}

void SelfCheck::Watch() {
  {
    MutexLock lock(&mutex_);
    if (clock_->Now() - began_ < timeout_) return;
    problem_ =
        absl::StrCat("a golden item has not been priced for ", absl::FormatDuration(timeout_));
  }
  Report();
}

void SelfCheck::Report() {
  bool well = false;
  std::string reason;
  {
    MutexLock lock(&mutex_);
    well = problem_.empty();
    if (well == reported_) return;
    reported_ = well;
    reason = problem_;
  }
  report_(well, reason);
}

}  // namespace pricer
