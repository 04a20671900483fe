#pragma once

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "base/mutex.h"
#include "server/metrics.h"
#include "server/top_versions.h"

namespace pricer {

// Metrics as Prometheus series. Labels take their values from the protocol, from fixed lists and
// from adapters that were loaded, never from what a caller sends; the series of an adapter go when
// it ends.
class PrometheusMetrics final : public Metrics {
 public:
  // So many adapter versions have series of their own; the others share adapter="other".
  explicit PrometheusMetrics(size_t top_versions = 100);

  // From here on pricer_build_info is there, with the device that computes. Called once.
  void DescribeBuild(const std::string& device);

  // What a MetricsListener serves.
  const std::shared_ptr<prometheus::Registry>& registry() const { return registry_; }

  void CallEnded(absl::string_view method, absl::StatusCode code, absl::Duration time) override;
  void ItemsPriced(Lane lane, const AdapterKey& adapter, int64_t count) override;
  void BatchComputed(int64_t items, int64_t tokens, absl::Duration compute) override;
  void BatchFollowed(absl::Duration gap) override;
  void TaskWaited(Lane lane, absl::Duration queue) override;
  void QueueChanged(Lane lane, int64_t tokens) override;
  void QueueItemsChanged(int64_t items) override;
  void CacheHit() override;
  void Coalesced() override;
  void CacheChanged(int64_t bytes) override;
  void AdmissionRefused(RefusalReason reason) override;
  void TaskDropped(DropReason reason) override;
  void TasksLate(int64_t count) override;
  void AdapterStatesChanged(const std::array<int64_t, kAdapterStateCount>& counts) override;
  void AdapterLoaded(absl::Duration load) override;
  void AdapterLoadFailed(absl::Time when) override;
  void AdapterEnded(const AdapterKey& adapter) override;
  void AdapterUnloaded(absl::Duration unload) override;
  void AdapterMemoryChanged(MemoryTier tier, int64_t adapters, int64_t bytes) override;
  void AdapterFetched(MemoryTier from, absl::Duration time, bool ok) override;
  void AdapterEvicted(MemoryTier tier, int64_t bytes) override;
  void AdapterRootReadable(bool readable) override;
  void CertificateExpires(absl::Time when) override;
  void ReadyChanged(bool ready) override;
  void LabelMoved(absl::string_view label) override;
  void ShadowCompared(const AdapterKey& shadow, double log_ratio) override;
  void OutcomeReported(const AdapterKey& adapter, double log_error) override;
  void IntervalReported(const AdapterKey& adapter, bool covered) override;
  void ShadowFailed() override;

 private:
  // What there is of one kind of memory.
  struct TierSeries {
    prometheus::Gauge* adapters = nullptr;
    prometheus::Gauge* bytes = nullptr;
    prometheus::Counter* evictions = nullptr;
    prometheus::Counter* evicted_bytes = nullptr;
    prometheus::Histogram* fetch_seconds = nullptr;  // from there
  };

  void AddTiers();
  // As what items of it are counted.
  AdapterKey CountItems(const AdapterKey& adapter, int64_t count)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RemoveSeries(const AdapterKey& adapter) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Family<prometheus::Counter>& requests_;
  prometheus::Family<prometheus::Histogram>& request_seconds_;
  prometheus::Family<prometheus::Counter>& items_;
  prometheus::Counter& tokens_;
  prometheus::Histogram& batch_items_;
  prometheus::Histogram& batch_tokens_;
  std::array<prometheus::Histogram*, kLaneCount> queue_seconds_{};
  prometheus::Histogram& compute_seconds_;
  prometheus::Histogram& batch_gap_seconds_;
  prometheus::Gauge& queue_items_;
  std::array<prometheus::Gauge*, kLaneCount> queue_tokens_{};
  prometheus::Counter& cache_hits_;
  prometheus::Counter& coalesced_;
  prometheus::Gauge& cache_bytes_;
  prometheus::Counter& items_late_;
  std::array<prometheus::Gauge*, kAdapterStateCount> adapters_{};
  prometheus::Histogram& adapter_load_seconds_;
  prometheus::Histogram& adapter_unload_seconds_;
  std::array<TierSeries, kMemoryTierCount> tiers_{};
  prometheus::Counter& fetch_failures_;
  prometheus::Gauge& last_load_failure_;
  prometheus::Gauge& root_readable_;
  prometheus::Family<prometheus::Gauge>& certificate_expiry_;
  prometheus::Gauge& ready_;
  std::array<prometheus::Counter*, kRefusalReasonCount> refused_{};
  std::array<prometheus::Counter*, kDropReasonCount> dropped_{};
  prometheus::Family<prometheus::Counter>& label_moves_;
  prometheus::Family<prometheus::Histogram>& shadow_log_ratio_;
  prometheus::Counter& shadow_failures_;
  prometheus::Family<prometheus::Histogram>& outcome_log_error_;
  prometheus::Family<prometheus::Counter>& outcome_absolute_log_error_;
  prometheus::Family<prometheus::Counter>& outcome_intervals_;

  // Held while a series of an adapter version is looked up and changed, so that none is removed
  // meanwhile.
  Mutex mutex_;
  TopVersions top_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace pricer
