// Runs the program itself, against a server in the test.

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
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
  grpc::Status PredictPrice(grpc::ServerContext*, const v1::PredictPriceRequest* request,
                            v1::PredictPriceResponse* response) override {
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
    return grpc::Status::OK;
  }
};

class MainTest : public ::testing::Test {
 protected:
  MainTest() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&pricing_);
    builder.RegisterService(&adapters_);
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
  EXPECT_THAT(outcome.output, HasSubstr("  serves by default; tuned on nf4 weights\n"));
}

}  // namespace
}  // namespace pricer
