#include "server/self_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/server/fakes.h"
#include "tests/server/golden_adapter.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::FakeClock;
using testing::FakeEngine;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::MakeGoldenAdapter;
using testing::RecordingMetrics;

class SelfCheckTest : public ::testing::Test {
 protected:
  ~SelfCheckTest() override {
    engine_.fake_predictor().Release();
    scheduler_.Stop(absl::InfiniteFuture());
  }

  // With golden items named by version and number; wrong where `factor` is not 1.
  void Publish(const std::string& name, int64_t version, int golden_items, double factor = 1) {
    const auto adapter = MakeGoldenAdapter(name, version, golden_items, factor);
    registry_.Discover(adapter->key);
    registry_.Publish(adapter, absl::ZeroDuration());
  }
  // What was priced, as "name first-letter".
  std::vector<std::string> Priced() {
    std::vector<std::string> priced;
    for (const auto& batch : engine_.fake_predictor().batches()) {
      for (const auto& sequence : batch) {
        priced.push_back(sequence.adapter.name + " " + static_cast<char>(sequence.ids[0]));
      }
    }
    return priced;
  }

  FakeClock clock_;
  RecordingMetrics metrics_;
  FakeEngine engine_;
  AdapterRegistry registry_{"", &metrics_, &clock_};
  BatchScheduler scheduler_{{.max_batch_tokens = 1000, .max_queue_tokens = 1000},
                            engine_.predictor(),
                            &metrics_,
                            &clock_};
  GoldenChecker golden_{&engine_, &scheduler_};
  std::vector<std::pair<bool, std::string>> reports_;
  SelfCheck check_{
      &registry_, &golden_, absl::Minutes(1), &clock_,
      [this](bool well, const std::string& reason) { reports_.emplace_back(well, reason); }};
};

TEST_F(SelfCheckTest, WithoutGoldenItemsThereIsNothingToSay) {
  check_.Check();
  Publish("toys", 1, 0);
  check_.Check();
  check_.Watch();
  EXPECT_THAT(reports_, IsEmpty());
  EXPECT_THAT(Priced(), IsEmpty());
}

TEST_F(SelfCheckTest, PricesTheItemsOfWhatAnswersByDefaultInTurn) {
  Publish("toys", 1, 2);
  Publish("toys", 2, 2);
  Publish("wine", 1, 1);
  for (int i = 0; i < 4; ++i) check_.Check();
  EXPECT_THAT(Priced(), ElementsAre("toys a", "toys b", "wine a", "toys a"));
  EXPECT_THAT(reports_, IsEmpty());
}

TEST_F(SelfCheckTest, ReportsAPriceThatIsNotWhatItWasAndThatItIsAgain) {
  Publish("toys", 1, 1, 1.1);
  check_.Check();
  check_.Check();
  ASSERT_EQ(reports_.size(), 1u);
  EXPECT_FALSE(reports_[0].first);
  EXPECT_THAT(reports_[0].second, AllOf(HasSubstr("toys version 1"), HasSubstr("golden item 0")));
  Publish("toys", 2, 1);
  check_.Check();
  ASSERT_EQ(reports_.size(), 2u);
  EXPECT_TRUE(reports_[1].first);
}

TEST_F(SelfCheckTest, ReportsABatchLoopThatDoesNotComeRound) {
  Publish("toys", 1, 1);
  engine_.fake_predictor().Block();
  std::thread checker([this] { check_.Check(); });
  engine_.fake_predictor().WaitForBatches(1);
  check_.Watch();
  EXPECT_THAT(reports_, IsEmpty());
  clock_.Advance(absl::Minutes(1));
  check_.Watch();
  ASSERT_EQ(reports_.size(), 1u);
  EXPECT_FALSE(reports_[0].first);
  EXPECT_THAT(reports_[0].second, HasSubstr("1m"));
  engine_.fake_predictor().Release();
  checker.join();
  ASSERT_EQ(reports_.size(), 2u);
  EXPECT_TRUE(reports_[1].first);
}

TEST_F(SelfCheckTest, AStoppingServerSaysNothing) {
  Publish("toys", 1, 1);
  golden_.Cancel();
  check_.Check();
  EXPECT_THAT(reports_, IsEmpty());
}

}  // namespace
}  // namespace pricer
