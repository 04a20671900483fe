#include "trainer/launch_environment.h"

#include <gmock/gmock.h>

#include <map>

#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

absl::StatusOr<LaunchEnvironment> Read(const std::map<std::string, std::string>& variables) {
  return ReadLaunchEnvironment([&](const char* name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    if (found == variables.end()) return std::nullopt;
    return found->second;
  });
}

TEST(LaunchEnvironmentTest, IsOneProcessWhereNothingIsSet) {
  const auto launch = Read({{"MASTER_ADDR", "elsewhere"}});
  ASSERT_OK(launch);
  EXPECT_EQ(launch->rank, 0);
  EXPECT_EQ(launch->size, 1);
}

TEST(LaunchEnvironmentTest, OneProcessOfOneNeedsNoAddress) {
  const auto launch = Read({{"RANK", "0"}, {"WORLD_SIZE", "1"}});
  ASSERT_OK(launch);
  EXPECT_EQ(launch->size, 1);
}

TEST(LaunchEnvironmentTest, ReadsWhatTorchrunSets) {
  const auto launch = Read({{"RANK", "2"},
                            {"WORLD_SIZE", "4"},
                            {"MASTER_ADDR", "node-0"},
                            {"MASTER_PORT", "29500"},
                            {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                            {"TORCHELASTIC_RESTART_COUNT", "3"}});
  ASSERT_OK(launch);
  EXPECT_EQ(launch->rank, 2);
  EXPECT_EQ(launch->size, 4);
  EXPECT_EQ(launch->master_address, "node-0");
  EXPECT_EQ(launch->master_port, 29500);
  EXPECT_TRUE(launch->agent_keeps_store);
  EXPECT_EQ(launch->attempt, "3");
}

TEST(LaunchEnvironmentTest, NamesTheVariableThatIsWrong) {
  std::map<std::string, std::string> good = {
      {"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}, {"MASTER_PORT", "1"}};
  const auto expect = [&](const std::string& name, const std::string& value,
                          const std::string& part) {
    auto variables = good;
    variables[name] = value;
    EXPECT_THAT(Read(variables).status(),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(part)));
  };
  expect("RANK", "2", "RANK is \"2\"; expected a whole number from 0 to 1");
  expect("RANK", "-1", "RANK is \"-1\"");
  expect("WORLD_SIZE", "0", "WORLD_SIZE is \"0\"");
  expect("WORLD_SIZE", "two", "WORLD_SIZE is \"two\"");
  expect("MASTER_PORT", "70000", "MASTER_PORT is \"70000\"; expected a whole number from 1 to");
  expect("MASTER_ADDR", "", "MASTER_ADDR is not set");
  for (const char* name : {"RANK", "WORLD_SIZE", "MASTER_PORT"}) {
    auto variables = good;
    variables.erase(name);
    EXPECT_THAT(Read(variables).status(), StatusIs(absl::StatusCode::kInvalidArgument,
                                                   HasSubstr(std::string(name) + " is not set")));
  }
}

}  // namespace
}  // namespace pricer
