#include "server/prometheus_metrics.h"

#include <cmath>

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

Labels LabelsOf(Lane lane, const AdapterKey& adapter) {
  return {{"lane", std::string(LaneName(lane))},
          {"adapter", adapter.name},
          {"version", absl::StrCat(adapter.version)}};
}

Labels LabelsOf(const AdapterKey& adapter) {
  return {{"adapter", adapter.name}, {"version", absl::StrCat(adapter.version)}};
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
  }
  return "unknown";
}

}  // namespace

PrometheusMetrics::PrometheusMetrics()
    : registry_(std::make_shared<Registry>()),
      requests_(BuildCounter()
                    .Name("pricer_requests_total")
                    .Help("Calls that ended, by method and gRPC status code.")
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
      queue_seconds_(MakeHistogram(*registry_, "pricer_queue_seconds",
                                   "Time of an item from admission to the start of its batch.",
                                   kSecondsBuckets)),
      compute_seconds_(MakeHistogram(*registry_, "pricer_compute_seconds",
                                     "Time that a batch is computed.", kSecondsBuckets)),
      queue_items_(Gauge(*registry_, "pricer_queue_items", "Items that wait.")),
      cache_hits_(Counter(*registry_, "pricer_cache_hits_total",
                          "Items whose prices were kept from before.")),
      coalesced_(Counter(*registry_, "pricer_coalesced_total",
                         "Items that were being computed for another call.")),
      cache_bytes_(Gauge(*registry_, "pricer_cache_bytes", "Bytes of prices that are kept.")),
      adapter_load_seconds_(MakeHistogram(*registry_, "pricer_adapter_load_seconds",
                                          "Time to read and check an adapter version.",
                                          kLoadSecondsBuckets)),
      last_load_failure_(Gauge(*registry_, "pricer_adapter_last_load_failure_timestamp_seconds",
                               "When an adapter version was last refused; 0 = never.")),
      root_readable_(Gauge(*registry_, "pricer_adapter_root_readable",
                           "Whether the last look at the adapter folder could read it.")),
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
                             .Register(*registry_)) {
  auto& adapters = BuildGauge()
                       .Name("pricer_adapters")
                       .Help("Adapter versions known, by state.")
                       .Register(*registry_);
  for (int i = 0; i < kAdapterStateCount; ++i) {
    const auto state = static_cast<AdapterState>(i);
    adapters_[i] = &adapters.Add({{"state", std::string(AdapterStateName(state))}});
  }
  auto& queue_tokens = BuildGauge()
                           .Name("pricer_queue_tokens")
                           .Help("Tokens that wait, as they are limited, by lane.")
                           .Register(*registry_);
  for (Lane lane : kLanes) {
    queue_tokens_[static_cast<int>(lane)] =
        &queue_tokens.Add({{"lane", std::string(LaneName(lane))}});
  }
  auto& refused = BuildCounter()
                      .Name("pricer_admission_refused_total")
                      .Help("Items that the queue did not take, by reason.")
                      .Register(*registry_);
  for (int i = 0; i < kRefusalReasonCount; ++i) {
    refused_[i] = &refused.Add({{"reason", ReasonName(static_cast<RefusalReason>(i))}});
  }
}

void PrometheusMetrics::DescribeBuild(const std::string& device) {
  Gauge(*registry_, "pricer_build_info", "Always 1; its labels say what runs.",
        {{"version", std::string(BuildVersion())},
         {"commit", std::string(BuildCommit())},
         {"device", device}})
      .Set(1);
}

void PrometheusMetrics::CallEnded(absl::string_view method, absl::StatusCode code) {
  requests_.Add({{"method", std::string(method)}, {"code", absl::StatusCodeToString(code)}})
      .Increment();
}

void PrometheusMetrics::ItemPriced(Lane lane, const AdapterKey& adapter) {
  items_.Add(LabelsOf(lane, adapter)).Increment();
}

void PrometheusMetrics::BatchComputed(int64_t items, int64_t tokens, absl::Duration compute) {
  tokens_.Increment(static_cast<double>(tokens));
  batch_items_.Observe(static_cast<double>(items));
  batch_tokens_.Observe(static_cast<double>(tokens));
  compute_seconds_.Observe(absl::ToDoubleSeconds(compute));
}

void PrometheusMetrics::TaskWaited(absl::Duration queue) {
  queue_seconds_.Observe(absl::ToDoubleSeconds(queue));
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

void PrometheusMetrics::AdapterEnded(const AdapterKey& adapter) {
  for (Lane lane : kLanes) items_.Remove(&items_.Add(LabelsOf(lane, adapter)));
  shadow_log_ratio_.Remove(&shadow_log_ratio_.Add(LabelsOf(adapter), kLogRatioBuckets));
  outcome_log_error_.Remove(&outcome_log_error_.Add(LabelsOf(adapter), kLogRatioBuckets));
  outcome_absolute_log_error_.Remove(&outcome_absolute_log_error_.Add(LabelsOf(adapter)));
  for (const bool covered : {true, false}) {
    outcome_intervals_.Remove(&outcome_intervals_.Add(IntervalLabels(adapter, covered)));
  }
}

void PrometheusMetrics::AdapterRootReadable(bool readable) { root_readable_.Set(readable ? 1 : 0); }

void PrometheusMetrics::ReadyChanged(bool ready) { ready_.Set(ready ? 1 : 0); }

void PrometheusMetrics::LabelMoved(absl::string_view label) {
  label_moves_.Add({{"label", KnownLabel(label)}}).Increment();
}

void PrometheusMetrics::ShadowCompared(const AdapterKey& shadow, double log_ratio) {
  shadow_log_ratio_.Add(LabelsOf(shadow), kLogRatioBuckets).Observe(log_ratio);
}

void PrometheusMetrics::OutcomeReported(const AdapterKey& adapter, double log_error) {
  outcome_log_error_.Add(LabelsOf(adapter), kLogRatioBuckets).Observe(log_error);
  outcome_absolute_log_error_.Add(LabelsOf(adapter)).Increment(std::abs(log_error));
}

void PrometheusMetrics::IntervalReported(const AdapterKey& adapter, bool covered) {
  outcome_intervals_.Add(IntervalLabels(adapter, covered)).Increment();
}

void PrometheusMetrics::ShadowFailed() { shadow_failures_.Increment(); }

}  // namespace pricer
