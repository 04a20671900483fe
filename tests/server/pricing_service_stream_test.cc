#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <map>
#include <thread>

#include "absl/strings/str_cat.h"
#include "server/listeners.h"
#include "server/price_stream.h"
#include "server/pricing_service.h"
#include "tests/server/fakes.h"
#include "tests/server/pricing_service_fixture.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::DoubleNear;
using testing::FakePrice;
using ::testing::HasSubstr;
using testing::IsGrpcError;
using testing::PricingServiceTest;

using Stream =
    grpc::ClientReaderWriter<v1::StreamPredictPricesRequest, v1::StreamPredictPricesResponse>;

class PricingServiceStreamTest : public PricingServiceTest {
 protected:
  std::unique_ptr<Stream> Open(grpc::ClientContext* context) {
    context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    return stub_->StreamPredictPrices(context);
  }
  static v1::StreamPredictPricesRequest Message(const std::vector<std::string>& texts) {
    v1::StreamPredictPricesRequest message;
    for (const std::string& text : texts) message.add_items()->set_text(text);
    return message;
  }
  // Reads until the server has no more; results by index.
  static std::map<int64_t, v1::ItemResult> ReadAll(Stream* stream) {
    std::map<int64_t, v1::ItemResult> results;
    v1::StreamPredictPricesResponse response;
    while (stream->Read(&response)) {
      for (const v1::StreamItemResult& result : response.results()) {
        EXPECT_TRUE(results.emplace(result.index(), result.result()).second) << result.index();
      }
    }
    return results;
  }
  // Writes the messages and no more, and reads to the end.
  grpc::Status Exchange(const std::vector<v1::StreamPredictPricesRequest>& messages) {
    grpc::ClientContext context;
    const std::unique_ptr<Stream> stream = Open(&context);
    for (const v1::StreamPredictPricesRequest& message : messages) {
      if (!stream->Write(message)) break;
    }
    stream->WritesDone();
    results_ = ReadAll(stream.get());
    const grpc::Status status = stream->Finish();
    pushbacks_ = context.GetServerTrailingMetadata().count("grpc-retry-pushback-ms");
    return status;
  }
  int Ended(const std::string& code) {
    const auto calls = metrics_.values().calls;
    const auto found = calls.find("StreamPredictPrices " + code);
    return found == calls.end() ? 0 : found->second;
  }

  std::map<int64_t, v1::ItemResult> results_;
  size_t pushbacks_ = 0;
};

