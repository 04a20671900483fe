// The program itself, stopped at any moment: what it publishes in the end is the same to the byte.

#include <gmock/gmock.h>
#include <signal.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/exit_codes.h"
#include "base/file.h"
#include "tests/testing/process.h"
#include "tests/testing/small_disk.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"
#include "trainer/checkpoint_store.h"

namespace pricer {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Process;
using testing::SmallDisk;
using testing::TempDir;

class ResumeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(testing::WriteTinyCheckpoint(dir_.File("base")));
    std::string items;
    for (int i = 0; i < 256; ++i) {
      absl::StrAppend(&items, "{\"title\":\"product ", i % 16, " of ", i,
                      "\",\"price\":", 10 + 7 * (i % 16), "}\n");
    }
    ASSERT_OK(WriteFile(dir_.File("items.jsonl"), items));
  }

  std::vector<std::string> Arguments(const std::string& name, int steps) const {
    return {"tune",
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
            "--max-steps",
            absl::StrCat(steps),
            "--validation-every",
            "20",
            "--validation-items",
            "16",
            "--batch-tokens",
            "512",
            "--micro-batch-tokens",
            "256",
            "--lora-r",
            "4",
            "--dtype",
            "fp32",
            "--threads",
            "1",
            "--save-minutes",
            "0"};
  }

  std::vector<std::string> Resumed(const std::string& name, int steps) const {
    std::vector<std::string> arguments = Arguments(name, steps);
    arguments.insert(arguments.end(), {"--resume", Run(name)});
    return arguments;
  }

  std::string Run(const std::string& name) const { return dir_.File("runs/" + name + "-1"); }

  bool HasCheckpoint(const std::string& name) const {
    return CheckpointStore(Run(name) + "/checkpoints", 1).FindNewest().ok();
  }

  // The folder that a run has published.
  std::string Published(const std::string& name) const {
    const nlohmann::json json = nlohmann::json::parse(*ReadFile(Run(name) + "/published.json"));
    return json.at("directory").get<std::string>();
  }

  void ExpectSameAdapters(const std::string& one, const std::string& two) const {
    for (const char* file :
         {"/pricer.json", "/adapter_model.safetensors", "/adapter_config.json", "/_READY"}) {
      EXPECT_EQ(*ReadFile(Published(one) + file), *ReadFile(Published(two) + file)) << file;
    }
  }

  TempDir dir_;
};

TEST_F(ResumeTest, RunsKilledAtTwentyMomentsPublishTheSameBytes) {
  constexpr int kKills = 20;
  constexpr int kSteps = 200;
  const absl::Time start = absl::Now();
  Process whole(PRICER_TRAINER_PROGRAM, Arguments("whole", kSteps), dir_.File("whole"));
  ASSERT_EQ(whole.Wait(), kExitDone) << whole.ErrorOutput();
  // So that the moments fall into start, steps, saves, validations and publication.
  const absl::Duration life = (absl::Now() - start) / 4;

  std::mt19937 random(7);
  std::uniform_real_distribution<double> share(0.1, 1.9);
  int kills = 0;
  for (int run = 0; kills < kKills; ++run) {
    const std::string name = absl::StrCat("killed-", run);
    while (!std::filesystem::exists(Run(name) + "/published.json")) {
      const bool begun = HasCheckpoint(name);
      if (!begun) std::filesystem::remove_all(Run(name));
      Process killed(PRICER_TRAINER_PROGRAM,
                     begun ? Resumed(name, kSteps) : Arguments(name, kSteps), dir_.File(name));
      const int exit_code = killed.Wait(share(random) * life);
      if (exit_code == kExitDone) continue;
      ASSERT_EQ(exit_code, -1) << killed.ErrorOutput();
      killed.Signal(SIGKILL);
      const int ended = killed.Wait();
      ASSERT_THAT(ended, AnyOf(128 + SIGKILL, kExitDone));  // it may have ended just then
      if (ended != kExitDone) ++kills;
    }
    ExpectSameAdapters("whole", name);
  }
}

TEST_F(ResumeTest, ARunThatIsAskedToStopSavesAndGoesOn) {
  constexpr int kSteps = 60;
  Process whole(PRICER_TRAINER_PROGRAM, Arguments("whole", kSteps), dir_.File("whole"));
  Process stopped(PRICER_TRAINER_PROGRAM, Arguments("stopped", kSteps), dir_.File("stopped"));
  ASSERT_NE(stopped.WaitForErrorLine("tuning 1/"), "");
  stopped.Signal(SIGTERM);
  ASSERT_EQ(stopped.Wait(), kExitResumable) << stopped.ErrorOutput();
  EXPECT_THAT(stopped.ErrorOutput(), HasSubstr("--resume " + Run("stopped")));
  EXPECT_FALSE(std::filesystem::exists(dir_.File("adapters/stopped/1")));
  const nlohmann::json state =
      nlohmann::json::parse(*ReadFile(Run("stopped") + "/trainer_state.json"));
  EXPECT_EQ(state.at("max_steps"), kSteps);
  EXPECT_GE(state.at("global_step"), 1);

  Process resumed(PRICER_TRAINER_PROGRAM, Resumed("stopped", kSteps), dir_.File("resumed"));
  ASSERT_EQ(resumed.Wait(), kExitDone) << resumed.ErrorOutput();
  EXPECT_THAT(resumed.ErrorOutput(), HasSubstr("going on from " + Run("stopped")));
  ASSERT_EQ(whole.Wait(), kExitDone) << whole.ErrorOutput();
  ExpectSameAdapters("whole", "stopped");
}

