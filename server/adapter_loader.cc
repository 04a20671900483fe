#include "server/adapter_loader.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/price_answer.h"

namespace pricer {
namespace {

absl::Status StoppingError() { return absl::CancelledError("the server is stopping"); }

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

absl::Status CheckNear(size_t index, absl::string_view what, double expected, double got,
                       double tolerance) {
  const double difference = std::abs(got - expected) / expected;
  if (difference <= tolerance) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("golden item ", index, ": expected ", what, " ", expected, ", got ", got, ", ",
                   100 * difference, " % off; at most ", 100 * tolerance, " % is tolerated"));
}

}  // namespace

AdapterLoader::AdapterLoader(const Engine* engine, BatchScheduler* scheduler)
    : engine_(engine), scheduler_(scheduler) {}

absl::StatusOr<AdapterHandle> AdapterLoader::Load(const std::string& directory) {
  ASSIGN_OR_RETURN(const std::shared_ptr<LoadedAdapter> adapter, engine_->LoadAdapter(directory));
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
    const PriceAnswer answer = AnswerFrom(*distribution, adapter->manifest, PriceOptions());
    RETURN_IF_ERROR(CheckNear(i, "price", items[i].price, answer.price, tolerance));
    RETURN_IF_ERROR(CheckNear(i, "low", items[i].low, answer.intervals[0].low, tolerance));
    RETURN_IF_ERROR(CheckNear(i, "high", items[i].high, answer.intervals[0].high, tolerance));
  }
  return absl::OkStatus();
}

absl::StatusOr<PriceDistribution> AdapterLoader::Price(const AdapterHandle& adapter,
                                                       const std::string& item) {
  ASSIGN_OR_RETURN(EncodedPrompt prompt, engine_->Encode(adapter->manifest.prompt, item));
  PriceTask task;
  task.ids = std::move(prompt.ids);
  task.adapter = adapter;
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
