#pragma once

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "server/metrics.h"

namespace pricer {

// Metrics as Prometheus series. Labels take their values from the protocol, from fixed lists and
// from adapters that were loaded, never from what a caller sends; the series of an adapter go when
// it ends.
class PrometheusMetrics final : public Metrics {
 public:
  PrometheusMetrics();

  // From here on pricer_build_info is there, with the device that computes. Called once.
  void DescribeBuild(const std::string& device);

  // What an exposer serves.
  const std::shared_ptr<prometheus::Registry>& registry() const { return registry_; }

  void CallEnded(absl::string_view method, absl::StatusCode code) override;
  void ItemPriced(Lane lane, const AdapterKey& adapter) override;
  void BatchComputed(int64_t items, int64_t tokens, absl::Duration compute) override;
  void TaskWaited(absl::Duration queue) override;
  void QueueChanged(Lane lane, int64_t tokens) override;
  void QueueItemsChanged(int64_t items) override;
  void CacheHit() override;
  void Coalesced() override;
  void CacheChanged(int64_t bytes) override;
  void AdmissionRefused(RefusalReason reason) override;
  void AdapterStatesChanged(const std::array<int64_t, kAdapterStateCount>& counts) override;
  void AdapterLoaded(absl::Duration load) override;
  void AdapterLoadFailed(absl::Time when) override;
  void AdapterEnded(const AdapterKey& adapter) override;
  void AdapterRootReadable(bool readable) override;
  void ReadyChanged(bool ready) override;
  void LabelMoved(absl::string_view label) override;
  void ShadowCompared(const AdapterKey& shadow, double log_ratio) override;
  void OutcomeReported(const AdapterKey& adapter, double log_error) override;
  void IntervalReported(const AdapterKey& adapter, bool covered) override;
  void ShadowFailed() override;

 private:
  const std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Family<prometheus::Counter>& requests_;
  prometheus::Family<prometheus::Counter>& items_;
  prometheus::Counter& tokens_;
  prometheus::Histogram& batch_items_;
  prometheus::Histogram& batch_tokens_;
  prometheus::Histogram& queue_seconds_;
  prometheus::Histogram& compute_seconds_;
  prometheus::Gauge& queue_items_;
  std::array<prometheus::Gauge*, kLaneCount> queue_tokens_{};
  prometheus::Counter& cache_hits_;
  prometheus::Counter& coalesced_;
  prometheus::Gauge& cache_bytes_;
  std::array<prometheus::Gauge*, kAdapterStateCount> adapters_{};
  prometheus::Histogram& adapter_load_seconds_;
  prometheus::Gauge& last_load_failure_;
  prometheus::Gauge& root_readable_;
  prometheus::Gauge& ready_;
  std::array<prometheus::Counter*, kRefusalReasonCount> refused_{};
  prometheus::Family<prometheus::Counter>& label_moves_;
  prometheus::Family<prometheus::Histogram>& shadow_log_ratio_;
  prometheus::Counter& shadow_failures_;
  prometheus::Family<prometheus::Histogram>& outcome_log_error_;
  prometheus::Family<prometheus::Counter>& outcome_absolute_log_error_;
  prometheus::Family<prometheus::Counter>& outcome_intervals_;
};

}  // namespace pricer
