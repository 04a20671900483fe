#include "server/adapter_loader.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

absl::Status StoppingError() { return absl::CancelledError("the server is stopping"); }

// Of a directory without a manifest.
bool IsPlain(const Manifest& manifest) { return manifest.base_fingerprint.empty(); }

std::string PlainWarning(const Manifest& manifest) {
  return absl::StrCat("no pricer.json: read with the base's own head and the prompt of the preset ",
                      manifest.prompt.preset, ", in ", manifest.currency,
                      "; neither that it was made for this base nor its prices could be checked");
}

std::string ForeignWarning(const Manifest& manifest, const EngineInfo& info) {
  if (manifest.weights == info.weights && manifest.dtype == info.dtype) return "";
  const std::string dtype = manifest.dtype.empty() ? "an unknown dtype" : manifest.dtype;
  return absl::StrCat("tuned on ", manifest.weights, " weights in ", dtype, ", served on ",
                      info.weights, " weights in ", info.dtype);
}

void AddWarning(absl::string_view warning, LoadedAdapter* adapter) {
  if (warning.empty()) return;
  absl::StrAppend(&adapter->warning, adapter->warning.empty() ? "" : "; ", warning);
}

// What comes out for a golden item: anything between the two.
struct Outcome {
  Outcome(double a, double b) : from(std::min(a, b)), to(std::max(a, b)) {}
  double from;
  double to;
};
struct GoldenOutcome {
  Outcome price;
  Outcome low;
  Outcome high;
};

// A quantile of whole prices jumps, from 99 to 149 perhaps, as soon as the least mass crosses its
// level: there the tolerance is one of mass as well, and whatever lies between comes out.
GoldenOutcome OutcomeOf(const PriceDistribution& distribution, const Manifest& manifest,
                        double tolerance) {
  const double mass =
      manifest.head == HeadKind::kToken ? std::min(tolerance, kForeignGoldenTolerance) : 0.0;
  const double offset = manifest.ConformalOffset(kDefaultIntervalCoverage);
  const PriceInterval wide =
      distribution.CentralInterval(kDefaultIntervalCoverage + 2 * mass, offset);
  const PriceInterval narrow =
      distribution.CentralInterval(kDefaultIntervalCoverage - 2 * mass, offset);
  return {.price = {distribution.Quantile(0.5 - mass), distribution.Quantile(0.5 + mass)},
          .low = {wide.low, narrow.low},
          .high = {narrow.high, wide.high}};
}

absl::Status CheckNear(size_t index, absl::string_view what, double expected, Outcome got,
                       double tolerance) {
  const double nearest = std::clamp(expected, got.from, got.to);
  const double difference = std::abs(nearest - expected) / expected;
  if (difference <= tolerance) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("golden item ", index, ": expected ", what, " ", expected, ", got ", nearest,
                   ", ", 100 * difference, " % off; at most ", 100 * tolerance, " % is tolerated"));
}

}  // namespace

AdapterLoader::AdapterLoader(const Engine* engine, BatchScheduler* scheduler)
    : engine_(engine), scheduler_(scheduler) {}

absl::StatusOr<AdapterHandle> AdapterLoader::Load(const std::string& directory) {
  ASSIGN_OR_RETURN(const std::shared_ptr<LoadedAdapter> adapter, engine_->LoadAdapter(directory));
  if (IsPlain(adapter->manifest)) {
    AddWarning(PlainWarning(adapter->manifest), adapter.get());
    return adapter;
  }
  const std::string foreign = ForeignWarning(adapter->manifest, engine_->info());
  AddWarning(foreign, adapter.get());
  if (adapter->manifest.golden.empty()) {
    AddWarning("the manifest has no golden items to check its prices with", adapter.get());
  }
  RETURN_IF_ERROR(CheckGoldenItems(
      adapter, foreign.empty() ? adapter->manifest.golden_tolerance : kForeignGoldenTolerance));
  return adapter;
}

void AdapterLoader::Cancel() {
  MutexLock lock(&wait_->mutex);
  wait_->cancelled = true;
  wait_->changed.SignalAll();
}

absl::Status AdapterLoader::CheckGoldenItems(const AdapterHandle& adapter, double tolerance) {
  const std::vector<GoldenItem>& items = adapter->manifest.golden;
  for (size_t i = 0; i < items.size(); ++i) {
    absl::StatusOr<PriceDistribution> distribution = Price(adapter, items[i].item);
    if (absl::IsCancelled(distribution.status())) return distribution.status();
    if (!distribution.ok()) {
      return absl::Status(distribution.status().code(),
                          absl::StrCat("golden item ", i, ": ", distribution.status().message()));
    }
    const GoldenOutcome outcome = OutcomeOf(*distribution, adapter->manifest, tolerance);
    RETURN_IF_ERROR(CheckNear(i, "price", items[i].price, outcome.price, tolerance));
    RETURN_IF_ERROR(CheckNear(i, "low", items[i].low, outcome.low, tolerance));
    RETURN_IF_ERROR(CheckNear(i, "high", items[i].high, outcome.high, tolerance));
  }
  return absl::OkStatus();
}

absl::StatusOr<PriceDistribution> AdapterLoader::Price(const AdapterHandle& adapter,
                                                       const std::string& item) {
  ASSIGN_OR_RETURN(EncodedPrompt prompt, engine_->Encode(adapter->manifest.prompt, item));
  PriceTask task;
  task.ids = std::move(prompt.ids);
  task.adapter = adapter;
  task.extra_rows = adapter->extra_rows();
  task.internal = true;
  task.done = [wait = wait_](TaskResult result) {
    MutexLock lock(&wait->mutex);
    wait->result = std::move(result);
    wait->changed.SignalAll();
  };
  // An internal task without a deadline is refused by a scheduler that stops, and for nothing else.
  if (!scheduler_->Schedule(std::move(task)).ok()) return StoppingError();

  MutexLock lock(&wait_->mutex);
  while (!wait_->result.has_value() && !wait_->cancelled) wait_->changed.Wait(&wait_->mutex);
  if (wait_->cancelled) return StoppingError();
  absl::StatusOr<PriceDistribution> distribution = std::move(wait_->result->distribution);
  wait_->result.reset();
  if (absl::IsUnavailable(distribution.status())) return StoppingError();
  return distribution;
}

}  // namespace pricer
