// The group itself, its processes as threads over the loopback, and the signs of life.

#include "trainer/process_group.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/testing/free_port.h"
#include "tests/testing/status_matchers.h"
#include "trainer/heartbeats.h"

namespace pricer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::StatusIs;

void RunRanks(int size, const std::function<void(ProcessGroup* group)>& body,
              const ProcessGroup::Options& options = {}) {
  // c10d's record of past collectives is one for the process and not made for ranks that are
  // threads of one: without entries nothing is written to it.
  setenv("TORCH_FR_BUFFER_SIZE", "0", /*overwrite=*/1);
  const int port = testing::FreePort();
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < size; ++rank) {
    ranks.emplace_back([&, rank] {
      LaunchEnvironment launch;
      launch.rank = rank;
      launch.size = size;
      launch.master_address = "127.0.0.1";
      launch.master_port = port;
      const auto group = ProcessGroup::Join(launch, options);
      ASSERT_OK(group);
      body(group->get());
    });
  }
  for (std::thread& rank : ranks) rank.join();
}

TEST(ProcessGroupTest, OneProcessIsAGroup) {
  const auto group = ProcessGroup::Join({}, {});
  ASSERT_OK(group);
  EXPECT_EQ((*group)->size(), 1);
  const at::Tensor values = at::ones({3});
  ASSERT_OK((*group)->Sum(values));
  ASSERT_OK((*group)->Broadcast(values));
  EXPECT_TRUE(at::equal(values, at::ones({3})));
  EXPECT_THAT((*group)->Agree(absl::DataLossError("own")), StatusIs(absl::StatusCode::kDataLoss));
}

TEST(ProcessGroupTest, SumsAndBroadcastsOnEveryRank) {
  RunRanks(3, [](ProcessGroup* group) {
    const double rank = group->rank();
    const at::Tensor floats = at::full({1000}, rank + 1, at::kFloat);
    ASSERT_OK(group->Sum(floats));
    EXPECT_TRUE(at::equal(floats, at::full({1000}, 6.0, at::kFloat)));
    const at::Tensor doubles = at::full({2}, rank, at::kDouble);
    ASSERT_OK(group->Broadcast(doubles));
    EXPECT_TRUE(at::equal(doubles, at::zeros({2}, at::kDouble)));
    std::string bytes = group->leads() ? std::string("a\0b", 3) : "other";
    ASSERT_OK(group->Broadcast(&bytes));
    EXPECT_EQ(bytes, std::string("a\0b", 3));
    bytes = group->leads() ? "" : "other";
    ASSERT_OK(group->Broadcast(&bytes));
    EXPECT_EQ(bytes, "");
    double number = rank + 5;
    ASSERT_OK(group->Broadcast(&number));
    EXPECT_EQ(number, 5.0);
  });
}

TEST(ProcessGroupTest, AgreesOnTheRankThatHasAnError) {
  RunRanks(3, [](ProcessGroup* group) {
    EXPECT_OK(group->Agree(absl::OkStatus()));
    const absl::Status agreed =
        group->Agree(group->rank() == 1 ? absl::DataLossError("mine") : absl::OkStatus());
    if (group->rank() == 1) {
      EXPECT_THAT(agreed, StatusIs(absl::StatusCode::kDataLoss, "mine"));
    } else {
      EXPECT_THAT(agreed, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("rank 1")));
    }
  });
}

TEST(ProcessGroupTest, ARankThatLeavesIsNamed) {
  RunRanks(3, [](ProcessGroup* group) {
    const at::Tensor values = at::ones({8});
    ASSERT_OK(group->Sum(values));
    if (group->rank() == 1) return;
    const absl::Status status = group->Sum(values);
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("rank 1 has stopped")));
  });
}

