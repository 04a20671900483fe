#include "server/health_service.h"

#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "server/listeners.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

class HealthServiceTest : public ::testing::Test {
 protected:
  HealthServiceTest() {
    absl::StatusOr<Listener> listener = Listen(
        {.flag = "--health-listen", .address = "127.0.0.1:0", .reflection = false}, {&service_});
    EXPECT_OK(listener);
    listener_ = *std::move(listener);
    stub_ = Health::NewStub(grpc::CreateChannel(absl::StrCat("127.0.0.1:", listener_.port),
                                                grpc::InsecureChannelCredentials()));
  }

  static HealthCheckRequest Request(const std::string& name) {
    HealthCheckRequest request;
    request.set_service(name);
    return request;
  }
  HealthCheckResponse::ServingStatus Check(const std::string& name) {
    grpc::ClientContext context;
    HealthCheckResponse response;
    const grpc::Status status = stub_->Check(&context, Request(name), &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.status();
  }

  HealthService service_;
  Listener listener_;
  std::unique_ptr<Health::Stub> stub_;
};

TEST_F(HealthServiceTest, IsAliveAndNotReadyAtFirst) {
  EXPECT_EQ(Check("liveness"), HealthCheckResponse::SERVING);
  EXPECT_EQ(Check("startup"), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Check(""), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Check("pricer.v1.PricingService"), HealthCheckResponse::NOT_SERVING);
}

TEST_F(HealthServiceTest, ReportsWhatIsSet) {
  service_.Set(kHealthServer, true);
  EXPECT_EQ(Check(""), HealthCheckResponse::SERVING);
  service_.Set(kHealthServer, false);
  EXPECT_EQ(Check(""), HealthCheckResponse::NOT_SERVING);
}

TEST_F(HealthServiceTest, AnUnknownNameIsNotFound) {
  grpc::ClientContext context;
  HealthCheckResponse response;
  EXPECT_EQ(stub_->Check(&context, Request("shoes"), &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(HealthServiceTest, AWatchIsToldOfTheStateAndOfEveryChange) {
  grpc::ClientContext context;
  const auto reader = stub_->Watch(&context, Request(""));
  HealthCheckResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  service_.Set(kHealthServer, true);
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  // Another name's change is not this watch's business.
  service_.Set(kHealthStartup, true);
  service_.Set(kHealthServer, false);
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(HealthServiceTest, AWatchOfAnUnknownNameStaysOpen) {
  grpc::ClientContext context;
  const auto reader = stub_->Watch(&context, Request("shoes"));
  HealthCheckResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVICE_UNKNOWN);
  context.TryCancel();
  reader->Finish();
}

TEST_F(HealthServiceTest, OpenWatchesDoNotKeepTheServerFromStopping) {
  grpc::ClientContext context;
  const auto reader = stub_->Watch(&context, Request(""));
  HealthCheckResponse response;
  ASSERT_TRUE(reader->Read(&response));
  listener_.server->Shutdown(std::chrono::system_clock::now());
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_FALSE(reader->Finish().ok());
}

}  // namespace
}  // namespace pricer
