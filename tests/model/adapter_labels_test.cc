#include "model/adapter_labels.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/file_descriptor.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;
using testing::TempDir;

const LabelAuthor kAuthor = {"somebody", absl::FromUnixSeconds(1'700'000'000)};
const auto kIsThere = [](int64_t /*version*/) { return absl::OkStatus(); };

// Version that a label points to; 0 = it is not there.
int64_t VersionOf(const AdapterLabels& labels, absl::string_view label) {
  return labels.Target(label).value_or(LabelTarget()).version;
}

TEST(ValidateLabelTest, IsANameAndNoNumber) {
  for (const char* const good : {"stable", "canary", "v2", "2026-spring", "a.b_c"}) {
    EXPECT_OK(ValidateLabel(good));
  }
  for (const char* const bad : {"", "7", "007", "Stable", "a b", "../x", ".x", "base"}) {
    EXPECT_THAT(ValidateLabel(bad),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("label")));
  }
  EXPECT_OK(ValidateLabel(std::string(63, 'x')));
  EXPECT_FALSE(ValidateLabel(std::string(64, 'x')).ok());
}

TEST(AdapterLabelsTest, ReadWhatTheyWrite) {
  AdapterLabels labels;
  ASSERT_OK(labels.Set("stable", {.version = 7}, std::nullopt, kAuthor));
  ASSERT_OK(labels.Set("canary", {.version = 8, .percent = 0.5}, std::nullopt, kAuthor));
  ASSERT_OK(labels.Remove("canary", kAuthor));
  ASSERT_OK(labels.RollBack("canary", std::nullopt, kIsThere, kAuthor));
  ASSERT_OK_AND_ASSIGN(const AdapterLabels read, AdapterLabels::Parse(labels.ToJson(), "here"));
  EXPECT_EQ(read.generation, 4);
  EXPECT_EQ(read.labels, labels.labels);
  ASSERT_EQ(read.history.size(), 4u);
  EXPECT_EQ(read.history[1].to, (LabelTarget{8, 0.5}));
  EXPECT_FALSE(read.history[1].from.has_value());
  EXPECT_FALSE(read.history[2].to.has_value());
  EXPECT_TRUE(read.history[3].rollback);
  EXPECT_EQ(read.history[3].author.by, "somebody");
  EXPECT_EQ(read.history[3].author.at, kAuthor.at);
  EXPECT_EQ(read.ToJson(), labels.ToJson());
}

TEST(AdapterLabelsTest, ReadAFileWrittenByHand) {
  ASSERT_OK_AND_ASSIGN(const AdapterLabels labels, AdapterLabels::Parse(R"({
      "format_version": "1.0", "generation": 12, "unknown": [1],
      "labels": {"stable": 7, "canary": {"version": 8, "percent": 5}, "shadow": 8, "old": null},
      "history": [{"label": "stable", "from": 6, "to": 7}]})",
                                                                        "here"));
  EXPECT_EQ(labels.generation, 12);
  EXPECT_EQ(VersionOf(labels, "stable"), 7);
  EXPECT_EQ(labels.Target("canary"), (LabelTarget{8, 5}));
  EXPECT_EQ(VersionOf(labels, "shadow"), 8);
  EXPECT_FALSE(labels.Target("old").has_value());
  EXPECT_EQ(labels.BeforeLatestMove("stable").value(), LabelTarget{6});
  ASSERT_OK_AND_ASSIGN(const AdapterLabels least,
                       AdapterLabels::Parse(R"({"format_version": "1.2", "labels": {}})", "here"));
  EXPECT_EQ(least.generation, 1);
}

