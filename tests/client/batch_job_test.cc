#include "client/batch_job.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "tests/client/batch_job_fixture.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using testing::BatchJobTest;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::StatusIs;

TEST_F(BatchJobTest, WritesOneRowPerLineInTheOrderOfTheInput) {
  std::string input;
  for (int i = 1; i <= 50; ++i)
    absl::StrAppend(&input, R"({"id":"a)", i, R"(","title":")", i, "\"}\n");
  ASSERT_OK(WriteFile(options_.input, input));
  ASSERT_OK_AND_ASSIGN(const BatchJobResult result, Run());
  EXPECT_EQ(result.rows, 50);
  EXPECT_EQ(result.errors, 0);
  const std::vector<nlohmann::json> rows = Output();
  ASSERT_EQ(rows.size(), 50u);
  for (int i = 1; i <= 50; ++i) {
    EXPECT_EQ(rows[i - 1]["row"], i);
    EXPECT_EQ(rows[i - 1]["id"], absl::StrCat("a", i));
    EXPECT_EQ(rows[i - 1]["price"], i);
    EXPECT_EQ(rows[i - 1]["low"], 0.5 * i);
    EXPECT_EQ(rows[i - 1]["high"], 2 * i);
    EXPECT_EQ(rows[i - 1]["currency"], "USD");
    EXPECT_TRUE(rows[i - 1]["error"].is_null());
  }
}

TEST_F(BatchJobTest, BadLinesAndRefusedItemsAreReportedInPlace) {
  ASSERT_OK(WriteFile(options_.input,
                      "{\"id\":\"a\",\"title\":\"1.5\"}\n"
                      "this is not JSON\n"
                      "\n"
                      "{\"id\":\"c\",\"title\":\"refuse\"}\n"
                      "{\"id\":\"d\",\"title\":\"\"}\n"
                      "{\"id\":\"e\",\"title\":\"2\"}\n"));
  ASSERT_OK_AND_ASSIGN(const BatchJobResult result, Run());
  EXPECT_EQ(result.rows, 6);
  EXPECT_EQ(result.errors, 4);
  const std::vector<nlohmann::json> rows = Output();
  ASSERT_EQ(rows.size(), 6u);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(rows[i]["row"], i + 1);
  EXPECT_EQ(rows[0]["price"], 1.5);
  EXPECT_EQ(rows[1]["error"]["code"], "INVALID_ARGUMENT");
  EXPECT_TRUE(rows[1]["id"].is_null());
  EXPECT_TRUE(rows[1]["price"].is_null());
  EXPECT_EQ(rows[2]["error"]["message"], "blank line");
  EXPECT_TRUE(rows[2]["id"].is_null());
  EXPECT_EQ(rows[3]["id"], "c");
  EXPECT_EQ(rows[3]["error"]["code"], "RESOURCE_EXHAUSTED");
  EXPECT_EQ(rows[3]["error"]["message"], "queue full");
  EXPECT_EQ(rows[4]["error"]["code"], "INVALID_ARGUMENT");
  EXPECT_EQ(rows[4]["id"], "d");
  EXPECT_EQ(rows[5]["price"], 2);
}

