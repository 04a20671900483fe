#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "catalog/random.h"

namespace pricer {

// How the calls of an open loop are spread over time.
enum class ArrivalPattern {
  kPoisson,   // as of many callers that know nothing of each other
  kConstant,  // evenly
  kStep,      // Poisson, at a rate that rises in equal steps up to the whole one
};

// "poisson", "constant" or "step"; InvalidArgument names what came.
absl::StatusOr<ArrivalPattern> ParseArrivalPattern(absl::string_view name);

struct ArrivalOptions {
  ArrivalPattern pattern = ArrivalPattern::kPoisson;
  // Calls a second.
  double rate = 100;
  // Of kStep, each as long as the others.
  int steps = 5;
  absl::Duration duration = absl::Seconds(30);

  // InvalidArgument names the flag of `pricer load-test`.
  absl::Status Validate() const;
  int stage_count() const { return pattern == ArrivalPattern::kStep ? steps : 1; }
  // Calls a second of a stage, from 0.
  double RateOf(int stage) const;
  absl::Duration stage_duration() const { return duration / stage_count(); }
};

// When the calls of an open loop start. The same options and seed give the same times. One thread.
class Arrivals {
 public:
  struct Arrival {
    // Since the beginning; never less than the one before.
    absl::Duration time;
    int stage = 0;
  };

  // REQUIRES: options.Validate() is OK.
  Arrivals(const ArrivalOptions& options, uint64_t seed) : options_(options), random_(seed) {}

  // None after the last.
  std::optional<Arrival> Next();

 private:
  absl::Duration Gap();

  const ArrivalOptions options_;
  Random random_;
  absl::Duration time_;
  int stage_ = 0;
};

}  // namespace pricer
