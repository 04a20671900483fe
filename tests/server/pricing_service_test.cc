#include "server/pricing_service.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "absl/strings/str_cat.h"
#include "server/listeners.h"
#include "tests/server/fakes.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::DoubleNear;
using testing::FakeClock;
using testing::FakeEngine;
using testing::FakePrice;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::MakeLoadedAdapter;
using testing::RecordingMetrics;

MATCHER_P2(IsGrpcError, code, message_matcher, "") {
  *result_listener << "code " << arg.error_code() << ", message " << arg.error_message();
  return arg.error_code() == code &&
         ::testing::ExplainMatchResult(message_matcher, arg.error_message(), result_listener);
}

// A real port, a real scheduler and registry; only the engine is made up. Tokens are bytes.
class PricingServiceTest : public ::testing::Test {
 protected:
  static constexpr int64_t kMaxQueueTokens = 120;

  PricingServiceTest() {
    Publish(1);
    service_.Serve(&backend_);
    absl::StatusOr<Listener> listener =
        Listen({.flag = "--listen", .address = "127.0.0.1:0"}, {&service_});
    EXPECT_OK(listener);
    listener_ = *std::move(listener);
    channel_ = grpc::CreateChannel(absl::StrCat("127.0.0.1:", listener_.port),
                                   grpc::InsecureChannelCredentials());
    stub_ = v1::PricingService::NewStub(channel_);
  }
  ~PricingServiceTest() override {
    engine_.fake_predictor().Release();
    listener_.server->Shutdown();
    pool_.Stop();
    scheduler_.Stop(absl::InfiniteFuture());
  }

  void Publish(int64_t version) {
    registry_.Discover({"toys", version});
    registry_.Publish(MakeLoadedAdapter("toys", version), absl::ZeroDuration());
  }

  static v1::PredictPriceRequest Request(const std::string& text) {
    v1::PredictPriceRequest request;
    request.mutable_item()->set_text(text);
    return request;
  }
  // So many texts of so many bytes, of which no two are equal.
  static std::vector<std::string> Texts(int count, size_t bytes) {
    std::vector<std::string> texts;
    for (int i = 0; i < count; ++i) {
      texts.push_back(absl::StrCat(i));
      texts.back().resize(bytes, 'x');
    }
    return texts;
  }
  static v1::BatchPredictPricesRequest BatchRequest(const std::vector<std::string>& texts) {
    v1::BatchPredictPricesRequest request;
    for (const std::string& text : texts) {
      request.add_items()->set_text(text);
      request.mutable_items()->rbegin()->set_id(absl::StrCat("id ", request.items_size() - 1));
    }
    return request;
  }
  grpc::Status Call(const v1::PredictPriceRequest& request,
                    std::chrono::milliseconds timeout = std::chrono::seconds(60)) {
    context_ = std::make_unique<grpc::ClientContext>();
    context_->set_deadline(std::chrono::system_clock::now() + timeout);
    response_.Clear();
    return stub_->PredictPrice(context_.get(), request, &response_);
  }
  grpc::Status CallBatch(const v1::BatchPredictPricesRequest& request,
                         std::chrono::milliseconds timeout = std::chrono::seconds(60)) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + timeout);
    batch_response_.Clear();
    return stub_->BatchPredictPrices(&context, request, &batch_response_);
  }
  // A call with these bytes for a request.
  grpc::Status CallWithBytes(const std::string& method, const std::string& bytes) {
    grpc::GenericStub stub(channel_);
    grpc::ClientContext context;
    const grpc::Slice slice(bytes);
    const grpc::ByteBuffer request(&slice, 1);
    grpc::ByteBuffer response;
    std::promise<grpc::Status> status;
    stub.UnaryCall(&context, "/pricer.v1.PricingService/" + method, grpc::StubOptions(), &request,
                   &response,
                   [&status](grpc::Status result) { status.set_value(std::move(result)); });
    return status.get_future().get();
  }
  // A call on a thread of its own; returns the version that answered, or 0.
  std::future<int64_t> CallInBackground(const std::string& text) {
    return std::async(std::launch::async, [this, text] {
      grpc::ClientContext context;
      v1::PredictPriceResponse response;
      const grpc::Status status = stub_->PredictPrice(&context, Request(text), &response);
      EXPECT_TRUE(status.ok()) << status.error_message();
      return response.prediction().served_by().version();
    });
  }
  // Makes the predictor busy with one call until Release.
  std::future<int64_t> OccupyPredictor() {
    engine_.fake_predictor().Block();
    std::future<int64_t> call = CallInBackground("first");
    engine_.fake_predictor().WaitForBatches(1);
    return call;
  }
  int ComputedSequences() {
    int count = 0;
    for (const auto& batch : engine_.fake_predictor().batches()) {
      count += static_cast<int>(batch.size());
    }
    return count;
  }

  RecordingMetrics metrics_;
  FakeEngine engine_;
  AdapterRegistry registry_{"", &metrics_, Clock::System()};
  // Long before any caller's deadline, unless it is advanced.
  FakeClock clock_;
  BatchScheduler scheduler_{{.max_batch_tokens = 50, .max_queue_tokens = kMaxQueueTokens},
                            engine_.predictor(),
                            &metrics_,
                            &clock_};
  PriceCache cache_{1 << 20, &scheduler_, &metrics_, &clock_};
  WorkerPool pool_{1, 4};
  const PricingBackend backend_ = {&engine_, &registry_, &scheduler_, &cache_, &pool_, &clock_};
  PricingService service_{&metrics_};
  Listener listener_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::PricingService::Stub> stub_;

  std::unique_ptr<grpc::ClientContext> context_;
  v1::PredictPriceResponse response_;
  v1::BatchPredictPricesResponse batch_response_;
};

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
