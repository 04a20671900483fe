#include "client/batch_shards.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "tests/client/batch_job_fixture.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using testing::BatchJobTest;
using ::testing::HasSubstr;
using testing::StatusIs;

constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

TEST(ShardTest, IsReadFromIndexAndCount) {
  ASSERT_OK_AND_ASSIGN(const Shard shard, Shard::Parse("3/8"));
  EXPECT_EQ(shard.index, 3);
  EXPECT_EQ(shard.count, 8);
  for (const char* const wrong : {"", "3", "8/8", "-1/8", "1/0", "1/2/3", "a/8", "0/10001"}) {
    EXPECT_THAT(Shard::Parse(wrong),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(wrong)));
  }
}

TEST(ShardTest, EveryRowIsInOne) {
  for (int64_t row = 0; row < 12'289; ++row) {
    int holders = 0;
    for (int index = 0; index < 3; ++index) {
      holders += Shard{.index = index, .count = 3}.Has(row) ? 1 : 0;
    }
    ASSERT_EQ(holders, 1) << row;
  }
}

TEST(ShardTest, HasAFileOfItsOwn) {
  EXPECT_EQ(ShardPath("a/out.jsonl", {.index = 3, .count = 8}), "a/out-00003-of-00008.jsonl");
  EXPECT_EQ(ShardPath("out", {.index = 0, .count = 2}), "out-00000-of-00002");
  EXPECT_EQ(ShardPath("a/out.jsonl", Shard()), "a/out.jsonl");
  EXPECT_EQ(ShardMarkerPath("out.jsonl", {.index = 1, .count = 2}),
            "out-00001-of-00002.jsonl.done");
}

class BatchShardsTest : public BatchJobTest {
 protected:
  static constexpr int kShards = 3;

  BatchShardsTest() {
    options_.items_per_call = 512;
    WriteInput(5000);
  }
  absl::Status RunShard(int index) {
    options_.shard = {.index = index, .count = kShards};
    return Run().status();
  }
  void RunAll() {
    for (int index = 0; index < kShards; ++index) EXPECT_OK(RunShard(index));
  }
  absl::StatusOr<MergeResult> Merge() { return MergeShards(options_.output, kShards, nullptr); }
  std::string PathOf(int index) const {
    return ShardPath(options_.output, {.index = index, .count = kShards});
  }
};

TEST_F(BatchShardsTest, TogetherTheyAreWhatOneRunWrites) {
  ASSERT_OK(Run().status());
  const std::string whole = *ReadFile(options_.output);
  std::filesystem::remove(options_.output);
  newest_version_ = 7;
  RunAll();
  ASSERT_OK_AND_ASSIGN(const MergeResult result, Merge());
  EXPECT_EQ(result.rows, 5000);
  EXPECT_EQ(result.errors, 0);
  EXPECT_TRUE(*ReadFile(options_.output) == whole);
}

