#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "server/batch_predictor.h"
#include "server/batch_scheduler.h"
#include "server/engine.h"
#include "server/loaded_adapter.h"
#include "server/metrics.h"

// Stand-ins for the parts of a server that compute, tell the time or export numbers. No torch, no
// gRPC.

namespace pricer::testing {

class FakeClock final : public Clock {
 public:
  absl::Time Now() const override {
    MutexLock lock(&mutex_);
    return now_;
  }
  void Advance(absl::Duration duration) {
    MutexLock lock(&mutex_);
    now_ += duration;
  }

 private:
  mutable Mutex mutex_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_) = absl::FromUnixSeconds(1'000'000);
};

inline std::shared_ptr<LoadedAdapter> MakeLoadedAdapter(const std::string& name, int64_t version) {
  auto adapter = std::make_shared<LoadedAdapter>();
  adapter->key = {name, version};
  adapter->digest = name + "-digest-" + std::to_string(version);
  adapter->memory_bytes = 1000 * version;
  adapter->manifest.base_fingerprint = "model-fingerprint";
  adapter->manifest.currency = "USD";
  adapter->manifest.weights = "fp32";
  adapter->manifest.dtype = "fp32";
  return adapter;
}

// What there is of an adapter beside its tensors' bytes in a test: whether they are on the device.
struct FakeTensors final : AdapterTensors {
  explicit FakeTensors(bool is_on_device) : on_device(is_on_device) {}
  const bool on_device;
};

// What the fake predictor prices everything at under a version: one bin from 100 to 400 times the
// version, so that the median is 200 times the version. The base, version 0, prices as version 1.
inline PriceDistribution FakeDistribution(const LoadedAdapter& adapter) {
  const auto version = static_cast<double>(std::max<int64_t>(adapter.key.version, 1));
  return PriceDistribution(100 * version, 400 * version, {1.0});
}
inline double FakePrice(int64_t version) { return 200.0 * static_cast<double>(version); }

// Prices by version, remembers what it was asked for, and can be held up.
class FakePredictor final : public BatchPredictor {
 public:
  struct Sequence {
    AdapterKey adapter;
    std::vector<int32_t> ids;
    bool has_tensors = false;
  };
  using Batch = std::vector<Sequence>;

  // Batches wait from now on until Release.
  void Block() {
    MutexLock lock(&mutex_);
    blocked_ = true;
  }
  void Release() {
    MutexLock lock(&mutex_);
    blocked_ = false;
    changed_.SignalAll();
  }
  // Waits until so many batches have reached the predictor, finished or not.
  void WaitForBatches(size_t count) {
    MutexLock lock(&mutex_);
    while (batches_.size() < count) changed_.Wait(&mutex_);
  }
  std::vector<Batch> batches() const {
    MutexLock lock(&mutex_);
    return batches_;
  }
  // Prompts that begin with this token fail.
  void FailOn(int32_t token, absl::Status status) {
    MutexLock lock(&mutex_);
    failures_[token] = std::move(status);
  }
  // Prompts of so many tokens fail.
  void FailOnLength(size_t tokens, absl::Status status) {
    MutexLock lock(&mutex_);
    failing_length_ = {tokens, std::move(status)};
  }
  // Every batch takes this long by `clock`.
  void TakeTime(FakeClock* clock, absl::Duration duration) {
    clock_ = clock;
    duration_ = duration;
  }

  Results PredictBatch(absl::Span<const PredictorSequence> sequences) override {
    Batch batch;
    Results results;
    MutexLock lock(&mutex_);
    for (const PredictorSequence& sequence : sequences) {
      batch.push_back({sequence.adapter->key,
                       {sequence.ids.begin(), sequence.ids.end()},
                       sequence.tensors != nullptr});
      const auto failure = failures_.find(sequence.ids[0]);
      if (failure != failures_.end()) {
        results.push_back(failure->second);
      } else if (sequence.ids.size() == failing_length_.first) {
        results.push_back(failing_length_.second);
      } else {
        results.push_back(FakeDistribution(*sequence.adapter));
      }
    }
    batches_.push_back(std::move(batch));
    changed_.SignalAll();
    while (blocked_) changed_.Wait(&mutex_);
    if (clock_ != nullptr) clock_->Advance(duration_);
    return results;
  }

