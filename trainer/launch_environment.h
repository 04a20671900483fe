#pragma once

#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace pricer {

// Which of several processes this one is, as torchrun says in the environment.
struct LaunchEnvironment {
  int rank = 0;
  int size = 1;
  // Where the store is through which the processes find each other. torchrun's agent keeps it; else
  // rank 0 does.
  std::string master_address;
  int master_port = 0;
  bool agent_keeps_store = false;
  // Of torchrun, which starts all processes anew where one fails; each start has names of its own
  // in the store.
  std::string attempt = "0";
};

// The value of a variable; absent where it is not set.
using GetVariable = std::function<std::optional<std::string>(const char* name)>;
std::optional<std::string> EnvironmentVariable(const char* name);

// From RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, TORCHELASTIC_USE_AGENT_STORE and
// TORCHELASTIC_RESTART_COUNT; one process alone where neither of the first two is set.
// InvalidArgument names the variable, what was expected and what came.
absl::StatusOr<LaunchEnvironment> ReadLaunchEnvironment(
    const GetVariable& variable = EnvironmentVariable);

}  // namespace pricer
