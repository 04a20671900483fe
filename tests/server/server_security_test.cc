// The whole server with certificates and tokens, over real ports; only the engine is made up.

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <thread>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "client/client.h"
#include "inference/grpc_service.grpc.pb.h"
#include "pricer/v1/adapters.grpc.pb.h"
#include "pricer/v1/operations.grpc.pb.h"
#include "pricer/v1/pricing.grpc.pb.h"
#include "server/server.h"
#include "tests/server/adapter_files.h"
#include "tests/server/fakes.h"
#include "tests/server/http_get.h"
#include "tests/testing/certificates.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using testing::CertificateAndKey;
using testing::CertificateAuthority;
using testing::FakeEngine;
using ::testing::HasSubstr;
using testing::MakeVersion;
using ::testing::Not;
using testing::StatusIs;
using testing::TempDir;

constexpr char kShop[] = "shop-secret-0123456789";
constexpr char kOperator[] = "operator-secret-012345";

class ServerSecurityTest : public ::testing::Test {
 protected:
  ServerSecurityTest() {
    MakeVersion(adapters_.path(), "toys", "1");
    options_.base = base_.path();
    options_.adapters = adapters_.path();
    options_.listen = options_.admin_listen = options_.health_listen = options_.metrics_listen =
        "127.0.0.1:0";
    options_.poll_interval = absl::Milliseconds(1);
    options_.sleep = [](absl::Duration) {};
  }
  static void Write(const std::string& path, const std::string& text) {
    ASSERT_OK(WriteFileAtomically(path, text));
  }
  void WritePair(const CertificateAndKey& pair) {
    Write(secrets_.File("server.key"), pair.key);
    Write(secrets_.File("server.crt"), pair.certificate);
  }
  void UseTls() {
    WritePair(authority_.Issue("server"));
    Write(secrets_.File("ca.crt"), authority_.certificate());
    options_.tls_cert = secrets_.File("server.crt");
    options_.tls_key = secrets_.File("server.key");
  }
  void UseTokens() {
    Write(secrets_.File("tokens.json"),
          absl::StrCat(R"({"tokens": [{"name": "shop", "secret": ")", kShop,
                       R"(", "permissions": ["predict"]}, {"name": "operator", "secret": ")",
                       kOperator, R"(", "permissions": ["predict", "admin"]}]})"));
    options_.tokens = secrets_.File("tokens.json");
  }
  absl::Status Start() {
    RETURN_IF_ERROR(options_.Validate());
    ASSIGN_OR_RETURN(
        server_, Server::Start(options_,
                               [](const ServerOptions&) -> absl::StatusOr<std::unique_ptr<Engine>> {
                                 return std::make_unique<FakeEngine>();
                               }));
    return absl::OkStatus();
  }

  ClientOptions TlsClient() const {
    ClientOptions options;
    options.tls = {
        .enabled = true, .ca = secrets_.File("ca.crt"), .cert = "", .key = "", .server_name = ""};
    return options;
  }
  // With a certificate of `authority`.
  ClientOptions CertifiedClient(const CertificateAuthority& authority) const {
    const CertificateAndKey pair = authority.Issue("shop-backend");
    Write(secrets_.File("client.crt"), pair.certificate);
    Write(secrets_.File("client.key"), pair.key);
    ClientOptions options = TlsClient();
    options.tls.cert = secrets_.File("client.crt");
    options.tls.key = secrets_.File("client.key");
    return options;
  }
  // A new connection each: TLS is spoken when one is made.
  absl::Status Price(ClientOptions options) const {
    options.server = absl::StrCat("127.0.0.1:", server_->ports().pricing);
    options.retry.max_attempts = 1;
    ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Client::Create(options));
    v1::PredictPriceRequest request;
    request.mutable_item()->set_text("lamp");
    return client->PredictPrice(request).status();
  }
  absl::Status List(ClientOptions options) const {
    options.server = absl::StrCat("127.0.0.1:", server_->ports().admin);
    options.retry.max_attempts = 1;
    ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Client::Create(options));
    return client->ListAdapters({}).status();
  }

  TempDir base_;
  TempDir adapters_;
  TempDir secrets_;
  const CertificateAuthority authority_{"the shop's authority"};
  const CertificateAuthority stranger_{"another authority"};
  ServerOptions options_;
  std::unique_ptr<Server> server_;
};

