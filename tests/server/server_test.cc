#include "server/server.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <functional>
#include <future>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "pricer/v1/adapters.grpc.pb.h"
#include "pricer/v1/operations.grpc.pb.h"
#include "pricer/v1/pricing.grpc.pb.h"
#include "tests/server/adapter_files.h"
#include "tests/server/fakes.h"
#include "tests/server/http_get.h"
#include "tests/server/server_fixture.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using grpc::health::v1::HealthCheckResponse;
using ::testing::AllOf;
using testing::ChannelTo;
using testing::FakeEngine;
using testing::FakePredictor;
using ::testing::HasSubstr;
using testing::HttpGetMetrics;
using testing::MakeVersion;
using testing::ServerTest;
using testing::StatusIs;
using testing::TempDir;

TEST_F(ServerTest, ServesOnAllFourListeners) {
  MakeVersion(adapters_.path(), "toys", "1");
  ASSERT_OK(Start());
  int64_t version = 0;
  EXPECT_TRUE(Price(&version).ok());
  EXPECT_EQ(version, 1);

  grpc::ClientContext context;
  v1::ListAdaptersResponse listed;
  ASSERT_TRUE(admin_->ListAdapters(&context, v1::ListAdaptersRequest(), &listed).ok());
  ASSERT_EQ(listed.versions_size(), 2);
  EXPECT_EQ(listed.versions(0).name(), "base");
  EXPECT_EQ(listed.versions(0).state(), v1::ADAPTER_STATE_END);
  EXPECT_THAT(listed.versions(0).reason(), HasSubstr("no token for 7"));
  EXPECT_EQ(listed.versions(1).name(), "toys");
  EXPECT_EQ(listed.versions(1).state(), v1::ADAPTER_STATE_AVAILABLE);
  EXPECT_TRUE(listed.versions(1).serves_by_default());

  EXPECT_EQ(Health(""), HealthCheckResponse::SERVING);
  EXPECT_EQ(Health("pricer.v1.PricingService"), HealthCheckResponse::SERVING);
  EXPECT_EQ(Health("startup"), HealthCheckResponse::SERVING);
  EXPECT_EQ(Health("liveness"), HealthCheckResponse::SERVING);

  const std::string metrics = HttpGetMetrics(server_->ports().metrics);
  EXPECT_THAT(metrics, HasSubstr("200 OK"));
  EXPECT_THAT(metrics, HasSubstr("pricer_adapters{state=\"available\"} 1"));
  EXPECT_THAT(metrics, HasSubstr("pricer_requests_total{code=\"OK\",method=\"PredictPrice\"} 1"));
}

