#include "server/adapter_registry.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

// Of unloaded versions; refused ones are listed as long as they are in the folder.
constexpr int kMaxEndedRecords = 100;
constexpr size_t kMaxListedInMessage = 10;

std::string Describe(absl::string_view name, std::optional<int64_t> version) {
  if (name == kBaseName && version == BaseKey().version) return "adapter \"base\"";
  std::string text = absl::StrCat("adapter \"", name, "\"");
  if (version.has_value()) absl::StrAppend(&text, " version ", *version);
  return text;
}

}  // namespace

AdapterRegistry::AdapterRegistry(std::string default_adapter, Metrics* metrics, const Clock* clock)
    : default_adapter_(std::move(default_adapter)), metrics_(metrics), clock_(clock) {}

void AdapterRegistry::SetMemory(AdapterMemory* memory) {
  MutexLock lock(&mutex_);
  memory_ = memory;
}

absl::StatusOr<AdapterHandle> AdapterRegistry::Find(absl::string_view name,
                                                    std::optional<int64_t> version) const {
  MutexLock lock(&mutex_);
  ASSIGN_OR_RETURN(AdapterRoute route, RouteOf(name, version, ""));
  return std::move(route.adapter);
}

absl::StatusOr<AdapterRoute> AdapterRegistry::Route(absl::string_view name,
                                                    std::optional<int64_t> version,
                                                    absl::string_view label) const {
  MutexLock lock(&mutex_);
  absl::StatusOr<AdapterRoute> route = RouteOf(name, version, label);
  if (route.ok() && version.has_value()) {
    Available(route->adapter->key.name, *version)->asked_at = clock_->Now();
  }
  return route;
}

absl::StatusOr<AdapterRoute> AdapterRegistry::RouteOf(absl::string_view name,
                                                      std::optional<int64_t> version,
                                                      absl::string_view label) const {
  std::string default_name;
  if (name.empty()) {
    absl::StatusOr<std::string> resolved = DefaultName();
    if (!resolved.ok()) return resolved.status();
    default_name = *std::move(resolved);
    name = default_name;
  }
  // So that an error says why there is none.
  if (name == kBaseName && !version.has_value() && (label.empty() || label == kStableLabel)) {
    version = BaseKey().version;
  }
  AdapterRoute route;
  if (version.has_value()) {
    const Record* const record = Available(name, *version);
    if (record == nullptr) return NotFound(name, version);
    route.adapter = record->adapter;
    return route;
  }
  route.label = std::string(label.empty() ? kStableLabel : label);
  const Record* const record = Labelled(name, route.label);
  if (record == nullptr) return LabelNotFound(name, route.label);
  route.adapter = record->adapter;
  if (route.label != kStableLabel) return route;
  const Record* const shadow = Labelled(name, kShadowLabel);
  if (shadow != nullptr && shadow != record) route.shadow = shadow->adapter;
  const Record* const canary = label.empty() ? Labelled(name, kCanaryLabel) : nullptr;
  if (canary != nullptr && canary != record) {
    const double percent = LabelsOf(name)->live.at(std::string(kCanaryLabel)).percent;
    route.canary = canary->adapter;
    route.canary_buckets = static_cast<int>(std::lround(percent / 100 * kCanaryBuckets));
  }
  return route;
}

bool AdapterRegistry::AskedByNumberSince(const AdapterKey& key, absl::Time since) const {
  MutexLock lock(&mutex_);
  const auto found = records_.find(key);
  return found != records_.end() && found->second.asked_at >= since;
}

absl::StatusOr<AdapterLabelStatus> AdapterRegistry::Labels(absl::string_view name) const {
  MutexLock lock(&mutex_);
  const auto known = records_.lower_bound(AdapterKey{std::string(name), 0});
  if (known == records_.end() || known->first.name != name || name == kBaseName) {
    return NotFound(name, std::nullopt);
  }
  AdapterLabelStatus status;
  if (const LabelRecord* const labels = LabelsOf(name)) {
    status.labels = labels->file;
    status.error = labels->error;
    for (const auto& [label, target] : labels->live) status.live[label] = target.version;
  }
  return status;
}

absl::StatusOr<std::string> AdapterRegistry::DefaultName() const {
  if (!default_adapter_.empty()) return default_adapter_;
  std::set<absl::string_view> names;
  for (const auto& [key, record] : records_) {
    if (record.adapter != nullptr && key.name != kBaseName) names.insert(key.name);
  }
  if (names.size() == 1) return std::string(*names.begin());
  if (names.empty()) {
    return absl::NotFoundError(Newest(kBaseName) == nullptr
                                   ? "no adapter is available"
                                   : "no adapter is available; the base without one answers under "
                                     "the adapter name \"base\"");
  }
  return absl::InvalidArgumentError(
      absl::StrCat("adapter.name: empty, this server has no default adapter and serves several: ",
                   AvailableText()));
}