TEST_F(BatchJobTest, ItemsThatTheServerHasNoRoomForAreSentAgain) {
  options_.retry.max_attempts = 4;
  busy_["2"] = {.times = 3};
  busy_["3"] = {.times = 1, .code = absl::StatusCode::kUnavailable};
  ASSERT_OK(WriteFile(options_.input, R"({"title":"1"})"
                                      "\n"
                                      R"({"title":"2"})"
                                      "\n"
                                      R"({"title":"3"})"
                                      "\n"));
  ASSERT_OK_AND_ASSIGN(const BatchJobResult result, Run());
  EXPECT_EQ(result.errors, 0);
  const std::vector<nlohmann::json> rows = Output();
  ASSERT_EQ(rows.size(), 3u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(rows[i]["price"], i + 1);
  EXPECT_THAT(asked_items_, ElementsAre(3, 2, 1, 1));
  // Of the version that priced the first of them.
  EXPECT_THAT(asked_versions_, ElementsAre(0, 7, 7, 7));
  EXPECT_EQ(waits_, 3);
}

TEST_F(BatchJobTest, ItemsAreSentAgainOnlySoOften) {
  options_.retry.max_attempts = 2;
  ASSERT_OK(WriteFile(options_.input, "{\"title\":\"1\"}\n{\"title\":\"refuse\"}\n"));
  ASSERT_OK_AND_ASSIGN(const BatchJobResult result, Run());
  EXPECT_EQ(result.errors, 1);
  EXPECT_EQ(Output()[1]["error"]["code"], "RESOURCE_EXHAUSTED");
  EXPECT_THAT(asked_items_, ElementsAre(2, 1));
}

TEST_F(BatchJobTest, AnItemThatThereWasNoTimeForIsNoRowWithAnError) {
  WriteInput(5);
  busy_["5"] = {.times = 2, .code = absl::StatusCode::kDeadlineExceeded};
  ASSERT_OK_AND_ASSIGN(const BatchJobResult result, Run());
  EXPECT_EQ(result.errors, 0);
  options_.resume = false;
  options_.retry.max_attempts = 2;
  busy_["5"] = {.times = 1000, .code = absl::StatusCode::kDeadlineExceeded};
  const BatchJobOutcome outcome = RunJob();
  EXPECT_THAT(outcome.status, StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_TRUE(outcome.kept);
  EXPECT_EQ(outcome.result.rows, 3);
}

TEST_F(BatchJobTest, AnInterruptLeavesNoRowsWithErrorsBehind) {
  WriteInput(5);
  busy_["5"] = {.times = 1};
  // It comes when the item was to be sent again.
  environment_.stop = [this] { return asked_items_.size() >= 2; };
  const BatchJobOutcome outcome = RunJob();
  EXPECT_THAT(outcome.status, StatusIs(absl::StatusCode::kCancelled));
  EXPECT_THAT(asked_items_, ElementsAre(3, 2));
  EXPECT_EQ(outcome.result.rows, 3);
  EXPECT_EQ(outcome.result.errors, 0);
  environment_.stop = nullptr;
  ASSERT_OK_AND_ASSIGN(const BatchJobResult result, Run());
  EXPECT_EQ(result.rows, 5);
  EXPECT_EQ(result.errors, 0);
}

TEST_F(BatchJobTest, RejectsAreNoFileThatIsReadOrWritten) {
  WriteInput(5);
  for (const std::string& path : {options_.input, options_.output}) {
    options_.rejects = path;
    EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--rejects")));
  }
  EXPECT_EQ(Files(), 1);
}

TEST_F(BatchJobTest, ACallThatTheServerHasNoRoomForIsSentAgain) {
  ASSERT_OK(WriteFile(options_.input, "{\"title\":\"1\"}\n"));
  refused_calls_ = 2;
  ASSERT_OK_AND_ASSIGN(const BatchJobResult result, Run());
  EXPECT_EQ(result.errors, 0);
  EXPECT_EQ(waits_, 2);
  // All attempts end at the same time.
  EXPECT_EQ(deadlines_.size(), 1u);
  options_.retry.max_attempts = 3;
  refused_calls_ = 3;
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("queue full")));
}

TEST_F(BatchJobTest, AsksForTheVersionOfTheFirstAnswerFromThenOn) {
  std::string input;
  for (int i = 1; i <= 30; ++i) absl::StrAppend(&input, R"({"title":")", i, "\"}\n");
  ASSERT_OK(WriteFile(options_.input, input));
  ASSERT_OK(Run());
  ASSERT_EQ(asked_versions_.size(), 10u);
  EXPECT_EQ(asked_versions_.front(), 0);
  asked_versions_.erase(asked_versions_.begin());
  EXPECT_THAT(asked_versions_, Each(7));
}

TEST_F(BatchJobTest, AFailedCallEndsTheJobAndLeavesNoOutput) {
  ASSERT_OK(WriteFile(options_.input, "{\"title\":\"1\"}\n"));
  EXPECT_THAT(RunBatchJob(options_,
                          [](const v1::BatchPredictPricesRequest&, absl::Time) {
                            return absl::NotFoundError("no adapter \"shop\"");
                          },
                          {})
                  .status,
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("shop")));
  EXPECT_TRUE(std::filesystem::exists(options_.input));
  EXPECT_EQ(Files(), 1);
}

TEST_F(BatchJobTest, AnOutputThatIsTheInputIsRefused) {
  ASSERT_OK(WriteFile(options_.input, "{\"title\":\"1\"}\n"));
  options_.output = options_.input;
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kInvalidArgument,
                              HasSubstr("--input and --output are the same file")));
  EXPECT_EQ(*ReadFile(options_.input), "{\"title\":\"1\"}\n");
}

TEST_F(BatchJobTest, ADirectoryAsOutputIsRefusedBeforeTheFirstCall) {
  ASSERT_OK(WriteFile(options_.input, "{\"title\":\"1\"}\n"));
  options_.output = directory_;
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("directory")));
  EXPECT_TRUE(asked_versions_.empty());
}