TEST(AdapterLabelsTest, SayWhatIsWrongWithAFile) {
  const auto expect = [](const std::string& json, absl::StatusCode code, const std::string& words) {
    EXPECT_THAT(AdapterLabels::Parse(json, "labels.json"),
                StatusIs(code, AllOf(HasSubstr("labels.json"), HasSubstr(words))))
        << json;
  };
  const auto with = [](const std::string& labels) {
    return R"({"format_version": "1.0", "labels": )" + labels + "}";
  };
  constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
  expect("", kDataLoss, "");
  expect("[]", kDataLoss, "object");
  expect(R"({"labels": {}})", kDataLoss, "format_version");
  expect(R"({"format_version": "2.0", "labels": {}})", absl::StatusCode::kUnimplemented, "2.0");
  expect(R"({"format_version": "1.0"})", kDataLoss, "labels");
  expect(with("7"), kDataLoss, "labels");
  expect(with(R"({"stable": "7"})"), kDataLoss, "labels.stable");
  expect(with(R"({"stable": 0})"), kDataLoss, "at least 1, got 0");
  expect(with(R"({"stable": 7.5})"), kDataLoss, "labels.stable");
  expect(with(R"({"canary": {"percent": 5}})"), kDataLoss, "version");
  expect(with(R"({"canary": {"version": 8, "percent": 0}})"), kDataLoss, "above 0");
  expect(with(R"({"canary": {"version": 8, "percent": 101}})"), kDataLoss, "at most 100");
  expect(with(R"({"../x": 7})"), kDataLoss, "../x");
  expect(with(R"({}, "history": 7)"), kDataLoss, "history");
  expect(with(R"({}, "history": [7])"), kDataLoss, "history[0]");
  expect(with(R"({}, "history": [{"label": "x", "at": "yesterday"}])"), kDataLoss, "history[0].at");
  expect(with(R"({}, "generation": 0)"), kDataLoss, "generation");
  std::string many;
  for (int i = 0; i < 17; ++i) absl::StrAppend(&many, i == 0 ? "" : ",", "\"l", i, "\": 7");
  expect(with("{" + many + "}"), kDataLoss, "at most 16");
}

TEST(AdapterLabelsTest, TheFirstMoveOfAnotherLabelPinsStable) {
  AdapterLabels labels;
  ASSERT_OK(labels.Set("canary", {.version = 8, .percent = 5}, 7, kAuthor));
  EXPECT_EQ(VersionOf(labels, "stable"), 7);
  EXPECT_EQ(VersionOf(labels, "canary"), 8);
  EXPECT_EQ(labels.generation, 2);
  // From then on it stays.
  ASSERT_OK(labels.Set("shadow", {.version = 9}, 9, kAuthor));
  EXPECT_EQ(VersionOf(labels, "stable"), 7);
}

TEST(AdapterLabelsTest, SettingALabelToWhereItIsChangesNothing) {
  AdapterLabels labels;
  ASSERT_OK(labels.Set("canary", {.version = 8, .percent = 5}, 7, kAuthor));
  const std::string before = labels.ToJson();
  ASSERT_OK(labels.Set("canary", {.version = 8, .percent = 5}, 8, kAuthor));
  EXPECT_EQ(labels.ToJson(), before);
  ASSERT_OK(labels.Set("canary", {.version = 8, .percent = 6}, 8, kAuthor));
  EXPECT_NE(labels.ToJson(), before);
}

