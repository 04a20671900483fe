#pragma once

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "pricer/v1/adapters.grpc.pb.h"
#include "pricer/v1/operations.grpc.pb.h"
#include "pricer/v1/pricing.grpc.pb.h"
#include "tests/testing/process.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

// The program `pricer` itself, against a server in the test.

namespace pricer::testing {

// `output` is of both streams, or what redirections leave of them.
inline Outcome RunClient(const std::string& arguments) {
  return RunShell(absl::StrCat(PRICER_CLIENT_PROGRAM, " 2>&1 ", arguments));
}

class FakePricing final : public v1::PricingService::Service {
 public:
  grpc::Status PredictPrice(grpc::ServerContext* context, const v1::PredictPriceRequest* request,
                            v1::PredictPriceResponse* response) override {
    const auto shown = context->client_metadata().find("authorization");
    if (shown != context->client_metadata().end()) {
      authorization.assign(shown->second.data(), shown->second.size());
    }
    if (request->options().no_cache()) no_cache = true;
    if (!request->item().text().empty()) NoteText(request->item().text());
    if (refuse-- > 0) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining");
    Price(request->item(), response->mutable_prediction());
    return grpc::Status::OK;
  }

  grpc::Status BatchPredictPrices(grpc::ServerContext*,
                                  const v1::BatchPredictPricesRequest* request,
                                  v1::BatchPredictPricesResponse* response) override {
    if (before_batch) before_batch();
    for (const v1::Item& item : request->items()) {
      Price(item, response->add_results()->mutable_prediction());
    }
    return grpc::Status::OK;
  }

  std::function<void()> before_batch;
  std::string authorization;
  std::atomic<bool> no_cache = false;
  std::atomic<int> refuse = 0;  // so many calls
  std::set<std::string> texts;  // the latest two of items that have one

 private:
  void NoteText(const std::string& text) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (texts.size() >= 2 && texts.count(text) == 0) texts.clear();
    texts.insert(text);
  }

  std::mutex mutex_;
  static void Price(const v1::Item& item, v1::Prediction* prediction) {
    prediction->set_price(static_cast<double>(item.title().size()));
    prediction->mutable_served_by()->set_adapter("shop");
    prediction->mutable_served_by()->set_version(3);
  }
};

class FakeAdapters final : public v1::AdapterService::Service {
 public:
  grpc::Status WatchAdapters(grpc::ServerContext*, const v1::WatchAdaptersRequest* request,
                             grpc::ServerWriter<v1::WatchAdaptersResponse>* writer) override {
    v1::WatchAdaptersResponse change;
    FillVersion(request->name(), 3, change.add_versions());
    writer->Write(change);
    change.Clear();
    change.add_gone()->set_name(request->name());
    writer->Write(change);
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is stopping");
  }
  grpc::Status LoadAdapter(grpc::ServerContext*, const v1::LoadAdapterRequest* request,
                           v1::LoadAdapterResponse* response) override {
    FillVersion(request->name(), request->version() == 0 ? 9 : request->version(),
                response->mutable_version());
    return grpc::Status::OK;
  }
  grpc::Status UnloadAdapter(grpc::ServerContext*, const v1::UnloadAdapterRequest* request,
                             v1::UnloadAdapterResponse* response) override {
    response->set_freed_host_bytes(4096);
    response->set_in_use(request->version() == 2);
    return grpc::Status::OK;
  }
  grpc::Status PinAdapter(grpc::ServerContext*, const v1::PinAdapterRequest* request,
                          v1::PinAdapterResponse* response) override {
    FillVersion(request->name(), request->version(), response->mutable_version());
    response->mutable_version()->set_pinned(request->pinned());
    return grpc::Status::OK;
  }
  grpc::Status ListAdapters(grpc::ServerContext*, const v1::ListAdaptersRequest*,
                            v1::ListAdaptersResponse* response) override {
    v1::AdapterVersion* version = response->add_versions();
    version->set_name("shop");
    version->set_version(3);
    version->set_state(v1::ADAPTER_STATE_AVAILABLE);
    version->set_serves_by_default(true);
    version->set_reason("tuned on nf4 weights");
    version->add_labels("stable");
    return grpc::Status::OK;
  }

  grpc::Status SetLabel(grpc::ServerContext*, const v1::SetLabelRequest* request,
                        v1::SetLabelResponse* response) override {
    ++label_calls;
    if (request->gate().max_shift() > 0) {
      return grpc::Status(grpc::StatusCode::ABORTED, "gate: prices differ by 0.5");
    }
    if (request->version() == 9) {
      return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is starting");
    }
    v1::Label* const label = response->mutable_labels()->add_labels();
    label->set_label(request->label());
    label->mutable_target()->set_version(request->version());
    label->mutable_target()->set_percent(request->percent());
    label->set_live_version(request->version() - 1);
    return grpc::Status::OK;
  }

  grpc::Status RollbackLabel(grpc::ServerContext*, const v1::RollbackLabelRequest* request,
                             v1::RollbackLabelResponse* response) override {
    ++rollback_calls;
    if (rollback_failures-- > 0) return {grpc::StatusCode::UNAVAILABLE, "draining"};
    v1::LabelMove* const move = response->mutable_labels()->add_history();
    move->set_label(request->label());
    if (request->from_version() > 0) {
      move->mutable_from()->set_version(request->from_version());
      move->mutable_from()->set_percent(100);
    }
    move->mutable_to()->set_version(3);
    move->mutable_to()->set_percent(100);
    move->set_moved_by("somebody");
    move->set_rollback(true);
    return grpc::Status::OK;
  }

  int label_calls = 0;
  int rollback_calls = 0;
  int rollback_failures = 0;

 private:
  static void FillVersion(const std::string& name, int64_t number, v1::AdapterVersion* version) {
    version->set_name(name);
    version->set_version(number);
    version->set_state(v1::ADAPTER_STATE_AVAILABLE);
    version->set_memory_bytes(2 << 20);
    version->set_tier(v1::MEMORY_TIER_HOST);
  }
};

class FakeOperations final : public v1::OperationsService::Service {
 public:
  grpc::Status SetLogLevel(grpc::ServerContext*, const v1::SetLogLevelRequest* request,
                           v1::SetLogLevelResponse* response) override {
    level = request->level();
    response->set_before(v1::LOG_LEVEL_WARNING);
    return grpc::Status::OK;
  }

  v1::LogLevel level = v1::LOG_LEVEL_UNSPECIFIED;
};

class MainTest : public ::testing::Test {
 protected:
  MainTest() {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&pricing_);
    builder.RegisterService(&adapters_);
    builder.RegisterService(&operations_);
    server_ = builder.BuildAndStart();
    address_ = absl::StrCat("127.0.0.1:", port);
    EXPECT_OK(WriteFile(input_, "{\"id\":\"a\",\"title\":\"pan\"}\n{\"title\":\"chair\"}\n"));
  }

  std::string Batch(const std::string& output) const {
    return absl::StrCat("batch --input ", input_, " --output ", output, " --server ", address_,
                        " ");
  }

  TempDir dir_;
  const std::string input_ = dir_.File("in.jsonl");
  FakePricing pricing_;
  FakeAdapters adapters_;
  FakeOperations operations_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace pricer::testing
