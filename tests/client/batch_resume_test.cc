#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <random>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "client/batch_output.h"
#include "client/batch_row.h"
#include "tests/client/batch_job_fixture.h"
#include "tests/testing/small_disk.h"
#include "tests/testing/status_matchers.h"

// What a batch job leaves when it does not come to its end, and how it goes on.

namespace pricer {
namespace {

using testing::BatchJobTest;
using ::testing::Each;
using ::testing::HasSubstr;
using testing::StatusIs;

constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

class BatchResumeTest : public BatchJobTest {
 protected:
  BatchResumeTest() { options_.calls_in_flight = 1; }

  // Runs until so many calls were made in all.
  BatchJobOutcome RunUntil(size_t calls) {
    environment_.stop = [this, calls] { return asked_versions_.size() >= calls; };
    const BatchJobOutcome outcome = RunJob();
    environment_.stop = nullptr;
    return outcome;
  }
  std::string Partial() const { return options_.output + ".partial"; }
  std::string Record() const { return options_.output + ".job"; }
  // What a run without an interrupt writes.
  std::string Whole() {
    const std::string output = options_.output;
    options_.output = directory_ / "whole.jsonl";
    EXPECT_OK(Run());
    const std::string whole = *ReadFile(options_.output);
    std::filesystem::remove(options_.output);
    options_.output = output;
    newest_version_ = 7;
    asked_versions_.clear();
    return whole;
  }
};

TEST_F(BatchResumeTest, TheSameJobGoesOnWithTheSameVersion) {
  WriteInput(30);
  const std::string whole = Whole();
  ASSERT_EQ(RunUntil(3).result.rows, 9);
  newest_version_ = 9;
  asked_versions_.clear();
  ASSERT_OK_AND_ASSIGN(const BatchJobResult result, Run());
  EXPECT_EQ(result.rows, 30);
  EXPECT_EQ(result.resumed, 9);
  EXPECT_EQ(asked_versions_.size(), 7u);
  EXPECT_THAT(asked_versions_, Each(7));
  EXPECT_EQ(*ReadFile(options_.output), whole);
  EXPECT_EQ(Files(), 2);
}

// As a power loss, or a kill, may leave it.
TEST_F(BatchResumeTest, ATailThatWasWrittenInPartIsDoneAgain) {
  WriteInput(30);
  busy_["4"] = {.times = 1000};
  options_.retry.max_attempts = 1;
  const std::string whole = Whole();
  ASSERT_EQ(RunUntil(3).result.rows, 9);
  const std::string lines = *ReadFile(Partial());
  for (const size_t kept : {lines.size() + 40, lines.size() + 1, lines.size()}) {
    ASSERT_OK(WriteFile(Partial(), (lines + std::string(100, '\0')).substr(0, kept)));
    const size_t calls = asked_versions_.size();
    const BatchJobOutcome outcome = RunUntil(calls);
    EXPECT_EQ(outcome.result.rows, 9);
    EXPECT_EQ(outcome.result.errors, 1);
    EXPECT_EQ(*ReadFile(Partial()), lines);
  }
  // Lines that came after the latest save count where they are whole.
  const std::string record = *ReadFile(Record());
  const size_t calls = asked_versions_.size();
  RunUntil(calls + 1);
  const std::string more = *ReadFile(Partial());
  const size_t tenth = more.find('\n', lines.size());
  ASSERT_OK(WriteFile(Partial(), lines));
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("--restart")));
  ASSERT_OK(WriteFile(Record(), record));
  ASSERT_OK(WriteFile(Partial(), more.substr(0, tenth + 20) + std::string(500, 'x')));
  ASSERT_OK(Run().status());
  EXPECT_EQ(*ReadFile(options_.output), whole);
}

TEST_F(BatchResumeTest, WhereverItEndsTheOutputIsTheSame) {
  WriteInput(100);
  const std::string whole = Whole();
  std::mt19937 random(1);
  for (int round = 0; round < 20; ++round) {
    while (!std::filesystem::exists(options_.output)) {
      const BatchJobOutcome outcome = RunUntil(asked_versions_.size() + random() % 12);
      if (!outcome.kept) continue;
      // Killed in the midst of a write: what is behind the latest save is lost, or there in part.
      std::string lines = *ReadFile(Partial());
      if (random() % 2 == 0) lines += whole.substr(lines.size(), random() % 500);
      ASSERT_OK(WriteFile(Partial(), lines));
    }
    EXPECT_EQ(*ReadFile(options_.output), whole);
    EXPECT_EQ(Files(), 2);
    std::filesystem::remove(options_.output);
    newest_version_ = 7;
  }
}

// Lines that found no room are not there in part, and the same job goes on when there is some.
TEST_F(BatchResumeTest, AFullDiskLosesNoRow) {
  WriteInput(3000);
  options_.items_per_call = 64;
  const std::string whole = Whole();
  testing::SmallDisk disk(directory_ / "disk");
  if (!disk.Mount("128k")) GTEST_SKIP() << "this process may not mount file systems";
  options_.output = directory_ / "disk" / "out.jsonl";
  const BatchJobOutcome full = RunJob();
  EXPECT_THAT(full.status, StatusIs(absl::StatusCode::kResourceExhausted,
                                    AllOf(HasSubstr(Partial()), HasSubstr("No space left"))));
  EXPECT_FALSE(std::filesystem::exists(options_.output));
  ASSERT_TRUE(disk.Resize("2m"));
  newest_version_ = 9;
  ASSERT_OK_AND_ASSIGN(const BatchJobResult result, Run());
  EXPECT_GT(result.resumed, 0);
  EXPECT_TRUE(*ReadFile(options_.output) == whole);
}