const AdapterRegistry::Record* AdapterRegistry::Newest(absl::string_view name) const {
  auto record =
      records_.upper_bound(AdapterKey{std::string(name), std::numeric_limits<int64_t>::max()});
  while (record != records_.begin()) {
    --record;
    if (record->first.name != name) break;
    if (record->second.adapter != nullptr && !record->second.gone) return &record->second;
  }
  return nullptr;
}

const AdapterRegistry::Record* AdapterRegistry::Available(absl::string_view name,
                                                          int64_t version) const {
  const auto found = records_.find(AdapterKey{std::string(name), version});
  if (found == records_.end() || found->second.adapter == nullptr) return nullptr;
  return &found->second;
}

bool AdapterRegistry::IsThere(absl::string_view name, int64_t version) const {
  const Record* const record = Available(name, version);
  return record != nullptr && !record->gone;
}

const AdapterRegistry::LabelRecord* AdapterRegistry::LabelsOf(absl::string_view name) const {
  const auto found = labels_.find(std::string(name));
  return found == labels_.end() ? nullptr : &found->second;
}

const AdapterRegistry::Record* AdapterRegistry::Labelled(absl::string_view name,
                                                         absl::string_view label) const {
  const LabelRecord* const labels = LabelsOf(name);
  if (labels == nullptr) return label == kStableLabel ? Newest(name) : nullptr;
  // Never read: the newest may be what the file keeps calls from.
  if (labels->file.generation == 0) return nullptr;
  if (!labels->file.Target(label).has_value()) {
    return label == kStableLabel ? Newest(name) : nullptr;
  }
  const auto live = labels->live.find(std::string(label));
  return live == labels->live.end() ? nullptr : Available(name, live->second.version);
}

void AdapterRegistry::UpdateLive(const std::string& name) {
  const auto found = labels_.find(name);
  if (found == labels_.end()) return;
  LabelRecord& labels = found->second;
  std::map<std::string, LabelTarget> live;
  for (const auto& [label, target] : labels.file.labels) {
    const auto before = labels.live.find(label);
    const bool was_there = before != labels.live.end();
    if (IsThere(name, target.version)) {
      if (!was_there || before->second.version != target.version) metrics_->LabelMoved(label);
      live[label] = target;
    } else if (was_there && IsThere(name, before->second.version)) {
      live[label] = before->second;
    }
  }
  labels.live = std::move(live);
}

absl::Status AdapterRegistry::LabelNotFound(absl::string_view name, absl::string_view label) const {
  const LabelRecord* const labels = LabelsOf(name);
  if (labels != nullptr && labels->file.generation == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("label \"", label, "\": what it leads to is not known: ", labels->error));
  }
  const std::optional<LabelTarget> target =
      labels == nullptr ? std::nullopt : labels->file.Target(label);
  if (target.has_value()) {
    const absl::Status status = NotFound(name, target->version);
    return absl::Status(status.code(), absl::StrCat("label \"", label, "\": ", status.message()));
  }
  if (label == kStableLabel) return NotFound(name, std::nullopt);
  std::vector<absl::string_view> known = {kStableLabel};
  if (labels != nullptr) {
    for (const auto& [other, _] : labels->file.labels) {
      if (other != kStableLabel) known.push_back(other);
    }
  }
  return absl::NotFoundError(absl::StrCat("adapter.label: ", Describe(name, std::nullopt),
                                          " has no label \"", label,
                                          "\"; there is: ", absl::StrJoin(known, ", ")));
}

absl::Status AdapterRegistry::NotFound(absl::string_view name,
                                       std::optional<int64_t> version) const {
  if (!version.has_value()) {
    // Of those that are known the newest says most.
    const auto after =
        records_.upper_bound(AdapterKey{std::string(name), std::numeric_limits<int64_t>::max()});
    if (after != records_.begin() && std::prev(after)->first.name == name) {
      version = std::prev(after)->first.version;
    }
  }
  if (version.has_value()) {
    const auto found = records_.find(AdapterKey{std::string(name), *version});
    if (found != records_.end()) {
      const AdapterStatus& status = found->second.status;
      std::string message =
          absl::StrCat(Describe(name, version), " is in state ", AdapterStateName(status.state));
      if (!status.reason.empty()) absl::StrAppend(&message, ": ", status.reason);
      // Well made, but not for this server: another base, a longer context, other golden prices.
      const bool unfit = status.refusal == absl::StatusCode::kFailedPrecondition;
      return unfit ? absl::FailedPreconditionError(message) : absl::NotFoundError(message);
    }
  }
  return absl::NotFoundError(
      absl::StrCat(Describe(name, version), " is not available; available: ", AvailableText()));
}

