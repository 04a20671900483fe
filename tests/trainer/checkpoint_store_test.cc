#include "trainer/checkpoint_store.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::StatusIs;
using testing::TempDir;
using ::testing::UnorderedElementsAre;

class CheckpointStoreTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_OK(MakeDirectories(dir_.File("run"))); }

  // Two files with the step in them.
  absl::Status Save(int64_t step) const {
    return store_.Save(step, [step](const std::string& directory) -> absl::Status {
      const absl::Status first = WriteFile(directory + "/a", absl::StrCat("a", step));
      return first.ok() ? WriteFile(directory + "/b", absl::StrCat("b", step)) : first;
    });
  }

  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }

  int64_t NewestStep() const {
    const auto found = store_.FindNewest();
    EXPECT_OK(found);
    return found.ok() ? found->step : -1;
  }

  TempDir dir_;
  const std::string folder_ = dir_.File("run/checkpoints");
  const CheckpointStore store_{folder_, 3};
};

TEST_F(CheckpointStoreTest, FindsWhatWasSavedLast) {
  ASSERT_OK(Save(9));
  ASSERT_OK(Save(10));
  ASSERT_OK_AND_ASSIGN(const CheckpointStore::Found found, store_.FindNewest());
  EXPECT_EQ(found.step, 10);
  EXPECT_EQ(*ReadFile(found.directory + "/b"), "b10");
  EXPECT_TRUE(found.skipped.empty());
}

TEST_F(CheckpointStoreTest, KeepsTheNewest) {
  for (int64_t step : {1, 2, 9, 10, 100}) ASSERT_OK(Save(step));
  EXPECT_THAT(Names(), UnorderedElementsAre("step-9", "step-10", "step-100"));
}

TEST_F(CheckpointStoreTest, PassesOverBrokenOnesAndNamesThem) {
  for (int64_t step : {1, 2, 3}) ASSERT_OK(Save(step));
  fs::resize_file(folder_ + "/step-3/a", 1);
  fs::remove(folder_ + "/step-2/_COMPLETE");
  ASSERT_OK_AND_ASSIGN(const CheckpointStore::Found found, store_.FindNewest());
  EXPECT_EQ(found.step, 1);
  EXPECT_THAT(found.skipped, ElementsAre(HasSubstr("step-3"), HasSubstr("step-2/_COMPLETE")));
}

TEST_F(CheckpointStoreTest, AMissingOrAnExtraFileIsNoWholeCheckpoint) {
  for (int64_t step : {1, 2, 3}) ASSERT_OK(Save(step));
  fs::remove(folder_ + "/step-3/a");
  ASSERT_OK(WriteFile(folder_ + "/step-2/c", "c"));
  EXPECT_EQ(NewestStep(), 1);
}

TEST_F(CheckpointStoreTest, AFailedSaveLeavesTheEarlierOnesAlone) {
  ASSERT_OK(Save(1));
  const absl::Status failed = store_.Save(2, [](const std::string& directory) -> absl::Status {
    EXPECT_OK(WriteFile(directory + "/a", "half"));
    return absl::ResourceExhaustedError("disk full");
  });
  EXPECT_THAT(failed, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("disk full")));
  EXPECT_THAT(Names(), ElementsAre("step-1"));
  EXPECT_EQ(NewestStep(), 1);
}

TEST_F(CheckpointStoreTest, WhatAKilledProcessLeftIsRemoved) {
  ASSERT_OK(Save(1));
  fs::create_directories(folder_ + "/.tmp-2");
  ASSERT_OK(WriteFile(folder_ + "/.tmp-2/a", "half"));
  EXPECT_EQ(NewestStep(), 1);
  ASSERT_OK(Save(2));
  EXPECT_THAT(Names(), UnorderedElementsAre("step-1", "step-2"));
  EXPECT_EQ(*ReadFile(folder_ + "/step-2/a"), "a2");
}

TEST_F(CheckpointStoreTest, ReplacesABrokenCheckpointOfTheSameStepAndNoWholeOne) {
  ASSERT_OK(Save(1));
  ASSERT_OK(store_.Save(1, [](const std::string&) { return absl::InternalError("not asked"); }));
  ASSERT_OK(WriteFile(folder_ + "/step-1/a", "broken"));
  ASSERT_OK(Save(1));
  EXPECT_EQ(*ReadFile(folder_ + "/step-1/a"), "a1");
}

TEST_F(CheckpointStoreTest, IgnoresOtherNames) {
  ASSERT_OK(Save(1));
  fs::create_directories(folder_ + "/step-x");
  fs::create_directories(folder_ + "/step--5");
  ASSERT_OK(WriteFile(folder_ + "/notes", ""));
  EXPECT_EQ(NewestStep(), 1);
}

TEST_F(CheckpointStoreTest, SaysWhereThereIsNone) {
  EXPECT_THAT(store_.FindNewest(), StatusIs(absl::StatusCode::kNotFound, HasSubstr(folder_)));
  ASSERT_OK(Save(1));
  fs::remove(folder_ + "/step-1/b");
  EXPECT_THAT(store_.FindNewest(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("step-1: its files are not")));
}

TEST_F(CheckpointStoreTest, ARunThatIsGoneIsNotMadeAgain) {
  ASSERT_OK(Save(1));
  fs::remove_all(dir_.File("run"));
  EXPECT_THAT(Save(2), StatusIs(absl::StatusCode::kNotFound, HasSubstr(folder_)));
  EXPECT_FALSE(fs::exists(dir_.File("run")));
}

TEST_F(CheckpointStoreTest, AFolderThatCannotBeMadeIsNamed) {
  fs::remove(dir_.File("run"));
  ASSERT_OK(WriteFile(dir_.File("run"), "a file"));
  EXPECT_THAT(Save(1), StatusIs(absl::StatusCode::kNotFound, HasSubstr(folder_)));
}

}  // namespace
}  // namespace pricer
