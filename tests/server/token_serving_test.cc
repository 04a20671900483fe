// The server on real ports with the model's own engine: adapters of both heads and the base itself.

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <numeric>
#include <thread>

#include "absl/strings/str_cat.h"
#include "model/token_head.h"
#include "pricer/v1/adapters.grpc.pb.h"
#include "pricer/v1/pricing.grpc.pb.h"
#include "server/model_engine.h"
#include "server/server.h"
#include "tests/server/tiny_adapter.h"
#include "tests/testing/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::DoubleNear;
using testing::GoldenPath;
using ::testing::HasSubstr;
using testing::TempDir;
using testing::TinyAdapter;

constexpr char kModel[] = "token_prices/digits";
constexpr char kItem[] = "Steel kettle, 1.7 l";

std::shared_ptr<grpc::Channel> ChannelTo(int port) {
  return grpc::CreateChannel(absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials());
}

class TokenServingTest : public ::testing::Test {
 protected:
  TokenServingTest() {
    options_.base = GoldenPath(kModel);
    options_.adapters = adapters_.path();
    options_.weights = "fp32";
    options_.dtype = "fp32";
    options_.threads = 1;
    options_.listen = options_.admin_listen = options_.health_listen = options_.metrics_listen =
        "127.0.0.1:0";
    options_.poll_interval = absl::Milliseconds(1);
    options_.sleep = [](absl::Duration) {};
  }

  void Start() {
    ASSERT_OK_AND_ASSIGN(server_, Server::Start(options_, LoadModelEngine));
    pricing_ = v1::PricingService::NewStub(ChannelTo(server_->ports().pricing));
    admin_ = v1::AdapterService::NewStub(ChannelTo(server_->ports().admin));
  }
  // Beside the server's own, to publish with.
  std::unique_ptr<Engine> OtherEngine() const {
    auto engine = LoadModelEngine(options_);
    EXPECT_OK(engine);
    return *std::move(engine);
  }

  grpc::Status Price(const std::string& adapter, v1::Prediction* prediction,
                     const std::string& text = kItem) {
    grpc::ClientContext context;
    v1::PredictPriceRequest request;
    request.mutable_item()->set_text(text);
    request.mutable_adapter()->set_name(adapter);
    request.mutable_options()->set_want_distribution(true);
    request.mutable_options()->add_quantiles(0.9);
    v1::PredictPriceResponse response;
    const grpc::Status status = pricing_->PredictPrice(&context, request, &response);
    *prediction = response.prediction();
    return status;
  }
  v1::AdapterVersion Listed(const std::string& name) {
    grpc::ClientContext context;
    v1::ListAdaptersRequest request;
    request.set_name(name);
    v1::ListAdaptersResponse response;
    EXPECT_TRUE(admin_->ListAdapters(&context, request, &response).ok());
    return response.versions_size() == 1 ? response.versions(0) : v1::AdapterVersion();
  }

  TempDir adapters_;
  ServerOptions options_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<v1::PricingService::Stub> pricing_;
  std::unique_ptr<v1::AdapterService::Stub> admin_;
};

// Shares of the whole prices behind the item, asked of the network without a server.
std::vector<double> SharesOf(const PromptTemplate& prompt, const AdapterWeights* weights) {
  const auto checkpoint = testing::OpenCheckpoint(kModel);
  const auto network = testing::LoadNetwork(*checkpoint, WeightsKind::kFp32);
  const auto tokenizer = Tokenizer::FromDirectory(GoldenPath(kModel));
  const auto tokens = ProbePriceTokens(prompt, **tokenizer);
  EXPECT_OK(tokens);
  const auto encoded = EncodePrompt(prompt, **tokenizer, kItem);
  EXPECT_OK(encoded);
  const absl::Span<const AdapterWeights* const> adapters(&weights, weights == nullptr ? 0 : 1);
  KvCache cache;
  const at::Tensor hidden =
      network->Forward(Pack({{encoded->ids, weights == nullptr ? -1 : 0}}), adapters, &cache);
  const auto results = ReadTokenPrices(*network, hidden, adapters, {{0, &*tokens}}, &cache);
  EXPECT_OK(results);
  std::vector<double> shares = (*results)[0].prices;
  const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
  for (double& share : shares) share /= sum;
  return shares;
}

void ExpectShares(const v1::Prediction& prediction, const std::vector<double>& expected) {
  const v1::Distribution& distribution = prediction.distribution();
  ASSERT_EQ(distribution.probabilities_size(), kWholePriceCount);
  ASSERT_EQ(distribution.edges_size(), kWholePriceCount + 1);
  for (int n = 0; n < kWholePriceCount; ++n) {
    EXPECT_THAT(distribution.probabilities(n), DoubleNear(expected[n], 1e-6)) << n;
  }
  const PriceDistribution whole = PriceDistribution::OfWholePrices(expected);
  EXPECT_EQ(prediction.price(), whole.Quantile(0.5));
  EXPECT_EQ(prediction.quantiles(0).price(), whole.Quantile(0.9));
  EXPECT_EQ(prediction.intervals(0).low(), whole.CentralInterval(0.8).low);
  EXPECT_EQ(prediction.intervals(0).high(), whole.CentralInterval(0.8).high);
  EXPECT_THAT(prediction.confidence(), DoubleNear(whole.Confidence(prediction.price()), 1e-5));
}

