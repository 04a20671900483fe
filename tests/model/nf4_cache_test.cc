#include "model/nf4_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <thread>
#include <vector>

#include "base/file.h"
#include "model/network.h"
#include "tests/testing/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

using ::testing::HasSubstr;
using testing::StatusIs;

class Nf4CacheTest : public ::testing::Test {
 protected:
  void SetUp() override { base_ = MakeBase("base", 1); }

  std::unique_ptr<Checkpoint> MakeBase(const std::string& name, uint64_t seed) {
    EXPECT_OK(testing::WriteTinyCheckpoint(dir_.File(name), {.seed = seed}));
    auto base = Checkpoint::Open(dir_.File(name));
    EXPECT_OK(base);
    return *std::move(base);
  }

  const testing::TempDir dir_;
  const std::string folder_ = dir_.File("cache/nf4");
  std::unique_ptr<Checkpoint> base_;
};

TEST_F(Nf4CacheTest, TheNetworkIsTheOneThatQuantizingAtLoadMakes) {
  ASSERT_OK_AND_ASSIGN(const auto form, OpenNf4Form(*base_, folder_));
  EXPECT_TRUE(form->declares_nf4());
  const auto cached = testing::LoadNetwork(*form, WeightsKind::kNf4);
  const auto direct = testing::LoadNetwork(*base_, WeightsKind::kNf4);
  const std::vector<int32_t> ids = {5, 6, 7, 80};
  const PackedBatch batch = Pack({{.ids = ids, .adapter = -1}});
  EXPECT_TRUE(at::equal(cached->Forward(batch, {}), direct->Forward(batch, {})));
}

TEST_F(Nf4CacheTest, IsMadeOnce) {
  ASSERT_OK_AND_ASSIGN(const auto first, OpenNf4Form(*base_, folder_));
  const auto written = fs::last_write_time(first->directory() + "/model.safetensors");
  ASSERT_OK_AND_ASSIGN(const auto second, OpenNf4Form(*base_, folder_, [] { return true; }));
  EXPECT_EQ(second->directory(), first->directory());
  EXPECT_EQ(fs::last_write_time(second->directory() + "/model.safetensors"), written);
}

TEST_F(Nf4CacheTest, BasesLieSideBySide) {
  const auto other = MakeBase("other", 2);
  ASSERT_OK_AND_ASSIGN(const auto form, OpenNf4Form(*base_, folder_));
  ASSERT_OK_AND_ASSIGN(const auto other_form, OpenNf4Form(*other, folder_));
  EXPECT_NE(form->directory(), other_form->directory());
}

TEST_F(Nf4CacheTest, SeveralAtOnceShareOne) {
  std::vector<absl::Status> made(4);
  std::vector<std::thread> threads;
  for (absl::Status& status : made) {
    threads.emplace_back([&] { status = OpenNf4Form(*base_, folder_).status(); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : made) EXPECT_OK(status);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1);
}

TEST_F(Nf4CacheTest, NamesWhatIsOfAnotherBase) {
  const auto other = MakeBase("other", 2);
  ASSERT_OK_AND_ASSIGN(const auto form, OpenNf4Form(*base_, folder_));
  ASSERT_OK_AND_ASSIGN(const std::string fingerprint, other->Fingerprint());
  fs::rename(form->directory(), folder_ + "/" + fingerprint);
  EXPECT_THAT(OpenNf4Form(*other, folder_),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("remove the directory")));
}

TEST_F(Nf4CacheTest, NamesAFolderThatCannotBe) {
  ASSERT_OK(WriteFile(dir_.File("file"), "x"));
  EXPECT_THAT(OpenNf4Form(*base_, dir_.File("file/below")),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("file/below")));
}

TEST_F(Nf4CacheTest, LeavesNothingBehindWhereItIsCancelled) {
  EXPECT_THAT(OpenNf4Form(*base_, folder_, [] { return true; }),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_TRUE(fs::is_empty(folder_));
}

}  // namespace
}  // namespace pricer
