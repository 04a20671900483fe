#include "trainer/prune.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>

#include <chrono>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/file_descriptor.h"
#include "base/sha256.h"
#include "model/adapter_directory.h"
#include "model/manifest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "trainer/checkpoint_store.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using testing::StatusIs;
using testing::TempDir;
using ::testing::UnorderedElementsAre;

std::vector<std::string> NamesIn(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) {
    names.push_back(entry.path().filename().string());
  }
  return names;
}

MATCHER_P2(Removed, path, reason, "") {
  return arg.removed && arg.path == path &&
         ::testing::ExplainMatchResult(HasSubstr(reason), arg.reason, result_listener);
}
MATCHER_P2(Kept, path, reason, "") {
  return !arg.removed && arg.path == path &&
         ::testing::ExplainMatchResult(HasSubstr(reason), arg.reason, result_listener);
}

class PruneTest : public ::testing::Test {
 protected:
  PruneTest() {
    options_.adapters = dir_.File("adapters");
    options_.keep = 1;
    EXPECT_OK(MakeDirectories(options_.adapters));
  }

  static absl::StatusOr<std::string> WriteVersion(const std::string& directory) {
    Manifest manifest;
    manifest.base_fingerprint = std::string(64, 'a');
    manifest.weights = "nf4";
    manifest.prompt = {"custom", "How much?", "Price: $", 64};
    manifest.currency = "USD";
    manifest.bins = {.bins = 6, .min_price = 1, .max_price = 100, .sigma = 0.75};
    for (const char* name : {"adapter_config.json", "adapter_model.safetensors"}) {
      const absl::Status written = WriteFile(absl::StrCat(directory, "/", name), name);
      if (!written.ok()) return written;
      manifest.files[name] = Sha256Hex(name);
    }
    const absl::Status written = WriteFile(directory + "/pricer.json", manifest.ToJson());
    if (!written.ok()) return written;
    return Sha256Hex(manifest.ToJson());
  }

  void Publish(const std::string& name, int count) {
    for (int i = 0; i < count; ++i) {
      ASSERT_OK(PublishVersion(options_.adapters, name, WriteVersion));
    }
  }

  std::string PathOf(const std::string& name, const std::string& entry) const {
    return absl::StrCat(options_.adapters, "/", name, "/", entry);
  }

  PruneOutcome Run(absl::Time now = absl::Now()) {
    auto outcome = Prune(options_, now);
    EXPECT_OK(outcome);
    return *std::move(outcome);
  }

  const TempDir dir_;
  PruneOptions options_;
};

TEST_F(PruneTest, KeepsTheNewestCompleteVersions) {
  Publish("shop", 4);
  options_.keep = 2;
  const int64_t bytes = static_cast<int64_t>(fs::file_size(PathOf("shop", "1/pricer.json")) +
                                             std::string("adapter_config.json").size() +
                                             std::string("adapter_model.safetensors").size() + 64);
  const PruneOutcome outcome = Run();
  EXPECT_THAT(outcome.decisions, ElementsAre(Removed(PathOf("shop", "1"), "newest 2"),
                                             Removed(PathOf("shop", "2"), "newest 2")));
  EXPECT_EQ(outcome.freed_bytes(), 2 * bytes);
  EXPECT_THAT(outcome.failures, IsEmpty());
  EXPECT_THAT(NamesIn(PathOf("shop", "")), UnorderedElementsAre("3", "4"));
  EXPECT_THAT(Run().decisions, IsEmpty());
}

TEST_F(PruneTest, ADryRunDecidesTheSameAndRemovesNothing) {
  Publish("shop", 3);
  fs::create_directory(PathOf("shop", ".pruned-9-1-0"));
  options_.dry_run = true;
  const PruneOutcome dry = Run();
  EXPECT_THAT(NamesIn(PathOf("shop", "")), UnorderedElementsAre("1", "2", "3", ".pruned-9-1-0"));
  options_.dry_run = false;
  const PruneOutcome wet = Run();
  ASSERT_EQ(dry.decisions.size(), wet.decisions.size());
  for (size_t i = 0; i < dry.decisions.size(); ++i) {
    EXPECT_EQ(dry.decisions[i].path, wet.decisions[i].path);
    EXPECT_EQ(dry.decisions[i].reason, wet.decisions[i].reason);
    EXPECT_EQ(dry.decisions[i].bytes, wet.decisions[i].bytes);
  }
  EXPECT_THAT(NamesIn(PathOf("shop", "")), UnorderedElementsAre("3"));
}

