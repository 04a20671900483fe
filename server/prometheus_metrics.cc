#include "server/prometheus_metrics.h"

#include "absl/strings/str_cat.h"
#include "base/build_info.h"

namespace pricer {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using prometheus::Histogram;
using prometheus::Labels;
using prometheus::Registry;

// The one lane there is.
constexpr char kLane[] = "online";

// From a cached tiny model on a GPU to a long queue on a CPU.
const Histogram::BucketBoundaries kSecondsBuckets = {
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120};
const Histogram::BucketBoundaries kLoadSecondsBuckets = {0.01, 0.05, 0.1, 0.5, 1,   2.5, 5,
                                                         10,   30,   60,  120, 300, 600};
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
  return {{"lane", kLane}, {"adapter", adapter.name}, {"version", absl::StrCat(adapter.version)}};
}

const char* ReasonName(RefusalReason reason) {
  switch (reason) {
    case RefusalReason::kQueueFull:
      return "queue_full";
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
                 .Help("Items priced, by lane and adapter version.")
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
      queue_tokens_(Gauge(*registry_, "pricer_queue_tokens",
                          "Tokens that wait, as they are limited, by lane.", {{"lane", kLane}})),
      adapter_load_seconds_(MakeHistogram(*registry_, "pricer_adapter_load_seconds",
                                          "Time to read and check an adapter version.",
                                          kLoadSecondsBuckets)),
      last_load_failure_(Gauge(*registry_, "pricer_adapter_last_load_failure_timestamp_seconds",
                               "When an adapter version was last refused; 0 = never.")),
      root_readable_(Gauge(*registry_, "pricer_adapter_root_readable",
                           "Whether the last look at the adapter folder could read it.")) {
  auto& adapters = BuildGauge()
                       .Name("pricer_adapters")
                       .Help("Adapter versions known, by state.")
                       .Register(*registry_);
  for (int i = 0; i < kAdapterStateCount; ++i) {
    const auto state = static_cast<AdapterState>(i);
    adapters_[i] = &adapters.Add({{"state", std::string(AdapterStateName(state))}});
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

void PrometheusMetrics::ItemPriced(const AdapterKey& adapter) {
  items_.Add(LabelsOf(adapter)).Increment();
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

void PrometheusMetrics::QueueChanged(int64_t items, int64_t tokens) {
  queue_items_.Set(static_cast<double>(items));
  queue_tokens_.Set(static_cast<double>(tokens));
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
  items_.Remove(&items_.Add(LabelsOf(adapter)));
}

void PrometheusMetrics::AdapterRootReadable(bool readable) { root_readable_.Set(readable ? 1 : 0); }

}  // namespace pricer
