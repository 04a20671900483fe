#include "server/golden_checker.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

absl::Status StoppingError() { return absl::CancelledError("the server is stopping"); }

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

std::string ForeignWarning(const Manifest& manifest, const EngineInfo& info) {
  if (manifest.weights == info.weights && manifest.dtype == info.dtype) return "";
  const std::string dtype = manifest.dtype.empty() ? "an unknown dtype" : manifest.dtype;
  return absl::StrCat("tuned on ", manifest.weights, " weights in ", dtype, ", served on ",
                      info.weights, " weights in ", info.dtype);
}

absl::Status GoldenChecker::Check(const AdapterHandle& adapter, const TensorsHandle& tensors) {
  for (size_t i = 0; i < adapter->manifest.golden.size(); ++i) {
    RETURN_IF_ERROR(CheckItem(adapter, i, tensors));
  }
  return absl::OkStatus();
}

absl::Status GoldenChecker::CheckItem(const AdapterHandle& adapter, size_t index,
                                      const TensorsHandle& tensors) {
  const Manifest& manifest = adapter->manifest;
  const double tolerance = ForeignWarning(manifest, engine_->info()).empty()
                               ? manifest.golden_tolerance
                               : kForeignGoldenTolerance;
  ASSIGN_OR_RETURN(const PriceDistribution distribution,
                   PriceGolden(adapter, tensors, adapter, index));
  const GoldenItem& item = manifest.golden[index];
  const GoldenOutcome outcome = OutcomeOf(distribution, manifest, tolerance);
  RETURN_IF_ERROR(CheckNear(index, "price", item.price, outcome.price, tolerance));
  RETURN_IF_ERROR(CheckNear(index, "low", item.low, outcome.low, tolerance));
  return CheckNear(index, "high", item.high, outcome.high, tolerance);
}

absl::StatusOr<double> GoldenChecker::MeanShift(const AdapterHandle& adapter,
                                                const AdapterHandle& current) {
  const std::vector<GoldenItem>& items = adapter->manifest.golden;
  if (items.empty()) {
    return absl::FailedPreconditionError("the version has no golden items to be compared on");
  }
  if (adapter->manifest.currency != current->manifest.currency) {
    return absl::FailedPreconditionError(
        absl::StrCat("the version prices in ", adapter->manifest.currency, ", the current one in ",
                     current->manifest.currency));
  }
  double sum = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    ASSIGN_OR_RETURN(const PriceDistribution price, PriceGolden(adapter, nullptr, adapter, i));
    ASSIGN_OR_RETURN(const PriceDistribution before, PriceGolden(current, nullptr, adapter, i));
    sum += std::abs(std::log(price.Quantile(0.5) / before.Quantile(0.5)));
  }
  return sum / static_cast<double>(items.size());
}

void GoldenChecker::Cancel() {
  MutexLock lock(&state_->mutex);
  state_->cancelled = true;
  state_->changed.SignalAll();
}

absl::StatusOr<PriceDistribution> GoldenChecker::PriceGolden(const AdapterHandle& adapter,
                                                             const TensorsHandle& tensors,
                                                             const AdapterHandle& of,
                                                             size_t index) {
  absl::StatusOr<PriceDistribution> distribution =
      Price(adapter, tensors, of->manifest.golden[index].item);
  if (distribution.ok() || absl::IsCancelled(distribution.status())) return distribution;
  return absl::Status(distribution.status().code(),
                      absl::StrCat("golden item ", index, ": ", distribution.status().message()));
}

absl::StatusOr<PriceDistribution> GoldenChecker::Price(const AdapterHandle& adapter,
                                                       const TensorsHandle& tensors,
                                                       const std::string& item) {
  ASSIGN_OR_RETURN(EncodedPrompt prompt, engine_->Encode(adapter->manifest.prompt, item));
  const auto result = std::make_shared<std::optional<TaskResult>>();
  PriceTask task;
  task.ids = std::move(prompt.ids);
  task.adapter = adapter;
  task.tensors = tensors;
  task.extra_rows = adapter->extra_rows();
  task.internal = true;
  task.done = [state = state_, result](TaskResult outcome) {
    MutexLock lock(&state->mutex);
    *result = std::move(outcome);
    state->changed.SignalAll();
  };
  // An internal task without a deadline is refused by a scheduler that stops, and where its adapter
  // cannot be fetched.
  if (const absl::Status status = scheduler_->Schedule(std::move(task)); !status.ok()) {
    return absl::IsUnavailable(status) ? StoppingError() : status;
  }

  MutexLock lock(&state_->mutex);
  while (!result->has_value() && !state_->cancelled) state_->changed.Wait(&state_->mutex);
  if (state_->cancelled) return StoppingError();
  absl::StatusOr<PriceDistribution> distribution = std::move((*result)->distribution);
  if (absl::IsUnavailable(distribution.status())) return StoppingError();
  return distribution;
}

}  // namespace pricer
