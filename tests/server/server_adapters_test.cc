#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <thread>

#include "inference/grpc_service.grpc.pb.h"
#include "tests/server/adapter_files.h"
#include "tests/server/http_get.h"
#include "tests/server/server_fixture.h"
#include "tests/testing/status_matchers.h"

// What becomes of adapters in a whole server: more than its memory holds, and what operators do.

namespace pricer {
namespace {

namespace fs = std::filesystem;
using testing::ChannelTo;
using testing::FakeEngine;
using ::testing::HasSubstr;
using testing::HttpGetMetrics;
using testing::MakeVersion;
using testing::ServerTest;

constexpr int kAdapters = 40;
constexpr int64_t kBytes = 1000;  // of each, as the fake engine has it

class ServerAdaptersTest : public ServerTest {
 protected:
  static std::string Name(int i) { return absl::StrCat("shop-", i); }

  // Version 1 of so many adapters, and memory for a few.
  void StartWithMany(int64_t in_memory) {
    for (int i = 0; i < kAdapters; ++i) MakeVersion(adapters_.path(), Name(i), "1");
    options_.adapter_memory.host_bytes = in_memory * kBytes;
    ASSERT_OK(Start());
  }
  grpc::Status PriceWith(const std::string& adapter, const std::string& text,
                         std::string* served_by = nullptr) {
    grpc::ClientContext context;
    v1::PredictPriceRequest request;
    request.mutable_item()->set_text(text);
    request.mutable_adapter()->set_name(adapter);
    v1::PredictPriceResponse response;
    const grpc::Status status = pricing_->PredictPrice(&context, request, &response);
    if (served_by != nullptr) *served_by = response.prediction().served_by().adapter();
    return status;
  }
  std::map<std::string, v1::AdapterVersion> List() {
    grpc::ClientContext context;
    v1::ListAdaptersResponse response;
    EXPECT_TRUE(admin_->ListAdapters(&context, {}, &response).ok());
    std::map<std::string, v1::AdapterVersion> versions;
    for (const v1::AdapterVersion& version : response.versions()) {
      versions[absl::StrCat(version.name(), "/", version.version())] = version;
    }
    return versions;
  }
  // "" = none.
  std::string OneOnDisk() {
    for (const auto& [_, version] : List()) {
      if (version.tier() == v1::MEMORY_TIER_DISK) return version.name();
    }
    return "";
  }
  int InMemory() {
    int count = 0;
    for (const auto& [_, version] : List()) count += version.tier() == v1::MEMORY_TIER_HOST ? 1 : 0;
    return count;
  }
  grpc::Status Unload(const std::string& name, int64_t version,
                      v1::UnloadAdapterResponse* response) {
    grpc::ClientContext context;
    v1::UnloadAdapterRequest request;
    request.set_name(name);
    request.set_version(version);
    return admin_->UnloadAdapter(&context, request, response);
  }
  grpc::Status Load(const std::string& name, int64_t version) {
    grpc::ClientContext context;
    v1::LoadAdapterRequest request;
    request.set_name(name);
    request.set_version(version);
    v1::LoadAdapterResponse response;
    const grpc::Status status = admin_->LoadAdapter(&context, request, &response);
    EXPECT_TRUE(!status.ok() || response.version().state() == v1::ADAPTER_STATE_AVAILABLE);
    return status;
  }
  grpc::Status Pin(const std::string& name, bool pinned) {
    grpc::ClientContext context;
    v1::PinAdapterRequest request;
    request.set_name(name);
    request.set_version(1);
    request.set_pinned(pinned);
    v1::PinAdapterResponse response;
    const grpc::Status status = admin_->PinAdapter(&context, request, &response);
    EXPECT_TRUE(!status.ok() || response.version().pinned() == pinned);
    return status;
  }
};

TEST_F(ServerAdaptersTest, ManyAdaptersAreServedFromMemoryForAFew) {
  StartWithMany(5);
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < kAdapters; ++i) {
      std::string served_by;
      const grpc::Status status = PriceWith(Name(i), absl::StrCat("lamp ", round), &served_by);
      ASSERT_TRUE(status.ok()) << status.error_message();
      EXPECT_EQ(served_by, Name(i));
    }
  }
  EXPECT_EQ(InMemory(), 5);
  const std::string metrics = HttpGetMetrics(server_->ports().metrics);
  EXPECT_THAT(metrics, HasSubstr("pricer_adapter_memory_bytes{tier=\"host\"} 5000"));
  EXPECT_THAT(metrics, HasSubstr("pricer_adapters{state=\"available\"} 40"));
  EXPECT_THAT(metrics, HasSubstr("pricer_adapter_fetch_failures_total 0"));
}

