#include "client/client.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <future>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/file_descriptor.h"
#include "pricer/v1/pricing.grpc.pb.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::pricer::testing::StatusIs;
using ::testing::HasSubstr;

// Fails `failures` times with `failure`, then prices.
class FakeService final : public v1::PricingService::Service {
 public:
  grpc::Status PredictPrice(grpc::ServerContext* context, const v1::PredictPriceRequest*,
                            v1::PredictPriceResponse* response) override {
    ++calls;
    has_deadline = context->deadline() < std::chrono::system_clock::now() + std::chrono::hours(1);
    if (calls <= failures) return failure;
    response->mutable_prediction()->set_price(42.5);
    return grpc::Status::OK;
  }

  std::atomic<int> calls = 0;
  std::atomic<bool> has_deadline = false;
  int failures = 0;
  grpc::Status failure = grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining");
};

class ClientTest : public ::testing::Test {
 protected:
  std::unique_ptr<Client> Connect() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    options_.server = absl::StrCat("127.0.0.1:", port);
    options_.retry.initial_backoff = absl::Milliseconds(1);
    absl::StatusOr<std::unique_ptr<Client>> client = Client::Create(options_);
    EXPECT_OK(client);
    return *std::move(client);
  }

  FakeService service_;
  ClientOptions options_;
  std::unique_ptr<grpc::Server> server_;
};

TEST_F(ClientTest, AnswersAndSendsADeadline) {
  ASSERT_OK_AND_ASSIGN(const v1::PredictPriceResponse response, Connect()->PredictPrice({}));
  EXPECT_EQ(response.prediction().price(), 42.5);
  EXPECT_TRUE(service_.has_deadline);
}

TEST_F(ClientTest, EndsACallByTheLatestTimeItIsGiven) {
  EXPECT_THAT(Connect()->BatchPredictPrices({}, absl::Now() - absl::Seconds(1)),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
}

TEST_F(ClientTest, TriesAgainWhileTheServerIsUnavailable) {
  service_.failures = 2;
  EXPECT_OK(Connect()->PredictPrice({}));
  EXPECT_EQ(service_.calls, 3);
}

TEST_F(ClientTest, TriesAgainWhereAServerThatStopsEndsTheCall) {
  service_.failures = 2;
  service_.failure = grpc::Status(grpc::StatusCode::CANCELLED, "CANCELLED");
  const std::unique_ptr<Client> client = Connect();
  EXPECT_OK(client->PredictPrice({}));
  EXPECT_EQ(service_.calls, 3);
  options_.retry.max_attempts = 1;
  service_.failures = 4;
  EXPECT_THAT(Connect()->PredictPrice({}),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("ended the call")));
}

TEST_F(ClientTest, KeepsTheServersCodeAndMessage) {
  service_.failures = 1;
  service_.failure = grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "item.title: empty");
  EXPECT_THAT(Connect()->PredictPrice({}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("item.title")));
  EXPECT_EQ(service_.calls, 1);
}

TEST(ClientWithoutServerTest, NamesTheServerThatDoesNotAnswer) {
  ClientOptions options;
  options.server = "127.0.0.1:1";
  options.retry.max_attempts = 2;
  options.retry.initial_backoff = absl::Milliseconds(1);
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Client> client, Client::Create(options));
  EXPECT_THAT(client->PredictPrice({}),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("127.0.0.1:1")));
}

TEST(ClientWithoutServerTest, LeavesASlowConnectionTimeToComeAbout) {
  FileDescriptor listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {.sin_family = AF_INET, .sin_port = 0, .sin_addr = {}, .sin_zero = {}};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  ASSERT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(listener.get(), 1), 0);
  ASSERT_EQ(getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  ClientOptions options;
  options.server = absl::StrCat("127.0.0.1:", ntohs(address.sin_port));
  options.retry.max_attempts = 1;
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Client> client, Client::Create(options));
  auto answer = std::async(std::launch::async, [&] { return client->PredictPrice({}); });
  FileDescriptor connection(accept(listener.get(), nullptr, nullptr));
  ASSERT_TRUE(connection.ok());
  // This server says nothing, and the client does not hang up on it.
  pollfd hang_up = {.fd = connection.get(), .events = POLLRDHUP, .revents = 0};
  EXPECT_EQ(poll(&hang_up, 1, /*timeout=*/500), 0);
  listener.Close();
  connection.Close();
  EXPECT_THAT(answer.get(), StatusIs(absl::StatusCode::kUnavailable));
}

TEST(ClientWithoutServerTest, AnEmptyServerIsRefused) {
  EXPECT_THAT(Client::Create({}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("server")));
}

}  // namespace
}  // namespace pricer
