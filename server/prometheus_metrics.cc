#include "server/prometheus_metrics.h"

#include <cmath>
#include <optional>

#include "absl/strings/str_cat.h"
#include "base/build_info.h"
#include "model/adapter_labels.h"

namespace pricer {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using prometheus::Histogram;
using prometheus::Labels;
using prometheus::Registry;

// From a cached tiny model on a GPU to a long queue on a CPU.
const Histogram::BucketBoundaries kSecondsBuckets = {
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120};
const Histogram::BucketBoundaries kGapBuckets = {1e-5,  2.5e-5, 5e-5,  1e-4, 2.5e-4, 5e-4,
                                                 0.001, 0.0025, 0.005, 0.01, 0.1,    1};
const Histogram::BucketBoundaries kLoadSecondsBuckets = {0.01, 0.05, 0.1, 0.5, 1,   2.5, 5,
                                                         10,   30,   60,  120, 300, 600};
// About 1 % to a factor of e, to both sides.
const Histogram::BucketBoundaries kLogRatioBuckets = {-1,   -0.5, -0.2, -0.1, -0.05, -0.02, -0.01,
                                                      0.01, 0.02, 0.05, 0.1,  0.2,   0.5,   1};
const Histogram::BucketBoundaries kItemsBuckets = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};
const Histogram::BucketBoundaries kTokensBuckets = {64,   128,  256,   512,   1024, 2048,
                                                    4096, 8192, 16384, 32768, 65536};

prometheus::Counter& Counter(Registry& registry, const std::string& name, const std::string& help) {
  return BuildCounter().Name(name).Help(help).Register(registry).Add({});
}

prometheus::Gauge& Gauge(Registry& registry, const std::string& name, const std::string& help,
                         const Labels& labels = {}) {
  return BuildGauge().Name(name).Help(help).Register(registry).Add(labels);
}

Histogram& MakeHistogram(Registry& registry, const std::string& name, const std::string& help,
                         const Histogram::BucketBoundaries& buckets) {
  return BuildHistogram().Name(name).Help(help).Register(registry).Add({}, buckets);
}

Labels LabelsOf(const AdapterKey& adapter) {
  const bool is_other = adapter == TopVersions::Other();
  return {{"adapter", adapter.name}, {"version", is_other ? "" : absl::StrCat(adapter.version)}};
}

Labels LabelsOf(Lane lane, const AdapterKey& adapter) {
  Labels labels = LabelsOf(adapter);
  labels["lane"] = std::string(LaneName(lane));
  return labels;
}

Labels IntervalLabels(const AdapterKey& adapter, bool covered) {
  Labels labels = LabelsOf(adapter);
  labels["covered"] = covered ? "true" : "false";
  return labels;
}

// Operators' own names are many.
std::string KnownLabel(absl::string_view label) {
  const bool known = label == kStableLabel || label == kCanaryLabel || label == kShadowLabel;
  return known ? std::string(label) : "other";
}

const char* ReasonName(RefusalReason reason) {
  switch (reason) {
    case RefusalReason::kQueueFull:
      return "queue_full";
    case RefusalReason::kQuota:
      return "quota";
    case RefusalReason::kTooLate:
      return "too_late";
    case RefusalReason::kExpired:
      return "expired";
    case RefusalReason::kStopping:
      return "stopping";
    case RefusalReason::kAdapter:
      return "adapter";
  }
  return "unknown";
}

const char* ReasonName(DropReason reason) {
  switch (reason) {
    case DropReason::kExpired:
      return "expired";
    case DropReason::kTooLate:
      return "too_late";
    case DropReason::kCancelled:
      return "cancelled";
    case DropReason::kStopping:
      return "stopping";
    case DropReason::kAdapter:
      return "adapter";
  }
  return "unknown";
}

}  // namespace