TEST_F(ServerTest, EachListenerHasOnlyItsOwnServices) {
  ASSERT_OK(Start());
  grpc::ClientContext context;
  v1::ListAdaptersResponse listed;
  EXPECT_EQ(v1::AdapterService::NewStub(ChannelTo(server_->ports().pricing))
                ->ListAdapters(&context, v1::ListAdaptersRequest(), &listed)
                .error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_NE(ReflectionCode(server_->ports().pricing), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_NE(ReflectionCode(server_->ports().admin), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(ReflectionCode(server_->ports().health), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(ServerTest, TheAdminListenerMayBeASocketInTheFileSystem) {
  options_.admin_listen = "unix:" + base_.File("admin");
  ASSERT_OK(Start());
  grpc::ClientContext context;
  v1::ListAdaptersResponse listed;
  const auto stub = v1::AdapterService::NewStub(
      grpc::CreateChannel(options_.admin_listen, grpc::InsecureChannelCredentials()));
  EXPECT_TRUE(stub->ListAdapters(&context, v1::ListAdaptersRequest(), &listed).ok());
}

TEST_F(ServerTest, AnAdapterRequestThatDoesNotParseIsAnErrorThatSaysSo) {
  ASSERT_OK(Start());
  const grpc::Status status = CallWithBytes(
      server_->ports().admin, "/pricer.v1.AdapterService/ListAdapters", "\x0a\x02\xff\xfe");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("not a valid ListAdaptersRequest"));
  EXPECT_THAT(
      HttpGetMetrics(server_->ports().metrics),
      HasSubstr("pricer_requests_total{code=\"INVALID_ARGUMENT\",method=\"ListAdapters\"} 1"));
}

TEST_F(ServerTest, StartsWithAnEmptyFolderAndServesTheFirstVersionThatComes) {
  ASSERT_OK(Start());
  EXPECT_EQ(Price().error_code(), grpc::StatusCode::NOT_FOUND);
  MakeVersion(adapters_.path(), "toys", "1", /*ready=*/false);
  testing::WriteText(adapters_.path() + "/toys/1/_READY", "");
  while (!Price().ok()) std::this_thread::yield();
}

TEST_F(ServerTest, ANewVersionIsSwappedInUnderTrafficWithoutAFailure) {
  MakeVersion(adapters_.path(), "toys", "1");
  ASSERT_OK(Start());
  ASSERT_TRUE(Price().ok());
  MakeVersion(adapters_.path(), "toys", "2", /*ready=*/false);
  testing::WriteText(adapters_.path() + "/toys/2/_READY", "");
  int64_t version = 1;
  while (version == 1) {
    ASSERT_TRUE(Price(&version).ok());
    ASSERT_TRUE(version == 1 || version == 2);
  }
}

TEST_F(ServerTest, LabelsMoveByACallHoldInEveryServerAndSurviveARestart) {
  for (const char* const version : {"1", "2"}) MakeVersion(adapters_.path(), "toys", version);
  ASSERT_OK(Start());
  ASSERT_OK_AND_ASSIGN(
      const std::unique_ptr<Server> replica,
      Server::Start(options_, [](const ServerOptions&) -> absl::StatusOr<std::unique_ptr<Engine>> {
        return std::make_unique<FakeEngine>();
      }));
  int64_t version = 0;
  ASSERT_TRUE(Price(&version).ok());
  EXPECT_EQ(version, 2);
  grpc::ClientContext context;
  v1::SetLabelRequest request;
  request.set_name("toys");
  request.set_label("stable");
  request.set_version(1);
  v1::SetLabelResponse response;
  ASSERT_TRUE(admin_->SetLabel(&context, request, &response).ok());
  ASSERT_TRUE(Price(&version).ok());
  EXPECT_EQ(version, 1);
  const auto other = v1::AdapterService::NewStub(ChannelTo(replica->ports().admin));
  v1::GetLabelsRequest ask;
  ask.set_name("toys");
  v1::GetLabelsResponse seen;
  while (seen.labels().generation() == 0) {
    grpc::ClientContext of_ask;
    ASSERT_TRUE(other->GetLabels(&of_ask, ask, &seen).ok());
  }
  EXPECT_EQ(seen.labels().labels(0).live_version(), 1);
  server_.reset();
  ASSERT_OK(Start());
  ASSERT_TRUE(Price(&version).ok());
  EXPECT_EQ(version, 1);
}

TEST_F(ServerTest, AGateThatRunsKeepsNothingFromStopping) {
  MakeVersion(adapters_.path(), "toys", "1");
  const auto with_golden = testing::MakeLoadedAdapter("toys", 1);
  const double price = testing::FakePrice(1);
  with_golden->manifest.golden.push_back({"lamp", price, price, price});
  with_golden->manifest.golden_tolerance = 10;
  prepare_engine_ = [&](FakeEngine* engine) { engine->AddAdapter("toys/1", with_golden); };
  ASSERT_OK(Start());
  predictor_->Block();
  std::future<grpc::Status> move = std::async(std::launch::async, [this] {
    grpc::ClientContext context;
    v1::SetLabelRequest request;
    request.set_name("toys");
    request.set_label("stable");
    request.set_version(1);
    request.mutable_gate()->set_golden_items(true);
    v1::SetLabelResponse response;
    return admin_->SetLabel(&context, request, &response);
  });
  predictor_->WaitForBatches(2);  // the first was the load's own
  std::thread stopper([this] { server_->Stop(); });
  EXPECT_EQ(move.get().error_code(), grpc::StatusCode::CANCELLED);
  predictor_->Release();
  stopper.join();
}

TEST_F(ServerTest, ReadinessSaysNoWhileGoldenItemsAreNotPricedAndThenYes) {
  MakeVersion(adapters_.path(), "toys", "1");
  const auto with_golden = testing::MakeLoadedAdapter("toys", 1);
  const double price = testing::FakePrice(1);
  with_golden->manifest.golden.push_back({"lamp", price, price, price});
  with_golden->manifest.golden_tolerance = 10;
  prepare_engine_ = [&](FakeEngine* engine) { engine->AddAdapter("toys/1", with_golden); };
  options_.self_check_interval = absl::Milliseconds(1);
  options_.self_check_timeout = absl::Milliseconds(300);
  ASSERT_OK(Start());
  while (Health("") != HealthCheckResponse::SERVING) std::this_thread::yield();
  predictor_->Block();
  while (Health("") == HealthCheckResponse::SERVING) std::this_thread::yield();
  EXPECT_EQ(Health("liveness"), HealthCheckResponse::SERVING);
  EXPECT_THAT(HttpGetMetrics(server_->ports().metrics), HasSubstr("pricer_ready 0"));
  predictor_->Release();
  while (Health("") != HealthCheckResponse::SERVING) std::this_thread::yield();
  // A machine that is busy elsewhere may call a check late once more.
  while (HttpGetMetrics(server_->ports().metrics).find("pricer_ready 1") == std::string::npos) {
    std::this_thread::yield();
  }
}

TEST_F(ServerTest, TheLogLevelChangesByACall) {
  ASSERT_OK(Start());
  const auto stub = v1::OperationsService::NewStub(ChannelTo(server_->ports().admin));
  const auto set = [&stub](v1::LogLevel level, v1::SetLogLevelResponse* response) {
    grpc::ClientContext context;
    v1::SetLogLevelRequest request;
    request.set_level(level);
    return stub->SetLogLevel(&context, request, response);
  };
  v1::SetLogLevelResponse response;
  ASSERT_TRUE(set(v1::LOG_LEVEL_ERROR, &response).ok());
  EXPECT_EQ(response.before(), v1::LOG_LEVEL_INFO);
  EXPECT_EQ(CurrentLogLevel(), LogLevel::kError);
  ASSERT_TRUE(set(v1::LOG_LEVEL_INFO, &response).ok());
  EXPECT_EQ(response.before(), v1::LOG_LEVEL_ERROR);
  const grpc::Status status = set(v1::LOG_LEVEL_UNSPECIFIED, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("level"));
  EXPECT_EQ(CurrentLogLevel(), LogLevel::kInfo);
}

TEST_F(ServerTest, ATakenPortIsAnErrorThatNamesTheAddress) {
  ASSERT_OK(Start());
  const ServerOptions free = options_;
  const std::string taken = absl::StrCat("127.0.0.1:", server_->ports().pricing);
  for (const auto& [flag, address] :
       {std::pair("--listen", &ServerOptions::listen),
        std::pair("--admin-listen", &ServerOptions::admin_listen),
        std::pair("--health-listen", &ServerOptions::health_listen),
        std::pair("--metrics-listen", &ServerOptions::metrics_listen)}) {
    ServerOptions options = free;
    options.*address = taken;
    EXPECT_THAT(
        Server::Start(options, [this](const ServerOptions&) { return MakeEngine(); }),
        StatusIs(absl::StatusCode::kFailedPrecondition, AllOf(HasSubstr(flag), HasSubstr(taken))));
  }
  // None of them got as far as loading a model.
  EXPECT_EQ(engines_, 1);
}

TEST_F(ServerTest, MissingDirectoriesAreErrorsThatNameThem) {
  options_.base = base_.File("gone");
  EXPECT_THAT(Start(),
              StatusIs(absl::StatusCode::kNotFound, AllOf(HasSubstr("--base"), HasSubstr("gone"))));
  options_.base = base_.path();
  options_.adapters = adapters_.File("gone");
  EXPECT_THAT(Start(), StatusIs(absl::StatusCode::kNotFound,
                                AllOf(HasSubstr("--adapters"), HasSubstr("gone"))));
  EXPECT_EQ(engines_, 0);
}

TEST_F(ServerTest, AnEngineThatCannotBeMadeIsAnErrorAndFreesThePorts) {
  const auto failing = [](const ServerOptions&) -> absl::StatusOr<std::unique_ptr<Engine>> {
    return absl::DataLossError("config.json: no hidden_size");
  };
  EXPECT_THAT(Server::Start(options_, failing),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("hidden_size")));
}

TEST_F(ServerTest, StopFinishesCallsInFlightAndRefusesNewOnes) {
  MakeVersion(adapters_.path(), "toys", "1");
  ASSERT_OK(Start());
  predictor_->Block();
  std::future<grpc::Status> in_flight = std::async(std::launch::async, [this] { return Price(); });
  predictor_->WaitForBatches(1);
  std::thread stopper([this] { server_->Stop(); });
  while (Health("") == HealthCheckResponse::SERVING) std::this_thread::yield();
  EXPECT_EQ(Health("pricer.v1.PricingService"), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Health("liveness"), HealthCheckResponse::SERVING);
  EXPECT_EQ(Price().error_code(), grpc::StatusCode::UNAVAILABLE);
  predictor_->Release();
  EXPECT_TRUE(in_flight.get().ok());
  stopper.join();
}

TEST_F(ServerTest, CallsAreAnsweredUntilCallersHadNoticeThatTheyWillNotBe) {
  MakeVersion(adapters_.path(), "toys", "1");
  absl::Duration notice;
  options_.sleep = [&](absl::Duration time) {
    notice = time;
    EXPECT_EQ(Health(""), HealthCheckResponse::NOT_SERVING);
    EXPECT_TRUE(Price().ok());
  };
  for (const auto& [grace, expected] : {std::pair(absl::Seconds(30), absl::Seconds(1)),
                                        std::pair(absl::Seconds(2), absl::Milliseconds(200))}) {
    options_.grace_period = grace;
    ASSERT_OK(Start());
    EXPECT_TRUE(server_->Stop());
    EXPECT_EQ(notice, expected);
  }
}

TEST_F(ServerTest, ALoadThatHangsKeepsNothingFromStopping) {
  options_.grace_period = absl::ZeroDuration();
  ASSERT_OK(Start());
  engine_->BlockLoads();
  MakeVersion(adapters_.path(), "toys", "1");
  engine_->WaitForLoad();
  EXPECT_FALSE(server_->Stop());
  EXPECT_EQ(Price().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(ServerTest, SaysOnceThatItIsAboutToServe) {
  ASSERT_OK(Start());
  EXPECT_EQ(before_serving_, 1);
  options_.base = base_.File("gone");
  EXPECT_FALSE(Start().ok());
  EXPECT_EQ(before_serving_, 1);
}

TEST_F(ServerTest, StopGivesUpOnCallsThatOutlastTheGracePeriod) {
  options_.grace_period = absl::ZeroDuration();
  MakeVersion(adapters_.path(), "toys", "1");
  ASSERT_OK(Start());
  predictor_->Block();
  std::future<grpc::Status> computed = std::async(std::launch::async, [this] { return Price(); });
  predictor_->WaitForBatches(1);
  std::thread stopper([this] { server_->Stop(); });
  EXPECT_FALSE(computed.get().ok());
  predictor_->Release();
  stopper.join();
  EXPECT_EQ(predictor_->batches().size(), 1u);
}

TEST_F(ServerTest, StopsTwiceAndWithoutBeingAsked) {
  ASSERT_OK(Start());
  server_->Stop();
  server_->Stop();
  ASSERT_OK(Start());
}

}  // namespace
}  // namespace pricer