TEST_F(PruneTest, NeverRemovesAVersionThatALabelOrItsHistoryNames) {
  Publish("shop", 6);
  ASSERT_OK(WriteFile(PathOf("shop", "labels.json"),
                      R"({"format_version": "1.0", "generation": 1,
                          "labels": {"stable": 2, "canary": {"version": 3, "percent": 5}},
                          "history": [{"label": "stable", "from": 1, "to": 2}]})"));
  EXPECT_THAT(Run().decisions,
              ElementsAre(Kept(PathOf("shop", "1"), "labels.json"),
                          Kept(PathOf("shop", "2"), "label stable"),
                          Kept(PathOf("shop", "3"), "label canary"),
                          Removed(PathOf("shop", "4"), ""), Removed(PathOf("shop", "5"), "")));
  EXPECT_THAT(NamesIn(PathOf("shop", "")), UnorderedElementsAre("1", "2", "3", "6", "labels.json"));
}

TEST_F(PruneTest, LeavesAnAdapterAloneWhoseLabelsCannotBeRead) {
  Publish("shop", 2);
  Publish("toys", 2);
  for (const char* text : {"{", R"({"format_version": "2.0", "labels": {}})"}) {
    ASSERT_OK(WriteFile(PathOf("shop", "labels.json"), text));
    const PruneOutcome outcome = Run();
    EXPECT_THAT(outcome.failures, ElementsAre(HasSubstr(PathOf("shop", "labels.json"))));
    EXPECT_THAT(NamesIn(PathOf("shop", "")), UnorderedElementsAre("1", "2", "labels.json"));
    EXPECT_THAT(NamesIn(PathOf("toys", "")), UnorderedElementsAre("2"));
  }
}

TEST_F(PruneTest, AVersionWithOtherBytesThanPublishedDoesNotCount) {
  Publish("shop", 5);
  ASSERT_OK(WriteFile(PathOf("shop", "5/adapter_model.safetensors"), "broken"));
  ASSERT_OK(WriteFile(PathOf("shop", "4/pricer.json"), "{}"));
  EXPECT_THAT(Run().decisions, SizeIs(2));
  EXPECT_THAT(NamesIn(PathOf("shop", "")), UnorderedElementsAre("3", "4", "5"));
}

TEST_F(PruneTest, AVersionAsPeftSavesItCounts) {
  Publish("shop", 1);
  ASSERT_OK(MakeDirectories(PathOf("shop", "2")));
  for (const char* name : {"adapter_config.json", "adapter_model.safetensors", "_READY"}) {
    ASSERT_OK(WriteFile(PathOf("shop", "2/") + name, ""));
  }
  Run();
  EXPECT_THAT(NamesIn(PathOf("shop", "")), UnorderedElementsAre("2"));
}

TEST_F(PruneTest, LeavesWhatMayBeJustBeingPublished) {
  Publish("shop", 2);
  ASSERT_OK(MakeDirectories(PathOf("shop", "3")));
  ASSERT_OK(MakeDirectories(PathOf("shop", ".tmp-1-0-ab")));
  fs::remove(PathOf("shop", "1/_READY"));
  EXPECT_THAT(Run().decisions, ElementsAre(Kept(PathOf("shop", "1"), "not complete")));
  EXPECT_THAT(NamesIn(PathOf("shop", "")), UnorderedElementsAre("1", "2", "3", ".tmp-1-0-ab"));
  // An hour later nobody makes it any more, a day later nobody is at it; the newest number stays
  // taken.
  EXPECT_THAT(Run(absl::Now() + absl::Hours(2)).decisions,
              ElementsAre(Removed(PathOf("shop", ".tmp-1-0-ab"), "killed"),
                          Kept(PathOf("shop", "1"), "not complete")));
  EXPECT_THAT(Run(absl::Now() + absl::Hours(25)).decisions,
              ElementsAre(Removed(PathOf("shop", "1"), "never completed")));
  EXPECT_THAT(NamesIn(PathOf("shop", "")), UnorderedElementsAre("2", "3"));
}