PrometheusMetrics::PrometheusMetrics(size_t top_versions)
    : registry_(std::make_shared<Registry>()),
      requests_(BuildCounter()
                    .Name("pricer_requests_total")
                    .Help("Calls that ended, by method and gRPC status code.")
                    .Register(*registry_)),
      request_seconds_(BuildHistogram()
                           .Name("pricer_request_seconds")
                           .Help("Time of a call from its handler's start to its answer.")
                           .Register(*registry_)),
      items_(BuildCounter()
                 .Name("pricer_items_total")
                 .Help("Items computed, by lane and adapter version.")
                 .Register(*registry_)),
      tokens_(Counter(*registry_, "pricer_tokens_total",
                      "Tokens computed: those of prompts, and expected rows of price trees.")),
      batch_items_(
          MakeHistogram(*registry_, "pricer_batch_items", "Items of a batch.", kItemsBuckets)),
      batch_tokens_(MakeHistogram(*registry_, "pricer_batch_tokens",
                                  "Tokens of a batch, as they are limited.", kTokensBuckets)),
      compute_seconds_(MakeHistogram(*registry_, "pricer_compute_seconds",
                                     "Time that a batch is computed.", kSecondsBuckets)),
      batch_gap_seconds_(MakeHistogram(
          *registry_, "pricer_batch_gap_seconds",
          "Time before a batch in which nothing was computed though it waited.", kGapBuckets)),
      queue_items_(Gauge(*registry_, "pricer_queue_items", "Items that wait.")),
      cache_hits_(Counter(*registry_, "pricer_cache_hits_total",
                          "Items whose prices were kept from before.")),
      coalesced_(Counter(*registry_, "pricer_coalesced_total",
                         "Items that were being computed for another call.")),
      cache_bytes_(Gauge(*registry_, "pricer_cache_bytes", "Bytes of prices that are kept.")),
      items_late_(Counter(*registry_, "pricer_items_late_total",
                          "Items computed and done after their deadlines.")),
      adapter_load_seconds_(MakeHistogram(*registry_, "pricer_adapter_load_seconds",
                                          "Time to read and check an adapter version.",
                                          kLoadSecondsBuckets)),
      adapter_unload_seconds_(MakeHistogram(
          *registry_, "pricer_adapter_unload_seconds",
          "Time from the unload of an adapter version until no request held it any more.",
          kLoadSecondsBuckets)),
      fetch_failures_(Counter(*registry_, "pricer_adapter_fetch_failures_total",
                              "Adapter versions whose tensors could not be brought into memory.")),
      last_load_failure_(Gauge(*registry_, "pricer_adapter_last_load_failure_timestamp_seconds",
                               "When an adapter version was last refused; 0 = never.")),
      root_readable_(Gauge(*registry_, "pricer_adapter_root_readable",
                           "Whether the last look at the adapter folder could read it.")),
      certificate_expiry_(BuildGauge()
                              .Name("pricer_certificate_expiry_timestamp_seconds")
                              .Help("When the server's certificate, or one behind it, ends.")
                              .Register(*registry_)),
      ready_(Gauge(*registry_, "pricer_ready", "Whether readiness says yes.")),
      label_moves_(BuildCounter()
                       .Name("pricer_label_moves_total")
                       .Help("Labels that came to lead to another version here, by label.")
                       .Register(*registry_)),
      shadow_log_ratio_(BuildHistogram()
                            .Name("pricer_shadow_log_ratio")
                            .Help("ln(shadow's median price / the answering version's), by shadow.")
                            .Register(*registry_)),
      shadow_failures_(Counter(*registry_, "pricer_shadow_failures_total",
                               "Priced items that their shadow gave no price for.")),
      outcome_log_error_(BuildHistogram()
                             .Name("pricer_outcome_log_error")
                             .Help("ln(true price / predicted), by adapter version.")
                             .Register(*registry_)),
      outcome_absolute_log_error_(BuildCounter()
                                      .Name("pricer_outcome_absolute_log_error_total")
                                      .Help("Sum of |ln(true price / predicted)|.")
                                      .Register(*registry_)),
      outcome_intervals_(BuildCounter()
                             .Name("pricer_outcome_intervals_total")
                             .Help("80 % intervals by whether the true price lay in them.")
                             .Register(*registry_)),
      top_(top_versions) {
  AddTiers();
  auto& adapters = BuildGauge()
                       .Name("pricer_adapters")
                       .Help("Adapter versions known, by state.")
                       .Register(*registry_);
  for (int i = 0; i < kAdapterStateCount; ++i) {
    const auto state = static_cast<AdapterState>(i);
    adapters_[i] = &adapters.Add({{"state", std::string(AdapterStateName(state))}});
  }
  auto& queue_seconds = BuildHistogram()
                            .Name("pricer_queue_seconds")
                            .Help("Time of an item from admission to the start of its batch.")
                            .Register(*registry_);
  auto& queue_tokens = BuildGauge()
                           .Name("pricer_queue_tokens")
                           .Help("Tokens that wait, as they are limited, by lane.")
                           .Register(*registry_);
  for (Lane lane : kLanes) {
    const Labels labels = {{"lane", std::string(LaneName(lane))}};
    queue_seconds_[static_cast<int>(lane)] = &queue_seconds.Add(labels, kSecondsBuckets);
    queue_tokens_[static_cast<int>(lane)] = &queue_tokens.Add(labels);
  }
  auto& refused = BuildCounter()
                      .Name("pricer_admission_refused_total")
                      .Help("Items that the queue did not take, by reason.")
                      .Register(*registry_);
  for (int i = 0; i < kRefusalReasonCount; ++i) {
    refused_[i] = &refused.Add({{"reason", ReasonName(static_cast<RefusalReason>(i))}});
  }
  auto& dropped = BuildCounter()
                      .Name("pricer_items_dropped_total")
                      .Help("Items that the queue took and that were never computed, by reason.")
                      .Register(*registry_);
  for (int i = 0; i < kDropReasonCount; ++i) {
    dropped_[i] = &dropped.Add({{"reason", ReasonName(static_cast<DropReason>(i))}});
  }
}