 private:
  mutable Mutex mutex_;
  CondVar changed_;
  bool blocked_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<Batch> batches_ ABSL_GUARDED_BY(mutex_);
  std::map<int32_t, absl::Status> failures_ ABSL_GUARDED_BY(mutex_);
  std::pair<size_t, absl::Status> failing_length_ ABSL_GUARDED_BY(mutex_) = {};
  // Set before the first batch.
  FakeClock* clock_ = nullptr;
  absl::Duration duration_;
};

// Keeps the last value of everything.
class RecordingMetrics final : public Metrics {
 public:
  struct Values {
    std::map<std::string, int> calls;  // "method code"
    std::vector<absl::Duration> call_times;
    std::map<AdapterKey, int> items;
    int64_t tokens = 0;
    std::vector<int64_t> batch_items;
    std::vector<absl::Duration> batch_gaps;
    std::vector<absl::Duration> queue_times;
    int64_t queue_items = 0;
    int64_t queue_tokens = 0;  // of both lanes
    std::array<int64_t, kLaneCount> lane_tokens{};
    int cache_hits = 0;
    int coalesced = 0;
    int64_t cache_bytes = 0;
    std::array<int, kRefusalReasonCount> refused{};
    std::array<int, kDropReasonCount> dropped{};
    int64_t late = 0;
    std::array<int64_t, kAdapterStateCount> adapters{};
    int loaded = 0;
    int load_failures = 0;
    std::vector<AdapterKey> ended;
    int unloaded = 0;
    std::array<int64_t, kMemoryTierCount> memory_adapters{};
    std::array<int64_t, kMemoryTierCount> memory_bytes{};
    std::array<int64_t, kMemoryTierCount> most_memory_bytes{};
    std::array<int, kMemoryTierCount> fetched_from{};
    int fetch_failures = 0;
    std::array<int, kMemoryTierCount> evictions{};
    bool root_readable = false;
    std::vector<std::string> label_moves;
    std::map<AdapterKey, std::vector<double>> shadow_log_ratios;
    int shadow_failures = 0;
    std::map<AdapterKey, std::vector<double>> outcome_log_errors;
    std::map<AdapterKey, std::vector<bool>> outcome_intervals;
  };

  Values values() const {
    MutexLock lock(&mutex_);
    return values_;
  }