TEST_F(BatchJobTest, AnOutputMayBeALinkOrADevice) {
  ASSERT_OK(WriteFile(options_.input, "{\"title\":\"1\"}\n"));
  std::filesystem::create_symlink("target.jsonl", options_.output);
  ASSERT_OK(Run());
  EXPECT_TRUE(std::filesystem::is_symlink(options_.output));
  EXPECT_EQ(Output().size(), 1u);
  options_.output = "/dev/null";
  EXPECT_OK(Run());
}

TEST_F(BatchJobTest, AnInterruptEndsTheJobBetweenCallsAndKeepsWhatIsDone) {
  WriteInput(30);
  options_.calls_in_flight = 1;
  environment_.stop = [this] { return asked_versions_.size() == 2; };
  const BatchJobOutcome outcome = RunJob();
  EXPECT_THAT(outcome.status, StatusIs(absl::StatusCode::kCancelled));
  EXPECT_TRUE(outcome.kept);
  EXPECT_EQ(outcome.result.rows, 6);
  EXPECT_EQ(asked_versions_.size(), 2u);
  EXPECT_FALSE(std::filesystem::exists(options_.output));
}

TEST_F(BatchJobTest, AnInterruptBeforeTheFirstAnswerLeavesNothing) {
  WriteInput(30);
  environment_.stop = [] { return true; };
  const BatchJobOutcome outcome = RunJob();
  EXPECT_THAT(outcome.status, StatusIs(absl::StatusCode::kCancelled));
  EXPECT_FALSE(outcome.kept);
  EXPECT_EQ(Files(), 1);
}

TEST_F(BatchJobTest, ACallThatFailsBecauseOfAnInterruptCountsAsInterrupted) {
  ASSERT_OK(WriteFile(options_.input, "{\"title\":\"1\"}\n"));
  bool stop = false;
  environment_.stop = [&stop] { return stop; };
  const auto fail = [&stop](const v1::BatchPredictPricesRequest&, absl::Time) {
    stop = true;
    return absl::UnavailableError("restarting");
  };
  EXPECT_THAT(RunBatchJob(options_, fail, {}, environment_).status,
              StatusIs(absl::StatusCode::kCancelled));
}

TEST_F(BatchJobTest, CallsOfLongItemsAreShort) {
  std::string input;
  const std::string description(300'000, 'x');
  for (int i = 0; i < 40; ++i) {
    absl::StrAppend(&input, R"({"title":"1","description":")", description, "\"}\n");
  }
  ASSERT_OK(WriteFile(options_.input, input));
  options_.items_per_call = 64;
  ASSERT_OK_AND_ASSIGN(const BatchJobResult result, Run());
  EXPECT_EQ(result.rows, 40);
  EXPECT_EQ(result.errors, 0);
  EXPECT_GT(largest_call_bytes_, size_t{4} << 20);
  EXPECT_LT(largest_call_bytes_, size_t{5} << 20);
}

TEST_F(BatchJobTest, UnreadableInputAndUnwritableOutputAreNamed) {
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("in.jsonl")));
  ASSERT_OK(WriteFile(options_.input, "{\"title\":\"1\"}\n"));
  options_.output = directory_ / "absent" / "out.jsonl";
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("absent/out.jsonl")));
}

TEST_F(BatchJobTest, AnEmptyInputGivesAnEmptyOutput) {
  ASSERT_OK(WriteFile(options_.input, ""));
  ASSERT_OK_AND_ASSIGN(const BatchJobResult result, Run());
  EXPECT_EQ(result.rows, 0);
  EXPECT_EQ(*ReadFile(options_.output), "");
}

TEST_F(BatchJobTest, PricesHaveSixSignificantDigits) {
  ASSERT_OK(WriteFile(options_.input, "{\"title\":\"1234.56789\"}\n"));
  ASSERT_OK(Run());
  EXPECT_THAT(*ReadFile(options_.output), HasSubstr("\"price\":1234.57,"));
}

TEST(BatchJobOptionsTest, WrongOptionsAreNamed) {
  BatchJobOptions options;
  options.input = "in";
  options.output = "out";
  options.coverage = 1.0;
  EXPECT_THAT(options.Validate(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("coverage")));
  options.coverage = 0.8;
  options.items_per_call = 2000;
  EXPECT_THAT(options.Validate(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--items-per-call")));
  options.items_per_call = 10;
  options.calls_in_flight = 257;
  EXPECT_THAT(options.Validate(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--calls-in-flight")));
  options.calls_in_flight = 4;
  options.retry.max_attempts = 0;
  EXPECT_THAT(options.Validate(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("max_attempts")));
  options.retry.max_attempts = RetryOptions::kUnlimited;
  options.currency = "usd";
  EXPECT_THAT(options.Validate(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("currency")));
  options.currency = "USD";
  options.columns = {{"prise", "cost"}};
  EXPECT_THAT(options.Validate(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("prise")));
}

}  // namespace
}  // namespace pricer