TEST(AdapterLabelsTest, RefuseWhatALabelCannotBe) {
  AdapterLabels labels;
  const auto set = [&](const std::string& label, const LabelTarget& target) {
    return labels.Set(label, target, std::nullopt, kAuthor);
  };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(set("7", {1}), StatusIs(kInvalid, HasSubstr("label")));
  EXPECT_THAT(set("stable", {0}), StatusIs(kInvalid, HasSubstr("version")));
  EXPECT_THAT(set("stable", {1, 50}), StatusIs(kInvalid, HasSubstr("percent")));
  EXPECT_THAT(set("canary", {1, 0}), StatusIs(kInvalid, HasSubstr("percent")));
  EXPECT_THAT(set("canary", {1, std::nan("")}), StatusIs(kInvalid, HasSubstr("percent")));
  EXPECT_THAT(labels.Remove("stable", kAuthor), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_EQ(labels.generation, 0);
  for (int i = 0; i < 15; ++i) ASSERT_OK(set(absl::StrCat("label-", i), {1}));
  // One more, and `stable` that it would set.
  EXPECT_THAT(labels.Set("canary", {2, 5}, 1, kAuthor),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("at most 16")));
  EXPECT_OK(set("stable", {1}));
  EXPECT_THAT(set("canary", {1}), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_OK(set("label-3", {2}));
}

TEST(AdapterLabelsTest, RollBackGoesBackMoveByMove) {
  AdapterLabels labels;
  for (int64_t version : {1, 2, 3}) {
    ASSERT_OK(labels.Set("stable", {version}, std::nullopt, kAuthor));
  }
  ASSERT_OK(labels.Set("shadow", {9}, std::nullopt, kAuthor));
  ASSERT_OK(labels.RollBack("stable", std::nullopt, kIsThere, kAuthor));
  EXPECT_EQ(VersionOf(labels, "stable"), 2);
  ASSERT_OK(labels.RollBack("stable", std::nullopt, kIsThere, kAuthor));
  EXPECT_EQ(VersionOf(labels, "stable"), 1);
  // A move after a rollback is the one that the next goes back from.
  ASSERT_OK(labels.Set("stable", {4}, std::nullopt, kAuthor));
  ASSERT_OK(labels.RollBack("stable", std::nullopt, kIsThere, kAuthor));
  EXPECT_EQ(VersionOf(labels, "stable"), 1);
  ASSERT_OK(labels.RollBack("stable", std::nullopt, kIsThere, kAuthor));
  EXPECT_FALSE(labels.Target("stable").has_value());
  EXPECT_THAT(labels.RollBack("stable", std::nullopt, kIsThere, kAuthor),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("stable")));
  EXPECT_EQ(VersionOf(labels, "shadow"), 9);
}

TEST(AdapterLabelsTest, RollBackChecksTheVersionToGoBackTo) {
  AdapterLabels labels;
  for (int64_t version : {1, 2}) {
    ASSERT_OK(labels.Set("stable", {version}, std::nullopt, kAuthor));
  }
  const auto is_gone = [](int64_t version) {
    return absl::NotFoundError(absl::StrCat("version ", version, " is gone"));
  };
  EXPECT_THAT(labels.RollBack("stable", std::nullopt, is_gone, kAuthor),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("version 1 is gone")));
  EXPECT_EQ(VersionOf(labels, "stable"), 2);
}

TEST(AdapterLabelsTest, RollBackFromAVersionMayBeRepeated) {
  AdapterLabels labels;
  for (int64_t version : {1, 2, 3}) {
    ASSERT_OK(labels.Set("stable", {version}, std::nullopt, kAuthor));
  }
  const auto from = [&](int64_t version) {
    return labels.RollBack("stable", version, kIsThere, kAuthor);
  };
  EXPECT_THAT(from(2),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("expected it to lead to version 2, it leads to version 3")));
  ASSERT_OK(from(3));
  EXPECT_EQ(VersionOf(labels, "stable"), 2);
  const int64_t generation = labels.generation;
  // Moves of other labels are no matter.
  ASSERT_OK(labels.Set("shadow", {9}, std::nullopt, kAuthor));
  ASSERT_OK(from(3));
  EXPECT_EQ(VersionOf(labels, "stable"), 2);
  EXPECT_EQ(labels.generation, generation + 1);
  ASSERT_OK(from(2));
  EXPECT_EQ(VersionOf(labels, "stable"), 1);
  // Long done, and gone on from.
  EXPECT_THAT(from(3), StatusIs(absl::StatusCode::kFailedPrecondition));
  ASSERT_OK(labels.Set("stable", {3}, std::nullopt, kAuthor));
  ASSERT_OK(labels.Remove("stable", kAuthor));
  EXPECT_THAT(from(3), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("leads to none")));
}

