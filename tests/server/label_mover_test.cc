#include "server/label_mover.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "server/label_follower.h"
#include "tests/server/adapter_files.h"
#include "tests/server/fakes.h"
#include "tests/server/golden_adapter.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::DoubleNear;
using testing::FakeClock;
using testing::FakeEngine;
using ::testing::HasSubstr;
using testing::MakeGoldenAdapter;
using testing::MakeLoadedAdapter;
using testing::MakeVersion;
using testing::RecordingMetrics;
using testing::StatusIs;
using testing::TempDir;

class LabelMoverTest : public ::testing::Test {
 protected:
  LabelMoverTest() {
    for (int64_t version : {1, 2, 3}) Publish(version, 2);
  }
  ~LabelMoverTest() override { scheduler_.Stop(absl::InfiniteFuture()); }

  void Publish(int64_t version, int golden_items, const std::string& currency = "USD") {
    MakeVersion(root_.path(), "toys", std::to_string(version));
    const auto adapter = MakeGoldenAdapter("toys", version, golden_items);
    adapter->manifest.currency = currency;
    registry_.Discover(adapter->key);
    registry_.Publish(adapter, absl::ZeroDuration());
  }
  absl::StatusOr<LabelMoveResult> Move(const std::string& label, LabelTarget target,
                                       const PromotionGate& gate = {}) {
    return mover_.Move("toys", label, target, gate, "operator");
  }
  int64_t Stable() { return (*registry_.Find("toys", std::nullopt))->key.version; }
  int64_t Generation() { return ReadAdapterLabels(root_.File("toys"))->generation; }

  TempDir root_;
  FakeClock clock_;
  RecordingMetrics metrics_;
  FakeEngine engine_;
  AdapterRegistry registry_{"", &metrics_, &clock_};
  BatchScheduler scheduler_{{.max_batch_tokens = 1000, .max_queue_tokens = 1000},
                            engine_.predictor(),
                            &metrics_,
                            &clock_};
  GoldenChecker golden_{&engine_, &scheduler_};
  LabelFollower follower_{root_.path(), &registry_};
  LabelMover mover_{root_.path(), &registry_, &golden_,
                    [this](const std::string& adapter) { follower_.Refresh(adapter); }, &clock_};
};

TEST_F(LabelMoverTest, AMoveHoldsWhenItReturnsAndIsInTheFile) {
  ASSERT_OK_AND_ASSIGN(const LabelMoveResult result, Move("stable", {2}));
  EXPECT_EQ(Stable(), 2);
  EXPECT_EQ(result.labels.live.at("stable"), 2);
  EXPECT_FALSE(result.shift.has_value());
  ASSERT_OK_AND_ASSIGN(const AdapterLabels file, ReadAdapterLabels(root_.File("toys")));
  EXPECT_EQ(file.Target("stable"), LabelTarget{2});
  ASSERT_EQ(file.history.size(), 1u);
  EXPECT_EQ(file.history[0].author.by, "operator");
  EXPECT_EQ(file.history[0].author.at, clock_.Now());
}

TEST_F(LabelMoverTest, TryingAVersionAsCanaryKeepsStableWhereItIs) {
  ASSERT_OK(Move("canary", {1, 5}));
  EXPECT_EQ(Stable(), 3);
  Publish(4, 0);
  EXPECT_EQ(Stable(), 3);
}

TEST_F(LabelMoverTest, OnlyAvailableVersionsAreMovedTo) {
  EXPECT_THAT(Move("stable", {9}), StatusIs(absl::StatusCode::kNotFound, HasSubstr("version 9")));
  registry_.Discover({"toys", 4});
  registry_.BeginLoad({"toys", 4});
  registry_.Refuse({"toys", 4}, absl::FailedPreconditionError("another base"));
  EXPECT_THAT(Move("stable", {4}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("another base")));
  EXPECT_EQ(Generation(), 0);
}