  void CallEnded(absl::string_view method, absl::StatusCode code, absl::Duration time) override {
    MutexLock lock(&mutex_);
    values_.call_times.push_back(time);
    ++values_.calls[std::string(method) + " " + absl::StatusCodeToString(code)];
  }
  void ItemsPriced(Lane /*lane*/, const AdapterKey& adapter, int64_t count) override {
    MutexLock lock(&mutex_);
    values_.items[adapter] += static_cast<int>(count);
  }
  void BatchFollowed(absl::Duration gap) override {
    MutexLock lock(&mutex_);
    values_.batch_gaps.push_back(gap);
  }
  void BatchComputed(int64_t items, int64_t tokens, absl::Duration /*compute*/) override {
    MutexLock lock(&mutex_);
    values_.batch_items.push_back(items);
    values_.tokens += tokens;
  }
  void TaskWaited(Lane /*lane*/, absl::Duration queue) override {
    MutexLock lock(&mutex_);
    values_.queue_times.push_back(queue);
  }
  void QueueChanged(Lane lane, int64_t tokens) override {
    MutexLock lock(&mutex_);
    values_.lane_tokens[static_cast<int>(lane)] = tokens;
    values_.queue_tokens = values_.lane_tokens[0] + values_.lane_tokens[1];
  }
  void QueueItemsChanged(int64_t items) override {
    MutexLock lock(&mutex_);
    values_.queue_items = items;
  }
  void CacheHit() override {
    MutexLock lock(&mutex_);
    ++values_.cache_hits;
  }
  void Coalesced() override {
    MutexLock lock(&mutex_);
    ++values_.coalesced;
  }
  void CacheChanged(int64_t bytes) override {
    MutexLock lock(&mutex_);
    values_.cache_bytes = bytes;
  }
  void AdmissionRefused(RefusalReason reason) override {
    MutexLock lock(&mutex_);
    ++values_.refused[static_cast<int>(reason)];
  }
  void TaskDropped(DropReason reason) override {
    MutexLock lock(&mutex_);
    ++values_.dropped[static_cast<int>(reason)];
  }
  void TasksLate(int64_t count) override {
    MutexLock lock(&mutex_);
    values_.late += count;
  }
  void AdapterStatesChanged(const std::array<int64_t, kAdapterStateCount>& counts) override {
    MutexLock lock(&mutex_);
    values_.adapters = counts;
  }
  void AdapterLoaded(absl::Duration /*load*/) override {
    MutexLock lock(&mutex_);
    ++values_.loaded;
  }
  void AdapterLoadFailed(absl::Time /*when*/) override {
    MutexLock lock(&mutex_);
    ++values_.load_failures;
  }
  void AdapterEnded(const AdapterKey& adapter) override {
    MutexLock lock(&mutex_);
    values_.ended.push_back(adapter);
  }
  void AdapterUnloaded(absl::Duration /*unload*/) override {
    MutexLock lock(&mutex_);
    ++values_.unloaded;
  }
  void AdapterMemoryChanged(MemoryTier tier, int64_t adapters, int64_t bytes) override {
    MutexLock lock(&mutex_);
    const auto i = static_cast<size_t>(tier);
    values_.memory_adapters[i] = adapters;
    values_.memory_bytes[i] = bytes;
    values_.most_memory_bytes[i] = std::max(values_.most_memory_bytes[i], bytes);
  }
  void AdapterFetched(MemoryTier from, absl::Duration /*time*/, bool ok) override {
    MutexLock lock(&mutex_);
    ++(ok ? values_.fetched_from[static_cast<size_t>(from)] : values_.fetch_failures);
  }
  void AdapterEvicted(MemoryTier tier, int64_t /*bytes*/) override {
    MutexLock lock(&mutex_);
    ++values_.evictions[static_cast<size_t>(tier)];
  }
  void AdapterRootReadable(bool readable) override {
    MutexLock lock(&mutex_);
    values_.root_readable = readable;
  }
  void LabelMoved(absl::string_view label) override {
    MutexLock lock(&mutex_);
    values_.label_moves.emplace_back(label);
  }
  void ShadowCompared(const AdapterKey& shadow, double log_ratio) override {
    MutexLock lock(&mutex_);
    values_.shadow_log_ratios[shadow].push_back(log_ratio);
  }
  void OutcomeReported(const AdapterKey& adapter, double log_error) override {
    MutexLock lock(&mutex_);
    values_.outcome_log_errors[adapter].push_back(log_error);
  }
  void IntervalReported(const AdapterKey& adapter, bool covered) override {
    MutexLock lock(&mutex_);
    values_.outcome_intervals[adapter].push_back(covered);
  }
  void ShadowFailed() override {
    MutexLock lock(&mutex_);
    ++values_.shadow_failures;
  }

 private:
  mutable Mutex mutex_;
  Values values_ ABSL_GUARDED_BY(mutex_);
};

// Collects the results of tasks and waits for them.
class Results {
 public:
  std::function<void(TaskResult)> Add() {
    MutexLock lock(&mutex_);
    const size_t index = results_.size();
    results_.push_back(std::nullopt);
    return [this, index](TaskResult result) {
      MutexLock lock(&mutex_);
      if (results_[index].has_value()) ++twice_;
      results_[index] = std::move(result);
      changed_.SignalAll();
    };
  }
  const TaskResult& Wait(size_t index) {
    MutexLock lock(&mutex_);
    while (!results_[index].has_value()) changed_.Wait(&mutex_);
    return *results_[index];
  }
  bool IsDone(size_t index) const {
    MutexLock lock(&mutex_);
    return results_[index].has_value();
  }
  // Results that came more than once.
  int twice() const {
    MutexLock lock(&mutex_);
    return twice_;
  }

 private:
  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<std::optional<TaskResult>> results_ ABSL_GUARDED_BY(mutex_);
  int twice_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Tokens are the bytes of the text, cut at the prompt's limit. Adapters are what AddAdapter was
// given, by directory name "<name>/<version>"; without one, a version loads as MakeLoadedAdapter
// makes it.
class FakeEngine final : public Engine {
 public:
  FakePredictor& fake_predictor() { return predictor_; }
  void AddAdapter(const std::string& name_and_version,
                  absl::StatusOr<std::shared_ptr<LoadedAdapter>> adapter) {
    MutexLock lock(&mutex_);
    adapters_[name_and_version] = std::move(adapter);
  }