void PrometheusMetrics::DescribeBuild(const std::string& device) {
  Gauge(*registry_, "pricer_build_info", "Always 1; its labels say what runs.",
        {{"version", std::string(BuildVersion())},
         {"commit", std::string(BuildCommit())},
         {"device", device}})
      .Set(1);
}

void PrometheusMetrics::CallEnded(absl::string_view method, absl::StatusCode code,
                                  absl::Duration time) {
  const Labels labels = {{"method", std::string(method)}, {"code", absl::StatusCodeToString(code)}};
  requests_.Add(labels).Increment();
  request_seconds_.Add(labels, kSecondsBuckets).Observe(absl::ToDoubleSeconds(time));
}

void PrometheusMetrics::ItemsPriced(Lane lane, const AdapterKey& adapter, int64_t count) {
  MutexLock lock(&mutex_);
  items_.Add(LabelsOf(lane, CountItems(adapter, count))).Increment(static_cast<double>(count));
}

void PrometheusMetrics::BatchComputed(int64_t items, int64_t tokens, absl::Duration compute) {
  tokens_.Increment(static_cast<double>(tokens));
  batch_items_.Observe(static_cast<double>(items));
  batch_tokens_.Observe(static_cast<double>(tokens));
  compute_seconds_.Observe(absl::ToDoubleSeconds(compute));
}

void PrometheusMetrics::BatchFollowed(absl::Duration gap) {
  batch_gap_seconds_.Observe(absl::ToDoubleSeconds(gap));
}

void PrometheusMetrics::TaskWaited(Lane lane, absl::Duration queue) {
  queue_seconds_[static_cast<int>(lane)]->Observe(absl::ToDoubleSeconds(queue));
}

void PrometheusMetrics::QueueChanged(Lane lane, int64_t tokens) {
  queue_tokens_[static_cast<int>(lane)]->Set(static_cast<double>(tokens));
}

void PrometheusMetrics::QueueItemsChanged(int64_t items) {
  queue_items_.Set(static_cast<double>(items));
}

void PrometheusMetrics::CacheHit() { cache_hits_.Increment(); }

void PrometheusMetrics::Coalesced() { coalesced_.Increment(); }

void PrometheusMetrics::CacheChanged(int64_t bytes) {
  cache_bytes_.Set(static_cast<double>(bytes));
}

void PrometheusMetrics::AdmissionRefused(RefusalReason reason) {
  refused_[static_cast<int>(reason)]->Increment();
}

void PrometheusMetrics::TaskDropped(DropReason reason) {
  dropped_[static_cast<int>(reason)]->Increment();
}

void PrometheusMetrics::TasksLate(int64_t count) {
  items_late_.Increment(static_cast<double>(count));
}

void PrometheusMetrics::AdapterStatesChanged(
    const std::array<int64_t, kAdapterStateCount>& counts) {
  for (int i = 0; i < kAdapterStateCount; ++i) adapters_[i]->Set(static_cast<double>(counts[i]));
}

void PrometheusMetrics::AdapterLoaded(absl::Duration load) {
  adapter_load_seconds_.Observe(absl::ToDoubleSeconds(load));
}

void PrometheusMetrics::AdapterLoadFailed(absl::Time when) {
  last_load_failure_.Set(absl::ToDoubleSeconds(when - absl::UnixEpoch()));
}

void PrometheusMetrics::AddTiers() {
  auto& adapters = BuildGauge()
                       .Name("pricer_adapter_memory_adapters")
                       .Help("Adapter versions whose tensors are in memory, by kind of memory.")
                       .Register(*registry_);
  auto& bytes = BuildGauge()
                    .Name("pricer_adapter_memory_bytes")
                    .Help("Bytes of their tensors.")
                    .Register(*registry_);
  auto& evictions = BuildCounter()
                        .Name("pricer_adapter_evictions_total")
                        .Help("Adapter versions whose tensors made room for others.")
                        .Register(*registry_);
  auto& evicted_bytes = BuildCounter()
                            .Name("pricer_adapter_evicted_bytes_total")
                            .Help("Bytes of their tensors.")
                            .Register(*registry_);
  auto& fetch_seconds = BuildHistogram()
                            .Name("pricer_adapter_fetch_seconds")
                            .Help("Time to bring an adapter's tensors to the next faster memory.")
                            .Register(*registry_);
  for (int i = 0; i < kMemoryTierCount; ++i) {
    const auto tier = static_cast<MemoryTier>(i);
    TierSeries& series = tiers_[i];
    const std::string name(MemoryTierName(tier));
    if (tier != MemoryTier::kDevice) {
      series.fetch_seconds = &fetch_seconds.Add({{"from", name}}, kLoadSecondsBuckets);
    }
    if (tier == MemoryTier::kDisk) continue;
    series.adapters = &adapters.Add({{"tier", name}});
    series.bytes = &bytes.Add({{"tier", name}});
    series.evictions = &evictions.Add({{"tier", name}});
    series.evicted_bytes = &evicted_bytes.Add({{"tier", name}});
  }
}

