#include "server/adapter_service.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "server/label_follower.h"
#include "server/listeners.h"
#include "tests/server/adapter_files.h"
#include "tests/server/fakes.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::testing::ElementsAre;
using testing::FakeClock;
using testing::FakeEngine;
using ::testing::HasSubstr;
using testing::MakeLoadedAdapter;
using testing::MakeVersion;
using testing::RecordingMetrics;
using testing::TempDir;

// A real port and real files; the versions are made up.
class AdapterServiceTest : public ::testing::Test {
 protected:
  AdapterServiceTest() {
    for (int64_t version : {1, 2}) {
      MakeVersion(root_.path(), "toys", std::to_string(version));
      registry_.Discover({"toys", version});
      registry_.Publish(MakeLoadedAdapter("toys", version), absl::ZeroDuration());
    }
    absl::StatusOr<Listener> listener =
        Listen({.flag = "--admin-listen", .address = "127.0.0.1:0"}, {&service_});
    EXPECT_OK(listener);
    listener_ = *std::move(listener);
    stub_ = v1::AdapterService::NewStub(grpc::CreateChannel(
        absl::StrCat("127.0.0.1:", listener_.port), grpc::InsecureChannelCredentials()));
  }
  ~AdapterServiceTest() override {
    listener_.server->Shutdown();
    pool_.Stop();
    scheduler_.Stop(absl::InfiniteFuture());
  }

  grpc::Status Set(const std::string& label, int64_t version, double percent = 0) {
    grpc::ClientContext context;
    v1::SetLabelRequest request;
    request.set_name("toys");
    request.set_label(label);
    request.set_version(version);
    request.set_percent(percent);
    v1::SetLabelResponse response;
    const grpc::Status status = stub_->SetLabel(&context, request, &response);
    labels_ = response.labels();
    return status;
  }
  grpc::Status RollBack(const std::string& label, int64_t from = 0) {
    grpc::ClientContext context;
    v1::RollbackLabelRequest request;
    request.set_name("toys");
    request.set_label(label);
    request.set_from_version(from);
    v1::RollbackLabelResponse response;
    const grpc::Status status = stub_->RollbackLabel(&context, request, &response);
    labels_ = response.labels();
    return status;
  }
  grpc::Status Remove(const std::string& label) {
    grpc::ClientContext context;
    v1::RemoveLabelRequest request;
    request.set_name("toys");
    request.set_label(label);
    v1::RemoveLabelResponse response;
    const grpc::Status status = stub_->RemoveLabel(&context, request, &response);
    labels_ = response.labels();
    return status;
  }
  grpc::Status Get(const std::string& name) {
    grpc::ClientContext context;
    v1::GetLabelsRequest request;
    request.set_name(name);
    v1::GetLabelsResponse response;
    const grpc::Status status = stub_->GetLabels(&context, request, &response);
    labels_ = response.labels();
    return status;
  }

  TempDir root_;
  FakeClock clock_;
  RecordingMetrics metrics_;
  FakeEngine engine_;
  AdapterRegistry registry_{"", &metrics_, &clock_};
  BatchScheduler scheduler_{{.max_batch_tokens = 1000, .max_queue_tokens = 1000},
                            engine_.predictor(),
                            &metrics_,
                            &clock_};
  GoldenChecker golden_{&engine_, &scheduler_};
  LabelFollower follower_{root_.path(), &registry_};
  LabelMover mover_{root_.path(), &registry_, &golden_,
                    [this](const std::string& adapter) { follower_.Refresh(adapter); }, &clock_};
  WorkerPool pool_{1, 4};
  AdapterService service_{&registry_, &pool_, &metrics_};
  Listener listener_;
  std::unique_ptr<v1::AdapterService::Stub> stub_;
  v1::AdapterLabels labels_;
};

TEST_F(AdapterServiceTest, LabelsAreShownAsTheyAre) {
  service_.Serve({.labels = &mover_, .adapters = nullptr});
  ASSERT_TRUE(Get("toys").ok());
  EXPECT_EQ(labels_.name(), "toys");
  EXPECT_EQ(labels_.generation(), 0);
  ASSERT_TRUE(Set("canary", 1, 12.5).ok());
  ASSERT_TRUE(Get("toys").ok());
  EXPECT_EQ(labels_.generation(), 2);
  ASSERT_EQ(labels_.labels_size(), 2);
  EXPECT_EQ(labels_.labels(0).label(), "canary");
  EXPECT_EQ(labels_.labels(0).target().version(), 1);
  EXPECT_EQ(labels_.labels(0).target().percent(), 12.5);
  EXPECT_EQ(labels_.labels(0).live_version(), 1);
  EXPECT_EQ(labels_.labels(1).target().version(), 2);
  ASSERT_EQ(labels_.history_size(), 2);
  EXPECT_FALSE(labels_.history(1).has_from());
  EXPECT_EQ(labels_.history(1).to().version(), 1);
  EXPECT_THAT(labels_.history(1).moved_by(), HasSubstr("127.0.0.1"));
  EXPECT_EQ(labels_.history(1).moved_at().seconds(), absl::ToUnixSeconds(clock_.Now()));
  EXPECT_EQ(Get("wine").error_code(), grpc::StatusCode::NOT_FOUND);

  grpc::ClientContext context;
  v1::ListAdaptersResponse listed;
  ASSERT_TRUE(stub_->ListAdapters(&context, v1::ListAdaptersRequest(), &listed).ok());
  ASSERT_EQ(listed.versions_size(), 2);
  EXPECT_THAT(listed.versions(0).labels(), ElementsAre("canary"));
  EXPECT_TRUE(listed.versions(1).serves_by_default());
}

TEST_F(AdapterServiceTest, LabelsMoveGoBackAndGo) {
  service_.Serve({.labels = &mover_, .adapters = nullptr});
  ASSERT_TRUE(Set("stable", 1).ok());
  EXPECT_EQ((*registry_.Find("toys", std::nullopt))->key.version, 1);
  ASSERT_TRUE(Set("stable", 2).ok());
  ASSERT_TRUE(RollBack("stable").ok());
  EXPECT_EQ((*registry_.Find("toys", std::nullopt))->key.version, 1);
  EXPECT_TRUE(labels_.history(2).rollback());
  EXPECT_TRUE(RollBack("stable", 2).ok());
  EXPECT_EQ(labels_.history_size(), 3);
  EXPECT_EQ(RollBack("stable", 7).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(RollBack("stable", -1).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  ASSERT_TRUE(Remove("stable").ok());
  EXPECT_EQ(labels_.labels_size(), 0);
  EXPECT_EQ((*registry_.Find("toys", std::nullopt))->key.version, 2);
  EXPECT_EQ(Set("stable", 9).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Set("stable", 1, 5).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Remove("mine").error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(metrics_.values().calls.at("SetLabel OK"), 2);
  EXPECT_EQ(metrics_.values().calls.at("RollbackLabel OK"), 2);
}

TEST_F(AdapterServiceTest, MovesWaitUntilTheServerServesAndEndWithIt) {
  const grpc::Status starting = Set("stable", 1);
  EXPECT_EQ(starting.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(starting.error_message(), HasSubstr("starting"));
  EXPECT_TRUE(Get("toys").ok());
  service_.Serve({.labels = &mover_, .adapters = nullptr});
  pool_.Stop();
  EXPECT_EQ(Set("stable", 1).error_code(), grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace pricer
