#include "client/commands/operations.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/exit_codes.h"
#include "base/status_macros.h"
#include "client/client.h"
#include "client/commands/common_flags.h"

namespace pricer {
namespace {

struct HealthFlags {
  ConnectionFlags connection;
  std::string service;
};

absl::StatusOr<int> RunHealth(const HealthFlags& flags) {
  ASSIGN_OR_RETURN(const ClientOptions options, flags.connection.Options());
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Client::Create(options));
  ASSIGN_OR_RETURN(const bool serving, client->IsServing(flags.service));
  std::cout << (serving ? "SERVING\n" : "NOT_SERVING\n");
  return serving ? kExitDone : kExitFailed;
}

struct LogLevelFlags {
  ConnectionFlags connection;
  std::string level;
};

constexpr absl::string_view kLevelPrefix = "LOG_LEVEL_";

absl::StatusOr<int> RunLogLevel(const LogLevelFlags& flags) {
  v1::LogLevel level = v1::LOG_LEVEL_UNSPECIFIED;
  v1::LogLevel_Parse(absl::StrCat(kLevelPrefix, absl::AsciiStrToUpper(flags.level)), &level);
  ASSIGN_OR_RETURN(const ClientOptions options, flags.connection.Options());
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Client::Create(options));
  v1::SetLogLevelRequest request;
  request.set_level(level);
  ASSIGN_OR_RETURN(const v1::SetLogLevelResponse response, client->SetLogLevel(request));
  const std::string before = v1::LogLevel_Name(response.before());
  std::cout << "was " << absl::AsciiStrToLower(absl::StripPrefix(before, kLevelPrefix)) << '\n';
  return kExitDone;
}

}  // namespace

Command AddHealthCommand(CLI::App& parent) {
  auto flags = std::make_shared<HealthFlags>();
  CLI::App* app = parent.add_subcommand("health", "says whether a server serves; exit code 0 or 1");
  flags->connection.AddTo(app, "127.0.0.1:8502");
  app->add_option("--service", flags->service,
                  "name of grpc.health.v1: empty for readiness, liveness, startup");
  return {app, [flags] { return flags->connection.Validate(); },
          [flags] { return RunHealth(*flags); }};
}

Command AddLogLevelCommand(CLI::App& parent) {
  auto flags = std::make_shared<LogLevelFlags>();
  CLI::App* app = parent.add_subcommand("log-level", "changes what a server logs");
  flags->connection.AddTo(app, "127.0.0.1:8501");
  app->add_option("level", flags->level, "debug, info, warning or error")
      ->required()
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}));
  return {app, [flags] { return flags->connection.Validate(); },
          [flags] { return RunLogLevel(*flags); }};
}

}  // namespace pricer