TEST_F(PruneTest, GoesOnWithWhatAnEarlierCallLeft) {
  Publish("shop", 1);
  ASSERT_OK(MakeDirectories(PathOf("shop", ".pruned-7-12-0")));
  ASSERT_OK(WriteFile(PathOf("shop", ".pruned-7-12-0/file"), "text"));
  const PruneOutcome outcome = Run();
  EXPECT_THAT(outcome.decisions,
              ElementsAre(Removed(PathOf("shop", ".pruned-7-12-0"), "earlier prune")));
  EXPECT_EQ(outcome.freed_bytes(), 4);
  EXPECT_THAT(NamesIn(PathOf("shop", "")), UnorderedElementsAre("1"));
}

TEST_F(PruneTest, KeepsWhatALinkLeadsTo) {
  Publish("shop", 3);
  Publish("alias", 1);
  fs::create_directory_symlink("../shop/1", PathOf("alias", "2"));
  fs::create_directory_symlink("shop", options_.adapters + "/other");
  EXPECT_THAT(Run().decisions, UnorderedElementsAre(Removed(PathOf("alias", "1"), ""),
                                                    Kept(PathOf("shop", "1"), "link"),
                                                    Removed(PathOf("shop", "2"), "")));
  EXPECT_TRUE(fs::exists(PathOf("alias", "2/_READY")));
}

TEST_F(PruneTest, PrunesTheNamedAdapterAlone) {
  Publish("shop", 2);
  Publish("toys", 2);
  options_.name = "toys";
  Run();
  EXPECT_THAT(NamesIn(PathOf("shop", "")), SizeIs(2));
  EXPECT_THAT(NamesIn(PathOf("toys", "")), SizeIs(1));
  options_.name = "books";
  EXPECT_THAT(Prune(options_, absl::Now()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("books")));
}

TEST_F(PruneTest, NamesAWrongOption) {
  const PruneOptions good = options_;
  const auto expect = [&](auto change, const std::string& option) {
    options_ = good;
    change();
    EXPECT_THAT(options_.Validate(),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(option)));
  };
  EXPECT_OK(good.Validate());
  expect([&] { options_.adapters = "/no/folder"; }, "--adapters");
  expect([&] { options_.runs = "/no/folder"; }, "--runs");
  expect([&] { options_.name = "../shop"; }, "--name");
  expect([&] { options_.keep = 0; }, "--keep");
}

class PruneRunsTest : public PruneTest {
 protected:
  PruneRunsTest() {
    options_.runs = dir_.File("runs");
    EXPECT_OK(MakeDirectories(options_.runs));
  }

  std::string Run(const std::string& run) const { return absl::StrCat(options_.runs, "/", run); }

  // A run whose last step was so many minutes ago.
  void AddRun(const std::string& run, int minutes_ago) {
    ASSERT_OK(MakeDirectories(Run(run)));
    for (const char* file : {"/lock", "/options.json", "/metrics.jsonl"}) {
      ASSERT_OK(WriteFile(Run(run) + file, "12345"));
    }
    fs::last_write_time(Run(run) + "/metrics.jsonl",
                        fs::file_time_type::clock::now() - std::chrono::minutes(minutes_ago));
  }

  void SaveCheckpoint(const std::string& run) {
    const CheckpointStore store(Run(run) + "/checkpoints", 1);
    ASSERT_OK(store.Save(
        3, [](const std::string& directory) { return WriteFile(directory + "/state", "state"); }));
  }

  PruneOutcome PruneAll() { return PruneTest::Run(); }
};