TEST_F(ServerSecurityTest, OverTlsTheServerShowsWhoItIs) {
  UseTls();
  ASSERT_OK(Start());
  EXPECT_OK(Price(TlsClient()));
  EXPECT_OK(List(TlsClient()));
  EXPECT_THAT(Price(ClientOptions()), StatusIs(absl::StatusCode::kUnavailable));
  ClientOptions trusts_others = TlsClient();
  Write(secrets_.File("stranger.crt"), stranger_.certificate());
  trusts_others.tls.ca = secrets_.File("stranger.crt");
  EXPECT_THAT(Price(trusts_others), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(ServerSecurityTest, CallersShowCertificatesWhereTheyAreAskedFor) {
  UseTls();
  options_.tls_client_ca = secrets_.File("ca.crt");
  options_.admin_listen = "0.0.0.0:0";
  ASSERT_OK(Start());
  EXPECT_OK(Price(CertifiedClient(authority_)));
  EXPECT_OK(List(CertifiedClient(authority_)));
  EXPECT_THAT(Price(TlsClient()), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(Price(CertifiedClient(stranger_)), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(ServerSecurityTest, OperatorsAloneMayHaveToShowThem) {
  UseTls();
  options_.admin_tls_client_ca = secrets_.File("ca.crt");
  ASSERT_OK(Start());
  EXPECT_OK(Price(TlsClient()));
  EXPECT_THAT(List(TlsClient()), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_OK(List(CertifiedClient(authority_)));
}

TEST_F(ServerSecurityTest, NewCertificatesAreUsedAndBrokenOnesAreNot) {
  UseTls();
  ASSERT_OK(Start());
  // Connected before, and from then on.
  ClientOptions old = TlsClient();
  old.server = absl::StrCat("127.0.0.1:", server_->ports().pricing);
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Client> connected, Client::Create(old));
  v1::PredictPriceRequest request;
  request.mutable_item()->set_text("lamp");
  ASSERT_OK(connected->PredictPrice(request));

  Write(secrets_.File("server.crt"), "broken");
  for (int i = 0; i < 20; ++i) EXPECT_OK(Price(TlsClient()));
  WritePair(stranger_.Issue("server"));
  ClientOptions trusts_the_new = TlsClient();
  Write(secrets_.File("stranger.crt"), stranger_.certificate());
  trusts_the_new.tls.ca = secrets_.File("stranger.crt");
  while (!Price(trusts_the_new).ok()) std::this_thread::yield();
  EXPECT_FALSE(Price(TlsClient()).ok());
  EXPECT_OK(connected->PredictPrice(request));
}

TEST_F(ServerSecurityTest, TellsWhenTheCertificateInUseEnds) {
  UseTls();
  ASSERT_OK(Start());
  const auto days = [this] {
    const std::string text = testing::HttpGetMetrics(server_->ports().metrics);
    const std::string name = "\npricer_certificate_expiry_timestamp_seconds ";
    const size_t begin = text.find(name);
    if (begin == std::string::npos) return 0.0;
    const double end = std::stod(text.substr(begin + name.size()));
    return (end - absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch())) / (24 * 60 * 60);
  };
  EXPECT_NEAR(days(), 1, 0.1);
  WritePair(authority_.Issue("server", /*days=*/30));
  while (days() < 2) std::this_thread::yield();
  EXPECT_NEAR(days(), 30, 0.1);
}

TEST_F(ServerSecurityTest, TokensSayWhoMayDoWhat) {
  UseTls();
  UseTokens();
  ASSERT_OK(Start());
  const auto with = [this](const std::string& token) {
    ClientOptions options = TlsClient();
    options.token = token;
    return options;
  };
  EXPECT_OK(Price(with(kShop)));
  EXPECT_OK(Price(with(kOperator)));
  EXPECT_OK(List(with(kOperator)));
  EXPECT_THAT(List(with(kShop)), StatusIs(absl::StatusCode::kPermissionDenied,
                                          AllOf(HasSubstr("shop"), HasSubstr("admin"))));
  EXPECT_THAT(Price(with("nobody-secret-012345")), StatusIs(absl::StatusCode::kUnauthenticated));
  EXPECT_THAT(Price(TlsClient()),
              StatusIs(absl::StatusCode::kUnauthenticated, HasSubstr("expected Bearer TOKEN")));
  // Another token, without a restart.
  Write(
      secrets_.File("tokens.json"),
      R"({"tokens": [{"name": "till", "secret": "till-secret-0123456", "permissions": ["predict"]}]})");
  while (!Price(with("till-secret-0123456")).ok()) std::this_thread::yield();
  EXPECT_FALSE(Price(with(kShop)).ok());
}

TEST_F(ServerSecurityTest, AScraperShowsATokenAsItsPassword) {
  UseTls();
  Write(secrets_.File("tokens.json"),
        R"({"tokens": [
          {"name": "shop", "secret": "shop-secret-0123456789", "permissions": ["predict"]},
          {"name": "scraper", "secret": "scraper-secret-0123456", "permissions": ["metrics"]}]})");
  options_.tokens = secrets_.File("tokens.json");
  ASSERT_OK(Start());
  const auto get = [this](const std::string& password) {
    const std::string login = password.empty()
                                  ? ""
                                  : absl::StrCat("Authorization: Basic ",
                                                 absl::Base64Escape("anybody:" + password), "\r\n");
    return testing::HttpGetMetrics(server_->ports().metrics, login);
  };
  EXPECT_THAT(get("scraper-secret-0123456"),
              AllOf(HasSubstr("200 OK"), HasSubstr("pricer_build_info")));
  EXPECT_THAT(get(kShop), AllOf(HasSubstr("401"), Not(HasSubstr("pricer_build_info"))));
  EXPECT_THAT(get(""), HasSubstr("401"));
}

TEST_F(ServerSecurityTest, MovesAreKnownByWhoMadeThem) {
  UseTls();
  options_.tls_client_ca = secrets_.File("ca.crt");
  ASSERT_OK(Start());
  ClientOptions options = CertifiedClient(authority_);
  options.server = absl::StrCat("127.0.0.1:", server_->ports().admin);
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Client> client, Client::Create(options));
  v1::SetLabelRequest request;
  request.set_name("toys");
  request.set_label("stable");
  request.set_version(1);
  ASSERT_OK_AND_ASSIGN(const v1::SetLabelResponse response, client->SetLabel(request));
  // The first of its names: what it is called among those that it may be used for.
  EXPECT_EQ(response.labels().history(0).moved_by(), "cert:localhost");
}

TEST_F(ServerSecurityTest, EveryMethodAsks) {
  UseTokens();
  options_.allow_insecure_tokens = true;
  ASSERT_OK(Start());
  const auto channel = grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->ports().pricing),
                                           grpc::InsecureChannelCredentials());
  const auto pricing = v1::PricingService::NewStub(channel);
  const auto admin_channel = grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->ports().admin),
                                                 grpc::InsecureChannelCredentials());
  const auto admin = v1::AdapterService::NewStub(admin_channel);
  const auto operations = v1::OperationsService::NewStub(admin_channel);
  const auto code = [](const auto& call) {
    grpc::ClientContext context;
    return call(&context).error_code();
  };
  constexpr auto kUnauthenticated = grpc::StatusCode::UNAUTHENTICATED;
  v1::PredictPriceResponse price;
  v1::BatchPredictPricesResponse batch;
  v1::ListAdaptersResponse list;
  v1::GetLabelsResponse labels;
  v1::SetLabelResponse set;
  v1::RemoveLabelResponse remove;
  v1::RollbackLabelResponse rollback;
  EXPECT_EQ(code([&](auto* c) { return pricing->PredictPrice(c, {}, &price); }), kUnauthenticated);
  EXPECT_EQ(code([&](auto* c) { return pricing->BatchPredictPrices(c, {}, &batch); }),
            kUnauthenticated);
  EXPECT_EQ(code([&](auto* c) { return pricing->StreamPredictPrices(c)->Finish(); }),
            kUnauthenticated);
  EXPECT_EQ(code([&](auto* c) { return admin->ListAdapters(c, {}, &list); }), kUnauthenticated);
  EXPECT_EQ(code([&](auto* c) { return admin->GetLabels(c, {}, &labels); }), kUnauthenticated);
  EXPECT_EQ(code([&](auto* c) { return admin->SetLabel(c, {}, &set); }), kUnauthenticated);
  EXPECT_EQ(code([&](auto* c) { return admin->RemoveLabel(c, {}, &remove); }), kUnauthenticated);
  EXPECT_EQ(code([&](auto* c) { return admin->RollbackLabel(c, {}, &rollback); }),
            kUnauthenticated);
  const auto infer = inference::GRPCInferenceService::NewStub(channel);
  const auto repository = inference::GRPCInferenceService::NewStub(admin_channel);
  inference::ModelInferResponse inferred;
  inference::ModelReadyResponse ready;
  inference::ModelMetadataResponse metadata;
  inference::RepositoryIndexResponse index;
  v1::ReportOutcomesResponse outcomes;
  EXPECT_EQ(code([&](auto* c) { return pricing->ReportOutcomes(c, {}, &outcomes); }),
            kUnauthenticated);
  EXPECT_EQ(code([&](auto* c) { return infer->ModelInfer(c, {}, &inferred); }), kUnauthenticated);
  EXPECT_EQ(code([&](auto* c) { return infer->ModelReady(c, {}, &ready); }), kUnauthenticated);
  EXPECT_EQ(code([&](auto* c) { return infer->ModelMetadata(c, {}, &metadata); }),
            kUnauthenticated);
  EXPECT_EQ(code([&](auto* c) { return repository->RepositoryIndex(c, {}, &index); }),
            kUnauthenticated);
  v1::SetLogLevelResponse level;
  EXPECT_EQ(code([&](auto* c) { return operations->SetLogLevel(c, {}, &level); }),
            kUnauthenticated);
}

TEST_F(ServerSecurityTest, DoesNotStartHalfSecure) {
  const auto expect = [this](absl::StatusCode code, const std::string& words) {
    EXPECT_THAT(Start(), StatusIs(code, HasSubstr(words)));
    EXPECT_EQ(server_, nullptr);
  };
  UseTokens();
  expect(absl::StatusCode::kInvalidArgument, "--allow-insecure-tokens");
  UseTls();
  std::filesystem::remove(options_.tokens);
  expect(absl::StatusCode::kNotFound, options_.tokens);
  UseTokens();
  Write(options_.tls_key, stranger_.Issue("server").key);
  expect(absl::StatusCode::kInvalidArgument, options_.tls_key);
  options_.tls_key.clear();
  expect(absl::StatusCode::kInvalidArgument, "--tls-key");
  options_.tls_cert.clear();
  options_.tls_client_ca = secrets_.File("ca.crt");
  expect(absl::StatusCode::kInvalidArgument, "--tls-client-ca");
  options_.tls_client_ca.clear();
  options_.tokens.clear();
  options_.admin_listen = "0.0.0.0:0";
  expect(absl::StatusCode::kInvalidArgument, "--admin-listen");
}

}  // namespace
}  // namespace pricer
