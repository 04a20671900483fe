// Runs the program itself, against a server in the test.

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <signal.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "pricer/v1/adapters.grpc.pb.h"
#include "pricer/v1/operations.grpc.pb.h"
#include "pricer/v1/pricing.grpc.pb.h"
#include "tests/testing/process.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::testing::HasSubstr;
using testing::Outcome;
using testing::RunShell;
using testing::TempDir;

// `output` is of both streams, or what redirections leave of them.
Outcome RunClient(const std::string& arguments) {
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

 private:
  static void Price(const v1::Item& item, v1::Prediction* prediction) {
    prediction->set_price(static_cast<double>(item.title().size()));
    prediction->mutable_served_by()->set_adapter("shop");
    prediction->mutable_served_by()->set_version(3);
  }
};

class FakeAdapters final : public v1::AdapterService::Service {
 public:
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
    v1::LabelMove* const move = response->mutable_labels()->add_history();
    move->set_label(request->label());
    move->mutable_to()->set_version(3);
    move->mutable_to()->set_percent(100);
    move->set_moved_by("somebody");
    move->set_rollback(true);
    return grpc::Status::OK;
  }

  int label_calls = 0;
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

TEST_F(MainTest, WrongOptionsExitWith2AndAreNamed) {
  const auto expect = [](const std::string& arguments, const std::string& part) {
    const Outcome outcome = RunClient(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << arguments;
    EXPECT_THAT(outcome.output, HasSubstr(part));
  };
  const std::string batch = Batch(dir_.File("out.jsonl"));
  expect("", "subcommand");
  expect("price --timeout abc", "--timeout");
  expect("price --timeout 0s", "timeout");
  expect("adapters list --timeout abc", "--timeout");
  expect(batch + "--timeout abc", "--timeout");
  expect("price --token-file secret", "--allow-insecure-token");
  expect("price --tls-cert client.crt", "certificate and its key");
  expect(batch + "--field bad", "--field");
  expect(batch + "--field prise=cost", "prise");
  expect(batch + "--items-per-call 0", "--items-per-call");
  expect(batch + "--currency usd", "currency");
  expect(batch + "--coverage 1", "--coverage");
  expect(Batch(input_), "--input and --output are the same file");
  EXPECT_FALSE(std::filesystem::exists(dir_.File("out.jsonl")));
}

TEST_F(MainTest, WhatTheServerOrTheDiskRefusesExitsWith1) {
  EXPECT_EQ(RunClient("price --server 127.0.0.1:1 --timeout 1ms").exit_code, 1);
  EXPECT_EQ(RunClient(Batch(dir_.path())).exit_code, 1);
}

TEST_F(MainTest, ConfigAndVersionMayStandAfterTheSubcommand) {
  const Outcome version = RunClient("price --version");
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_EQ(version.output, RunClient("--version").output);
  ASSERT_OK(WriteFile(dir_.File("config"),
                      absl::StrCat("[price]\ntitle = \"pan\"\nserver = \"", address_, "\"\n")));
  const Outcome price = RunClient(absl::StrCat("price --json --config ", dir_.File("config")));
  ASSERT_EQ(price.exit_code, 0) << price.output;
  EXPECT_EQ(nlohmann::json::parse(price.output)["price"], 3);
}

TEST_F(MainTest, ShowsTheTokenOfAFile) {
  const std::string price = absl::StrCat("price --title pan --allow-insecure-token --server ",
                                         address_, " --token-file ", dir_.File("token"));
  const Outcome missing = RunClient(price);
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_THAT(missing.output, HasSubstr(dir_.File("token")));
  ASSERT_OK(WriteFile(dir_.File("token"), " \n"));
  EXPECT_EQ(RunClient(price).exit_code, 1);
  ASSERT_OK(WriteFile(dir_.File("token"), "shop-secret-0123456789\n"));
  EXPECT_EQ(RunClient(price).exit_code, 0);
  EXPECT_EQ(pricing_.authorization, "Bearer shop-secret-0123456789");
  EXPECT_EQ(RunClient(absl::StrCat("price --title pan --server ", address_, " --tls-ca ",
                                   dir_.File("token"), " --timeout 1s"))
                .exit_code,
            1);
}

TEST_F(MainTest, LostOutputIsAFailure) {
  const Outcome outcome =
      RunClient(absl::StrCat("price --json --server ", address_, " >/dev/full"));
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.output, HasSubstr("standard output"));
}

TEST_F(MainTest, BatchWritesItsRowsAloneToStandardOutput) {
  const Outcome outcome =
      RunClient(absl::StrCat(Batch("/dev/stdout"), "--field title=name 2>/dev/null"));
  EXPECT_EQ(outcome.exit_code, 3);
  const Outcome good = RunClient(Batch("/dev/stdout") + "2>/dev/null");
  EXPECT_EQ(good.exit_code, 0);
  EXPECT_THAT(good.output, ::testing::StartsWith("{\"row\":1,\"id\":\"a\",\"price\":3.0,"));
  EXPECT_THAT(good.output, ::testing::EndsWith("\"error\":null}\n"));
}

TEST_F(MainTest, AnInterruptedBatchExitsWith130AndLeavesNothing) {
  const std::string pid = dir_.File("pid");
  pricing_.before_batch = [&] { kill(std::atoi(ReadFile(pid)->c_str()), SIGINT); };
  const Outcome outcome =
      RunShell(absl::StrCat("echo $$ >", pid, "; exec ", PRICER_CLIENT_PROGRAM, " 2>&1 ",
                            Batch(dir_.File("out.jsonl")), "--items-per-call 1"));
  EXPECT_EQ(outcome.exit_code, 130);
  EXPECT_EQ(outcome.output, "pricer: interrupted: there is no complete output\n");
  EXPECT_FALSE(std::filesystem::exists(dir_.File("out.jsonl")));
  const std::filesystem::directory_iterator files(dir_.path());
  EXPECT_EQ(std::distance(begin(files), end(files)), 2);  // in.jsonl and pid
}