TEST_F(PruneRunsTest, KeepsTheNewestOfEachNameByTheirLastStep) {
  // Numbers of pruned runs are taken again, so the lowest may be the newest.
  AddRun("shop-1", 5);
  AddRun("shop-2", 30);
  AddRun("shop-3", 20);
  AddRun("shop-old-1", 99);
  ASSERT_OK(WriteFile(Run("shop-3") + "/published.json", "{}"));
  const PruneOutcome outcome = PruneAll();
  EXPECT_THAT(outcome.decisions,
              UnorderedElementsAre(Removed(Run("shop-3"), "published, older than the newest 1"),
                                   Removed(Run("shop-2"), "unfinished, older")));
  EXPECT_EQ(outcome.freed_bytes(), 15 + 2 + 15);
  EXPECT_THAT(NamesIn(options_.runs), UnorderedElementsAre("shop-1", "shop-old-1"));
}

TEST_F(PruneRunsTest, KeepsTheNewestThatCanBeResumed) {
  for (int i = 1; i <= 4; ++i) AddRun(absl::StrCat("shop-", i), 10 * i);
  for (const char* run : {"shop-2", "shop-3", "shop-4"}) SaveCheckpoint(run);
  // Done, so there is nothing to resume.
  ASSERT_OK(WriteFile(Run("shop-2") + "/published.json", "{}"));
  EXPECT_THAT(PruneAll().decisions,
              ElementsAre(Removed(Run("shop-2"), ""), Kept(Run("shop-3"), "resumed"),
                          Removed(Run("shop-4"), "unfinished")));
  // Broken: it cannot.
  ASSERT_OK(WriteFile(Run("shop-3") + "/checkpoints/step-3/state", "other"));
  EXPECT_THAT(PruneAll().decisions, ElementsAre(Removed(Run("shop-3"), "")));
}

TEST_F(PruneRunsTest, KeepsARunThatAProcessIsWorkingOn) {
  AddRun("shop-1", 1);
  AddRun("shop-2", 2);
  {
    const FileDescriptor lock(open((Run("shop-2") + "/lock").c_str(), O_RDWR));
    ASSERT_EQ(flock(lock.get(), LOCK_EX), 0);
    EXPECT_THAT(PruneAll().decisions, ElementsAre(Kept(Run("shop-2"), "working")));
  }
  EXPECT_THAT(PruneAll().decisions, ElementsAre(Removed(Run("shop-2"), "")));
}

TEST_F(PruneRunsTest, KeepsAnAdapterThatWasNotPublished) {
  AddRun("shop-1", 1);
  AddRun("shop-2", 2);
  ASSERT_OK(MakeDirectories(Run("shop-2") + "/adapters/shop/1"));
  EXPECT_THAT(PruneAll().decisions, ElementsAre(Kept(Run("shop-2"), "not published")));
  ASSERT_OK(WriteFile(Run("shop-2") + "/published.json", "{}"));
  EXPECT_THAT(PruneAll().decisions, ElementsAre(Removed(Run("shop-2"), "")));
}

TEST_F(PruneRunsTest, LeavesAloneWhatIsNoRun) {
  AddRun("shop-1", 1);
  AddRun("shop-2", 2);
  fs::remove(Run("shop-2") + "/lock");
  AddRun("notes", 3);
  AddRun("shop-07", 4);
  ASSERT_OK(WriteFile(Run("shop-3"), "a file"));
  ASSERT_OK(MakeDirectories(Run(".pruned-shop-5-1-0")));
  EXPECT_THAT(PruneAll().decisions, ElementsAre(Removed(Run(".pruned-shop-5-1-0"), "earlier")));
  EXPECT_THAT(NamesIn(options_.runs),
              UnorderedElementsAre("shop-1", "shop-2", "shop-3", "notes", "shop-07"));
}

TEST_F(PruneRunsTest, PrunesRunsOfTheNamedAdapterAlone) {
  Publish("shop", 1);
  for (const char* run : {"shop-1", "shop-2", "toys-1", "toys-2"}) AddRun(run, 1);
  options_.name = "shop";
  EXPECT_THAT(PruneAll().decisions, SizeIs(1));
  EXPECT_THAT(NamesIn(options_.runs), SizeIs(3));
  EXPECT_TRUE(fs::exists(Run("toys-1")) && fs::exists(Run("toys-2")));
}

}  // namespace
}  // namespace pricer