AdapterKey PrometheusMetrics::CountItems(const AdapterKey& adapter, int64_t count) {
  std::optional<AdapterKey> displaced;
  const AdapterKey name = top_.Count(adapter, count, &displaced);
  if (displaced.has_value()) RemoveSeries(*displaced);
  return name;
}

void PrometheusMetrics::AdapterUnloaded(absl::Duration unload) {
  adapter_unload_seconds_.Observe(absl::ToDoubleSeconds(unload));
}

void PrometheusMetrics::AdapterMemoryChanged(MemoryTier tier, int64_t adapters, int64_t bytes) {
  const TierSeries& series = tiers_[static_cast<int>(tier)];
  series.adapters->Set(static_cast<double>(adapters));
  series.bytes->Set(static_cast<double>(bytes));
}

void PrometheusMetrics::AdapterFetched(MemoryTier from, absl::Duration time, bool ok) {
  if (ok) {
    tiers_[static_cast<int>(from)].fetch_seconds->Observe(absl::ToDoubleSeconds(time));
  } else {
    fetch_failures_.Increment();
  }
}

void PrometheusMetrics::AdapterEvicted(MemoryTier tier, int64_t bytes) {
  const TierSeries& series = tiers_[static_cast<int>(tier)];
  series.evictions->Increment();
  series.evicted_bytes->Increment(static_cast<double>(bytes));
}

void PrometheusMetrics::AdapterEnded(const AdapterKey& adapter) {
  MutexLock lock(&mutex_);
  top_.Remove(adapter);
  RemoveSeries(adapter);
}

void PrometheusMetrics::RemoveSeries(const AdapterKey& adapter) {
  for (Lane lane : kLanes) items_.Remove(&items_.Add(LabelsOf(lane, adapter)));
  shadow_log_ratio_.Remove(&shadow_log_ratio_.Add(LabelsOf(adapter), kLogRatioBuckets));
  outcome_log_error_.Remove(&outcome_log_error_.Add(LabelsOf(adapter), kLogRatioBuckets));
  outcome_absolute_log_error_.Remove(&outcome_absolute_log_error_.Add(LabelsOf(adapter)));
  for (const bool covered : {true, false}) {
    outcome_intervals_.Remove(&outcome_intervals_.Add(IntervalLabels(adapter, covered)));
  }
}

void PrometheusMetrics::AdapterRootReadable(bool readable) { root_readable_.Set(readable ? 1 : 0); }

void PrometheusMetrics::CertificateExpires(absl::Time when) {
  certificate_expiry_.Add({}).Set(absl::ToDoubleSeconds(when - absl::UnixEpoch()));
}

void PrometheusMetrics::ReadyChanged(bool ready) { ready_.Set(ready ? 1 : 0); }

void PrometheusMetrics::LabelMoved(absl::string_view label) {
  label_moves_.Add({{"label", KnownLabel(label)}}).Increment();
}

void PrometheusMetrics::ShadowCompared(const AdapterKey& shadow, double log_ratio) {
  MutexLock lock(&mutex_);
  shadow_log_ratio_.Add(LabelsOf(top_.NameOf(shadow)), kLogRatioBuckets).Observe(log_ratio);
}

void PrometheusMetrics::OutcomeReported(const AdapterKey& adapter, double log_error) {
  MutexLock lock(&mutex_);
  outcome_log_error_.Add(LabelsOf(top_.NameOf(adapter)), kLogRatioBuckets).Observe(log_error);
  outcome_absolute_log_error_.Add(LabelsOf(top_.NameOf(adapter))).Increment(std::abs(log_error));
}

void PrometheusMetrics::IntervalReported(const AdapterKey& adapter, bool covered) {
  MutexLock lock(&mutex_);
  outcome_intervals_.Add(IntervalLabels(top_.NameOf(adapter), covered)).Increment();
}

void PrometheusMetrics::ShadowFailed() { shadow_failures_.Increment(); }

}  // namespace pricer