  // Loads wait from now on until ReleaseLoads, as on a file system that does not answer.
  void BlockLoads() {
    MutexLock lock(&mutex_);
    loads_blocked_ = true;
  }
  void ReleaseLoads() {
    MutexLock lock(&mutex_);
    loads_blocked_ = false;
    changed_.SignalAll();
  }
  void WaitForLoad() {
    MutexLock lock(&mutex_);
    while (loads_ == 0) changed_.Wait(&mutex_);
  }

  void WaitForBlockedLoad() {
    MutexLock lock(&mutex_);
    while (blocked_loads_ == 0) changed_.Wait(&mutex_);
  }

  // Versions that are no longer in the folder cannot be read from now on.
  void ReadOnlyWhatIsThere() { checks_folder_ = true; }

  // Items that were encoded so far.
  int encoded() const { return encoded_; }

  const EngineInfo& info() const override { return info_; }
  BatchPredictor* predictor() override { return &predictor_; }

  absl::StatusOr<EncodedPrompt> Encode(const PromptTemplate& prompt,
                                       absl::string_view item_text) const override {
    if (item_text == "unencodable") return absl::InvalidArgumentError("two BOS");
    ++encoded_;
    EncodedPrompt encoded;
    encoded.ids.assign(item_text.begin(), item_text.end());
    const auto limit = static_cast<size_t>(prompt.max_prompt_tokens);
    encoded.truncated = encoded.ids.size() > limit;
    if (encoded.truncated) encoded.ids.resize(limit);
    return encoded;
  }

  // Batches are computed in memory of a device's own from now on.
  void AddDevice() { has_device_ = true; }
  bool has_device_memory() const override { return has_device_; }
  absl::StatusOr<TensorsHandle> CopyToDevice(const LoadedAdapter& /*adapter*/,
                                             const TensorsHandle& /*host*/) const override {
    return std::make_shared<FakeTensors>(/*is_on_device=*/true);
  }

  absl::StatusOr<LoadedVersion> LoadAdapter(const std::string& directory) const override {
    const size_t slash = directory.rfind('/');
    const size_t start = directory.rfind('/', slash - 1) + 1;
    MutexLock lock(&mutex_);
    ++loads_;
    changed_.SignalAll();
    ++blocked_loads_;
    changed_.SignalAll();
    while (loads_blocked_) changed_.Wait(&mutex_);
    --blocked_loads_;
    if (checks_folder_ && !std::filesystem::exists(directory)) {
      return absl::UnavailableError(directory + ": gone");
    }
    const auto found = adapters_.find(directory.substr(start));
    LoadedVersion version{nullptr, std::make_shared<FakeTensors>(/*is_on_device=*/false)};
    if (found == adapters_.end()) {
      version.adapter = MakeLoadedAdapter(directory.substr(start, slash - start),
                                          std::stoll(directory.substr(slash + 1)));
      return version;
    }
    if (!found->second.ok()) return found->second.status();
    // One of its own for each load, as a real engine's.
    version.adapter = std::make_shared<LoadedAdapter>(**found->second);
    return version;
  }

  // What LoadBase gives; before, an error.
  void SetBase(absl::StatusOr<std::shared_ptr<LoadedAdapter>> base) {
    MutexLock lock(&mutex_);
    base_ = std::move(base);
  }
  absl::StatusOr<std::shared_ptr<LoadedAdapter>> LoadBase() const override {
    MutexLock lock(&mutex_);
    return base_;
  }

 private:
  mutable std::atomic<int> encoded_{0};
  const EngineInfo info_ = {"model-fingerprint", "fp32", "fp32", "cpu"};
  bool has_device_ = false;
  bool checks_folder_ = false;
  FakePredictor predictor_;
  mutable Mutex mutex_;
  mutable CondVar changed_;
  mutable int loads_ ABSL_GUARDED_BY(mutex_) = 0;
  mutable int blocked_loads_ ABSL_GUARDED_BY(mutex_) = 0;  // in LoadAdapter now
  bool loads_blocked_ ABSL_GUARDED_BY(mutex_) = false;
  absl::StatusOr<std::shared_ptr<LoadedAdapter>> base_ ABSL_GUARDED_BY(mutex_) =
      absl::FailedPreconditionError("no token for 7");
  std::map<std::string, absl::StatusOr<std::shared_ptr<LoadedAdapter>>> adapters_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace pricer::testing