std::string AdapterRegistry::AvailableText() const {
  std::vector<std::string> available;
  size_t count = 0;
  for (const auto& [key, record] : records_) {
    if (record.adapter == nullptr) continue;
    if (++count <= kMaxListedInMessage) {
      available.push_back(key == BaseKey() ? kBaseName : absl::StrCat(key.name, "/", key.version));
    }
  }
  if (available.empty()) return "none";
  if (count > available.size()) {
    available.push_back(absl::StrCat("and ", count - available.size(), " more"));
  }
  return absl::StrJoin(available, ", ");
}

std::vector<AdapterStatus> AdapterRegistry::List(absl::string_view name) const {
  MutexLock lock(&mutex_);
  std::vector<AdapterStatus> statuses;
  for (const auto& [key, record] : records_) {
    if (name.empty() || key.name == name) statuses.push_back(StatusOf(record));
  }
  return statuses;
}

AdapterStatus AdapterRegistry::StatusOf(const Record& record) const {
  AdapterStatus status = record.status;
  const AdapterKey& key = status.key;
  if (record.adapter == nullptr || key.name == kBaseName) return status;
  if (memory_ != nullptr) status.place = memory_->PlaceOf(record.adapter.get());
  status.serves_by_default = Labelled(key.name, kStableLabel) == &record;
  if (const LabelRecord* const labels = LabelsOf(key.name)) {
    for (const auto& [label, target] : labels->live) {
      if (target.version == key.version) status.labels.push_back(label);
    }
  }
  return status;
}

AdapterChanges AdapterRegistry::ChangesSince(int64_t since, absl::string_view name) const {
  MutexLock lock(&mutex_);
  AdapterChanges changes{.latest = changes_, .changed = {}, .left = std::nullopt};
  if (last_drop_ > since) changes.left.emplace();
  for (const auto& [key, record] : records_) {
    if (!name.empty() && key.name != name) continue;
    if (changes.left.has_value()) changes.left->insert(key);
    if (record.change > since) changes.changed.push_back(StatusOf(record));
  }
  return changes;
}

void AdapterRegistry::SetChangeListener(std::function<void()> listener) {
  MutexLock lock(&mutex_);
  change_listener_ = std::move(listener);
}

void AdapterRegistry::Changed(Record* record) {
  record->change = ++changes_;
  if (change_listener_ != nullptr) change_listener_();
}

void AdapterRegistry::AllChanged(absl::string_view name) {
  for (auto it = records_.lower_bound(AdapterKey{std::string(name), 0});
       it != records_.end() && it->first.name == name; ++it) {
    Changed(&it->second);
  }
}

void AdapterRegistry::Dropped() {
  last_drop_ = ++changes_;
  if (change_listener_ != nullptr) change_listener_();
}

void AdapterRegistry::SetBase(absl::StatusOr<AdapterHandle> base) {
  MutexLock lock(&mutex_);
  Record& record = records_[BaseKey()];
  record.status.key = BaseKey();
  if (base.ok()) {
    record.status.digest = (*base)->digest;
    record.status.reason = (*base)->warning;
    record.adapter = *std::move(base);
  } else {
    record.status.reason = std::string(base.status().message());
    record.status.refusal = base.status().code();
  }
  SetState(&record, record.adapter != nullptr ? AdapterState::kAvailable : AdapterState::kEnd);
}

void AdapterRegistry::Discover(const AdapterKey& key) {
  MutexLock lock(&mutex_);
  Record& record = records_[key];
  PRICER_CHECK(record.adapter == nullptr);
  record.status = AdapterStatus();
  record.status.key = key;
  SetState(&record, AdapterState::kStart);
}

void AdapterRegistry::BeginLoad(const AdapterKey& key) {
  MutexLock lock(&mutex_);
  SetState(&records_.at(key), AdapterState::kLoading);
}

void AdapterRegistry::Publish(AdapterHandle adapter, absl::Duration load_time) {
  MutexLock lock(&mutex_);
  Record& record = records_.at(adapter->key);
  record.status.reason = adapter->warning;
  record.status.digest = adapter->digest;
  record.status.memory_bytes = adapter->memory_bytes;
  record.status.load_time = load_time;
  record.adapter = std::move(adapter);
  metrics_->AdapterLoaded(load_time);
  SetState(&record, AdapterState::kAvailable);
  UpdateLive(record.status.key.name);
  AllChanged(record.status.key.name);
}

void AdapterRegistry::Refuse(const AdapterKey& key, const absl::Status& reason) {
  MutexLock lock(&mutex_);
  Record& record = records_.at(key);
  PRICER_CHECK(record.adapter == nullptr);
  record.status.reason = std::string(reason.message());
  record.status.refusal = reason.code();
  metrics_->AdapterLoadFailed(clock_->Now());
  SetState(&record, AdapterState::kEnd);
}