TEST_F(BatchResumeTest, AnotherJobIsNotGoneOnWith) {
  WriteInput(30);
  ASSERT_TRUE(RunUntil(2).kept);
  options_.coverage = 0.9;
  EXPECT_THAT(Run(), StatusIs(kPrecondition,
                              AllOf(HasSubstr("its coverage is \"0.8\""),
                                    HasSubstr("of this one \"0.9\""), HasSubstr("--restart"))));
  options_.coverage = 0.8;
  options_.columns = {{"title", "name"}};
  EXPECT_THAT(Run(), StatusIs(kPrecondition, HasSubstr("column of title is not given")));
  options_.columns.clear();
  WriteInput(31);
  EXPECT_THAT(Run(), StatusIs(kPrecondition, HasSubstr("input_bytes")));
  options_.resume = false;
  ASSERT_OK_AND_ASSIGN(const BatchJobResult result, Run());
  EXPECT_EQ(result.resumed, 0);
  EXPECT_EQ(Output().size(), 31u);
}

TEST_F(BatchResumeTest, AVersionThatHasBecomeAnotherEndsTheJob) {
  WriteInput(30);
  ASSERT_TRUE(RunUntil(2).kept);
  digest_ = "d8";
  BatchJobOutcome outcome = RunJob();
  EXPECT_THAT(outcome.status,
              StatusIs(kPrecondition, AllOf(HasSubstr("version 7 has become another"),
                                            HasSubstr("digest d7"), HasSubstr("digest d8"))));
  EXPECT_TRUE(outcome.kept);
  EXPECT_EQ(outcome.result.rows, 6);
  digest_ = "d7";
  EXPECT_OK(Run().status());
}

TEST_F(BatchResumeTest, TwoRunsDoNotWriteOneOutput) {
  WriteInput(3);
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<BatchOutput> other,
                       BatchOutput::Open({.path = options_.output, .job = "{}"}, Clock::System()));
  EXPECT_THAT(Run(), StatusIs(kPrecondition, HasSubstr("another run is writing")));
}

TEST_F(BatchResumeTest, ARecordThatIsNoneIsNamed) {
  WriteInput(30);
  ASSERT_TRUE(RunUntil(2).kept);
  for (const char* const wrong : {"", "{}", "[1]", R"({"format_version":"2.0","job":{}})"}) {
    ASSERT_OK(WriteFile(Record(), wrong));
    EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("out.jsonl.job: ")))
        << wrong;
  }
}

// It was killed after the output had its name.
TEST_F(BatchResumeTest, ARecordWithoutLinesIsOfNoUse) {
  WriteInput(30);
  ASSERT_TRUE(RunUntil(2).kept);
  std::filesystem::remove(Partial());
  ASSERT_OK_AND_ASSIGN(const BatchJobResult result, Run());
  EXPECT_EQ(result.rows, 30);
  EXPECT_EQ(result.resumed, 0);
}

TEST_F(BatchResumeTest, AnInputThatCanBeReadOnlyOnceKeepsNothing) {
  const std::string input = options_.input;
  WriteInput(30);
  options_.input = directory_ / "pipe.jsonl";
  ASSERT_EQ(std::system(
                absl::StrCat("mkfifo ", options_.input, "; cat ", input, " >", options_.input, " &")
                    .c_str()),
            0);
  const BatchJobOutcome outcome = RunUntil(2);
  EXPECT_THAT(outcome.status, StatusIs(absl::StatusCode::kCancelled));
  EXPECT_FALSE(outcome.kept);
  EXPECT_EQ(Files(), 2);  // the input and the pipe
}

TEST_F(BatchResumeTest, RejectsAreTheLinesWithErrors) {
  options_.rejects = directory_ / "rejects.jsonl";
  options_.retry.max_attempts = 1;
  ASSERT_OK(WriteFile(options_.input,
                      "{\"title\":\"1\"}\nnot JSON\n{\"title\":\"2\"}\n{\"title\":\"refuse\"}\n"));
  ASSERT_OK_AND_ASSIGN(const BatchJobResult result, Run());
  EXPECT_EQ(result.errors, 2);
  std::vector<BatchRow> rows;
  for (absl::string_view line : absl::StrSplit(*ReadFile(options_.rejects), '\n')) {
    if (line.empty()) continue;
    ASSERT_OK_AND_ASSIGN(const BatchRow row, ParseBatchLine(line));
    rows.push_back(row);
  }
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].row, 2);
  EXPECT_EQ(rows[0].error_code, "INVALID_ARGUMENT");
  EXPECT_EQ(rows[1].row, 4);
  EXPECT_EQ(rows[1].error_code, "RESOURCE_EXHAUSTED");
  WriteInput(2);
  ASSERT_OK(Run().status());
  EXPECT_FALSE(std::filesystem::exists(options_.rejects));
}

}  // namespace
}  // namespace pricer