TEST(ProcessGroupTest, TheRankThatKeepsTheStoreIsNamed) {
  RunRanks(2, [](ProcessGroup* group) {
    const at::Tensor values = at::ones({8});
    ASSERT_OK(group->Sum(values));
    if (group->leads()) return;
    EXPECT_THAT(group->Sum(values),
                StatusIs(absl::StatusCode::kUnavailable, HasSubstr("rank 0 has stopped")));
  });
}

TEST(ProcessGroupTest, SaysWhereItCannotFindTheOthers) {
  LaunchEnvironment launch;
  launch.rank = 1;
  launch.size = 2;
  launch.master_address = "127.0.0.1";
  launch.master_port = testing::FreePort();
  const auto group = ProcessGroup::Join(launch, {.join_timeout = absl::Seconds(1)});
  EXPECT_THAT(group.status(),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr(absl::StrCat("rank 1 of 2 cannot join the others at 127.0.0.1:",
                                              launch.master_port))));
}

// A store whose other ranks do as the test says, and time that passes only when it is told to.
class FakeStore : public Clock {
 public:
  absl::Time Now() const override {
    const MutexLock lock(&mutex_);
    return now_;
  }

  int64_t Add(int rank, int64_t by) {
    const MutexLock lock(&mutex_);
    if (gone_) throw std::runtime_error("connection refused");
    ++looks_;
    looked_.SignalAll();
    return counts_[rank] += by;
  }

  // `alive` give a sign, `passed` goes by, and all have been looked at since.
  void Pass(absl::Duration passed, const std::vector<int>& alive) {
    const MutexLock lock(&mutex_);
    for (int rank : alive) ++counts_[rank];
    now_ += passed;
    // Of three ranks: what is left of a look that had begun, one whole look, and the next one,
    // which begins when that is done.
    const int64_t enough = looks_ + 9;
    while (looks_ < enough) looked_.Wait(&mutex_);
  }

  void Close() {
    const MutexLock lock(&mutex_);
    gone_ = true;
    now_ += absl::Seconds(7);
  }

 private:
  mutable Mutex mutex_;
  CondVar looked_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_) = absl::UnixEpoch();
  std::vector<int64_t> counts_ ABSL_GUARDED_BY(mutex_) = {0, 0, 0};
  int64_t looks_ ABSL_GUARDED_BY(mutex_) = 0;
  bool gone_ ABSL_GUARDED_BY(mutex_) = false;
};

TEST(HeartbeatsTest, NamesTheRanksThatGiveNoSign) {
  FakeStore store;
  const Heartbeats beats(
      0, 3, [&](int rank, int64_t by) { return store.Add(rank, by); }, &store);
  store.Pass(absl::Seconds(5), {1, 2});
  store.Pass(absl::Seconds(5), {2});
  store.Pass(absl::Seconds(5), {2});
  EXPECT_THAT(beats.SilentFor(absl::Seconds(9)), ElementsAre(1));
  EXPECT_THAT(beats.SilentFor(absl::Seconds(16)), IsEmpty());
  EXPECT_FALSE(beats.store_is_gone());
}

TEST(HeartbeatsTest, KnowsNothingOfTheOthersWhileTheStoreIsGone) {
  FakeStore store;
  const Heartbeats beats(
      0, 3, [&](int rank, int64_t by) { return store.Add(rank, by); }, &store);
  store.Pass(absl::Seconds(1), {1, 2});
  store.Close();
  while (!beats.store_is_gone()) std::this_thread::yield();
  EXPECT_THAT(beats.SilentFor(absl::Seconds(5)), IsEmpty());
  EXPECT_GE(beats.store_silence(), absl::Seconds(7));
}

TEST(HeartbeatsTest, RanksAreNamedAsInASentence) {
  EXPECT_EQ(NameRanks({1}), "rank 1");
  EXPECT_EQ(NameRanks({1, 3}), "ranks 1 and 3");
  EXPECT_EQ(NameRanks({1, 3, 4}), "ranks 1, 3 and 4");
}

}  // namespace
}  // namespace pricer