bool AdapterRegistry::KeepGone(const AdapterKey& key) {
  MutexLock lock(&mutex_);
  Record& record = records_.at(key);
  PRICER_CHECK(record.adapter != nullptr);
  if (memory_ != nullptr) {
    memory_->SetGone(record.adapter);
    if (memory_->PlaceOf(record.adapter.get()).tier == MemoryTier::kDisk) return false;
  }
  if (std::exchange(record.gone, true)) return true;
  UpdateLive(key.name);
  AllChanged(key.name);
  return true;
}

void AdapterRegistry::Unload(const AdapterKey& key, const std::string& reason) {
  MutexLock lock(&mutex_);
  Record& record = records_.at(key);
  PRICER_CHECK(record.adapter != nullptr);
  record.status.reason = reason;
  retired_.push_back(std::exchange(record.adapter, nullptr));
  record.gone = false;
  SetState(&record, AdapterState::kUnloading);
  UpdateLive(key.name);
  AllChanged(key.name);
}

void AdapterRegistry::Forget(const AdapterKey& key) {
  MutexLock lock(&mutex_);
  records_.erase(key);
  Dropped();
  ReportStates();
}

void AdapterRegistry::SetLabels(const std::string& name, AdapterLabels labels) {
  MutexLock lock(&mutex_);
  if (labels.generation == 0) {
    labels_.erase(name);
    AllChanged(name);
    return;
  }
  LabelRecord& record = labels_[name];
  record.file = std::move(labels);
  record.error.clear();
  UpdateLive(name);
  AllChanged(name);
}

void AdapterRegistry::SetLabelsError(const std::string& name, const std::string& error) {
  MutexLock lock(&mutex_);
  labels_[name].error = error;
}

std::vector<FreedAdapter> AdapterRegistry::FreeUnused() {
  std::vector<AdapterHandle> unused;
  AdapterMemory* memory = nullptr;
  {
    MutexLock lock(&mutex_);
    memory = memory_;
    std::erase_if(retired_, [&unused](AdapterHandle& adapter) {
      // Nobody can take another handle of a retired version, so that 1 stays 1.
      if (adapter.use_count() > 1) return false;
      unused.push_back(std::move(adapter));
      return true;
    });
    for (const AdapterHandle& adapter : unused) EndUnloaded(*adapter);
    if (!unused.empty()) DropOldestEnded();
  }
  std::vector<FreedAdapter> freed;
  for (const AdapterHandle& adapter : unused) {
    freed.push_back({.key = adapter->key});
    if (memory != nullptr) freed.back().bytes = memory->Remove(adapter.get());
  }
  return freed;
}

void AdapterRegistry::EndUnloaded(const LoadedAdapter& adapter) {
  const AdapterKey& key = adapter.key;
  const auto found = records_.find(key);
  // Found in the folder again in the meantime, and serving.
  if (found != records_.end() && found->second.adapter != nullptr) return;
  const bool still_held =
      std::any_of(retired_.begin(), retired_.end(),
                  [&key](const AdapterHandle& other) { return other->key == key; });
  if (still_held) return;
  metrics_->AdapterEnded(key);
  // Found again, and loading or refused, or forgotten since.
  if (found == records_.end() || found->second.status.state != AdapterState::kUnloading) return;
  found->second.status.memory_bytes = 0;
  metrics_->AdapterUnloaded(clock_->Now() - found->second.status.changed_at);
  SetState(&found->second, AdapterState::kEnd);
}

void AdapterRegistry::SetState(Record* record, AdapterState state) {
  record->status.state = state;
  record->status.changed_at = clock_->Now();
  Changed(record);
  ReportStates();
}

void AdapterRegistry::ReportStates() {
  std::array<int64_t, kAdapterStateCount> counts{};
  for (const auto& [key, record] : records_) {
    if (key.name != kBaseName) ++counts[static_cast<int>(record.status.state)];
  }
  metrics_->AdapterStatesChanged(counts);
}

void AdapterRegistry::DropOldestEnded() {
  const auto is_unloaded = [](const Record& record) {
    return record.status.state == AdapterState::kEnd &&
           record.status.refusal == absl::StatusCode::kOk;
  };
  int ended = 0;
  for (const auto& [key, record] : records_) ended += is_unloaded(record) ? 1 : 0;
  for (; ended > kMaxEndedRecords; --ended) {
    auto oldest = records_.end();
    for (auto it = records_.begin(); it != records_.end(); ++it) {
      if (!is_unloaded(it->second)) continue;
      if (oldest == records_.end() ||
          it->second.status.changed_at < oldest->second.status.changed_at) {
        oldest = it;
      }
    }
    records_.erase(oldest);
    Dropped();
  }
  ReportStates();
}

}  // namespace pricer
