// Runs the program itself.

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "pricer/v1/pricing.grpc.pb.h"
#include "server/model_engine.h"
#include "tests/server/tiny_adapter.h"
#include "tests/testing/process.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::Outcome;
using testing::Process;
using testing::TempDir;

// `output` is of both streams.
Outcome RunServer(const std::vector<std::string>& arguments) {
  return testing::RunShell(
      absl::StrCat(PRICER_SERVER_PROGRAM, " 2>&1 ", absl::StrJoin(arguments, " ")));
}

TEST(MainTest, HelpAndVersionSucceed) {
  const Outcome help = RunServer({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.output, AllOf(HasSubstr("--base"), HasSubstr("--grace-period")));
  const Outcome version = RunServer({"--version"});
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_THAT(version.output, HasSubstr("0."));
}

TEST(MainTest, WrongUsageExitsWith2AndNamesTheFlag) {
  const std::vector<std::string> good = {"--base", "b", "--adapters", "a"};
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"--no-such-flag"}, "--no-such-flag"},
      {{"--poll-interval", "soon"}, "--poll-interval"},
      {{"--threads", "many"}, "--threads"},
      {{"--listen", "8500"}, "--listen"},
      {{"--config", "/no/such/file.toml"}, "/no/such/file.toml"},
  };
  for (const auto& [extra, named] : cases) {
    std::vector<std::string> arguments = good;
    arguments.insert(arguments.end(), extra.begin(), extra.end());
    const Outcome outcome = RunServer(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.output;
    EXPECT_THAT(outcome.output, HasSubstr(named));
  }
  const Outcome missing = RunServer({"--adapters", "a"});
  EXPECT_EQ(missing.exit_code, 2);
  EXPECT_THAT(missing.output, HasSubstr("--base"));
}

TEST(MainTest, AnUnknownKeyInTheConfigFileIsWrongUsage) {
  TempDir directory;
  std::ofstream(directory.File("server.toml")) << "base = \"b\"\nadapters = \"a\"\nlisten-on = 1\n";
  const Outcome outcome = RunServer({"--config", directory.File("server.toml"), "--check-config"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.output, HasSubstr("listen-on"));
}

TEST(MainTest, AMissingBaseIsAFailureThatNamesIt) {
  TempDir adapters;
  for (const std::string extra : {"--weights=nf4", "--check-config"}) {
    const Outcome outcome =
        RunServer({"--base", "/no/such/base", "--adapters", adapters.path(), extra});
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_THAT(outcome.output, HasSubstr("--base /no/such/base: cannot be opened"));
  }
}

class RunningServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(testing::WriteTinyCheckpoint(base_.path()));
    ServerOptions options;
    options.base = base_.path();
    options.weights = options.dtype = "fp32";
    ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Engine> engine, LoadModelEngine(options));
    ASSERT_OK(testing::PublishTinyAdapter(base_.path(), engine.get(), adapters_.path(), "toys", 1));
  }

  std::vector<std::string> Arguments() const {
    std::vector<std::string> arguments = {"--base",    base_.path(), "--adapters", adapters_.path(),
                                          "--weights", "fp32",       "--dtype",    "fp32"};
    for (const char* const flag :
         {"--listen", "--admin-listen", "--health-listen", "--metrics-listen"}) {
      arguments.insert(arguments.end(), {flag, "127.0.0.1:0"});
    }
    return arguments;
  }
  static nlohmann::json ReadyLine(Process* server) {
    const std::string line = server->WaitForErrorLine("\"message\":\"serving\"");
    EXPECT_NE(line, "") << "never served: " << server->ErrorOutput();
    return nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  }

  TempDir base_;
  TempDir adapters_;
  TempDir logs_;
};

TEST_F(RunningServerTest, CheckConfigPrintsOptionsThatGiveTheSameOptionsAgain) {
  ASSERT_OK(WriteFile(logs_.File("in.toml"),
                      absl::StrCat("base = \"", base_.path(), "\"\nthreads = 3\n")));
  const Outcome first = RunServer({"--config", logs_.File("in.toml"), "--adapters",
                                   adapters_.path(), "--poll-interval", "250ms", "--check-config"});
  ASSERT_EQ(first.exit_code, 0) << first.output;
  EXPECT_THAT(first.output, AllOf(HasSubstr("threads=3"), HasSubstr("poll-interval=\"250ms\""),
                                  HasSubstr("max-batch-tokens=2048")));
  ASSERT_OK(WriteFile(logs_.File("out.toml"), first.output));
  const Outcome second = RunServer({"--config", logs_.File("out.toml"), "--check-config"});
  EXPECT_EQ(second.exit_code, 0);
  EXPECT_EQ(second.output, first.output);
}

TEST_F(RunningServerTest, CheckConfigNamesWhatTheBaseLacks) {
  const auto check = [&] {
    return RunServer({"--base", base_.path(), "--adapters", adapters_.path(), "--check-config"});
  };
  ASSERT_EQ(check().exit_code, 0);
  ASSERT_OK(WriteFile(base_.File("tokenizer.json"), "{}"));
  const Outcome tokenizer = check();
  EXPECT_EQ(tokenizer.exit_code, 1);
  EXPECT_THAT(tokenizer.output, HasSubstr(base_.File("tokenizer.json")));
  ASSERT_OK(WriteFile(base_.File("config.json"), "{\"model_type\": \"gpt2\"}"));
  const Outcome config = check();
  EXPECT_EQ(config.exit_code, 1);
  EXPECT_THAT(config.output, HasSubstr(base_.File("config.json")));
}

TEST_F(RunningServerTest, PricesAnItemAndStopsWith0OnSigterm) {
  Process server(PRICER_SERVER_PROGRAM, Arguments(), logs_.File("server"));
  const nlohmann::json ready = ReadyLine(&server);
  for (const char* const port : {"port", "admin_port", "health_port", "metrics_port"}) {
    EXPECT_GT(std::stoi(ready.value(port, "0")), 0) << port;
  }
  const auto stub = v1::PricingService::NewStub(grpc::CreateChannel(
      absl::StrCat("127.0.0.1:", ready.value("port", "")), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  v1::PredictPriceRequest request;
  request.mutable_item()->set_title("Lamp");
  v1::PredictPriceResponse response;
  const grpc::Status status = stub->PredictPrice(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_GT(response.prediction().price(), 5);
  EXPECT_LT(response.prediction().price(), 500);
  EXPECT_EQ(response.prediction().served_by().adapter(), "toys");
  EXPECT_EQ(response.prediction().served_by().version(), 1);

  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0);
}

TEST_F(RunningServerTest, ASigtermRightAfterTheReadyLineDrains) {
  Process server(PRICER_SERVER_PROGRAM, Arguments(), logs_.File("server"));
  ReadyLine(&server);
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0);
  EXPECT_THAT(server.ErrorOutput(), AllOf(HasSubstr("\"stopping\""), HasSubstr("\"stopped\"")));
}

TEST_F(RunningServerTest, ATakenPortIsAFailureThatNamesTheAddress) {
  Process first(PRICER_SERVER_PROGRAM, Arguments(), logs_.File("server"));
  const std::string taken = absl::StrCat("127.0.0.1:", ReadyLine(&first).value("port", ""));
  std::vector<std::string> arguments = Arguments();
  arguments[9] = taken;
  const Outcome second = RunServer(arguments);
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.output, HasSubstr(taken));
}

}  // namespace
}  // namespace pricer