TEST_F(PricingServiceStreamTest, EveryItemHasItsResultAndABadOneFailsAlone) {
  engine_.fake_predictor().FailOn('!', absl::InternalError("not finite"));
  std::vector<v1::StreamPredictPricesRequest> messages;
  messages.push_back(Message({}));
  messages.back().mutable_adapter()->set_name("toys");
  for (int m = 0; m < 50; ++m) {
    messages.push_back(Message({"a lamp", absl::StrCat("chair ", m), "", "!", "unencodable"}));
    messages.back().mutable_items(1)->set_id(absl::StrCat("id ", m));
  }
  ASSERT_TRUE(Exchange(messages).ok());
  ASSERT_EQ(results_.size(), 250u);
  for (int m = 0; m < 50; ++m) {
    EXPECT_THAT(results_[5 * m].prediction().price(), DoubleNear(FakePrice(1), 1e-6));
    EXPECT_EQ(results_[5 * m + 1].id(), absl::StrCat("id ", m));
    EXPECT_EQ(results_[5 * m + 1].prediction().served_by().label(), "stable");
    EXPECT_EQ(results_[5 * m + 2].error().code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(results_[5 * m + 3].error().code(), grpc::StatusCode::INTERNAL);
    EXPECT_EQ(results_[5 * m + 4].error().code(), grpc::StatusCode::INVALID_ARGUMENT);
  }
  EXPECT_EQ(Ended("OK"), 1);
}

TEST_F(PricingServiceStreamTest, AnEmptyStreamEndsWell) {
  EXPECT_TRUE(Exchange({}).ok());
  EXPECT_TRUE(results_.empty());
}

TEST_F(PricingServiceStreamTest, ResultsComeBeforeTheStreamEnds) {
  grpc::ClientContext context;
  const std::unique_ptr<Stream> stream = Open(&context);
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(stream->Write(Message({absl::StrCat("lamp ", i)})));
    v1::StreamPredictPricesResponse response;
    ASSERT_TRUE(stream->Read(&response));
    ASSERT_EQ(response.results_size(), 1);
    EXPECT_EQ(response.results(0).index(), i);
  }
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(PricingServiceStreamTest, FailsForWhatConcernsAllItemsAndNamesIt) {
  v1::StreamPredictPricesRequest wine = Message({"lamp"});
  wine.mutable_adapter()->set_name("wine");
  EXPECT_THAT(Exchange({wine}), IsGrpcError(grpc::StatusCode::NOT_FOUND, HasSubstr("wine")));
  v1::StreamPredictPricesRequest late = Message({"lamp"});
  late.mutable_adapter()->set_name("toys");
  EXPECT_THAT(Exchange({Message({"lamp"}), late}),
              IsGrpcError(grpc::StatusCode::INVALID_ARGUMENT,
                          AllOf(HasSubstr("adapter"), HasSubstr("later message"))));
  // What was read before is answered.
  EXPECT_EQ(results_.size(), 1u);
  EXPECT_THAT(Exchange({Message(std::vector<std::string>(kMaxItemsPerMessage + 1, "x"))}),
              IsGrpcError(grpc::StatusCode::INVALID_ARGUMENT, HasSubstr("at most 256")));
  v1::StreamPredictPricesRequest options = Message({"lamp"});
  options.mutable_options()->set_estimator("average");
  EXPECT_THAT(Exchange({options}),
              IsGrpcError(grpc::StatusCode::INVALID_ARGUMENT, HasSubstr("options.estimator")));
  EXPECT_EQ(Ended("INVALID_ARGUMENT"), 3);
}

TEST_F(PricingServiceStreamTest, AStreamWhoseFirstItemFindsNoRoomIsRefused) {
  std::future<int64_t> first = OccupyPredictor();
  std::future<int64_t> second = CallInBackground(std::string(kMaxQueueTokens, 'x'));
  while (metrics_.values().queue_items == 0) std::this_thread::yield();
  EXPECT_THAT(Exchange({Message({"third", "fourth"})}),
              IsGrpcError(grpc::StatusCode::RESOURCE_EXHAUSTED, HasSubstr("queue is full")));
  EXPECT_EQ(pushbacks_, 1u);
  engine_.fake_predictor().Release();
  EXPECT_EQ(first.get() + second.get(), 2);
}

TEST_F(PricingServiceStreamTest, ItemsThatFindNoRoomWaitInTheStream) {
  std::future<int64_t> first = OccupyPredictor();
  std::future<grpc::Status> call = std::async(std::launch::async, [this] {
    return Exchange({Message(Texts(100, 30)), Message(Texts(100, 31))});
  });
  // Two batches of 50 tokens hold three items.
  while (metrics_.values().queue_items < 3) std::this_thread::yield();
  EXPECT_LE(metrics_.values().queue_tokens, kMaxQueueTokens);
  engine_.fake_predictor().Release();
  EXPECT_TRUE(call.get().ok());
  EXPECT_EQ(first.get(), 1);
  ASSERT_EQ(results_.size(), 200u);
  for (const auto& [index, result] : results_) EXPECT_TRUE(result.has_prediction()) << index;
}

TEST_F(PricingServiceStreamTest, NoMoreIsReadThanTheServerMayHold) {
  std::future<int64_t> first = OccupyPredictor();
  const int encoded_before = engine_.encoded();
  grpc::ClientContext context;
  const std::unique_ptr<Stream> stream = Open(&context);
  std::thread writer([&] {
    for (int m = 0; m < 50; ++m) {
      std::vector<std::string> texts = Texts(100, 20);
      for (std::string& text : texts) text += absl::StrCat(" of message ", m);
      EXPECT_TRUE(stream->Write(Message(texts)));
    }
    stream->WritesDone();
  });
  // Messages of a hundred are read as long as fewer than 1,024 items have no result.
  while (engine_.encoded() - encoded_before < 1100) std::this_thread::yield();
  for (int i = 0; i < 20; ++i) EXPECT_FALSE(Call(v1::PredictPriceRequest()).ok());
  EXPECT_EQ(engine_.encoded() - encoded_before, 1100);
  engine_.fake_predictor().Release();
  results_ = ReadAll(stream.get());
  writer.join();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(results_.size(), 5000u);
  EXPECT_EQ(first.get(), 1);
}

TEST_F(PricingServiceStreamTest, ACallerThatGoesEndsTheStream) {
  std::future<int64_t> first = OccupyPredictor();
  grpc::ClientContext context;
  const std::unique_ptr<Stream> stream = Open(&context);
  ASSERT_TRUE(stream->Write(Message(Texts(200, 30))));
  while (metrics_.values().queue_items < 3) std::this_thread::yield();
  context.TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  engine_.fake_predictor().Release();
  EXPECT_EQ(first.get(), 1);
  // As OK where the server took the end of its reads for the caller's own.
  while (Ended("CANCELLED") + Ended("OK") == 0) std::this_thread::yield();
  // What was cancelled leaves the queue when the batch thread comes to it.
  while (metrics_.values().queue_tokens > 0) std::this_thread::yield();
}

TEST_F(PricingServiceStreamTest, ItemsWhoseDeadlinePassedAreNeverComputed) {
  std::future<int64_t> first = OccupyPredictor();
  std::future<grpc::Status> call =
      std::async(std::launch::async, [this] { return Exchange({Message(Texts(20, 30))}); });
  while (metrics_.values().queue_items < 3) std::this_thread::yield();
  clock_.Advance(absl::Hours(24 * 365 * 1000));
  engine_.fake_predictor().Release();
  EXPECT_TRUE(call.get().ok());
  EXPECT_EQ(first.get(), 1);
  ASSERT_EQ(results_.size(), 20u);
  for (const auto& [index, result] : results_) {
    EXPECT_EQ(result.error().code(), grpc::StatusCode::DEADLINE_EXCEEDED) << index;
  }
  EXPECT_EQ(ComputedSequences(), 1);
}

TEST_F(PricingServiceStreamTest, AStreamEndsByItsDeadline) {
  std::future<int64_t> first = OccupyPredictor();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
  const std::unique_ptr<Stream> stream = stub_->StreamPredictPrices(&context);
  stream->Write(Message({"lamp"}));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  engine_.fake_predictor().Release();
  EXPECT_EQ(first.get(), 1);
}

TEST_F(PricingServiceStreamTest, AStoppingServerAnswersWhatItHasReadAndEndsTheStream) {
  grpc::ClientContext idle_context;
  const std::unique_ptr<Stream> idle = Open(&idle_context);
  ASSERT_TRUE(idle->Write(Message({"lamp"})));
  v1::StreamPredictPricesResponse response;
  ASSERT_TRUE(idle->Read(&response));

  engine_.fake_predictor().Block();
  std::future<int64_t> first = CallInBackground("first");
  engine_.fake_predictor().WaitForBatches(2);
  grpc::ClientContext context;
  const std::unique_ptr<Stream> stream = Open(&context);
  ASSERT_TRUE(stream->Write(Message({"chair", "table"})));
  while (metrics_.values().queue_items < 2) std::this_thread::yield();
  service_.Refuse();
  // It waits for nothing.
  EXPECT_FALSE(idle->Read(&response));
  EXPECT_THAT(idle->Finish(), IsGrpcError(grpc::StatusCode::UNAVAILABLE, HasSubstr("stopping")));
  engine_.fake_predictor().Release();
  EXPECT_EQ(ReadAll(stream.get()).size(), 2u);
  EXPECT_THAT(stream->Finish(), IsGrpcError(grpc::StatusCode::UNAVAILABLE, HasSubstr("stopping")));
  EXPECT_EQ(first.get(), 1);
  EXPECT_THAT(Exchange({Message({"lamp"})}),
              IsGrpcError(grpc::StatusCode::UNAVAILABLE, HasSubstr("stopping")));
}

TEST_F(PricingServiceStreamTest, IsUnavailableBeforeTheServerServes) {
  PricingService starting(&metrics_);
  ASSERT_OK_AND_ASSIGN(const Listener listener,
                       Listen({.flag = "--listen", .address = "127.0.0.1:0"}, {&starting}));
  const auto stub = v1::PricingService::NewStub(grpc::CreateChannel(
      absl::StrCat("127.0.0.1:", listener.port), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  EXPECT_THAT(stub->StreamPredictPrices(&context)->Finish(),
              IsGrpcError(grpc::StatusCode::UNAVAILABLE, HasSubstr("starting")));
  listener.server->Shutdown();
}

TEST_F(PricingServiceStreamTest, OneCallersStreamsAreLimited) {
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<Stream>> streams;
  for (int i = 0; i < kMaxStreamsPerCaller; ++i) {
    streams.push_back(Open(contexts.emplace_back(new grpc::ClientContext).get()));
    ASSERT_TRUE(streams.back()->Write(Message({"lamp"})));
    v1::StreamPredictPricesResponse response;
    ASSERT_TRUE(streams.back()->Read(&response));
  }
  EXPECT_THAT(Exchange({Message({"lamp"})}),
              IsGrpcError(grpc::StatusCode::RESOURCE_EXHAUSTED, HasSubstr("at most 64 at once")));
  streams.back()->WritesDone();
  EXPECT_TRUE(streams.back()->Finish().ok());
  grpc::Status status = Exchange({Message({"lamp"})});
  // The client hears of the end before the server has put it away.
  while (!status.ok()) status = Exchange({Message({"lamp"})});
  for (size_t i = 0; i + 1 < streams.size(); ++i) {
    streams[i]->WritesDone();
    EXPECT_TRUE(streams[i]->Finish().ok());
  }
}

TEST_F(PricingServiceStreamTest, ManyStreamsThatComeAndGoLeaveNothingBehind) {
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([this, c] {
      for (int i = 0; i < 50; ++i) {
        grpc::ClientContext context;
        const std::unique_ptr<Stream> stream = Open(&context);
        stream->Write(Message(Texts(20, 10 + c)));
        if (i % 3 == 0) context.TryCancel();
        stream->WritesDone();
        const size_t count = ReadAll(stream.get()).size();
        const grpc::Status status = stream->Finish();
        EXPECT_TRUE(!status.ok() || count == 20) << count;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  const auto ended = [this] {
    return Ended("OK") + Ended("CANCELLED") + Ended("RESOURCE_EXHAUSTED");
  };
  // A call that was cancelled before it reached the server never was.
  EXPECT_LE(ended(), 200);
  EXPECT_GE(Ended("OK"), 100);
  // What was cancelled leaves the queue when the batch thread comes to it.
  while (metrics_.values().queue_tokens > 0) std::this_thread::yield();
}

}  // namespace
}  // namespace pricer
