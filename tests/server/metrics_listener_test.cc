#include "server/metrics_listener.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>
#include <sys/socket.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/file_descriptor.h"
#include "server/access_tokens.h"
#include "tests/server/http_get.h"
#include "tests/server/large_thread_local.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;
using testing::HttpAsk;
using testing::HttpGetMetrics;
using ::testing::Not;
using ::testing::StartsWith;
using testing::StatusIs;

constexpr char kAnyPort[] = "127.0.0.1:0";

class MetricsListenerTest : public ::testing::Test {
 protected:
  MetricsListenerTest() {
    prometheus::BuildGauge().Name("lamps").Help("Lamps.").Register(*registry_).Add({}).Set(3);
  }

  std::unique_ptr<MetricsListener> Open(const std::string& address = kAnyPort) {
    absl::StatusOr<std::unique_ptr<MetricsListener>> listener =
        MetricsListener::Open("--metrics-listen", address, registry_, tokens_.get());
    EXPECT_OK(listener);
    return listener.ok() ? *std::move(listener) : nullptr;
  }

  const std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  std::unique_ptr<TokenKeeper> tokens_;
};

TEST_F(MetricsListenerTest, AnswersWithTheRegistry) {
  const std::unique_ptr<MetricsListener> listener = Open();
  ASSERT_NE(listener, nullptr);
  EXPECT_THAT(HttpGetMetrics(listener->port()),
              AllOf(StartsWith("HTTP/1.1 200 OK"), HasSubstr("text/plain; version=0.0.4"),
                    HasSubstr("# TYPE lamps gauge\nlamps 3\n")));
}

TEST_F(MetricsListenerTest, AScraperKeepsItsConnection) {
  const std::unique_ptr<MetricsListener> listener = Open();
  ASSERT_NE(listener, nullptr);
  const std::string answers =
      HttpAsk(listener->port(),
              "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
              "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  const size_t first = answers.find("lamps 3\n");
  ASSERT_NE(first, std::string::npos) << answers;
  EXPECT_THAT(answers.substr(first + 1), AllOf(HasSubstr("200 OK"), HasSubstr("lamps 3\n")));
}

TEST_F(MetricsListenerTest, AnswersNothingElse) {
  const std::unique_ptr<MetricsListener> listener = Open();
  ASSERT_NE(listener, nullptr);
  const int port = listener->port();
  EXPECT_THAT(HttpAsk(port, "GET / HTTP/1.0\r\n\r\n"),
              AllOf(HasSubstr("404"), HasSubstr("expected /metrics"), Not(HasSubstr("lamps"))));
  EXPECT_THAT(HttpAsk(port, "GET /metrics/../metrics HTTP/1.0\r\n\r\n"), HasSubstr("404"));
  EXPECT_THAT(HttpAsk(port, "POST /metrics HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc"),
              AllOf(HasSubstr("405"), HasSubstr("Allow: GET"), HasSubstr("expected GET")));
  EXPECT_EQ(HttpAsk(port, "GET /metrics HTTP/1.0\r\nContent-Length: 9\r\n\r\nabcdefghi"), "");
  EXPECT_THAT(HttpAsk(port, "lamps?\r\n\r\n"), Not(HasSubstr("lamps 3")));
  EXPECT_THAT(HttpGetMetrics(port, "X: " + std::string(1 << 20, 'x') + "\r\n"),
              Not(HasSubstr("lamps 3")));
  EXPECT_THAT(HttpGetMetrics(port), HasSubstr("lamps 3"));
}

TEST_F(MetricsListenerTest, AsksForATokenThatMayReadMetrics) {
  const testing::TempDir dir;
  const std::string file = dir.File("tokens.json");
  ASSERT_OK(WriteFile(file, R"({"tokens": [
      {"name": "shop", "secret": "shop-secret-0123456789", "permissions": ["predict"]},
      {"name": "scraper", "secret": "scraper-secret-0123456", "permissions": ["metrics"]}]})"));
  ASSERT_OK_AND_ASSIGN(tokens_, TokenKeeper::Open(file));
  const std::unique_ptr<MetricsListener> listener = Open();
  ASSERT_NE(listener, nullptr);
  const auto with = [&](const std::string& authorization) {
    return HttpGetMetrics(listener->port(), absl::StrCat("Authorization: ", authorization, "\r\n"));
  };
  const auto basic = [&](const std::string& password) {
    return with("Basic " + absl::Base64Escape("anybody:" + password));
  };
  EXPECT_THAT(with("Bearer scraper-secret-0123456"), HasSubstr("lamps 3"));
  EXPECT_THAT(with("bearer scraper-secret-0123456"), HasSubstr("lamps 3"));
  EXPECT_THAT(basic("scraper-secret-0123456"), HasSubstr("lamps 3"));
  const auto is_refused =
      AllOf(HasSubstr("401"), HasSubstr("WWW-Authenticate: Basic realm=\"pricer\""),
            Not(HasSubstr("lamps")));
  EXPECT_THAT(with("Bearer shop-secret-0123456789"), is_refused);
  EXPECT_THAT(with("Bearer "), is_refused);
  EXPECT_THAT(with("Basic %%%"), is_refused);
  EXPECT_THAT(with("scraper-secret-0123456"), is_refused);
  EXPECT_THAT(basic("shop-secret-0123456789"), is_refused);
  EXPECT_THAT(basic(""), is_refused);
  EXPECT_THAT(HttpGetMetrics(listener->port()), is_refused);
}

