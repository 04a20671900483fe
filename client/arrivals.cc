#include "client/arrivals.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace pricer {
namespace {

constexpr double kMaxRate = 1'000'000;
constexpr int kMaxSteps = 1000;

}  // namespace

absl::StatusOr<ArrivalPattern> ParseArrivalPattern(absl::string_view name) {
  if (name == "poisson") return ArrivalPattern::kPoisson;
  if (name == "constant") return ArrivalPattern::kConstant;
  if (name == "step") return ArrivalPattern::kStep;
  return absl::InvalidArgumentError(
      absl::StrCat("--arrivals: expected poisson, constant, step or closed, got \"", name, "\""));
}

absl::Status ArrivalOptions::Validate() const {
  if (!(rate > 0 && rate <= kMaxRate)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--rate: expected calls a second, above 0 and up to 1000000, got ", rate));
  }
  if (steps < 1 || steps > kMaxSteps) {
    return absl::InvalidArgumentError(
        absl::StrCat("--steps: expected a number from 1 to ", kMaxSteps, ", got ", steps));
  }
  if (duration <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--duration: expected more than 0s, got ", absl::FormatDuration(duration)));
  }
  return absl::OkStatus();
}

double ArrivalOptions::RateOf(int stage) const {
  return rate * static_cast<double>(stage + 1) / stage_count();
}

absl::Duration Arrivals::Gap() {
  const double mean = 1 / options_.RateOf(stage_);
  if (options_.pattern == ArrivalPattern::kConstant) return absl::Seconds(mean);
  // Times between the arrivals of a Poisson process are exponential.
  return absl::Seconds(-std::log1p(-random_.Uniform()) * mean);
}

std::optional<Arrivals::Arrival> Arrivals::Next() {
  while (stage_ < options_.stage_count()) {
    const absl::Duration end = options_.stage_duration() * (stage_ + 1);
    const absl::Duration next = time_ + Gap();
    if (next < end) {
      time_ = next;
      return Arrival{time_, stage_};
    }
    // A Poisson process forgets: the next stage may begin anew at its own rate.
    time_ = end;
    ++stage_;
  }
  return std::nullopt;
}

}  // namespace pricer
