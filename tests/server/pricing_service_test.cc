#include "server/pricing_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <future>
#include <thread>

#include "absl/strings/str_cat.h"
#include "server/listeners.h"
#include "tests/server/fakes.h"
#include "tests/server/pricing_service_fixture.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::DoubleNear;
using ::testing::ElementsAre;
using testing::FakePrice;
using ::testing::HasSubstr;
using testing::IsGrpcError;
using testing::MakeLoadedAdapter;
using testing::PricingServiceTest;

TEST_F(PricingServiceTest, PricesAnItem) {
  ASSERT_TRUE(Call(Request("lamp")).ok());
  const v1::Prediction& prediction = response_.prediction();
  EXPECT_THAT(prediction.price(), DoubleNear(FakePrice(1), 1e-6));
  EXPECT_EQ(prediction.currency_code(), "USD");
  EXPECT_EQ(prediction.served_by().model(), "model-fingerprint");
  EXPECT_EQ(prediction.served_by().adapter(), "toys");
  EXPECT_EQ(prediction.served_by().version(), 1);
  EXPECT_EQ(prediction.prompt_tokens(), 4);
  EXPECT_FALSE(prediction.truncated());
  EXPECT_EQ(metrics_.values().calls.at("PredictPrice OK"), 1);
  EXPECT_EQ(metrics_.values().items.at(AdapterKey{"toys", 1}), 1);
}

TEST_F(PricingServiceTest, ACallIsKnownByItsCallersRequestIdOrByOneThatIsMadeUp) {
  const auto request_id = [this](const std::string& own) {
    grpc::ClientContext context;
    if (!own.empty()) context.AddMetadata("x-request-id", own);
    v1::PredictPriceResponse response;
    EXPECT_TRUE(stub_->PredictPrice(&context, Request("lamp"), &response).ok());
    const auto& trailers = context.GetServerTrailingMetadata();
    const auto found = trailers.find("x-request-id");
    return found == trailers.end() ? "" : std::string(found->second.data(), found->second.size());
  };
  EXPECT_EQ(request_id("order-17/lamp"), "order-17/lamp");
  const std::string first = request_id("");
  EXPECT_EQ(first.size(), 16u);
  EXPECT_NE(request_id(""), first);
  EXPECT_EQ(request_id("not an id").size(), 16u);
}

TEST_F(PricingServiceTest, OutcomesAreCountedForTheVersionThatPredicted) {
  ASSERT_TRUE(Call(Request("lamp")).ok());
  const std::string token = response_.prediction().outcome_token();
  const v1::Interval interval = response_.prediction().intervals(0);
  v1::PredictPriceRequest other_interval = Request("lamp");
  other_interval.mutable_options()->add_interval_coverages(0.5);
  ASSERT_TRUE(Call(other_interval).ok());
  const std::string without_interval = response_.prediction().outcome_token();
  Publish(2);
  v1::ReportOutcomesRequest request;
  const auto add = [&request](const std::string& outcome_token, double price) {
    v1::Outcome* const outcome = request.add_outcomes();
    outcome->set_id(absl::StrCat("id ", request.outcomes_size() - 1));
    outcome->set_outcome_token(outcome_token);
    outcome->set_price(price);
  };
  add(token, FakePrice(1));
  add(token, 2 * interval.high());
  add(without_interval, FakePrice(1));
  add("nonsense", 10);
  add(token, 0);
  grpc::ClientContext context;
  v1::ReportOutcomesResponse response;
  ASSERT_TRUE(stub_->ReportOutcomes(&context, request, &response).ok());
  ASSERT_EQ(response.results_size(), 5);
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(response.results(i).has_error()) << i;
  EXPECT_THAT(response.results(3).error().message(), HasSubstr("outcome_token"));
  EXPECT_THAT(response.results(4).error().message(), HasSubstr("price"));
  EXPECT_EQ(response.results(4).id(), "id 4");
  const auto values = metrics_.values();
  const AdapterKey key{"toys", 1};
  ASSERT_EQ(values.outcome_log_errors.at(key).size(), 3u);
  EXPECT_THAT(values.outcome_log_errors.at(key)[0], DoubleNear(0, 1e-9));
  EXPECT_THAT(values.outcome_log_errors.at(key)[1],
              DoubleNear(std::log(2 * interval.high() / FakePrice(1)), 1e-9));
  EXPECT_THAT(values.outcome_intervals.at(key), ElementsAre(true, false));

  registry_.Unload(key, "removed from the adapter folder");
  grpc::ClientContext later;
  ASSERT_TRUE(stub_->ReportOutcomes(&later, request, &response).ok());
  EXPECT_EQ(response.results(0).error().code(), grpc::StatusCode::NOT_FOUND);
  grpc::ClientContext empty;
  EXPECT_THAT(stub_->ReportOutcomes(&empty, {}, &response),
              IsGrpcError(grpc::StatusCode::INVALID_ARGUMENT, HasSubstr("outcomes")));
}

