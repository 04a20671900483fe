#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "absl/strings/str_cat.h"
#include "server/pricing_service.h"
#include "tests/server/fakes.h"
#include "tests/server/pricing_service_fixture.h"

namespace pricer {
namespace {

using ::testing::DoubleNear;
using testing::FakePrice;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsGrpcError;
using testing::MakeLoadedAdapter;
using testing::PricingServiceTest;

TEST_F(PricingServiceTest, ABatchKeepsTheOrderAndABadItemFailsAlone) {
  engine_.fake_predictor().FailOn('!', absl::InternalError("not finite"));
  ASSERT_TRUE(CallBatch(BatchRequest({"a", "", "!", "unencodable", "b"})).ok());
  ASSERT_EQ(batch_response_.results_size(), 5);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(batch_response_.results(i).id(), absl::StrCat("id ", i));
  EXPECT_THAT(batch_response_.results(0).prediction().price(), DoubleNear(FakePrice(1), 1e-6));
  EXPECT_EQ(batch_response_.results(1).error().code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(batch_response_.results(1).error().message(), HasSubstr("item"));
  EXPECT_EQ(batch_response_.results(2).error().code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(batch_response_.results(3).error().code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_TRUE(batch_response_.results(4).has_prediction());
  EXPECT_EQ(metrics_.values().calls.at("BatchPredictPrices OK"), 1);
}

TEST_F(PricingServiceTest, ABatchIsAnsweredByOneVersion) {
  // The predictor is held up with the first items while the version changes.
  engine_.fake_predictor().Block();
  std::future<grpc::Status> call = std::async(std::launch::async, [this] {
    return CallBatch(BatchRequest(std::vector<std::string>(10, "ten tokens")));
  });
  engine_.fake_predictor().WaitForBatches(1);
  Publish(2);
  engine_.fake_predictor().Release();
  ASSERT_TRUE(call.get().ok());
  for (const v1::ItemResult& result : batch_response_.results()) {
    EXPECT_EQ(result.prediction().served_by().version(), 1);
  }
}

TEST_F(PricingServiceTest, ABatchOfMoreThanTheQueueHoldsIsPricedWhole) {
  std::future<int64_t> first = OccupyPredictor();
  std::vector<std::string> texts = Texts(100, 3);
  for (int i = 0; i < 100; ++i) texts[i].resize(3 + 7 * i % 58, 'x');
  std::future<grpc::Status> call =
      std::async(std::launch::async, [&] { return CallBatch(BatchRequest(texts)); });
  // Nothing is taken from the queue, so that the call finds it full.
  while (metrics_.values().queue_tokens < kMaxQueueTokens - 60) std::this_thread::yield();
  engine_.fake_predictor().Release();
  ASSERT_TRUE(call.get().ok());
  ASSERT_EQ(batch_response_.results_size(), 100);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(batch_response_.results(i).id(), absl::StrCat("id ", i));
    EXPECT_EQ(batch_response_.results(i).prediction().prompt_tokens(), texts[i].size());
  }
  EXPECT_EQ(first.get(), 1);
}

TEST_F(PricingServiceTest, ABatchTakesNoMoreThanItsShareOfTheQueue) {
  std::future<int64_t> first = OccupyPredictor();
  std::future<grpc::Status> call =
      std::async(std::launch::async, [this] { return CallBatch(BatchRequest(Texts(20, 30))); });
  // Two batches of 50 tokens hold three items; a fourth of 30 would exceed them.
  while (metrics_.values().queue_items < 3) std::this_thread::yield();
  std::future<int64_t> other = CallInBackground("ten tokens");
  while (metrics_.values().queue_items < 4) std::this_thread::yield();
  EXPECT_EQ(metrics_.values().queue_tokens, 100);
  engine_.fake_predictor().Release();
  EXPECT_EQ(other.get(), 1);
  EXPECT_EQ(first.get(), 1);
  ASSERT_TRUE(call.get().ok());
}

TEST_F(PricingServiceTest, RowsOfPriceTreesCountInTheShareOfABatch) {
  std::future<int64_t> first = OccupyPredictor();
  const auto adapter = MakeLoadedAdapter("toys", 2);
  adapter->tree_rows = std::make_shared<RowEstimate>(25);
  registry_.Discover(adapter->key);
  registry_.Publish(adapter, absl::ZeroDuration());
  std::future<grpc::Status> call =
      std::async(std::launch::async, [this] { return CallBatch(BatchRequest(Texts(20, 5))); });
  // Two batches of 50 tokens hold three items; once all are tokenized, no more came.
  while (metrics_.values().queue_items < 3) std::this_thread::yield();
  pool_.Stop();
  EXPECT_EQ(metrics_.values().queue_items, 3);
  EXPECT_EQ(metrics_.values().queue_tokens, 90);
  engine_.fake_predictor().Release();
  EXPECT_EQ(first.get(), 1);
  ASSERT_TRUE(call.get().ok());
  for (const v1::ItemResult& result : batch_response_.results()) {
    EXPECT_EQ(result.prediction().prompt_tokens(), 5);
  }
  EXPECT_EQ(metrics_.values().queue_tokens, 0);
}

TEST_F(PricingServiceTest, ABatchWhoseFirstItemFindsNoRoomIsRefusedWhole) {
  std::future<int64_t> first = OccupyPredictor();
  std::future<int64_t> second = CallInBackground(std::string(kMaxQueueTokens, 'x'));
  while (metrics_.values().queue_items == 0) std::this_thread::yield();
  grpc::ClientContext context;
  EXPECT_THAT(
      stub_->BatchPredictPrices(&context, BatchRequest({"", "third", "4th"}), &batch_response_),
      IsGrpcError(grpc::StatusCode::RESOURCE_EXHAUSTED, HasSubstr("queue is full")));
  EXPECT_EQ(context.GetServerTrailingMetadata().count("grpc-retry-pushback-ms"), 1u);
  EXPECT_EQ(metrics_.values().calls.at("BatchPredictPrices RESOURCE_EXHAUSTED"), 1);
  engine_.fake_predictor().Release();
  EXPECT_EQ(first.get(), 1);
  EXPECT_EQ(second.get(), 1);
}

TEST_F(PricingServiceTest, ABatchThatWaitsForAnotherCallsItemIsNotRefusedWhole) {
  std::future<int64_t> first = OccupyPredictor();
  std::future<int64_t> lamp = CallInBackground("lamp");
  while (metrics_.values().queue_items < 1) std::this_thread::yield();
  std::future<int64_t> filling = CallInBackground(std::string(100, 'x'));
  while (metrics_.values().queue_items < 2) std::this_thread::yield();
  std::future<grpc::Status> call = std::async(std::launch::async, [this] {
    return CallBatch(BatchRequest({"lamp", std::string(30, 'y'), std::string(31, 'z')}));
  });
  while (metrics_.values().refused[static_cast<int>(RefusalReason::kQueueFull)] < 2) {
    std::this_thread::yield();
  }
  engine_.fake_predictor().Release();
  ASSERT_TRUE(call.get().ok());
  EXPECT_EQ(first.get() + lamp.get() + filling.get(), 3);
  EXPECT_THAT(batch_response_.results(0).prediction().price(), DoubleNear(FakePrice(1), 1e-6));
  for (int i : {1, 2}) {
    EXPECT_EQ(batch_response_.results(i).error().code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  }
}

TEST_F(PricingServiceTest, WaitingItemsWhoseDeadlinePassedAreNeverComputed) {
  std::future<int64_t> first = OccupyPredictor();
  std::future<grpc::Status> call =
      std::async(std::launch::async, [this] { return CallBatch(BatchRequest(Texts(20, 30))); });
  while (metrics_.values().queue_items < 3) std::this_thread::yield();
  clock_.Advance(absl::Hours(24 * 365 * 1000));
  engine_.fake_predictor().Release();
  EXPECT_EQ(call.get().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(first.get(), 1);
  EXPECT_EQ(ComputedSequences(), 1);
}

TEST_F(PricingServiceTest, ABatchWithItemsThatWaitEndsThoughItsCallerHasGone) {
  std::future<int64_t> first = OccupyPredictor();
  grpc::ClientContext context;
  std::future<grpc::Status> call = std::async(std::launch::async, [&] {
    return stub_->BatchPredictPrices(&context, BatchRequest(Texts(20, 30)), &batch_response_);
  });
  while (metrics_.values().queue_items < 3) std::this_thread::yield();
  context.TryCancel();
  EXPECT_EQ(call.get().error_code(), grpc::StatusCode::CANCELLED);
  engine_.fake_predictor().Release();
  EXPECT_EQ(first.get(), 1);
  // As OK where the server heard of it too late.
  const auto ended = [this](const std::string& code) {
    return metrics_.values().calls.count("BatchPredictPrices " + code) > 0;
  };
  while (!ended("CANCELLED") && !ended("OK")) std::this_thread::yield();
}

TEST_F(PricingServiceTest, StoppingTheSchedulerEndsABatchWithItemsThatWait) {
  std::future<int64_t> first = OccupyPredictor();
  std::future<grpc::Status> call =
      std::async(std::launch::async, [this] { return CallBatch(BatchRequest(Texts(20, 30))); });
  while (metrics_.values().queue_items < 3) std::this_thread::yield();
  std::thread stopper([this] { scheduler_.Stop(absl::InfinitePast()); });
  // One that finds no room is refused for another reason once the scheduler stops, and a task that
  // is refused is as it was.
  PriceTask probe;
  probe.ids.assign(kMaxQueueTokens, 0);
  probe.adapter = MakeLoadedAdapter("toys", 1);
  // NOLINTNEXTLINE(bugprone-use-after-move)
  while (!absl::IsUnavailable(scheduler_.Schedule(std::move(probe)))) std::this_thread::yield();
  engine_.fake_predictor().Release();
  stopper.join();
  ASSERT_TRUE(call.get().ok());
  for (const v1::ItemResult& result : batch_response_.results()) {
    EXPECT_EQ(result.error().code(), grpc::StatusCode::UNAVAILABLE);
  }
  EXPECT_EQ(first.get(), 1);
}

TEST_F(PricingServiceTest, TheSameItemIsComputedOnceAndRemembered) {
  std::future<int64_t> first = OccupyPredictor();
  std::future<int64_t> one = CallInBackground("lamp");
  while (metrics_.values().queue_items == 0) std::this_thread::yield();
  std::future<grpc::Status> batch = std::async(std::launch::async, [this] {
    return CallBatch(BatchRequest({"lamp", "chair", "lamp"}));
  });
  while (metrics_.values().coalesced < 2) std::this_thread::yield();
  engine_.fake_predictor().Release();
  EXPECT_EQ(one.get(), 1);
  EXPECT_TRUE(batch.get().ok());
  EXPECT_EQ(first.get(), 1);
  for (const v1::ItemResult& result : batch_response_.results()) {
    EXPECT_THAT(result.prediction().price(), DoubleNear(FakePrice(1), 1e-6));
  }
  EXPECT_EQ(ComputedSequences(), 3);
  // Whatever is asked of the distribution.
  v1::PredictPriceRequest request = Request("lamp");
  request.mutable_options()->set_estimator("quantile:0.9");
  ASSERT_TRUE(Call(request).ok());
  EXPECT_EQ(response_.prediction().prompt_tokens(), 4);
  EXPECT_GT(response_.prediction().price(), FakePrice(1));
  EXPECT_EQ(ComputedSequences(), 3);
  EXPECT_EQ(metrics_.values().cache_hits, 1);
  // Another version prices it anew.
  Publish(2);
  ASSERT_TRUE(Call(Request("lamp")).ok());
  EXPECT_THAT(response_.prediction().price(), DoubleNear(FakePrice(2), 1e-6));
  EXPECT_EQ(ComputedSequences(), 4);
}

TEST_F(PricingServiceTest, BulkItemsWaitBehindOnlineOnes) {
  std::future<int64_t> first = OccupyPredictor();
  v1::BatchPredictPricesRequest bulk = BatchRequest({std::string(40, 'b')});
  bulk.mutable_options()->set_lane(v1::LANE_BULK);
  std::future<grpc::Status> call = std::async(std::launch::async, [&] { return CallBatch(bulk); });
  while (metrics_.values().queue_items < 1) std::this_thread::yield();
  EXPECT_EQ(metrics_.values().lane_tokens[static_cast<int>(Lane::kBulk)], 40);
  std::future<int64_t> online = CallInBackground(std::string(40, 'o'));
  while (metrics_.values().queue_items < 2) std::this_thread::yield();
  engine_.fake_predictor().Release();
  EXPECT_EQ(online.get(), 1);
  EXPECT_TRUE(call.get().ok());
  EXPECT_EQ(first.get(), 1);
  const auto batches = engine_.fake_predictor().batches();
  ASSERT_EQ(batches.size(), 3u);
  EXPECT_EQ(batches[1][0].ids[0], 'o');
  EXPECT_EQ(batches[2][0].ids[0], 'b');
  v1::PredictPriceRequest request = Request("lamp");
  request.mutable_options()->set_lane(static_cast<v1::Lane>(7));
  EXPECT_THAT(Call(request),
              IsGrpcError(grpc::StatusCode::INVALID_ARGUMENT, HasSubstr("options.lane")));
}

TEST_F(PricingServiceTest, ABatchFailsAsAWholeForWhatConcernsAllItems) {
  EXPECT_THAT(CallBatch(v1::BatchPredictPricesRequest()),
              IsGrpcError(grpc::StatusCode::INVALID_ARGUMENT, HasSubstr("items")));
  EXPECT_THAT(CallBatch(BatchRequest(std::vector<std::string>(1025, "x"))),
              IsGrpcError(grpc::StatusCode::INVALID_ARGUMENT, HasSubstr("at most 1024")));
  v1::BatchPredictPricesRequest request = BatchRequest({"a"});
  request.mutable_adapter()->set_name("wine");
  EXPECT_THAT(CallBatch(request), IsGrpcError(grpc::StatusCode::NOT_FOUND, HasSubstr("wine")));
  request = BatchRequest({"a"});
  request.mutable_options()->add_quantiles(2);
  EXPECT_THAT(CallBatch(request),
              IsGrpcError(grpc::StatusCode::INVALID_ARGUMENT, HasSubstr("options.quantiles[0]")));
  EXPECT_THAT(engine_.fake_predictor().batches(), IsEmpty());
}

TEST_F(PricingServiceTest, ABatchIsRefusedWhenTooManyWaitToBeTokenized) {
  pool_.Stop();
  EXPECT_THAT(CallBatch(BatchRequest({"a"})),
              IsGrpcError(grpc::StatusCode::UNAVAILABLE, HasSubstr("stopping")));
}

}  // namespace
}  // namespace pricer
