// Batch jobs that are killed, and what happens to their server meanwhile.

#include <gmock/gmock.h>
#include <signal.h>

#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "tests/integration/serving_fixture.h"

namespace pricer {
namespace {

using ::testing::HasSubstr;
using testing::Process;
using testing::Program;
using testing::ServingTest;
using testing::World;

namespace fs = std::filesystem;

constexpr int kRows = 1500;

class BatchFaultsTest : public ServingTest {
 protected:
  BatchFaultsTest() {
    std::string items;
    for (int i = 0; i < kRows; ++i) {
      // Some rows are none.
      absl::StrAppend(
          &items, i % 300 == 7 ? "{\"title\":\"\"}\n"
                               : absl::StrCat("{\"id\":\"item ", i,
                                              "\",\"title\":\"cast iron pan of ", i, " mm\"}\n"));
    }
    EXPECT_OK(WriteFile(input_, items));
    Drop(World::Get().Staged(1), "shop", 1);
  }

  std::vector<std::string> Arguments(const std::string& output,
                                     const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = {
        "batch", "--server",         address_, "--adapter",         "shop", "--input",
        input_,  "--items-per-call", "16",     "--calls-in-flight", "3",    "--output",
        output};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  std::unique_ptr<Process> Start(const std::string& output,
                                 const std::vector<std::string>& more = {}) {
    return std::make_unique<Process>(Program("pricer"), Arguments(output, more),
                                     directory_.File("batch"));
  }
  // To the end; returns the exit code.
  int RunToTheEnd(const std::string& output, const std::vector<std::string>& more = {}) {
    const std::unique_ptr<Process> batch = Start(output, more);
    const int exit_code = batch->Wait();
    error_ = batch->ErrorOutput();
    return exit_code;
  }
  // What is in the folder of the test beside what servers and clients print.
  std::vector<std::string> Left(const std::string& output) const {
    std::vector<std::string> left;
    for (const std::string suffix : {".partial", ".job"}) {
      if (fs::exists(output + suffix)) left.push_back(output + suffix);
    }
    return left;
  }

  const std::string input_ = directory_.File("items.jsonl");
  std::string error_;
};

TEST_F(BatchFaultsTest, WhereverItIsKilledTheOutputIsThatOfOneRun) {
  ASSERT_NO_FATAL_FAILURE(StartServer());
  const std::string whole = directory_.File("whole.jsonl");
  const absl::Time start = absl::Now();
  ASSERT_EQ(RunToTheEnd(whole), 3) << error_;
  // How long a run has before it is killed. Later runs find prices in the server's cache, until
  // that is killed too, so this follows them.
  absl::Duration life = 0.4 * (absl::Now() - start);
  const std::string expected = *ReadFile(whole);
  ASSERT_EQ(std::count(expected.begin(), expected.end(), '\n'), kRows);
  const std::string expected_rejects = *ReadFile(directory_.File("whole.rejects.jsonl"));

  std::mt19937 random(std::random_device{}());
  const std::string output = directory_.File("killed.jsonl");
  std::vector<std::string> version;  // that a job which begins anew asks for
  int kills = 0;
  bool restarted = false;
  while (kills < 20) {
    const std::unique_ptr<Process> batch = Start(output, version);
    absl::SleepFor(life * std::uniform_real_distribution<double>(0, 1)(random));
    batch->Signal(SIGKILL);
    const int exit_code = batch->Wait();
    if (exit_code == 128 + SIGKILL) {
      ++kills;
      life *= 1.2;
    } else {
      life *= 0.6;
      ASSERT_EQ(exit_code, 3) << batch->ErrorOutput();
    }
    // The server, too, and another version takes over meanwhile.
    if (kills == 5 && !restarted) {
      restarted = true;
      server_->Signal(SIGKILL);
      server_->Wait();
      ASSERT_NO_FATAL_FAILURE(StartServer(address_));
    }
    if (kills == 10 && !Listed("shop", 2).has_value()) {
      Drop(World::Get().Staged(2), "shop", 2);
      ASSERT_TRUE(WaitForState("shop", 2, v1::ADAPTER_STATE_AVAILABLE));
    }
    if (!fs::exists(output)) continue;
    // Done before it was killed.
    ASSERT_TRUE(*ReadFile(output) == expected) << kills;
    fs::remove(output);
    version = {"--version-or-label", "1"};
  }
  ASSERT_EQ(RunToTheEnd(output, version), 3) << error_;
  EXPECT_TRUE(*ReadFile(output) == expected);
  EXPECT_TRUE(*ReadFile(directory_.File("killed.rejects.jsonl")) == expected_rejects);
  EXPECT_TRUE(Left(output).empty());
}

TEST_F(BatchFaultsTest, AServerThatRestartsCostsTimeAndNoRows) {
  ASSERT_NO_FATAL_FAILURE(StartServer());
  const std::string whole = directory_.File("whole.jsonl");
  ASSERT_EQ(RunToTheEnd(whole), 3) << error_;
  const std::string output = directory_.File("out.jsonl");
  const std::unique_ptr<Process> batch = Start(output);
  for (int restart = 0; restart < 3; ++restart) {
    absl::SleepFor(absl::Milliseconds(200));
    server_->Signal(SIGKILL);
    server_->Wait();
    ASSERT_NO_FATAL_FAILURE(StartServer(address_));
  }
  EXPECT_EQ(batch->Wait(), 3) << batch->ErrorOutput();
  EXPECT_TRUE(*ReadFile(output) == *ReadFile(whole));
}

TEST_F(BatchFaultsTest, AServerThatStaysAwayLeavesWhatIsDone) {
  ASSERT_NO_FATAL_FAILURE(StartServer());
  const std::string output = directory_.File("out.jsonl");
  const std::unique_ptr<Process> batch = Start(output, {"--timeout", "3s"});
  std::error_code none_yet;
  while (fs::file_size(output + ".partial", none_yet) == 0 || none_yet) {
    ASSERT_TRUE(batch->running()) << batch->ErrorOutput();
    absl::SleepFor(absl::Milliseconds(1));
  }
  server_->Signal(SIGKILL);
  server_->Wait();
  EXPECT_EQ(batch->Wait(), 75) << batch->ErrorOutput();
  EXPECT_THAT(batch->ErrorOutput(), HasSubstr("rows are kept in " + output + ".partial"));
  EXPECT_FALSE(fs::exists(output));

  // The version is gone: no other prices the rest.
  fs::remove_all(adapters() + "/shop/1");
  Drop(World::Get().Staged(2), "shop", 2);
  ASSERT_NO_FATAL_FAILURE(StartServer(address_));
  EXPECT_EQ(RunToTheEnd(output), 1);
  EXPECT_THAT(error_, HasSubstr("version 1 is not available"));
  // Or another under its number.
  Drop(World::Get().Staged(2), "shop", 1);
  ASSERT_TRUE(WaitForState("shop", 1, v1::ADAPTER_STATE_AVAILABLE));
  EXPECT_EQ(RunToTheEnd(output), 1);
  EXPECT_THAT(error_, HasSubstr("version 1 has become another"));
  EXPECT_FALSE(fs::exists(output));
  EXPECT_EQ(Left(output).size(), 2u);
  EXPECT_EQ(RunToTheEnd(output, {"--restart"}), 3) << error_;
}

TEST_F(BatchFaultsTest, ShardsAtOnceGiveWhatOneRunGives) {
  ASSERT_NO_FATAL_FAILURE(StartServer());
  const std::string whole = directory_.File("whole.jsonl");
  ASSERT_EQ(RunToTheEnd(whole), 3) << error_;
  const std::string output = directory_.File("out.jsonl");
  std::vector<std::unique_ptr<Process>> shards;
  for (int index = 0; index < 2; ++index) {
    shards.push_back(std::make_unique<Process>(
        Program("pricer"),
        Arguments(output, {"--shard", absl::StrCat(index, "/2"), "--version-or-label", "1"}),
        directory_.File(absl::StrCat("shard", index))));
  }
  for (const auto& shard : shards) EXPECT_EQ(shard->Wait(), 3) << shard->ErrorOutput();
  Process merge(Program("pricer"), {"batch", "--merge", "--shards", "2", "--output", output},
                directory_.File("merge"));
  EXPECT_EQ(merge.Wait(), 3) << merge.ErrorOutput();
  EXPECT_TRUE(*ReadFile(output) == *ReadFile(whole));
}

}  // namespace
}  // namespace pricer