TEST_F(PricingServiceTest, AKeptPriceIsComputedAnewWhereThatIsAskedFor) {
  v1::PredictPriceRequest request = Request("lamp");
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(Call(request).ok());
  EXPECT_EQ(ComputedSequences(), 1);
  request.mutable_options()->set_no_cache(true);
  ASSERT_TRUE(Call(request).ok());
  EXPECT_EQ(ComputedSequences(), 2);
  EXPECT_DOUBLE_EQ(response_.prediction().price(), FakePrice(1));
}

TEST_F(PricingServiceTest, SaysThatALongTextWasCut) {
  ASSERT_TRUE(Call(Request(std::string(500, 'x'))).ok());
  EXPECT_TRUE(response_.prediction().truncated());
  EXPECT_EQ(response_.prediction().prompt_tokens(), kDefaultMaxPromptTokens);
}

TEST_F(PricingServiceTest, TokenizesLongTextsOffGrpcsThread) {
  ASSERT_TRUE(Call(Request(std::string(64 * 1024, 'x'))).ok());
  EXPECT_TRUE(response_.prediction().truncated());
  EXPECT_THAT(Call(Request(std::string(64 * 1024 + 1, 'x'))),
              IsGrpcError(grpc::StatusCode::INVALID_ARGUMENT, HasSubstr("item.text")));
  pool_.Stop();
  EXPECT_THAT(Call(Request(std::string(64 * 1024, 'x'))),
              IsGrpcError(grpc::StatusCode::UNAVAILABLE, HasSubstr("stopping")));
  EXPECT_TRUE(Call(Request(std::string(4000, 'x'))).ok());
}

TEST_F(PricingServiceTest, RefusesABadRequestAndNamesTheField) {
  EXPECT_THAT(Call(v1::PredictPriceRequest()),
              IsGrpcError(grpc::StatusCode::INVALID_ARGUMENT, HasSubstr("item")));
  EXPECT_THAT(Call(Request("unencodable")),
              IsGrpcError(grpc::StatusCode::INVALID_ARGUMENT, HasSubstr("item: two BOS")));
  v1::PredictPriceRequest request = Request("lamp");
  request.mutable_options()->set_estimator("average");
  EXPECT_THAT(Call(request),
              IsGrpcError(grpc::StatusCode::INVALID_ARGUMENT, HasSubstr("options.estimator")));
  EXPECT_EQ(metrics_.values().calls.at("PredictPrice INVALID_ARGUMENT"), 3);
  EXPECT_EQ(ComputedSequences(), 0);
}

TEST_F(PricingServiceTest, ARequestThatDoesNotParseIsAnErrorThatSaysSo) {
  // {item: {title: "\xff\xfe"}}, and bytes that are no message at all.
  for (const std::string bytes : {"\x0a\x04\x12\x02\xff\xfe", "garbage"}) {
    EXPECT_THAT(CallWithBytes("PredictPrice", bytes),
                IsGrpcError(grpc::StatusCode::INVALID_ARGUMENT,
                            "request: not a valid PredictPriceRequest; strings must be UTF-8"));
    EXPECT_THAT(CallWithBytes("BatchPredictPrices", bytes),
                IsGrpcError(grpc::StatusCode::INVALID_ARGUMENT,
                            HasSubstr("not a valid BatchPredictPricesRequest")));
  }
  EXPECT_EQ(metrics_.values().calls.at("PredictPrice INVALID_ARGUMENT"), 2);
  EXPECT_EQ(metrics_.values().calls.at("BatchPredictPrices INVALID_ARGUMENT"), 2);
}