TEST_F(LabelMoverTest, SaysWhatIsWrongWithAMove) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(Move("7", {1}), StatusIs(kInvalid, HasSubstr("label")));
  EXPECT_THAT(Move("stable", {1, 5}), StatusIs(kInvalid, HasSubstr("percent")));
  EXPECT_THAT(Move("stable", {1}, {.max_shift = -1}), StatusIs(kInvalid, HasSubstr("max_shift")));
  EXPECT_THAT(Move("stable", {1}, {.max_shift = std::nan("")}), StatusIs(kInvalid));
  EXPECT_THAT(mover_.Move("../toys", "stable", {1}, {}, ""), StatusIs(kInvalid));
  EXPECT_THAT(mover_.Move("base", "stable", {1}, {}, ""), StatusIs(kInvalid, HasSubstr("base")));
  EXPECT_THAT(mover_.Move("wine", "stable", {1}, {}, ""), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(mover_.Remove("toys", "mine", ""), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(mover_.Remove("wine", "mine", ""), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_EQ(Generation(), 0);
}

TEST_F(LabelMoverTest, RollBackReturnsToAVersionThatIsStillThere) {
  ASSERT_OK(Move("stable", {1}));
  ASSERT_OK(Move("stable", {2}));
  ASSERT_OK(mover_.RollBack("toys", "stable", std::nullopt, "operator"));
  EXPECT_EQ(Stable(), 1);
  ASSERT_OK(Move("stable", {3}));
  registry_.Unload({"toys", 1}, "removed from the adapter folder");
  EXPECT_THAT(mover_.RollBack("toys", "stable", std::nullopt, "operator"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("version 1")));
  EXPECT_EQ(Stable(), 3);
}

TEST_F(LabelMoverTest, RollBackFromAVersionMayBeRepeated) {
  for (const int64_t version : {1, 2, 3}) ASSERT_OK(Move("stable", {version}));
  for (int i = 0; i < 2; ++i) {
    ASSERT_OK(mover_.RollBack("toys", "stable", 3, "operator"));
    EXPECT_EQ(Stable(), 2);
  }
  EXPECT_THAT(mover_.RollBack("toys", "stable", 1, "operator"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("version 2")));
}

TEST_F(LabelMoverTest, RemovingStableLeavesItToTheNewest) {
  ASSERT_OK(Move("stable", {1}));
  ASSERT_OK(mover_.Remove("toys", "stable", "operator"));
  EXPECT_EQ(Stable(), 3);
  ASSERT_OK(mover_.RollBack("toys", "stable", std::nullopt, "operator"));
  EXPECT_EQ(Stable(), 1);
}

TEST_F(LabelMoverTest, TheGateComparesWithTheVersionThatTheLabelPointsTo) {
  // The fake prices by version: from 2 to 3 is ln(3 / 2).
  ASSERT_OK(Move("stable", {2}));
  EXPECT_THAT(Move("stable", {3}, {.max_shift = 0.4}),
              StatusIs(absl::StatusCode::kAborted,
                       AllOf(HasSubstr("version 2"), HasSubstr("0.405"), HasSubstr("0.4"))));
  EXPECT_EQ(Stable(), 2);
  ASSERT_OK_AND_ASSIGN(const LabelMoveResult passed, Move("stable", {3}, {.max_shift = 0.41}));
  EXPECT_THAT(passed.shift.value(), DoubleNear(std::log(1.5), 1e-9));
  EXPECT_EQ(Stable(), 3);
  // A label that is not set yet is compared with stable.
  ASSERT_OK_AND_ASSIGN(const LabelMoveResult canary,
                       Move("canary", {1, 5}, {.golden_items = true, .max_shift = 2}));
  EXPECT_THAT(canary.shift.value(), DoubleNear(std::log(3.0), 1e-9));
}

TEST_F(LabelMoverTest, TheGatePricesTheGoldenItemsAgain) {
  EXPECT_OK(Move("stable", {1}, {.golden_items = true}));
  auto bad = MakeLoadedAdapter("toys", 4);
  bad->manifest.golden_tolerance = 0.001;
  bad->manifest.golden.push_back({"item", 1, 1, 1});
  registry_.Discover(bad->key);
  registry_.Publish(bad, absl::ZeroDuration());
  EXPECT_THAT(Move("stable", {4}, {.golden_items = true}),
              StatusIs(absl::StatusCode::kAborted,
                       AllOf(HasSubstr("golden item 0"), HasSubstr("expected price 1"))));
  EXPECT_EQ(Stable(), 1);
}

TEST_F(LabelMoverTest, AGateThatCannotBeAskedIsNotPassed) {
  Publish(4, 0);
  constexpr auto kFailed = absl::StatusCode::kFailedPrecondition;
  EXPECT_THAT(Move("stable", {4}, {.golden_items = true}),
              StatusIs(kFailed, HasSubstr("golden items")));
  EXPECT_THAT(Move("stable", {4}, {.max_shift = 1}), StatusIs(kFailed, HasSubstr("golden items")));
  Publish(5, 1, "EUR");
  EXPECT_THAT(Move("stable", {1}, {.max_shift = 1}),
              StatusIs(kFailed, AllOf(HasSubstr("USD"), HasSubstr("EUR"))));
  golden_.Cancel();
  EXPECT_THAT(Move("stable", {1}, {.golden_items = true}), StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(Generation(), 0);
}

TEST_F(LabelMoverTest, AFileThatCannotBeReadIsNotOverwritten) {
  testing::WriteText(root_.File("toys/labels.json"), "garbage");
  EXPECT_THAT(Move("stable", {1}), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("labels.json")));
}

}  // namespace
}  // namespace pricer