TEST_F(MetricsListenerTest, ASlowScraperHoldsUpNobody) {
  std::unique_ptr<MetricsListener> listener = Open();
  ASSERT_NE(listener, nullptr);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(listener->port()));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const FileDescriptor slow(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(connect(slow.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(write(slow.get(), "GET", 3), 3);
  EXPECT_THAT(HttpGetMetrics(listener->port()), HasSubstr("lamps 3"));
  // Nor does it when the server stops.
  listener.reset();
  char byte = 0;
  EXPECT_LE(read(slow.get(), &byte, 1), 0);
}

TEST_F(MetricsListenerTest, SaysWhyItCannotListen) {
  const std::unique_ptr<MetricsListener> listener = Open();
  ASSERT_NE(listener, nullptr);
  const auto error_at = [this](const std::string& address) {
    return MetricsListener::Open("--metrics-listen", address, registry_).status();
  };
  const std::string taken = absl::StrCat("127.0.0.1:", listener->port());
  EXPECT_THAT(error_at(taken), StatusIs(absl::StatusCode::kFailedPrecondition,
                                        AllOf(HasSubstr("--metrics-listen " + taken),
                                              HasSubstr("Address already in use"))));
  EXPECT_THAT(error_at("192.0.2.1:0"), StatusIs(absl::StatusCode::kFailedPrecondition,
                                                HasSubstr("Cannot assign requested address")));
}

TEST_F(MetricsListenerTest, StartsWhereThreadsHaveMuchOfTheirOwn) {
  *testing::LargeThreadLocal() = 'x';
  const std::unique_ptr<MetricsListener> listener = Open();
  ASSERT_NE(listener, nullptr);
  EXPECT_THAT(HttpGetMetrics(listener->port()), HasSubstr("lamps 3"));
}

TEST_F(MetricsListenerTest, AnswersManyAtOnceOnAllAddresses) {
  const std::unique_ptr<MetricsListener> listener = Open("0.0.0.0:0");
  ASSERT_NE(listener, nullptr);
  std::vector<std::string> answers(200);
  std::vector<std::thread> scrapers;
  for (size_t i = 0; i < 8; ++i) {
    scrapers.emplace_back([&, i] {
      for (size_t k = i; k < answers.size(); k += 8) answers[k] = HttpGetMetrics(listener->port());
    });
  }
  for (std::thread& scraper : scrapers) scraper.join();
  EXPECT_THAT(answers, Each(HasSubstr("lamps 3")));
}

}  // namespace
}  // namespace pricer
