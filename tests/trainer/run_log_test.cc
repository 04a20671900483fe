#include "trainer/run_log.h"

#include <gmock/gmock.h>

#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using testing::IsOkAndHolds;
using testing::TempDir;

TEST(RunLogTest, ClaimsTheNextFreeDirectory) {
  TempDir dir;
  ASSERT_OK_AND_ASSIGN(const RunLog first, RunLog::Create(dir.File("runs"), "shop"));
  ASSERT_OK_AND_ASSIGN(const RunLog second, RunLog::Create(dir.File("runs"), "shop"));
  ASSERT_OK_AND_ASSIGN(const RunLog other, RunLog::Create(dir.File("runs"), "toys"));
  EXPECT_EQ(first.directory(), dir.File("runs/shop-1"));
  EXPECT_EQ(second.directory(), dir.File("runs/shop-2"));
  EXPECT_EQ(other.directory(), dir.File("runs/toys-1"));
}

TEST(RunLogTest, WritesOneObjectPerLineAtOnce) {
  TempDir dir;
  ASSERT_OK_AND_ASSIGN(RunLog log, RunLog::Create(dir.path(), "shop"));
  ASSERT_OK(log.Append({{"step", 1}, {"loss", 3.25}}));
  EXPECT_THAT(ReadFile(log.directory() + "/metrics.jsonl"),
              IsOkAndHolds("{\"step\":1,\"loss\":3.25}\n"));
  Metrics metrics;
  metrics.items = 8;
  metrics.mae = 2.5;
  ASSERT_OK(log.AppendValidation(1, metrics));
  EXPECT_THAT(ReadFile(log.directory() + "/metrics.jsonl"),
              IsOkAndHolds(
                  ::testing::HasSubstr("}\n{\"step\":1,\"validation\":{\"items\":8,\"mae\":2.5,")));
}

TEST(RunLogTest, ReopenedKeepsTheLinesUpToAStep) {
  TempDir dir;
  std::string directory;
  {
    ASSERT_OK_AND_ASSIGN(RunLog log, RunLog::Create(dir.path(), "shop"));
    directory = log.directory();
    for (double step : {1, 2, 3}) ASSERT_OK(log.Append({{"step", step}}));
    ASSERT_OK(log.AppendValidation(2, Metrics()));
    ASSERT_OK(log.AppendWarning(3, "x"));
    EXPECT_THAT(RunLog::Reopen(directory, 2),
                testing::StatusIs(absl::StatusCode::kFailedPrecondition,
                                  ::testing::HasSubstr("another process")));
  }
  ASSERT_OK_AND_ASSIGN(const std::string all, ReadFile(directory + "/metrics.jsonl"));
  ASSERT_OK(WriteFile(directory + "/metrics.jsonl", all + "{\"step\":2,\"lo"));  // cut off
  ASSERT_OK_AND_ASSIGN(RunLog log, RunLog::Reopen(directory, 2));
  ASSERT_OK(log.Append({{"step", 3}, {"loss", 4}}));
  EXPECT_THAT(ReadFile(directory + "/metrics.jsonl"),
              IsOkAndHolds(::testing::AllOf(
                  ::testing::StartsWith("{\"step\":1}\n{\"step\":2}\n{\"step\":2,\"validation\""),
                  ::testing::EndsWith("}\n{\"step\":3,\"loss\":4}\n"))));
}

TEST(RunLogTest, WritesAWarningOnOneLineWhateverItSays) {
  TempDir dir;
  ASSERT_OK_AND_ASSIGN(RunLog log, RunLog::Create(dir.path(), "shop"));
  ASSERT_OK(log.AppendWarning(3, "a\nb\xff"));
  EXPECT_THAT(ReadFile(log.directory() + "/metrics.jsonl"),
              IsOkAndHolds("{\"step\":3,\"warning\":\"a\\nb\xef\xbf\xbd\"}\n"));
}

TEST(RunLogTest, WritesTheCoverageWhereThereIsOne) {
  TempDir dir;
  ASSERT_OK_AND_ASSIGN(RunLog log, RunLog::Create(dir.path(), "shop"));
  ASSERT_OK(log.AppendValidation(1, Metrics()));
  EXPECT_THAT(ReadFile(log.directory() + "/metrics.jsonl"),
              IsOkAndHolds(::testing::Not(::testing::HasSubstr("coverage"))));
  Metrics metrics;
  metrics.coverage_80 = 0.75;
  ASSERT_OK(log.AppendValidation(2, metrics));
  EXPECT_THAT(ReadFile(log.directory() + "/metrics.jsonl"),
              IsOkAndHolds(::testing::EndsWith(",\"coverage_80\":0.75}}\n")));
}

TEST(RunLogTest, WritesTheOptions) {
  TempDir dir;
  ASSERT_OK_AND_ASSIGN(RunLog log, RunLog::Create(dir.path(), "shop"));
  ASSERT_OK(log.WriteOptions({{"name", "shop"}, {"lr", "0.0002"}}));
  EXPECT_THAT(ReadFile(log.directory() + "/options.json"),
              IsOkAndHolds("{\n  \"name\": \"shop\",\n  \"lr\": \"0.0002\"\n}\n"));
}

TEST(RunLogTest, WritesAPathThatIsNotUtf8) {
  TempDir dir;
  ASSERT_OK_AND_ASSIGN(RunLog log, RunLog::Create(dir.path(), "shop"));
  ASSERT_OK(log.WriteOptions({{"data", "prices\xff.jsonl"}}));
  EXPECT_THAT(ReadFile(log.directory() + "/options.json"),
              IsOkAndHolds("{\n  \"data\": \"prices\xef\xbf\xbd.jsonl\"\n}\n"));
}

TEST(RunLogTest, NamesTheFolderThatCannotBeMade) {
  TempDir dir;
  ASSERT_OK(WriteFile(dir.File("file"), "x"));
  const auto log = RunLog::Create(dir.File("file/runs"), "shop");
  ASSERT_FALSE(log.ok());
  EXPECT_THAT(std::string(log.status().message()), ::testing::HasSubstr(dir.File("file")));
}

}  // namespace
}  // namespace pricer
