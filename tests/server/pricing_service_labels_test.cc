#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "absl/strings/str_cat.h"
#include "model/adapter_labels.h"
#include "server/pricing_service.h"
#include "tests/server/fakes.h"
#include "tests/server/pricing_service_fixture.h"

namespace pricer {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using testing::FakePrice;
using ::testing::HasSubstr;
using testing::IsGrpcError;
using testing::MakeLoadedAdapter;
using testing::PricingServiceTest;

class PricingServiceLabelsTest : public PricingServiceTest {
 protected:
  PricingServiceLabelsTest() {
    Publish(2);
    Publish(3);
  }
  void Label(const std::map<std::string, LabelTarget>& targets) {
    AdapterLabels labels{.generation = ++generation_, .labels = targets, .history = {}};
    registry_.SetLabels("toys", std::move(labels));
  }
  static v1::PredictPriceRequest WithLabel(const std::string& text, const std::string& label) {
    v1::PredictPriceRequest request = Request(text);
    request.mutable_adapter()->set_name("toys");
    request.mutable_adapter()->set_label(label);
    return request;
  }
  const v1::ServedBy& served_by() const { return response_.prediction().served_by(); }

  int64_t generation_ = 0;
};

TEST_F(PricingServiceLabelsTest, StableFollowsTheNewestVersionUntilItIsSet) {
  ASSERT_TRUE(Call(Request("lamp")).ok());
  EXPECT_EQ(served_by().version(), 3);
  EXPECT_EQ(served_by().label(), "stable");
  Label({{"stable", {.version = 1}}});
  ASSERT_TRUE(Call(Request("lamp")).ok());
  EXPECT_EQ(served_by().version(), 1);
  ASSERT_TRUE(Call(WithLabel("lamp", "stable")).ok());
  EXPECT_EQ(served_by().version(), 1);
}

TEST_F(PricingServiceLabelsTest, AnyLabelCanBeAskedFor) {
  Label({{"stable", {.version = 1}}, {"spring-sale", {.version = 2}}});
  ASSERT_TRUE(Call(WithLabel("lamp", "spring-sale")).ok());
  EXPECT_EQ(served_by().version(), 2);
  EXPECT_EQ(served_by().label(), "spring-sale");
  EXPECT_THAT(Call(WithLabel("lamp", "autumn")),
              IsGrpcError(grpc::StatusCode::NOT_FOUND, HasSubstr("there is: stable, spring-sale")));
  v1::PredictPriceRequest by_number = WithLabel("lamp", "");
  by_number.mutable_adapter()->set_version(3);
  ASSERT_TRUE(Call(by_number).ok());
  EXPECT_EQ(served_by().version(), 3);
  EXPECT_EQ(served_by().label(), "");
}

TEST_F(PricingServiceLabelsTest, TheCanaryAnswersItsShareByIdInSinglesAndBatches) {
  Label({{"stable", {.version = 1}}, {"canary", {.version = 2, .percent = 30}}});
  std::vector<std::string> texts(400, "lamp");
  ASSERT_TRUE(CallBatch(BatchRequest(texts)).ok());
  int canaries = 0;
  for (const v1::ItemResult& result : batch_response_.results()) {
    const v1::Prediction& prediction = result.prediction();
    const bool is_canarys = CanaryBucket("toys", result.id()) < 3000;
    canaries += is_canarys ? 1 : 0;
    EXPECT_EQ(prediction.served_by().version(), is_canarys ? 2 : 1);
    EXPECT_EQ(prediction.served_by().label(), is_canarys ? "canary" : "stable");
    EXPECT_THAT(prediction.price(), DoubleNear(FakePrice(is_canarys ? 2 : 1), 1e-6));
  }
  // Three standard deviations.
  EXPECT_NEAR(canaries, 120, 28);
  for (int i : {0, 1, 2, 3, 4, 5}) {
    v1::PredictPriceRequest request = Request("another lamp");
    request.mutable_item()->set_id(absl::StrCat("id ", i));
    ASSERT_TRUE(Call(request).ok());
    EXPECT_EQ(served_by().version(), batch_response_.results(i).prediction().served_by().version());
  }
}

TEST_F(PricingServiceLabelsTest, AnItemWithoutAnIdIsTheCanarysByItsText) {
  Label({{"stable", {.version = 1}}, {"canary", {.version = 2, .percent = 50}}});
  for (int i = 0; i < 10; ++i) {
    const std::string text = absl::StrCat("lamp ", i);
    ASSERT_TRUE(Call(Request(text)).ok());
    EXPECT_EQ(served_by().version(), CanaryBucket("toys", text) < 5000 ? 2 : 1);
  }
}

TEST_F(PricingServiceLabelsTest, WhoAsksForAVersionOrALabelGetsNoCanary) {
  Label({{"stable", {.version = 1}}, {"canary", {.version = 2}}});
  ASSERT_TRUE(Call(Request("lamp")).ok());
  EXPECT_EQ(served_by().version(), 2);
  ASSERT_TRUE(Call(WithLabel("lamp", "stable")).ok());
  EXPECT_EQ(served_by().version(), 1);
  v1::PredictPriceRequest by_number = WithLabel("lamp", "");
  by_number.mutable_adapter()->set_version(3);
  ASSERT_TRUE(Call(by_number).ok());
  EXPECT_EQ(served_by().version(), 3);
  ASSERT_TRUE(Call(WithLabel("lamp", "canary")).ok());
  EXPECT_EQ(served_by().version(), 2);
}

TEST_F(PricingServiceLabelsTest, TheShadowIsPricedInTheSameBatchAndCompared) {
  Label({{"stable", {.version = 1}}, {"shadow", {.version = 3}}});
  ASSERT_TRUE(Call(Request("lamp")).ok());
  EXPECT_EQ(served_by().version(), 1);
  EXPECT_THAT(response_.prediction().price(), DoubleNear(FakePrice(1), 1e-6));
  ASSERT_EQ(engine_.fake_predictor().batches().size(), 1u);
  const auto batch = engine_.fake_predictor().batches()[0];
  ASSERT_EQ(batch.size(), 2u);
  EXPECT_EQ(batch[0].adapter.version + batch[1].adapter.version, 4);
  EXPECT_THAT(metrics_.values().shadow_log_ratios.at(AdapterKey{"toys", 3}),
              ElementsAre(DoubleNear(std::log(3.0), 1e-9)));
  // What is remembered was compared.
  ASSERT_TRUE(Call(Request("lamp")).ok());
  EXPECT_EQ(ComputedSequences(), 2);
  // Nobody was asked for it.
  EXPECT_EQ(metrics_.values().items.count(AdapterKey{"toys", 3}), 0u);
}

TEST_F(PricingServiceLabelsTest, AShadowThatFailsIsCountedAndTouchesNobody) {
  const auto shadow = MakeLoadedAdapter("toys", 4);
  shadow->manifest.prompt.max_prompt_tokens = 3;
  registry_.Discover(shadow->key);
  registry_.Publish(shadow, absl::ZeroDuration());
  Label({{"stable", {.version = 1}}, {"shadow", {.version = 4}}});
  engine_.fake_predictor().FailOnLength(3, absl::InternalError("not finite"));
  ASSERT_TRUE(Call(Request("lamp")).ok());
  EXPECT_THAT(response_.prediction().price(), DoubleNear(FakePrice(1), 1e-6));
  EXPECT_EQ(metrics_.values().shadow_failures, 1);
  EXPECT_TRUE(metrics_.values().shadow_log_ratios.empty());
}

TEST_F(PricingServiceLabelsTest, TheCanarysItemsHaveNoShadow) {
  Label({{"stable", {.version = 1}}, {"canary", {.version = 2}}, {"shadow", {.version = 3}}});
  ASSERT_TRUE(Call(Request("lamp")).ok());
  EXPECT_EQ(ComputedSequences(), 1);
  ASSERT_TRUE(Call(WithLabel("lamp", "stable")).ok());
  EXPECT_EQ(ComputedSequences(), 3);
}

TEST_F(PricingServiceLabelsTest, AMovedLabelChangesLaterCallsAndNoneThatRuns) {
  Label({{"stable", {.version = 1}}});
  std::future<int64_t> first = OccupyPredictor();
  Label({{"stable", {.version = 2}}});
  engine_.fake_predictor().Release();
  EXPECT_EQ(first.get(), 1);
  EXPECT_EQ(CallInBackground("second").get(), 2);
}

}  // namespace
}  // namespace pricer
