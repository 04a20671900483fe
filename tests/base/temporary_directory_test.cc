#include "base/temporary_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

class TemporaryDirectoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<TemporaryDirectory> made = TemporaryDirectory::Create(parent_.path());
    ASSERT_OK(made);
    made_.emplace(*std::move(made));
  }
  static bool IsAbandonedIn(const std::string& path, absl::Duration time) {
    return TemporaryDirectory::IsAbandoned(path, absl::Now() + time);
  }

  const testing::TempDir parent_;
  std::optional<TemporaryDirectory> made_;
};

TEST_F(TemporaryDirectoryTest, GoesWithWhatIsInItUnlessItWasRenamedAway) {
  ASSERT_OK(WriteFile(made_->path() + "/file", "text"));
  const std::string path = made_->path();
  made_.reset();
  EXPECT_FALSE(fs::exists(path));
  ASSERT_OK_AND_ASSIGN(std::optional<TemporaryDirectory> kept,
                       TemporaryDirectory::Create(parent_.path()));
  fs::rename(kept->path(), parent_.File("kept"));
  kept.reset();
  EXPECT_TRUE(fs::exists(parent_.File("kept")));
}

TEST_F(TemporaryDirectoryTest, IsAbandonedAnHourAfterTheLastChangeInIt) {
  EXPECT_FALSE(IsAbandonedIn(made_->path(), absl::Minutes(59)));
  EXPECT_TRUE(IsAbandonedIn(made_->path(), absl::Minutes(61)));
  const std::string file = made_->path() + "/file";
  ASSERT_OK(WriteFile(file, "text"));
  fs::last_write_time(file, fs::file_time_type::clock::now() + std::chrono::minutes(30));
  EXPECT_FALSE(IsAbandonedIn(made_->path(), absl::Minutes(89)));
  EXPECT_TRUE(IsAbandonedIn(made_->path(), absl::Minutes(91)));
}

TEST_F(TemporaryDirectoryTest, NothingElseIsAbandoned) {
  const absl::Duration long_after = absl::Hours(1000);
  fs::create_directory(parent_.File("shop"));
  EXPECT_FALSE(IsAbandonedIn(parent_.File("shop"), long_after));
  ASSERT_OK(WriteFile(parent_.File(".tmp-file"), "text"));
  EXPECT_FALSE(IsAbandonedIn(parent_.File(".tmp-file"), long_after));
  fs::create_directory_symlink(made_->path(), parent_.File(".tmp-link"));
  EXPECT_FALSE(IsAbandonedIn(parent_.File(".tmp-link"), long_after));
  EXPECT_FALSE(IsAbandonedIn(parent_.File(".tmp-none"), long_after));
  EXPECT_TRUE(IsAbandonedIn(made_->path(), long_after));
}

}  // namespace
}  // namespace pricer
