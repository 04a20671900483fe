#include "trainer/event_file.h"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <filesystem>
#include <limits>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "tests/testing/event_records.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::ReadEvents;
using testing::TempDir;

class FakeClock : public Clock {
 public:
  absl::Time Now() const override { return now; }
  absl::Time now = absl::FromUnixSeconds(1700000000) + absl::Milliseconds(250);
};

std::string NameOf(const EventFile& file) {
  return std::filesystem::path(file.path()).filename().string();
}

TEST(EventFileTest, WritesTheBytesOfTensorBoardsOwnWriter) {
  TempDir dir;
  const FakeClock clock;
  ASSERT_OK_AND_ASSIGN(EventFile file, EventFile::Create(dir.path(), 7, &clock));
  ASSERT_OK(file.Add(300, {{"loss", 3.25}, {"validation/mae", -0.1}}));
  // The three messages serialized and written by tensorboard 2.21's
  // tensorboard.summary.writer.record_writer.RecordWriter.
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadFile(file.path()));
  EXPECT_EQ(absl::BytesToHexString(bytes),
            "1800000000000000a37f4b220900001040fc54d9411a0d627261696e2e4576656e743a32338d2fe9"
            "0f000000000000006d532b090900001040fc54d94110073a0208010f417177"
            "3200000000000000241956ec0900001040fc54d94110ac022a240a0b0a046c6f737315000050400a150a0e"
            "76616c69646174696f6e2f6d616515cdccccbd30c62cfd");
}

TEST(EventFileTest, BeginsWithVersionAndStart) {
  TempDir dir;
  const FakeClock clock;
  ASSERT_OK_AND_ASSIGN(const EventFile file, EventFile::Create(dir.File("a/b"), 41, &clock));
  EXPECT_EQ(file.path(), dir.File("a/b/events.out.tfevents.1700000000.pricer"));
  const std::vector<tensorboard::Event> events = ReadEvents(file.path());
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].file_version(), "brain.Event:2");
  EXPECT_EQ(events[1].session_log().status(), tensorboard::SessionLog::START);
  EXPECT_EQ(events[1].step(), 41);
}

TEST(EventFileTest, EachAddIsThereWhenItReturns) {
  TempDir dir;
  FakeClock clock;
  ASSERT_OK_AND_ASSIGN(EventFile file, EventFile::Create(dir.path(), 1, &clock));
  for (int step = 1; step <= 300; ++step) {
    clock.now += absl::Milliseconds(500);
    ASSERT_OK(file.Add(step, {{"loss", 1.0 / step}, {"gradient_norm", 2.0 * step}}));
    if (step % 100 != 0) continue;
    const std::vector<tensorboard::Event> events = ReadEvents(file.path());
    ASSERT_EQ(events.size(), 2u + step);
    const tensorboard::Event& last = events.back();
    EXPECT_EQ(last.step(), step);
    EXPECT_DOUBLE_EQ(last.wall_time(), 1700000000.25 + 0.5 * step);
    ASSERT_EQ(last.summary().value_size(), 2);
    EXPECT_EQ(last.summary().value(0).tag(), "loss");
    EXPECT_FLOAT_EQ(last.summary().value(0).simple_value(), 1.0f / step);
    EXPECT_EQ(last.summary().value(1).tag(), "gradient_norm");
  }
}

TEST(EventFileTest, KeepsWhatIsNoNumberOrBeyondFp32) {
  TempDir dir;
  ASSERT_OK_AND_ASSIGN(EventFile file, EventFile::Create(dir.path(), 1));
  ASSERT_OK(file.Add(1, {{"nan", std::numeric_limits<double>::quiet_NaN()}, {"large", 1e300}}));
  const std::vector<tensorboard::Event> events = ReadEvents(file.path());
  ASSERT_EQ(events.size(), 3u);
  EXPECT_TRUE(std::isnan(events[2].summary().value(0).simple_value()));
  EXPECT_EQ(events[2].summary().value(1).simple_value(), std::numeric_limits<float>::infinity());
}

TEST(EventFileTest, AResumedRunOpensAFileThatIsReadLater) {
  TempDir dir;
  FakeClock clock;
  std::vector<std::string> names;
  const auto create = [&] {
    const auto file = EventFile::Create(dir.path(), 1, &clock);
    EXPECT_OK(file);
    names.push_back(NameOf(*file));
  };
  create();
  create();                     // within the same second
  clock.now -= absl::Hours(1);  // a clock that was put back
  create();
  clock.now += absl::Hours(2);
  create();
  EXPECT_THAT(names, ElementsAre("events.out.tfevents.1700000000.pricer",
                                 "events.out.tfevents.1700000001.pricer",
                                 "events.out.tfevents.1700000002.pricer",
                                 "events.out.tfevents.1700003600.pricer"));
}

TEST(EventFileTest, ComesAfterTheFilesOfOtherPrograms) {
  TempDir dir;
  const FakeClock clock;
  ASSERT_OK(WriteFile(dir.File("events.out.tfevents.1800000000.host.12.0"), ""));
  ASSERT_OK(WriteFile(dir.File("events.out.tfevents.99999999999999999999.host"), ""));
  ASSERT_OK(WriteFile(dir.File("events.out.tfevents.x.host"), ""));
  ASSERT_OK(WriteFile(dir.File("metrics.jsonl"), ""));
  ASSERT_OK_AND_ASSIGN(const EventFile file, EventFile::Create(dir.path(), 1, &clock));
  EXPECT_EQ(NameOf(file), "events.out.tfevents.1800000001.pricer");
}

TEST(EventFileTest, NamesTheFolderThatCannotBeMade) {
  TempDir dir;
  ASSERT_OK(WriteFile(dir.File("file"), "x"));
  const auto file = EventFile::Create(dir.File("file/events"), 1);
  ASSERT_FALSE(file.ok());
  EXPECT_THAT(std::string(file.status().message()), HasSubstr(dir.File("file/events")));
}

TEST(EventFileTest, AFullDiskLeavesWholeRecords) {
  TempDir dir;
  ASSERT_OK_AND_ASSIGN(EventFile file, EventFile::Create(dir.path(), 1));
  ASSERT_OK(file.Add(1, {{"loss", 3}}));
  // Files may grow by a few bytes more, so that a part of the next record still fits.
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit limit = before;
  limit.rlim_cur = std::filesystem::file_size(file.path()) + 5;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  const absl::Status full = file.Add(2, {{"loss", 2}});
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_FALSE(full.ok());
  EXPECT_THAT(std::string(full.message()), HasSubstr(file.path() + ": cannot write"));
  EXPECT_EQ(ReadEvents(file.path()).size(), 3u);

  ASSERT_OK(file.Add(3, {{"loss", 1}}));
  const std::vector<tensorboard::Event> events = ReadEvents(file.path());
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[2].step(), 1);
  EXPECT_EQ(events[3].step(), 3);
}

}  // namespace
}  // namespace pricer