// One command that a job repeats until it is done.
TEST_F(ResumeTest, TheLatestRunGoesOnAndIsNotDoneTwice) {
  constexpr int kSteps = 60;
  std::vector<std::string> arguments = Arguments("job", kSteps);
  arguments.insert(arguments.end(), {"--resume", "latest"});
  // A run that was killed before it had saved anything is left alone.
  std::filesystem::create_directories(dir_.File("runs/job-1"));
  const std::string run = dir_.File("runs/job-2");
  {
    Process stopped(PRICER_TRAINER_PROGRAM, arguments, dir_.File("stopped"));
    ASSERT_NE(stopped.WaitForErrorLine("tuning 1/"), "");
    stopped.Signal(SIGTERM);
    ASSERT_EQ(stopped.Wait(), kExitResumable) << stopped.ErrorOutput();
  }
  Process resumed(PRICER_TRAINER_PROGRAM, arguments, dir_.File("resumed"));
  ASSERT_EQ(resumed.Wait(), kExitDone) << resumed.ErrorOutput();
  EXPECT_THAT(resumed.ErrorOutput(), HasSubstr("going on with " + run));
  Process again(PRICER_TRAINER_PROGRAM, arguments, dir_.File("again"));
  ASSERT_EQ(again.Wait(), kExitDone) << again.ErrorOutput();
  EXPECT_THAT(again.Output(), HasSubstr(run + " has published its adapter already"));
  EXPECT_FALSE(std::filesystem::exists(dir_.File("adapters/job/2")));
}

TEST_F(ResumeTest, AFullDiskEndsTheRunAndLeavesItsLastCheckpoint) {
  constexpr int kSteps = 60;
  SmallDisk disk(dir_.File("runs"));
  if (!disk.Mount("3m")) GTEST_SKIP() << "this process may not mount file systems";
  Process whole(PRICER_TRAINER_PROGRAM, Arguments("whole", kSteps), dir_.File("whole"));
  ASSERT_EQ(whole.Wait(), kExitDone) << whole.ErrorOutput();
  std::filesystem::copy(Run("whole") + "/published.json", dir_.File("whole.json"));

  std::vector<std::string> arguments = Arguments("full", kSteps);
  arguments.insert(arguments.end(), {"--keep-checkpoints", "1000"});
  Process full(PRICER_TRAINER_PROGRAM, arguments, dir_.File("full"));
  ASSERT_EQ(full.Wait(), kExitFailed) << full.ErrorOutput();
  EXPECT_THAT(full.ErrorOutput(), HasSubstr("No space left on device"));
  EXPECT_THAT(full.ErrorOutput(), HasSubstr(Run("full")));
  EXPECT_FALSE(std::filesystem::exists(dir_.File("adapters/full/1")));
  ASSERT_TRUE(HasCheckpoint("full"));

  ASSERT_TRUE(disk.Resize("64m"));
  arguments.insert(arguments.end(), {"--resume", Run("full")});
  Process resumed(PRICER_TRAINER_PROGRAM, arguments, dir_.File("resumed"));
  ASSERT_EQ(resumed.Wait(), kExitDone) << resumed.ErrorOutput();
  ExpectSameAdapters("whole", "full");
}

TEST_F(ResumeTest, AFullDiskOfAdaptersKeepsTheAdapterInTheRun) {
  SmallDisk disk(dir_.File("adapters"));
  if (!disk.Mount("16k")) GTEST_SKIP() << "this process may not mount file systems";
  Process tune(PRICER_TRAINER_PROGRAM, Arguments("shop", 4), dir_.File("tune"));
  ASSERT_EQ(tune.Wait(), kExitFailed) << tune.ErrorOutput();
  EXPECT_THAT(tune.ErrorOutput(), HasSubstr("No space left on device"));
  EXPECT_THAT(tune.ErrorOutput(), HasSubstr("are kept in " + Run("shop") + "/adapters/shop/1"));
  EXPECT_TRUE(std::filesystem::exists(Run("shop") + "/adapters/shop/1/_READY"));
  EXPECT_FALSE(std::filesystem::exists(dir_.File("adapters/shop/1")));
}

TEST_F(ResumeTest, FoldersThatMayNotBeWrittenAreNamedBeforeAnythingIsLoaded) {
  for (const std::string folder : {"runs", "adapters"}) {
    SmallDisk disk(dir_.File(folder));
    if (!disk.Mount("1m")) GTEST_SKIP() << "this process may not mount file systems";
    ASSERT_TRUE(disk.ForbidWriting());
    Process tune(PRICER_TRAINER_PROGRAM, Arguments("shop", 2), dir_.File("tune"));
    ASSERT_EQ(tune.Wait(), kExitFailed) << tune.ErrorOutput();
    EXPECT_THAT(tune.ErrorOutput(), HasSubstr(dir_.File(folder)));
    EXPECT_THAT(tune.ErrorOutput(), HasSubstr("Read-only file system"));
    EXPECT_THAT(tune.ErrorOutput(), Not(HasSubstr("training:")));
  }
}

TEST_F(ResumeTest, AFolderThatIsGoneEndsTheRunByName) {
  Process tune(PRICER_TRAINER_PROGRAM, Arguments("shop", 2000), dir_.File("tune"));
  ASSERT_NE(tune.WaitForErrorLine("after step 20"), "");
  std::error_code ignored;  // the run may write into it meanwhile
  while (std::filesystem::exists(Run("shop"))) std::filesystem::remove_all(Run("shop"), ignored);
  ASSERT_EQ(tune.Wait(), kExitFailed) << tune.ErrorOutput();
  EXPECT_THAT(tune.ErrorOutput(), HasSubstr(Run("shop")));
  EXPECT_FALSE(std::filesystem::exists(dir_.File("adapters/shop/1")));
}

}  // namespace
}  // namespace pricer