TEST_F(TokenServingTest, TheBasePricesAsItsOwnHeadSays) {
  Start();
  v1::Prediction prediction;
  const grpc::Status unnamed = Price("", &prediction);
  EXPECT_EQ(unnamed.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(unnamed.error_message(), HasSubstr("\"base\""));
  const grpc::Status status = Price("base", &prediction);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(prediction.served_by().adapter(), "base");
  EXPECT_EQ(prediction.served_by().version(), 0);
  EXPECT_EQ(prediction.currency_code(), "USD");
  ASSERT_OK_AND_ASSIGN(const PromptTemplate prompt, PromptTemplate::Preset("default", "USD"));
  ExpectShares(prediction, SharesOf(prompt, nullptr));
  EXPECT_EQ(Listed("base").state(), v1::ADAPTER_STATE_AVAILABLE);
  EXPECT_EQ(Listed("base").digest(), prediction.served_by().digest());
}

TEST_F(TokenServingTest, APlainDirectoryPricesAsThePublishedRecipeSays) {
  // New, it has LoRA that does nothing; so that its price differs from the base's, it is random.
  ASSERT_OK(testing::PlacePlainAdapter(options_.base, adapters_.path(), "recipe", 5));
  Start();
  v1::Prediction prediction;
  const grpc::Status status = Price("", &prediction);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(prediction.served_by().adapter(), "recipe");
  EXPECT_EQ(prediction.served_by().version(), 1);
  ASSERT_OK_AND_ASSIGN(const TinyAdapter adapter, testing::MakeTinyTokenAdapter(options_.base, 5));
  ASSERT_OK_AND_ASSIGN(const PromptTemplate prompt, PromptTemplate::Preset("reference", "USD"));
  ExpectShares(prediction, SharesOf(prompt, &adapter.weights));
  EXPECT_THAT(Listed("recipe").reason(),
              AllOf(HasSubstr("no pricer.json"), HasSubstr("preset reference")));
}

TEST_F(TokenServingTest, ATokenAdapterIsLoadedWhileOthersAreServed) {
  const std::unique_ptr<Engine> engine = OtherEngine();
  ASSERT_OK(testing::PublishTinyAdapter(options_.base, engine.get(), adapters_.path(), "bins", 1));
  Start();
  v1::Prediction prediction;
  ASSERT_TRUE(Price("", &prediction).ok());
  EXPECT_EQ(prediction.served_by().adapter(), "bins");
  ASSERT_OK_AND_ASSIGN(
      const PublishedVersion published,
      testing::PublishTinyTokenAdapter(options_.base, engine.get(), adapters_.path(), "token", 2));
  grpc::Status status = Price("token", &prediction);
  while (status.error_code() == grpc::StatusCode::NOT_FOUND &&
         Listed("token").state() != v1::ADAPTER_STATE_END) {
    std::this_thread::yield();
    status = Price("token", &prediction);
  }
  ASSERT_TRUE(status.ok()) << status.error_message() << Listed("token").reason();
  ASSERT_OK_AND_ASSIGN(const TinyAdapter adapter, testing::MakeTinyTokenAdapter(options_.base, 2));
  ExpectShares(prediction, SharesOf(adapter.manifest.prompt, &adapter.weights));
  EXPECT_EQ(Listed("token").reason(), "");
}

// Callers of all heads at once, so that batches mix them, get what each gets alone.
TEST_F(TokenServingTest, CallersOfAllHeadsGetTheirOwnPrices) {
  const std::unique_ptr<Engine> engine = OtherEngine();
  ASSERT_OK(testing::PublishTinyAdapter(options_.base, engine.get(), adapters_.path(), "bins", 1));
  ASSERT_OK(testing::PlacePlainAdapter(options_.base, adapters_.path(), "recipe", 5));
  Start();
  const std::vector<std::string> names = {"base", "bins", "recipe"};
  std::vector<v1::Prediction> alone(names.size());
  for (size_t i = 0; i < names.size(); ++i) ASSERT_TRUE(Price(names[i], &alone[i]).ok());
  std::vector<std::thread> callers;
  for (size_t i = 0; i < 2 * names.size(); ++i) {
    callers.emplace_back([&, i] {
      for (int call = 0; call < 5; ++call) {
        v1::Prediction prediction;
        const size_t which = i % names.size();
        const grpc::Status status = Price(names[which], &prediction);
        EXPECT_TRUE(status.ok()) << status.error_message();
        EXPECT_EQ(prediction.price(), alone[which].price());
        EXPECT_THAT(prediction.confidence(), DoubleNear(alone[which].confidence(), 1e-5));
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

}  // namespace
}  // namespace pricer
