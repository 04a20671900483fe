#include "trainer/launch_environment.h"

#include <cstdlib>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

absl::StatusOr<int> ReadNumber(const GetVariable& variable, const char* name, int low, int high) {
  const std::optional<std::string> text = variable(name);
  const std::string expected = absl::StrCat("; expected a whole number from ", low, " to ", high);
  if (!text.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("environment: ", name, " is not set, though RANK or WORLD_SIZE is", expected));
  }
  int value = 0;
  if (!absl::SimpleAtoi(*text, &value) || value < low || value > high) {
    return absl::InvalidArgumentError(
        absl::StrCat("environment: ", name, " is \"", *text, "\"", expected));
  }
  return value;
}

}  // namespace

std::optional<std::string> EnvironmentVariable(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr) return std::nullopt;
  return value;
}

absl::StatusOr<LaunchEnvironment> ReadLaunchEnvironment(const GetVariable& variable) {
  LaunchEnvironment launch;
  if (!variable("RANK").has_value() && !variable("WORLD_SIZE").has_value()) return launch;
  constexpr int kMostProcesses = 4096;
  ASSIGN_OR_RETURN(launch.size, ReadNumber(variable, "WORLD_SIZE", 1, kMostProcesses));
  ASSIGN_OR_RETURN(launch.rank, ReadNumber(variable, "RANK", 0, launch.size - 1));
  if (launch.size == 1) return launch;
  launch.master_address = variable("MASTER_ADDR").value_or("");
  if (launch.master_address.empty()) {
    return absl::InvalidArgumentError(
        "environment: MASTER_ADDR is not set; expected the address of rank 0");
  }
  ASSIGN_OR_RETURN(launch.master_port, ReadNumber(variable, "MASTER_PORT", 1, 65535));
  launch.agent_keeps_store = variable("TORCHELASTIC_USE_AGENT_STORE") == "True";
  launch.attempt = variable("TORCHELASTIC_RESTART_COUNT").value_or("0");
  return launch;
}

}  // namespace pricer
