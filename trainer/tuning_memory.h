#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "trainer/base_model.h"
#include "trainer/memory_plan.h"
#include "trainer/tuning_inputs.h"
#include "trainer/tuning_options.h"

namespace pricer {

// How LoadNetwork will load the base. A GPU that is asked for need not be in this machine. What
// stays on it where the options say "auto": what fits half of `budget_bytes`, or without one half
// of the free memory; NF4 where there is no GPU to ask.
absl::StatusOr<WeightsPlan> WeightsPlanOf(const BaseOptions& options, const Checkpoint& checkpoint,
                                          const std::optional<int64_t>& budget_bytes);

// Of a typical prompt where no data says more, tokens.
inline constexpr int64_t kTypicalPromptTokens = 128;
// Of a price as the token head says it: digits, a point, digits, the end.
inline constexpr int64_t kTypicalPriceTokens = 4;

// How the run fits --memory-budget, by the lengths of its training items, or by those that the
// options allow where they are not read yet. FailedPrecondition where it cannot.
// REQUIRES: options.memory_budget_bytes.
absl::StatusOr<TuningFit> FitMemoryBudget(const TuningOptions& options, const TuningInputs& inputs);

// To standard error, for people.
void DescribeFit(const TuningOptions& options, const TuningFit& fit);

}  // namespace pricer
