#pragma once

#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/process_group.h"
#include "trainer/training_state.h"

// What the processes of a tuning run tell each other before its first step. All of them call these
// together.

namespace pricer {

// Ok where every process was started with the same of what decides a run's bits. FailedPrecondition
// names the first entry that differs from rank 0's, or the rank that has one.
absl::Status CheckSameOnAllRanks(const std::map<std::string, std::string>& identity,
                                 ProcessGroup* group);

// Rank 0's state on every rank; absent where it has none. Only rank 0's `own` counts.
absl::StatusOr<std::optional<TrainingState>> ShareState(std::optional<TrainingState> own,
                                                        ProcessGroup* group);

}  // namespace pricer