TEST_F(PricingServiceTest, AnUnknownAdapterIsNotFound) {
  v1::PredictPriceRequest request = Request("lamp");
  request.mutable_adapter()->set_name("wine");
  EXPECT_THAT(Call(request), IsGrpcError(grpc::StatusCode::NOT_FOUND,
                                         AllOf(HasSubstr("wine"), HasSubstr("toys/1"))));
  request.mutable_adapter()->set_name("toys");
  request.mutable_adapter()->set_version(2);
  EXPECT_THAT(Call(request), IsGrpcError(grpc::StatusCode::NOT_FOUND, HasSubstr("version 2")));
}

TEST_F(PricingServiceTest, TheBaseAnswersWhereItCan) {
  v1::PredictPriceRequest request = Request("lamp");
  request.mutable_adapter()->set_name("base");
  EXPECT_THAT(Call(request), IsGrpcError(grpc::StatusCode::NOT_FOUND, HasSubstr("base")));
  registry_.SetBase(absl::FailedPreconditionError("no token for 7"));
  EXPECT_THAT(Call(request), IsGrpcError(grpc::StatusCode::FAILED_PRECONDITION,
                                         AllOf(HasSubstr("base"), HasSubstr("no token for 7"))));
  registry_.SetBase(MakeLoadedAdapter("base", 0));
  ASSERT_TRUE(Call(request).ok());
  EXPECT_EQ(response_.prediction().served_by().adapter(), "base");
  EXPECT_EQ(response_.prediction().served_by().version(), 0);
  EXPECT_EQ(response_.prediction().served_by().digest(), "base-digest-0");
  EXPECT_EQ(metrics_.values().items.at(BaseKey()), 1);
}

TEST_F(PricingServiceTest, ACallKeepsTheVersionItBeganWith) {
  std::future<int64_t> first = OccupyPredictor();
  Publish(2);
  std::future<int64_t> second = CallInBackground("second");
  while (metrics_.values().queue_items == 0) std::this_thread::yield();
  engine_.fake_predictor().Release();
  EXPECT_EQ(first.get(), 1);
  EXPECT_EQ(second.get(), 2);
}

TEST_F(PricingServiceTest, AFullQueueRefusesAtOnceAndSaysWhenToComeBack) {
  std::future<int64_t> first = OccupyPredictor();
  std::future<int64_t> second = CallInBackground(std::string(kMaxQueueTokens, 'x'));
  while (metrics_.values().queue_items == 0) std::this_thread::yield();
  EXPECT_THAT(Call(Request("third")),
              IsGrpcError(grpc::StatusCode::RESOURCE_EXHAUSTED, HasSubstr("queue is full")));
  EXPECT_EQ(context_->GetServerTrailingMetadata().count("grpc-retry-pushback-ms"), 1u);
  engine_.fake_predictor().Release();
  EXPECT_EQ(first.get(), 1);
  EXPECT_EQ(second.get(), 1);
}

TEST_F(PricingServiceTest, AClientWithARetryPolicyComesBackByItself) {
  std::future<int64_t> first = OccupyPredictor();
  std::future<int64_t> second = CallInBackground(std::string(kMaxQueueTokens, 'x'));
  while (metrics_.values().queue_items == 0) std::this_thread::yield();
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(R"({"methodConfig": [{"name": [{}], "retryPolicy": {
      "maxAttempts": 5, "initialBackoff": "600s", "maxBackoff": "600s", "backoffMultiplier": 1,
      "retryableStatusCodes": ["RESOURCE_EXHAUSTED"]}}]})");
  const auto retrying = v1::PricingService::NewStub(grpc::CreateCustomChannel(
      absl::StrCat("127.0.0.1:", listener_.port), grpc::InsecureChannelCredentials(), arguments));
  std::future<grpc::Status> call = std::async(std::launch::async, [&] {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    return retrying->PredictPrice(&context, Request("third"), &response_);
  });
  const auto refusals = [this] {
    const auto calls = metrics_.values().calls;
    const auto found = calls.find("PredictPrice RESOURCE_EXHAUSTED");
    return found == calls.end() ? 0 : found->second;
  };
  while (refusals() == 0) std::this_thread::yield();
  engine_.fake_predictor().Release();
  // After what the server said, and not after ten minutes.
  EXPECT_TRUE(call.get().ok());
  EXPECT_EQ(first.get(), 1);
  EXPECT_EQ(second.get(), 1);
}

