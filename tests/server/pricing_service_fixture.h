#pragma once

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/listeners.h"
#include "server/pricing_service.h"
#include "tests/server/fakes.h"
#include "tests/testing/status_matchers.h"

namespace pricer::testing {

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

}  // namespace pricer::testing
