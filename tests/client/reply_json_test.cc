#include "client/reply_json.h"

#include <gmock/gmock.h>

#include <string>

#include "absl/strings/str_replace.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::pricer::testing::StatusIs;
using ::testing::HasSubstr;

v1::PredictPriceRequest Request() {
  v1::PredictPriceRequest request;
  request.mutable_item()->set_id("sku-1");
  request.mutable_item()->set_title("cast \"iron\" pan\n26 cm");
  request.mutable_options()->set_estimator("mean");
  return request;
}

v1::Prediction Prediction() {
  v1::Prediction prediction;
  prediction.set_price(1.0 / 3);
  prediction.set_currency_code("USD");
  v1::Interval* const interval = prediction.add_intervals();
  interval->set_coverage(0.8);
  interval->set_low(0.1);
  interval->set_high(0.7);
  v1::Quantile* const quantile = prediction.add_quantiles();
  quantile->set_level(0.25);
  quantile->set_price(0.2);
  v1::ServedBy* const by = prediction.mutable_served_by();
  by->set_model("base");
  by->set_adapter("shop");
  by->set_version(7);
  by->set_digest("d1");
  by->set_label("stable");
  return prediction;
}

TEST(ReplyJsonTest, ALineHoldsAllThatItTakesToAskAgain) {
  const std::string line = ReplyToJson(Request(), Prediction());
  EXPECT_EQ(line.find('\n'), std::string::npos);
  ASSERT_OK_AND_ASSIGN(const Reply reply, ReplyFromJson(line));
  EXPECT_EQ(reply.request.item().SerializeAsString(), Request().item().SerializeAsString());
  EXPECT_EQ(reply.request.adapter().name(), "shop");
  EXPECT_EQ(reply.request.adapter().version(), 7);
  EXPECT_EQ(reply.request.options().estimator(), "mean");
  EXPECT_EQ(reply.request.options().interval_coverages(0), 0.8);
  EXPECT_EQ(reply.request.options().quantiles(0), 0.25);
  EXPECT_EQ(reply.prediction.SerializeAsString(), Prediction().SerializeAsString());
}

TEST(ReplyJsonTest, WhatIsNoReplyIsAnErrorThatNamesTheField) {
  const std::string line = ReplyToJson(Request(), Prediction());
  const auto message = [&line](const std::string& from, const std::string& to) {
    const std::string spoiled = absl::StrReplaceAll(line, {{from, to}});
    EXPECT_NE(spoiled, line) << from;
    const absl::Status status = ReplyFromJson(spoiled).status();
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument));
    return std::string(status.message());
  };
  EXPECT_THAT(message("\"item\":", "\"thing\":"), HasSubstr("item: expected an object"));
  EXPECT_THAT(message("\"version\":7", "\"version\":7.5"), HasSubstr("version: expected a whole"));
  EXPECT_THAT(message("\"sku-1\"", "5"), HasSubstr("id: expected a string, got 5"));
  EXPECT_THAT(message("\"low\":0.1", "\"low\":\"x\""), HasSubstr("low: expected a number"));
  EXPECT_THAT(message("\"quantiles\":[", "\"quantiles\":[7,"), HasSubstr("quantiles: expected"));
  EXPECT_THAT(ReplyFromJson("[1]"), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(ReplyFromJson("{\"price\":"), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(ReplyJsonTest, ADifferenceIsNamedWithBothValues) {
  const v1::Prediction logged = Prediction();
  EXPECT_OK(CompareReplies(logged, logged, 0));
  const auto difference = [&logged](const auto& change, double tolerance) {
    v1::Prediction now = logged;
    change(&now);
    return std::string(CompareReplies(logged, now, tolerance).message());
  };
  EXPECT_THAT(difference([](auto* p) { p->set_price(0.4); }, 0.1), HasSubstr("price: was 0.333"));
  EXPECT_EQ(difference([](auto* p) { p->set_price(0.34); }, 0.1), "");
  EXPECT_EQ(difference([](auto* p) { p->mutable_served_by()->set_digest("d2"); }, 0.1),
            "digest: was d1, is d2");
  EXPECT_EQ(difference([](auto* p) { p->mutable_served_by()->set_model("b2"); }, 0.1),
            "model: was base, is b2");
  EXPECT_THAT(difference([](auto* p) { p->mutable_intervals(0)->set_high(0.9); }, 0.1),
              HasSubstr("interval 0.8 high: was 0.69999999999999996, is 0.9"));
  EXPECT_THAT(difference([](auto* p) { p->mutable_quantiles(0)->set_price(0.9); }, 0.1),
              HasSubstr("quantile 0.25: was"));
}

}  // namespace
}  // namespace pricer
