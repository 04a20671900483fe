// Runs the program itself.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "pricer/v1/pricing.grpc.pb.h"
#include "server/model_engine.h"
#include "tests/server/tiny_adapter.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"

extern char** environ;

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::TempDir;

// pricer-server as a child process, its two outputs in one pipe.
class Program {
 public:
  explicit Program(const std::vector<std::string>& arguments) {
    int ends[2];
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    std::vector<char*> argv = {const_cast<char*>(PRICER_SERVER_PROGRAM)};
    for (const std::string& argument : arguments) {
      argv.push_back(const_cast<char*>(argument.c_str()));
    }
    argv.push_back(nullptr);
    EXPECT_EQ(posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    output_ = fdopen(ends[0], "r");
  }
  ~Program() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    fclose(output_);
  }

  // The next line; empty at the end.
  std::string ReadLine() {
    char* line = nullptr;
    size_t size = 0;
    const ssize_t length = getline(&line, &size, output_);
    const std::string text = length > 0 ? std::string(line, length) : "";
    free(line);
    return text;
  }
  std::string ReadAll() {
    std::string all;
    for (std::string line = ReadLine(); !line.empty(); line = ReadLine()) all += line;
    return all;
  }
  void Signal(int signal) const { kill(pid_, signal); }
  int ExitCode() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  pid_t pid_ = 0;
  FILE* output_ = nullptr;
};

struct Outcome {
  std::string output;
  int exit_code = 0;
};

Outcome RunServer(const std::vector<std::string>& arguments) {
  Program program(arguments);
  const std::string output = program.ReadAll();
  return {output, program.ExitCode()};
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

TEST(MainTest, CheckConfigPrintsOptionsThatGiveTheSameOptionsAgain) {
  TempDir directory;
  std::ofstream(directory.File("in.toml")) << "base = \"/models/b\"\nthreads = 3\n";
  const Outcome first = RunServer({"--config", directory.File("in.toml"), "--adapters", "/adapters",
                                   "--poll-interval", "250ms", "--check-config"});
  ASSERT_EQ(first.exit_code, 0) << first.output;
  EXPECT_THAT(first.output, AllOf(HasSubstr("threads=3"), HasSubstr("poll-interval=\"250ms\""),
                                  HasSubstr("max-batch-tokens=2048")));
  std::ofstream(directory.File("out.toml")) << first.output;
  const Outcome second = RunServer({"--config", directory.File("out.toml"), "--check-config"});
  EXPECT_EQ(second.exit_code, 0);
  EXPECT_EQ(second.output, first.output);
}

TEST(MainTest, AMissingBaseIsAFailureThatNamesIt) {
  TempDir adapters;
  const Outcome outcome = RunServer({"--base", "/no/such/base", "--adapters", adapters.path()});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.output, HasSubstr("/no/such/base"));
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
  // Reads until the line that says it serves.
  static nlohmann::json ReadyLine(Program* program) {
    std::string seen;
    for (std::string line = program->ReadLine(); !line.empty(); line = program->ReadLine()) {
      const nlohmann::json json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
      if (json.is_object() && json.value("message", "") == "serving") return json;
      seen += line;
    }
    ADD_FAILURE() << "never served: " << seen;
    return {};
  }

  TempDir base_;
  TempDir adapters_;
};

TEST_F(RunningServerTest, PricesAnItemAndStopsWith0OnSigterm) {
  Program program(Arguments());
  const nlohmann::json ready = ReadyLine(&program);
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

  program.Signal(SIGTERM);
  EXPECT_EQ(program.ExitCode(), 0);
}

TEST_F(RunningServerTest, ASigtermRightAfterTheReadyLineDrains) {
  Program program(Arguments());
  ReadyLine(&program);
  program.Signal(SIGTERM);
  EXPECT_THAT(program.ReadAll(), AllOf(HasSubstr("\"stopping\""), HasSubstr("\"stopped\"")));
  EXPECT_EQ(program.ExitCode(), 0);
}

TEST_F(RunningServerTest, ATakenPortIsAFailureThatNamesTheAddress) {
  Program first(Arguments());
  const std::string taken = absl::StrCat("127.0.0.1:", ReadyLine(&first).value("port", ""));
  std::vector<std::string> arguments = Arguments();
  arguments[9] = taken;
  const Outcome second = RunServer(arguments);
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.output, HasSubstr(taken));
}

}  // namespace
}  // namespace pricer