TEST_F(BatchShardsTest, MoreThanAProcessMayHaveOpenAtFirstAreMerged) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit low = before;
  low.rlim_cur = 100;
  constexpr int kCount = 150;
  const int64_t rows = 149 * Shard::kRowsPerBlock + 1;
  for (int index = 0; index < kCount; ++index) {
    const Shard shard = {.index = index, .count = kCount};
    std::string lines;
    const int64_t first = index * Shard::kRowsPerBlock;
    for (int64_t row = first; row < std::min(rows, first + Shard::kRowsPerBlock); ++row) {
      absl::StrAppend(&lines, row, "\n");
    }
    ASSERT_OK(WriteFile(ShardPath(options_.output, shard), lines));
    ShardMarker marker;
    marker.job = "{}";
    marker.input_rows = rows;
    marker.rows = std::min(rows - first, Shard::kRowsPerBlock);
    ASSERT_OK(WriteShardMarker(ShardMarkerPath(options_.output, shard), marker));
  }
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  const auto merged = MergeShards(options_.output, kCount, nullptr);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_OK(merged.status());
  EXPECT_EQ(merged->rows, rows);
  std::string whole;
  for (int64_t row = 0; row < rows; ++row) absl::StrAppend(&whole, row, "\n");
  EXPECT_TRUE(*ReadFile(options_.output) == whole);
  // Where the hard limit is lower: another process, since none gets that back.
  EXPECT_EXIT(
      {
        low.rlim_max = 100;
        if (setrlimit(RLIMIT_NOFILE, &low) != 0) std::_Exit(1);
        const absl::Status refused = MergeShards(options_.output, kCount, nullptr).status();
        std::cerr << refused;
        std::_Exit(absl::IsFailedPrecondition(refused) ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "takes 214 open files, and the system allows 100");
}

TEST_F(BatchShardsTest, AShardThatIsDoneIsNotDoneAgain) {
  ASSERT_OK(RunShard(1));
  asked_versions_.clear();
  options_.shard = {.index = 1, .count = kShards};
  ASSERT_OK_AND_ASSIGN(BatchJobResult result, Run());
  EXPECT_EQ(result.rows, 1928);
  EXPECT_EQ(result.resumed, 1928);
  EXPECT_TRUE(asked_versions_.empty());
  // It is of another input.
  WriteInput(1500);
  ASSERT_OK_AND_ASSIGN(result, Run());
  EXPECT_EQ(result.rows, 476);
  EXPECT_EQ(result.resumed, 0);
}

TEST_F(BatchShardsTest, OnesThatAreNotDoneAreNamed) {
  ASSERT_OK(RunShard(1));
  EXPECT_THAT(Merge(), StatusIs(kPrecondition, HasSubstr("2 of 3 shards are not done: 0, 2")));
  EXPECT_FALSE(std::filesystem::exists(options_.output));
}

// The label leads to another version with every call.
TEST_F(BatchShardsTest, TheVersionOfTheFirstPricesAll) {
  ASSERT_OK(RunShard(2));
  asked_versions_.clear();
  ASSERT_OK(RunShard(0));
  EXPECT_THAT(asked_versions_, ::testing::Each(7));
  // Another has its answer before this one.
  const std::string path = SharedVersionPath(options_.output);
  const std::string settled = *ReadFile(path);
  std::filesystem::remove(path);
  asked_versions_.clear();
  options_.shard = {.index = 1, .count = kShards};
  const BatchJobOutcome outcome = RunBatchJob(
      options_,
      [&](const v1::BatchPredictPricesRequest& request, absl::Time deadline) {
        EXPECT_OK(WriteFile(path, settled));
        return Answer(request, deadline);
      },
      {}, environment_);
  ASSERT_OK(outcome.status);
  EXPECT_EQ(outcome.result.shards_done, 3);
  ASSERT_GT(asked_versions_.size(), 2u);
  EXPECT_EQ(asked_versions_[0], 0);
  asked_versions_.erase(asked_versions_.begin());
  EXPECT_THAT(asked_versions_, ::testing::Each(7));
  EXPECT_OK(Merge().status());
}

// What a killed shard has begun to write, or one of another job has, counts for nothing.
TEST_F(BatchShardsTest, AgreeOnOneVersionPerJob) {
  const BatchVersion seven = {.adapter = "shop", .version = 7, .digest = "d7"};
  const BatchVersion eight = {.adapter = "shop", .version = 8, .digest = "d8"};
  const auto agree = [this](const std::string& job, const BatchVersion& mine) {
    return *AgreeOnVersion(options_.output, job, mine);
  };
  EXPECT_EQ(agree("{\"a\":\"1\"}", seven), seven);
  EXPECT_EQ(agree("{\"a\":\"1\"}", eight), seven);
  EXPECT_EQ(agree("{\"a\":\"2\"}", eight), eight);
  ASSERT_OK(WriteFile(SharedVersionPath(options_.output), "{\"job\":"));
  EXPECT_EQ(agree("{\"a\":\"2\"}", seven), seven);
  options_.output = directory_ / "none" / "out.jsonl";
  EXPECT_THAT(AgreeOnVersion(options_.output, "{}", seven),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none/out.jsonl.version")));
}

TEST_F(BatchShardsTest, OnesOfAnotherVersionAreNotMerged) {
  options_.adapter.set_version(7);
  RunAll();
  options_.resume = false;
  digest_ = "d8";
  ASSERT_OK(RunShard(2));
  EXPECT_THAT(Merge(),
              StatusIs(kPrecondition, AllOf(HasSubstr("out-00002-of-00003"), HasSubstr("shop/7 d7"),
                                            HasSubstr("shop/7 d8"))));
  EXPECT_FALSE(std::filesystem::exists(options_.output));
}

// Even where the first has no prices.
TEST_F(BatchShardsTest, OnesOfAnotherJobAreNotMerged) {
  RunAll();
  ASSERT_OK_AND_ASSIGN(ShardMarker marker, ReadShardMarker(PathOf(0) + ".done"));
  marker.job = "{}";
  marker.adapter.clear();
  ASSERT_OK(WriteShardMarker(PathOf(0) + ".done", marker));
  EXPECT_THAT(Merge(), StatusIs(kPrecondition, HasSubstr("out-00001-of-00003")));
}

TEST_F(BatchShardsTest, OnesWithAnotherNumberOfLinesAreNotMerged) {
  RunAll();
  const std::string lines = *ReadFile(PathOf(1));
  ASSERT_OK(WriteFile(PathOf(1), lines.substr(0, lines.size() / 2)));
  EXPECT_THAT(Merge(), StatusIs(absl::StatusCode::kDataLoss,
                                AllOf(HasSubstr("out-00001"), HasSubstr("expected 1928 lines"))));
  ASSERT_OK(WriteFile(PathOf(1), lines + "{}\n"));
  EXPECT_THAT(Merge(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("got more")));
  ASSERT_OK(WriteFile(PathOf(1) + ".done", "{}"));
  EXPECT_THAT(Merge(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("out-00001")));
  EXPECT_FALSE(std::filesystem::exists(options_.output));
}

TEST_F(BatchShardsTest, OneThatWasKilledGoesOn) {
  RunAll();
  std::vector<std::string> whole;
  for (int index = 0; index < kShards; ++index) whole.push_back(*ReadFile(PathOf(index)));
  options_.resume = false;
  asked_versions_.clear();
  options_.calls_in_flight = 1;
  environment_.stop = [this] { return asked_versions_.size() >= 2; };
  options_.shard = {.index = 0, .count = kShards};
  EXPECT_TRUE(RunJob().kept);
  environment_.stop = nullptr;
  options_.resume = true;
  std::filesystem::remove(PathOf(0) + ".done");
  ASSERT_OK_AND_ASSIGN(const BatchJobResult result, Run());
  EXPECT_GT(result.resumed, 0);
  EXPECT_TRUE(*ReadFile(PathOf(0)) == whole[0]);
  EXPECT_OK(Merge().status());
}

}  // namespace
}  // namespace pricer