TEST_F(ServerAdaptersTest, CallsAtOnceForMoreAdaptersThanFitAreAllAnswered) {
  StartWithMany(2);
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (int caller = 0; caller < 8; ++caller) {
    callers.emplace_back([&, caller] {
      for (int i = 0; i < 25; ++i) {
        const std::string name = Name((caller * 7 + i * 3) % kAdapters);
        std::string served_by;
        const grpc::Status status = PriceWith(name, absl::StrCat(caller, "-", i), &served_by);
        if (!status.ok() || served_by != name) ++wrong;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_LE(InMemory(), 2);
}

TEST_F(ServerAdaptersTest, AFolderThatGoesAndComesBackUnloadsNothing) {
  const std::string root = adapters_.File("mounted");
  const std::string away = adapters_.File("away");
  fs::create_directory(root);
  options_.adapters = root;
  for (int i = 0; i < kAdapters; ++i) MakeVersion(root, Name(i), "1");
  options_.adapter_memory.host_bytes = 5 * kBytes;
  prepare_engine_ = [&](FakeEngine* engine) { engine->ReadOnlyWhatIsThere(); };
  ASSERT_OK(Start());
  ASSERT_TRUE(Pin(Name(0), true).ok());
  const std::string cold = OneOnDisk();
  ASSERT_NE(cold, "");
  fs::rename(root, away);
  const grpc::Status status = PriceWith(cold, "lamp");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("gone"));
  EXPECT_TRUE(PriceWith(Name(0), "lamp").ok());
  EXPECT_EQ(List().at(absl::StrCat(cold, "/1")).state(), v1::ADAPTER_STATE_AVAILABLE);
  EXPECT_THAT(List().at(absl::StrCat(cold, "/1")).fetch_error(), HasSubstr("gone"));
  fs::rename(away, root);
  grpc::Status again = PriceWith(cold, "lamp");
  while (again.error_code() == grpc::StatusCode::UNAVAILABLE) {
    std::this_thread::yield();
    again = PriceWith(cold, "lamp");
  }
  EXPECT_TRUE(again.ok()) << again.error_message();
}

TEST_F(ServerAdaptersTest, AVersionOnDiskThatHasBecomeAnotherIsNotServed) {
  StartWithMany(5);
  const std::string cold = OneOnDisk();
  auto other = testing::MakeLoadedAdapter(cold, 1);
  other->digest = "another";
  engine_->AddAdapter(cold + "/1", other);
  const grpc::Status status = PriceWith(cold, "lamp");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_THAT(status.error_message(), HasSubstr("has become another"));
}

TEST_F(ServerAdaptersTest, OperatorsUnloadLoadAndPin) {
  StartWithMany(5);
  v1::UnloadAdapterResponse unloaded;
  ASSERT_TRUE(PriceWith(Name(7), "lamp").ok());
  ASSERT_TRUE(Unload(Name(7), 1, &unloaded).ok());
  EXPECT_EQ(unloaded.freed_host_bytes(), kBytes);
  EXPECT_FALSE(unloaded.in_use());
  const grpc::Status gone = PriceWith(Name(7), "lamp");
  EXPECT_EQ(gone.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(gone.error_message(), HasSubstr("unloaded by ipv4:127.0.0.1"));
  ASSERT_TRUE(Load(Name(7), 1).ok());
  EXPECT_TRUE(PriceWith(Name(7), "lamp").ok());
  EXPECT_EQ(Load("nobody", 1).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Load("../etc", 1).error_code(), grpc::StatusCode::INVALID_ARGUMENT);

  for (int i = 0; i < 5; ++i) ASSERT_TRUE(Pin(Name(i), true).ok());
  EXPECT_EQ(Pin(Name(5), true).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(PriceWith(Name(5), "table").error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  ASSERT_TRUE(Pin(Name(0), false).ok());
  EXPECT_TRUE(Load(Name(6), 0).ok());
  EXPECT_EQ(List().at("shop-0/1").tier(), v1::MEMORY_TIER_DISK);
}

TEST_F(ServerAdaptersTest, TheRepositoryOfOpenInferenceLoadsAndUnloads) {
  MakeVersion(adapters_.path(), "toys", "1");
  MakeVersion(adapters_.path(), "toys", "2");
  ASSERT_OK(Start());
  const auto repository =
      inference::GRPCInferenceService::NewStub(ChannelTo(server_->ports().admin));
  const auto unload = [&] {
    grpc::ClientContext context;
    inference::RepositoryModelUnloadRequest request;
    request.set_model_name("toys");
    inference::RepositoryModelUnloadResponse response;
    return repository->RepositoryModelUnload(&context, request, &response);
  };
  ASSERT_TRUE(unload().ok());
  EXPECT_EQ(PriceWith("toys", "lamp").error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(unload().error_code(), grpc::StatusCode::NOT_FOUND);
  grpc::ClientContext context;
  inference::RepositoryModelLoadRequest request;
  request.set_model_name("toys");
  inference::RepositoryModelLoadResponse response;
  ASSERT_TRUE(repository->RepositoryModelLoad(&context, request, &response).ok());
  EXPECT_EQ(List().at("toys/2").state(), v1::ADAPTER_STATE_AVAILABLE);
  EXPECT_EQ(List().at("toys/1").state(), v1::ADAPTER_STATE_END);
  EXPECT_TRUE(PriceWith("toys", "lamp").ok());
}

TEST_F(ServerAdaptersTest, AWatchTellsWhatThereIsAndThenEachChange) {
  MakeVersion(adapters_.path(), "toys", "1");
  MakeVersion(adapters_.path(), "wine", "1");
  ASSERT_OK(Start());
  grpc::ClientContext context;
  v1::WatchAdaptersRequest request;
  request.set_name("toys");
  const auto watch = admin_->WatchAdapters(&context, request);
  v1::WatchAdaptersResponse change;
  ASSERT_TRUE(watch->Read(&change));
  ASSERT_EQ(change.versions_size(), 1);
  EXPECT_EQ(change.versions(0).name(), "toys");
  EXPECT_TRUE(change.versions(0).serves_by_default());

  // Read until a version is in a state; other versions' news are let pass.
  const auto read_until = [&](int64_t version, v1::AdapterState state) {
    while (watch->Read(&change)) {
      for (const v1::AdapterVersion& one : change.versions()) {
        EXPECT_EQ(one.name(), "toys");
        if (one.version() == version && one.state() == state) return true;
      }
    }
    return false;
  };
  MakeVersion(adapters_.path(), "toys", "2");
  MakeVersion(adapters_.path(), "wine", "2");
  EXPECT_TRUE(read_until(2, v1::ADAPTER_STATE_AVAILABLE));
  v1::UnloadAdapterResponse unloaded;
  ASSERT_TRUE(Unload("toys", 2, &unloaded).ok());
  EXPECT_TRUE(read_until(2, v1::ADAPTER_STATE_END));
  // Gone from the folder, and from the list.
  fs::remove_all(fs::path(adapters_.path()) / "toys" / "2");
  while (change.gone().empty()) ASSERT_TRUE(watch->Read(&change));
  EXPECT_EQ(change.gone(0).version(), 2);

  std::thread stop([this] { server_->Stop(); });
  while (watch->Read(&change)) {
  }
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  stop.join();
}

TEST_F(ServerAdaptersTest, AnOperatorsLoadThatHangsKeepsNothingFromStopping) {
  options_.grace_period = absl::Milliseconds(50);
  ASSERT_OK(Start());
  engine_->BlockLoads();
  MakeVersion(adapters_.path(), "toys", "1");
  grpc::Status status;
  std::thread load([&] { status = Load("toys", 1); });
  engine_->WaitForLoad();
  EXPECT_FALSE(server_->Stop());
  load.join();
  EXPECT_FALSE(status.ok());
  engine_->ReleaseLoads();
}

TEST_F(ServerAdaptersTest, AFetchThatHangsKeepsNothingFromStopping) {
  options_.grace_period = absl::Milliseconds(50);
  StartWithMany(5);
  const std::string cold = OneOnDisk();
  engine_->BlockLoads();
  grpc::Status price;
  grpc::Status load;
  std::thread caller([&] { price = PriceWith(cold, "lamp"); });
  std::thread operating([&] { load = Load(cold, 1); });
  engine_->WaitForBlockedLoad();
  EXPECT_FALSE(server_->Stop());
  caller.join();
  operating.join();
  EXPECT_FALSE(price.ok());
  EXPECT_FALSE(load.ok());
  engine_->ReleaseLoads();
}

TEST_F(ServerAdaptersTest, NoMoreThanSoManyWatch) {
  ASSERT_OK(Start());
  struct Watch {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::WatchAdaptersResponse>> reader;
  };
  std::vector<std::unique_ptr<Watch>> watches;
  v1::WatchAdaptersResponse change;
  for (int i = 0; i < 64; ++i) {
    watches.push_back(std::make_unique<Watch>());
    watches.back()->reader = admin_->WatchAdapters(&watches.back()->context, {});
    ASSERT_TRUE(watches.back()->reader->Read(&change));
  }
  grpc::ClientContext context;
  const auto one_more = admin_->WatchAdapters(&context, {});
  EXPECT_FALSE(one_more->Read(&change));
  EXPECT_EQ(one_more->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  for (const auto& watch : watches) watch->context.TryCancel();
  for (const auto& watch : watches) {
    while (watch->reader->Read(&change)) {
    }
    EXPECT_EQ(watch->reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
}

}  // namespace
}  // namespace pricer
