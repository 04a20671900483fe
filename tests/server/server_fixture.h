#pragma once

#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <functional>
#include <future>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "pricer/v1/adapters.grpc.pb.h"
#include "pricer/v1/pricing.grpc.pb.h"
#include "server/server.h"
#include "tests/server/fakes.h"
#include "tests/testing/temp_dir.h"

namespace pricer::testing {

inline std::shared_ptr<grpc::Channel> ChannelTo(int port) {
  return grpc::CreateChannel(absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials());
}

// A whole server on ports of its own, whose engine is made up, over an adapter folder that tests
// fill.
class ServerTest : public ::testing::Test {
 protected:
  ServerTest() {
    options_.base = base_.path();
    options_.adapters = adapters_.path();
    options_.listen = options_.admin_listen = options_.health_listen = options_.metrics_listen =
        "127.0.0.1:0";
    options_.poll_interval = absl::Milliseconds(1);
    options_.sleep = [](absl::Duration) {};
  }
  ~ServerTest() override {
    if (server_ == nullptr) return;
    predictor_->Release();
    engine_->ReleaseLoads();
  }

  absl::StatusOr<std::unique_ptr<Engine>> MakeEngine() {
    ++engines_;
    auto engine = std::make_unique<FakeEngine>();
    if (prepare_engine_) prepare_engine_(engine.get());
    predictor_ = &engine->fake_predictor();
    engine_ = engine.get();
    return engine;
  }
  absl::Status Start() {
    absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(
        options_, [this](const ServerOptions&) { return MakeEngine(); },
        [this] { ++before_serving_; });
    if (!server.ok()) return server.status();
    server_ = *std::move(server);
    pricing_ = v1::PricingService::NewStub(ChannelTo(server_->ports().pricing));
    admin_ = v1::AdapterService::NewStub(ChannelTo(server_->ports().admin));
    health_ = grpc::health::v1::Health::NewStub(ChannelTo(server_->ports().health));
    return absl::OkStatus();
  }

  grpc::Status Price(int64_t* version = nullptr) {
    grpc::ClientContext context;
    v1::PredictPriceRequest request;
    request.mutable_item()->set_text("lamp");
    v1::PredictPriceResponse response;
    const grpc::Status status = pricing_->PredictPrice(&context, request, &response);
    if (version != nullptr) *version = response.prediction().served_by().version();
    return status;
  }
  grpc::health::v1::HealthCheckResponse::ServingStatus Health(const std::string& name) {
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(name);
    grpc::health::v1::HealthCheckResponse response;
    EXPECT_TRUE(health_->Check(&context, request, &response).ok());
    return response.status();
  }
  static grpc::Status CallWithBytes(int port, const std::string& method, const std::string& bytes) {
    grpc::GenericStub stub(ChannelTo(port));
    grpc::ClientContext context;
    const grpc::Slice slice(bytes);
    const grpc::ByteBuffer request(&slice, 1);
    grpc::ByteBuffer response;
    std::promise<grpc::Status> status;
    stub.UnaryCall(&context, method, grpc::StubOptions(), &request, &response,
                   [&status](grpc::Status result) { status.set_value(std::move(result)); });
    return status.get_future().get();
  }
  // Code that a server answers a reflection call with.
  static grpc::StatusCode ReflectionCode(int port) {
    return CallWithBytes(port, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "")
        .error_code();
  }

  TempDir base_;
  TempDir adapters_;
  ServerOptions options_;
  int engines_ = 0;
  std::function<void(FakeEngine*)> prepare_engine_;
  FakeEngine* engine_ = nullptr;
  FakePredictor* predictor_ = nullptr;
  int before_serving_ = 0;
  std::unique_ptr<Server> server_;
  std::unique_ptr<v1::PricingService::Stub> pricing_;
  std::unique_ptr<v1::AdapterService::Stub> admin_;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_;
};

}  // namespace pricer::testing
