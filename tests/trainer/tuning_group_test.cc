// Several processes of the program itself, as torchrun would start them.

#include "trainer/tuning_group.h"

#include <gmock/gmock.h>
#include <signal.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/exit_codes.h"
#include "base/file.h"
#include "model/safetensors.h"
#include "tests/testing/free_port.h"
#include "tests/testing/process.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"

namespace pricer {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using testing::Process;
using testing::TempDir;

class TuningGroupTest : public ::testing::Test {
 protected:
  using Arguments = std::vector<std::string>;

  void SetUp() override {
    ASSERT_OK(testing::WriteTinyCheckpoint(dir_.File("base")));
    std::string items;
    for (int i = 0; i < 96; ++i) {
      absl::StrAppend(&items, "{\"title\":\"product ", i % 16, " of ", i,
                      i % 3 == 0 ? ", with a longer text behind it" : "",
                      "\",\"price\":", 10 + 7 * (i % 16), "}\n");
    }
    ASSERT_OK(WriteFile(dir_.File("items.jsonl"), items));
  }

  Arguments Tune(const std::string& name, const Arguments& more) const {
    Arguments arguments = {"tune",
                           "--base",
                           dir_.File("base"),
                           "--data",
                           dir_.File("items.jsonl"),
                           "--validation",
                           dir_.File("items.jsonl"),
                           "--output",
                           dir_.File("adapters"),
                           "--name",
                           name,
                           "--runs",
                           dir_.File("runs"),
                           "--validation-items",
                           "16",
                           "--micro-batch-tokens",
                           "256",
                           "--lora-r",
                           "4",
                           "--dtype",
                           "fp32",
                           "--threads",
                           "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  using Group = std::vector<std::unique_ptr<Process>>;

  // `arguments` of each rank.
  Group Start(const std::string& name, const std::vector<Arguments>& arguments) const {
    const int port = testing::FreePort();
    Group group;
    for (size_t rank = 0; rank < arguments.size(); ++rank) {
      Arguments command = {absl::StrCat("RANK=", rank),
                           absl::StrCat("WORLD_SIZE=", arguments.size()), "MASTER_ADDR=127.0.0.1",
                           absl::StrCat("MASTER_PORT=", port), PRICER_TRAINER_PROGRAM};
      command.insert(command.end(), arguments[rank].begin(), arguments[rank].end());
      group.push_back(std::make_unique<Process>("/usr/bin/env", command,
                                                dir_.File(absl::StrCat(name, "-", rank))));
    }
    return group;
  }

  void RunGroup(int size, const std::string& name, const Arguments& more) const {
    const Group group = Start(name, std::vector<Arguments>(size, Tune(name, more)));
    for (const auto& process : group) {
      EXPECT_EQ(process->Wait(), kExitDone) << process->ErrorOutput();
    }
  }

  void RunAlone(const std::string& name, const Arguments& more) const {
    Process alone(PRICER_TRAINER_PROGRAM, Tune(name, more), dir_.File(name));
    EXPECT_EQ(alone.Wait(), kExitDone) << alone.ErrorOutput();
  }

  std::string Run(const std::string& name) const { return dir_.File("runs/" + name + "-1"); }

  std::vector<nlohmann::json> Steps(const std::string& name) const {
    std::vector<nlohmann::json> steps;
    const std::string lines = *ReadFile(Run(name) + "/metrics.jsonl");
    for (absl::string_view line : absl::StrSplit(lines, '\n', absl::SkipEmpty())) {
      nlohmann::json json = nlohmann::json::parse(line);
      if (json.contains("loss") || json.contains("validation")) steps.push_back(std::move(json));
    }
    return steps;
  }

  static void ExpectNear(double one, double two, const std::string& what) {
    EXPECT_NEAR(one, two, 1e-6 * std::max(1.0, std::abs(two))) << what;
  }

  // Losses, gradient norms and validations, the published tensors and the manifest's results.
  void ExpectSameRuns(const std::string& one, const std::string& two) const {
    const auto ours = Steps(one);
    const auto theirs = Steps(two);
    ASSERT_EQ(ours.size(), theirs.size());
    for (size_t i = 0; i < ours.size(); ++i) {
      const std::string what = absl::StrCat("line ", i);
      if (ours[i].contains("validation")) {
        ExpectNear(ours[i]["validation"]["crps"], theirs[i].at("validation")["crps"], what);
        continue;
      }
      for (const char* field : {"loss", "gradient_norm", "rows", "tokens", "learning_rate"}) {
        ExpectNear(ours[i].at(field), theirs[i].at(field), what + field);
      }
    }
    ExpectSameTensors(one, two);
  }

  std::string Adapter(const std::string& name) const {
    return dir_.File("adapters/" + name + "/1/adapter_model.safetensors");
  }

  void ExpectSameTensors(const std::string& one, const std::string& two) const {
    const auto ours = SafetensorsFile::Open(Adapter(one));
    const auto theirs = SafetensorsFile::Open(Adapter(two));
    ASSERT_OK(ours);
    ASSERT_OK(theirs);
    ASSERT_EQ((*ours)->tensors().size(), (*theirs)->tensors().size());
    for (const auto& [name, view] : (*ours)->tensors()) {
      const TensorView& other = (*theirs)->tensors().at(name);
      ASSERT_EQ(view.shape, other.shape) << name;
      const auto* a = reinterpret_cast<const float*>(view.data.data());
      const auto* b = reinterpret_cast<const float*>(other.data.data());
      for (size_t i = 0; i < view.data.size() / sizeof(float); ++i) {
        ASSERT_NEAR(a[i], b[i], 1e-6) << name << "[" << i << "]";
      }
    }
  }

  TempDir dir_;
};

const std::vector<std::string> kShort = {"--max-steps",    "6",  "--validation-every", "3",
                                         "--batch-tokens", "600"};

std::vector<std::string> With(std::vector<std::string> arguments,
                              const std::vector<std::string>& more) {
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

TEST_F(TuningGroupTest, TwoProcessesTuneAsOneDoes) {
  const auto options = With(kShort, {"--lora-dropout", "0.1"});
  RunAlone("one", options);
  RunGroup(2, "two", options);
  ExpectSameRuns("two", "one");
}

TEST_F(TuningGroupTest, TwoProcessesTuneATokenHeadAsOneDoes) {
  const auto options = With(kShort, {"--head", "token", "--lora-dropout", "0.1"});
  RunAlone("one", options);
  RunGroup(2, "two", options);
  ExpectSameRuns("two", "one");
}

// Steps of two items leave one of three ranks without any; the last step has one.
TEST_F(TuningGroupTest, ARankWithoutItemsTakesPartInTheStep) {
  const std::vector<std::string> options = {"--max-steps",   "5", "--validation-every", "5",
                                            "--batch-items", "2"};
  RunAlone("one", options);
  RunGroup(3, "three", options);
  ExpectSameRuns("three", "one");
}

constexpr char kMany[] = "200";

TEST_F(TuningGroupTest, ARankThatDiesIsNamedAndTheRunGoesOn) {
  const std::vector<std::string> options = {"--max-steps",    kMany, "--validation-every", "100",
                                            "--batch-tokens", "300", "--save-minutes",     "1000"};
  RunGroup(2, "whole", options);
  const Group group = Start("killed", std::vector<Arguments>(2, Tune("killed", options)));
  ASSERT_NE(group[0]->WaitForErrorLine("after step 100"), "") << group[0]->ErrorOutput();
  group[1]->Signal(SIGKILL);
  EXPECT_EQ(group[0]->Wait(), kExitResumable) << group[0]->ErrorOutput();
  EXPECT_THAT(group[0]->ErrorOutput(), HasSubstr("rank 1 has stopped"));
  EXPECT_THAT(group[0]->ErrorOutput(), HasSubstr("--resume " + Run("killed")));

  const auto resumed = With(options, {"--resume", Run("killed")});
  RunGroup(2, "killed", resumed);
  EXPECT_EQ(*ReadFile(Adapter("killed")), *ReadFile(Adapter("whole")));
}

TEST_F(TuningGroupTest, WhereRank0DiesTheOthersNameIt) {
  const std::vector<std::string> options = {"--max-steps",    "100000", "--validation-every", "100",
                                            "--batch-tokens", "300",    "--save-minutes",     "0"};
  const Group group = Start("killed", std::vector<Arguments>(2, Tune("killed", options)));
  ASSERT_NE(group[0]->WaitForErrorLine("after step 100"), "") << group[0]->ErrorOutput();
  group[0]->Signal(SIGKILL);
  EXPECT_EQ(group[1]->Wait(), kExitResumable) << group[1]->ErrorOutput();
  EXPECT_THAT(group[1]->ErrorOutput(), HasSubstr("rank 1: rank 0 has stopped"));
}

TEST_F(TuningGroupTest, ASignalToOneRankEndsAllAndTheRunGoesOnWithAnotherNumber) {
  const std::vector<std::string> options = {"--max-steps",    "40",  "--validation-every", "20",
                                            "--batch-tokens", "300", "--save-minutes",     "1000"};
  RunAlone("whole", options);
  const Group group = Start("stopped", std::vector<Arguments>(2, Tune("stopped", options)));
  ASSERT_NE(group[0]->WaitForErrorLine("after step 20"), "") << group[0]->ErrorOutput();
  group[1]->Signal(SIGTERM);
  EXPECT_THAT(group[0]->Wait(), AnyOf(kExitResumable, kExitDone)) << group[0]->ErrorOutput();
  EXPECT_THAT(group[1]->Wait(), AnyOf(kExitResumable, kExitDone)) << group[1]->ErrorOutput();
  if (!std::filesystem::exists(Run("stopped") + "/published.json")) {
    RunAlone("stopped", With(options, {"--resume", Run("stopped")}));
  }
  ExpectSameTensors("stopped", "whole");
}

TEST_F(TuningGroupTest, ARankWithOtherOptionsIsNamed) {
  const Group group =
      Start("differs", {Tune("differs", kShort), Tune("differs", With(kShort, {"--lr", "0.001"}))});
  EXPECT_EQ(group[0]->Wait(), kExitFailed);
  EXPECT_EQ(group[1]->Wait(), kExitFailed);
  EXPECT_THAT(group[0]->ErrorOutput(), HasSubstr("rank 1 cannot go on"));
  EXPECT_THAT(group[1]->ErrorOutput(),
              HasSubstr("rank 1: lr is \"0.001\" and on rank 0 \"0.0002\""));
}

TEST_F(TuningGroupTest, AWrongEnvironmentIsWrongUsage) {
  Arguments command = {"RANK=2", "WORLD_SIZE=2", PRICER_TRAINER_PROGRAM};
  for (const std::string& argument : Tune("wrong", kShort)) command.push_back(argument);
  Process process("/usr/bin/env", command, dir_.File("wrong"));
  EXPECT_EQ(process.Wait(), kExitWrongUsage);
  EXPECT_THAT(process.ErrorOutput(),
              HasSubstr("RANK is \"2\"; expected a whole number from 0 to 1"));
}

}  // namespace
}  // namespace pricer