TEST(AdapterLabelsTest, RollBackFromAVersionIsNotOneOfItsPercentage) {
  AdapterLabels labels;
  ASSERT_OK(labels.Set("canary", {7, 5}, 6, kAuthor));
  ASSERT_OK(labels.Set("canary", {8, 5}, 6, kAuthor));
  ASSERT_OK(labels.Set("canary", {8, 50}, 6, kAuthor));
  const auto from_8 = [&] { return labels.RollBack("canary", 8, kIsThere, kAuthor); };
  EXPECT_THAT(from_8(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                 HasSubstr("it led to version 8 too")));
  ASSERT_OK(labels.RollBack("canary", std::nullopt, kIsThere, kAuthor));
  EXPECT_EQ(labels.Target("canary"), (LabelTarget{8, 5}));
  ASSERT_OK(from_8());
  EXPECT_EQ(VersionOf(labels, "canary"), 7);
  EXPECT_OK(from_8());
}

TEST(AdapterLabelsTest, KeepTheLastTenMoves) {
  AdapterLabels labels;
  for (int64_t version = 1; version <= 30; ++version) {
    ASSERT_OK(labels.Set("stable", {version}, std::nullopt, kAuthor));
  }
  ASSERT_EQ(labels.history.size(), 10u);
  EXPECT_EQ(labels.history.front().to, LabelTarget{21});
  EXPECT_EQ(labels.generation, 30);
}

TEST(CanaryBucketTest, IsOfTheNameAndTheItem) {
  // First eight bytes of SHA-256("shop\0item-1"), modulo 10,000, by Python's hashlib.
  EXPECT_EQ(CanaryBucket("shop", "item-1"), 8289);
  EXPECT_EQ(CanaryBucket("shop", ""), 9338);
  EXPECT_EQ(CanaryBucket("toys", "item-1"), 4420);
}

class AdapterLabelsFileTest : public ::testing::Test {
 protected:
  absl::StatusOr<AdapterLabels> Set(const std::string& label, int64_t version) {
    return UpdateAdapterLabels(dir_.path(), [&](AdapterLabels* labels) {
      return labels->Set(label, {version}, std::nullopt, kAuthor);
    });
  }

  const TempDir dir_;
};

TEST_F(AdapterLabelsFileTest, NoFileMeansNoLabels) {
  ASSERT_OK_AND_ASSIGN(const AdapterLabels labels, ReadAdapterLabels(dir_.path()));
  EXPECT_EQ(labels.generation, 0);
  EXPECT_TRUE(labels.labels.empty());
}

TEST_F(AdapterLabelsFileTest, UpdatesAreReadBack) {
  ASSERT_OK(Set("stable", 1));
  ASSERT_OK_AND_ASSIGN(const AdapterLabels written, Set("canary", 2));
  ASSERT_OK_AND_ASSIGN(const AdapterLabels read, ReadAdapterLabels(dir_.path()));
  EXPECT_EQ(read.ToJson(), written.ToJson());
  EXPECT_EQ(read.generation, 2);
}

TEST_F(AdapterLabelsFileTest, AChangeThatFailsLeavesTheFileAsItIs) {
  ASSERT_OK(Set("stable", 1));
  ASSERT_OK_AND_ASSIGN(const std::string before, ReadFile(dir_.File("labels.json")));
  EXPECT_THAT(Set("stable", 0), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(*ReadFile(dir_.File("labels.json")), before);
}

TEST_F(AdapterLabelsFileTest, ABrokenFileIsNotOverwritten) {
  ASSERT_OK(WriteFile(dir_.File("labels.json"), "{\"format"));
  EXPECT_THAT(Set("stable", 1),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr(dir_.File("labels.json"))));
  EXPECT_EQ(*ReadFile(dir_.File("labels.json")), "{\"format");
}

TEST_F(AdapterLabelsFileTest, UpdatersOfManyThreadsLoseNothing) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int64_t i = 1; i <= 10; ++i) EXPECT_THAT(Set(absl::StrCat("label-", t), i), IsOk());
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_OK_AND_ASSIGN(const AdapterLabels labels, ReadAdapterLabels(dir_.path()));
  EXPECT_EQ(labels.generation, 40);
  for (int t = 0; t < 4; ++t) EXPECT_EQ(VersionOf(labels, absl::StrCat("label-", t)), 10);
}

