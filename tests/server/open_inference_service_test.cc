#include "server/open_inference_service.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cstring>
#include <future>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "server/listeners.h"
#include "tests/server/pricing_service_fixture.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_data.h"

namespace pricer {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using testing::FakePrice;
using ::testing::HasSubstr;
using testing::IsGrpcError;
using Stub = inference::GRPCInferenceService::Stub;

class OpenInferenceServiceTest : public testing::PricingServiceTest {
 protected:
  OpenInferenceServiceTest() {
    Publish(2);
    inference_listener_ = Open(&inference_);
    admin_listener_ = Open(&admin_inference_);
    channel_ = ChannelTo(inference_listener_);
    infer_ = inference::GRPCInferenceService::NewStub(channel_);
    admin_ = inference::GRPCInferenceService::NewStub(ChannelTo(admin_listener_));
  }
  ~OpenInferenceServiceTest() override {
    inference_listener_.server->Shutdown();
    admin_listener_.server->Shutdown();
  }

  static Listener Open(grpc::Service* service) {
    absl::StatusOr<Listener> listener =
        Listen({.flag = "--listen", .address = "127.0.0.1:0"}, {service});
    EXPECT_OK(listener);
    return *std::move(listener);
  }
  static std::shared_ptr<grpc::Channel> ChannelTo(const Listener& listener) {
    return grpc::CreateChannel(absl::StrCat("127.0.0.1:", listener.port),
                               grpc::InsecureChannelCredentials());
  }
  // Sends the bytes of a file of tests/data/tritonclient.
  grpc::Status SendFile(const std::string& name, inference::ModelInferResponse* response) {
    grpc::GenericStub stub(channel_);
    grpc::ClientContext context;
    const grpc::Slice slice(*ReadFile(testing::DataPath("tritonclient/" + name + ".bin")));
    const grpc::ByteBuffer request(&slice, 1);
    grpc::ByteBuffer bytes;
    std::promise<grpc::Status> ended;
    stub.UnaryCall(&context, "/inference.GRPCInferenceService/ModelInfer", grpc::StubOptions(),
                   &request, &bytes,
                   [&](grpc::Status status) { ended.set_value(std::move(status)); });
    grpc::Status status = ended.get_future().get();
    if (status.ok()) {
      EXPECT_TRUE(
          grpc::SerializationTraits<inference::ModelInferResponse>::Deserialize(&bytes, response)
              .ok());
    }
    return status;
  }
  static std::vector<double> Doubles(const std::string& raw) {
    std::vector<double> values(raw.size() / sizeof(double));
    std::memcpy(values.data(), raw.data(), raw.size());
    return values;
  }
  bool ModelReady(const std::string& name, const std::string& version) {
    grpc::ClientContext context;
    inference::ModelReadyRequest request;
    request.set_name(name);
    request.set_version(version);
    inference::ModelReadyResponse response;
    EXPECT_TRUE(infer_->ModelReady(&context, request, &response).ok());
    return response.ready();
  }