TEST_F(PricingServiceTest, NeverComputesACallWhoseDeadlinePassedInTheQueue) {
  std::future<int64_t> first = OccupyPredictor();
  EXPECT_EQ(Call(Request("late"), std::chrono::milliseconds(50)).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  clock_.Advance(absl::Hours(24 * 365 * 1000));
  engine_.fake_predictor().Release();
  EXPECT_EQ(first.get(), 1);
  scheduler_.Stop(absl::InfiniteFuture());
  EXPECT_EQ(ComputedSequences(), 1);
}

// gRPC cancels a call at its deadline, so that both are true of it.
TEST_F(PricingServiceTest, ACallThatIsBothExpiredAndCancelledIsCountedAsExpired) {
  std::future<int64_t> first = OccupyPredictor();
  grpc::ClientContext single_context;
  grpc::ClientContext batch_context;
  for (grpc::ClientContext* const context : {&single_context, &batch_context}) {
    context->set_deadline(std::chrono::system_clock::now() + std::chrono::hours(1));
  }
  std::future<grpc::Status> single = std::async(std::launch::async, [&] {
    return stub_->PredictPrice(&single_context, Request("late"), &response_);
  });
  std::future<grpc::Status> batch = std::async(std::launch::async, [&] {
    return stub_->BatchPredictPrices(&batch_context, BatchRequest({"too late"}), &batch_response_);
  });
  while (metrics_.values().queue_items < 2) std::this_thread::yield();
  single_context.TryCancel();
  batch_context.TryCancel();
  EXPECT_EQ(single.get().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(batch.get().error_code(), grpc::StatusCode::CANCELLED);
  // On the same connection: the server has heard of the cancellations before it answers.
  EXPECT_EQ(Call(v1::PredictPriceRequest()).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  clock_.Advance(absl::Hours(24 * 365 * 1000));
  engine_.fake_predictor().Release();
  EXPECT_EQ(first.get(), 1);
  scheduler_.Stop(absl::InfiniteFuture());
  pool_.Stop();  // which answers batches
  EXPECT_EQ(metrics_.values().calls.at("PredictPrice DEADLINE_EXCEEDED"), 1);
  EXPECT_EQ(metrics_.values().calls.at("BatchPredictPrices DEADLINE_EXCEEDED"), 1);
}

TEST_F(PricingServiceTest, SurvivesACallerThatGoesWhileItsItemIsComputed) {
  engine_.fake_predictor().Block();
  grpc::ClientContext context;
  std::future<grpc::StatusCode> call = std::async(std::launch::async, [&] {
    v1::PredictPriceResponse response;
    return stub_->PredictPrice(&context, Request("lamp"), &response).error_code();
  });
  engine_.fake_predictor().WaitForBatches(1);
  context.TryCancel();
  EXPECT_EQ(call.get(), grpc::StatusCode::CANCELLED);
  engine_.fake_predictor().Release();
  EXPECT_TRUE(Call(Request("lamp")).ok());
}

TEST_F(PricingServiceTest, IsUnavailableBeforeItServesAndAfterItRefuses) {
  PricingService starting(&metrics_);
  ASSERT_OK_AND_ASSIGN(const Listener listener,
                       Listen({.flag = "--listen", .address = "127.0.0.1:0"}, {&starting}));
  const auto stub = v1::PricingService::NewStub(grpc::CreateChannel(
      absl::StrCat("127.0.0.1:", listener.port), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  EXPECT_THAT(stub->PredictPrice(&context, Request("lamp"), &response_),
              IsGrpcError(grpc::StatusCode::UNAVAILABLE, HasSubstr("starting")));
  listener.server->Shutdown();

  service_.Refuse();
  EXPECT_THAT(Call(Request("lamp")),
              IsGrpcError(grpc::StatusCode::UNAVAILABLE, HasSubstr("stopping")));
  EXPECT_THAT(CallBatch(BatchRequest({"lamp"})),
              IsGrpcError(grpc::StatusCode::UNAVAILABLE, HasSubstr("stopping")));
}

}  // namespace
}  // namespace pricer