TEST_F(AdapterLabelsFileTest, ALinkThatLeadsOutOfTheFolderIsRefused) {
  const TempDir elsewhere;
  ASSERT_OK(WriteFile(elsewhere.File("labels.json"), R"({"format_version": "1.0", "labels": {}})"));
  fs::create_symlink(elsewhere.File("labels.json"), dir_.File("labels.json"));
  EXPECT_THAT(ReadAdapterLabels(dir_.path()),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("leads out")));
}

TEST_F(AdapterLabelsFileTest, ADirectoryThatCannotBeWrittenIsAPreconditionThatNamesIt) {
  // Where not even root may make a file.
  EXPECT_THAT(UpdateAdapterLabels("/sys/kernel",
                                  [](AdapterLabels* labels) {
                                    return labels->Set("stable", {1}, std::nullopt, kAuthor);
                                  }),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("/sys/kernel")));
}

// Files of this process end at so many bytes while it lives, as on a disk that is full then.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) : handler_(signal(SIGXFSZ, SIG_IGN)) {
    EXPECT_EQ(getrlimit(RLIMIT_FSIZE, &before_), 0);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  }
  ~FullDisk() {
    EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &before_), 0);
    signal(SIGXFSZ, handler_);
  }

 private:
  const sighandler_t handler_;
  rlimit before_{};
};

TEST_F(AdapterLabelsFileTest, AFullDiskLeavesTheLabelsAsTheyAreAndNothingElse) {
  ASSERT_OK(Set("stable", 1));
  ASSERT_OK_AND_ASSIGN(const std::string before, ReadFile(dir_.File("labels.json")));
  {
    const FullDisk disk(16);
    const absl::Status full = Set("stable", 2).status();
    EXPECT_FALSE(full.ok());
    EXPECT_THAT(full.message(), HasSubstr("labels.json"));
  }
  EXPECT_EQ(*ReadFile(dir_.File("labels.json")), before);
  for (const auto& entry : fs::directory_iterator(dir_.path())) {
    EXPECT_THAT(entry.path().filename().string(), AnyOf("labels.json", ".labels.lock"));
  }
  // And there is room again.
  ASSERT_OK(Set("stable", 2));
  EXPECT_EQ(VersionOf(*ReadAdapterLabels(dir_.path()), "stable"), 2);
}

TEST_F(AdapterLabelsFileTest, AnUpdateRemovesWhatKilledOnesLeft) {
  ASSERT_OK(WriteFile(dir_.File("labels.json.tmp.4711.0"), "{"));
  ASSERT_OK(WriteFile(dir_.File("labels.json.mine"), "{"));
  ASSERT_OK(Set("stable", 1));
  EXPECT_FALSE(fs::exists(dir_.File("labels.json.tmp.4711.0")));
  EXPECT_TRUE(fs::exists(dir_.File("labels.json.mine")));
  EXPECT_EQ(ReadAdapterLabels(dir_.path())->generation, 1);
}

TEST_F(AdapterLabelsFileTest, AnUpdateWaitsForTheOneBeforeIt) {
  const FileDescriptor lock(open(dir_.File(".labels.lock").c_str(), O_RDWR | O_CREAT, 0644));
  ASSERT_TRUE(lock.ok());
  ASSERT_EQ(flock(lock.get(), LOCK_EX), 0);
  std::thread updater([this] { EXPECT_THAT(Set("stable", 1), IsOk()); });
  EXPECT_EQ(ReadAdapterLabels(dir_.path())->generation, 0);
  ASSERT_EQ(flock(lock.get(), LOCK_UN), 0);
  updater.join();
  EXPECT_EQ(ReadAdapterLabels(dir_.path())->generation, 1);
}

}  // namespace
}  // namespace pricer