  bool ready_ = true;
  OpenInferenceService inference_{OpenInferenceService::Listener::kPricing, &service_.door(),
                                  &registry_, [this] { return ready_; }};
  OpenInferenceService admin_inference_{OpenInferenceService::Listener::kAdmin, &service_.door(),
                                        &registry_, [this] { return ready_; }};
  Listener inference_listener_;
  Listener admin_listener_;
  std::unique_ptr<Stub> infer_;
  std::unique_ptr<Stub> admin_;
};

TEST_F(OpenInferenceServiceTest, PricesWhatTritonclientSends) {
  inference::ModelInferResponse response;
  ASSERT_TRUE(SendFile("plain", &response).ok());
  EXPECT_EQ(response.model_name(), "toys");
  EXPECT_EQ(response.model_version(), "2");
  EXPECT_EQ(response.id(), "r1");
  ASSERT_EQ(response.raw_output_contents_size(), 3);
  EXPECT_THAT(Doubles(response.raw_output_contents(0)),
              ElementsAre(DoubleNear(FakePrice(2), 1e-6), DoubleNear(FakePrice(2), 1e-6)));

  ASSERT_TRUE(SendFile("chosen", &response).ok());
  ASSERT_EQ(response.outputs_size(), 2);
  EXPECT_EQ(response.outputs(1).name(), "version");
  EXPECT_EQ(response.raw_output_contents(1).size(), 24u);
  EXPECT_GT(Doubles(response.raw_output_contents(0))[2], FakePrice(2));
  EXPECT_EQ(metrics_.values().calls.at("ModelInfer OK"), 2);
}

TEST_F(OpenInferenceServiceTest, ErrorsNameWhatTheyAreOf) {
  grpc::ClientContext context;
  inference::ModelInferRequest request;
  inference::ModelInferResponse response;
  EXPECT_THAT(infer_->ModelInfer(&context, request, &response),
              IsGrpcError(grpc::StatusCode::INVALID_ARGUMENT, HasSubstr("expected text")));
  auto* const input = request.add_inputs();
  input->set_name("text");
  input->set_datatype("BYTES");
  input->add_shape(2);
  input->mutable_contents()->add_bytes_contents("lamp");
  input->mutable_contents()->add_bytes_contents("unencodable");
  grpc::ClientContext second;
  EXPECT_THAT(infer_->ModelInfer(&second, request, &response),
              IsGrpcError(grpc::StatusCode::INVALID_ARGUMENT, HasSubstr("text[1]: item: two BOS")));
  request.set_model_name("wine");
  grpc::ClientContext third;
  EXPECT_THAT(infer_->ModelInfer(&third, request, &response),
              IsGrpcError(grpc::StatusCode::NOT_FOUND, HasSubstr("wine")));
}

TEST_F(OpenInferenceServiceTest, SaysWhatIsReadyAndWhatItTakes) {
  grpc::ClientContext live_context;
  inference::ServerLiveResponse live;
  ASSERT_TRUE(infer_->ServerLive(&live_context, {}, &live).ok());
  EXPECT_TRUE(live.live());
  EXPECT_TRUE(ModelReady("toys", ""));
  EXPECT_TRUE(ModelReady("toys", "1"));
  EXPECT_FALSE(ModelReady("toys", "9"));
  EXPECT_FALSE(ModelReady("toys", "mine"));
  EXPECT_FALSE(ModelReady("wine", ""));
  ready_ = false;
  grpc::ClientContext ready_context;
  inference::ServerReadyResponse ready;
  ASSERT_TRUE(infer_->ServerReady(&ready_context, {}, &ready).ok());
  EXPECT_FALSE(ready.ready());
  EXPECT_FALSE(ModelReady("toys", ""));

  grpc::ClientContext metadata_context;
  inference::ModelMetadataRequest request;
  request.set_name("toys");
  inference::ModelMetadataResponse metadata;
  ASSERT_TRUE(infer_->ModelMetadata(&metadata_context, request, &metadata).ok());
  EXPECT_THAT(metadata.versions(), ElementsAre("1", "2"));
  EXPECT_EQ(metadata.inputs(0).name(), "text");
  EXPECT_EQ(metadata.inputs(0).datatype(), "BYTES");
  EXPECT_EQ(metadata.outputs_size(), 4);
}

TEST_F(OpenInferenceServiceTest, TheRepositoryAnswersOnTheAdminListenerAlone) {
  inference::RepositoryIndexResponse index;
  grpc::ClientContext on_pricing;
  EXPECT_THAT(infer_->RepositoryIndex(&on_pricing, {}, &index),
              IsGrpcError(grpc::StatusCode::PERMISSION_DENIED, HasSubstr("admin listener")));
  registry_.Discover({"toys", 3});
  registry_.BeginLoad({"toys", 3});
  registry_.Refuse({"toys", 3}, absl::DataLossError("bad hash"));
  grpc::ClientContext on_admin;
  ASSERT_TRUE(admin_->RepositoryIndex(&on_admin, {}, &index).ok());
  ASSERT_EQ(index.models_size(), 3);
  EXPECT_EQ(index.models(1).state(), "READY");
  EXPECT_EQ(index.models(2).state(), "UNAVAILABLE");
  EXPECT_EQ(index.models(2).reason(), "bad hash");
  inference::RepositoryIndexRequest ready;
  ready.set_ready(true);
  grpc::ClientContext of_ready;
  ASSERT_TRUE(admin_->RepositoryIndex(&of_ready, ready, &index).ok());
  EXPECT_EQ(index.models_size(), 2);
  grpc::ClientContext of_load;
  inference::RepositoryModelLoadResponse loaded;
  EXPECT_THAT(admin_->RepositoryModelLoad(&of_load, {}, &loaded),
              IsGrpcError(grpc::StatusCode::UNAVAILABLE, HasSubstr("starting")));
}

}  // namespace
}  // namespace pricer