TEST_F(MainTest, AdaptersListKeepsDefaultAndReasonApart) {
  const Outcome outcome = RunClient("adapters list --server " + address_);
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.output,
              HasSubstr("  serves by default; labels: stable; tuned on nf4 weights\n"));
}

TEST_F(MainTest, HealthIsTheExitCode) {
  const std::string health = "health --server " + address_;
  const Outcome ready = RunClient(health);
  EXPECT_EQ(ready.exit_code, 0);
  EXPECT_EQ(ready.output, "SERVING\n");
  server_->GetHealthCheckService()->SetServingStatus("startup", false);
  const Outcome startup = RunClient(health + " --service startup");
  EXPECT_EQ(startup.exit_code, 1);
  EXPECT_EQ(startup.output, "NOT_SERVING\n");
  EXPECT_EQ(RunClient(health + " --service nobody").exit_code, 1);
  const Outcome nobody = RunClient("health --server 127.0.0.1:1 --timeout 2s");
  EXPECT_EQ(nobody.exit_code, 1);
  EXPECT_THAT(nobody.output, HasSubstr("UNAVAILABLE"));
}

TEST_F(MainTest, TheLogLevelIsSetByName) {
  const Outcome set = RunClient("log-level debug --server " + address_);
  EXPECT_EQ(set.exit_code, 0) << set.output;
  EXPECT_EQ(set.output, "was warning\n");
  EXPECT_EQ(operations_.level, v1::LOG_LEVEL_DEBUG);
  EXPECT_EQ(RunClient("log-level loud --server " + address_).exit_code, 2);
}

TEST_F(MainTest, LabelsOfAServer) {
  const std::string at = " --server " + address_;
  const Outcome moved = RunClient("adapters label shop canary 4 --percent 5" + at);
  EXPECT_EQ(moved.exit_code, 0);
  EXPECT_THAT(moved.output, HasSubstr("canary"));
  EXPECT_THAT(moved.output, HasSubstr("4 (5 %), not available here; 3 answers\n"));
  const Outcome back = RunClient("adapters rollback shop stable" + at);
  EXPECT_EQ(back.exit_code, 0);
  EXPECT_THAT(back.output, HasSubstr("stable: none -> 3, rolled back, by somebody\n"));
  const Outcome gated = RunClient("adapters label shop stable 4 --max-shift 0.1" + at);
  EXPECT_EQ(gated.exit_code, 4);
  EXPECT_EQ(gated.output, "pricer: gate: prices differ by 0.5\n");
  // A move is made once.
  adapters_.label_calls = 0;
  EXPECT_EQ(RunClient("adapters label shop stable 9" + at).exit_code, 1);
  EXPECT_EQ(adapters_.label_calls, 1);
}

TEST_F(MainTest, LabelsOfAFolderWithoutAServer) {
  const std::string root = dir_.File("adapters");
  for (const char* const version : {"1", "2", "3"}) {
    std::filesystem::create_directories(absl::StrCat(root, "/shop/", version));
    if (*version == '3') continue;
    ASSERT_OK(WriteFile(absl::StrCat(root, "/shop/", version, "/_READY"), ""));
  }
  const std::string at = " --adapters " + root;
  const auto json = [&](const std::string& arguments) {
    const Outcome outcome = RunClient(absl::StrCat("adapters ", arguments, at, " --json"));
    EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
    return nlohmann::json::parse(outcome.output);
  };
  EXPECT_EQ(RunClient("adapters labels shop" + at).output,
            "no label is set: the newest version answers\n");
  EXPECT_EQ(json("labels shop")["generation"], 0);
  const nlohmann::json canary = json("label shop canary 1 --percent 12.5");
  EXPECT_EQ(canary["labels"]["canary"], (nlohmann::json{{"version", 1}, {"percent", 12.5}}));
  EXPECT_EQ(canary["labels"]["stable"]["version"], 2);
  EXPECT_EQ(canary["generation"], 2);
  EXPECT_EQ(json("label shop stable 1")["labels"]["stable"]["version"], 1);
  const nlohmann::json back = json("rollback shop stable");
  EXPECT_EQ(back["labels"]["stable"]["version"], 2);
  EXPECT_EQ(back["history"].back()["rollback"], true);
  EXPECT_EQ(json("unlabel shop canary")["labels"].size(), 1u);
  EXPECT_EQ(json("labels shop")["generation"], 5);
  const auto fails = [&](const std::string& arguments, int code, const std::string& words) {
    const Outcome outcome = RunClient(absl::StrCat("adapters ", arguments));
    EXPECT_EQ(outcome.exit_code, code) << outcome.output;
    EXPECT_THAT(outcome.output, HasSubstr(words));
  };
  fails("label shop stable 3" + at, 1, "shop/3/_READY");
  fails("label wine stable 1" + at, 1, "/wine");
  fails("unlabel shop mine" + at, 1, "mine");
  fails("label shop stable one" + at, 2, "version");
  fails("label shop 7 1" + at, 2, "label");
  fails("label ../shop stable 1" + at, 2, "adapter name");
  fails("label shop stable 1 --percent 5" + at, 2, "percent");
  fails("label shop stable 1 --golden" + at, 2, "--adapters");
  fails("label shop stable 1 --server x:1" + at, 2, "--server");
  std::filesystem::remove(root + "/shop/2/_READY");
  EXPECT_EQ(json("label shop stable 1")["generation"], 6);
  fails("rollback shop stable" + at, 1, "shop/2/_READY");
}

}  // namespace
}  // namespace pricer
