#include "client/commands/common_flags.h"

#include <CLI/CLI.hpp>

#include "absl/strings/numbers.h"
#include "base/status_macros.h"
#include "base/units.h"

namespace pricer {
namespace {

// Empty = fine, as CLI11 wants it.
std::string DurationError(const std::string& text) {
  return std::string(ParseDuration(text).status().message());
}

}  // namespace

void ConnectionFlags::AddTo(CLI::App* app, const std::string& default_server) {
  server = default_server;
  app->add_option("--server", server, "HOST:PORT of the server")->capture_default_str();
  app->add_option("--timeout", timeout, "of one call, with its retries")
      ->capture_default_str()
      ->check(DurationError);
}

absl::StatusOr<ClientOptions> ConnectionFlags::Options() const {
  ClientOptions options;
  options.server = server;
  ASSIGN_OR_RETURN(options.retry.timeout, ParseDuration(timeout));
  RETURN_IF_ERROR(options.Validate());
  return options;
}

void AdapterFlags::AddTo(CLI::App* app) {
  app->add_option("--adapter", name, "adapter's name; none = the server's default");
  app->add_option("--version-or-label", version, "version number or label; none = stable");
}

v1::AdapterSpec AdapterFlags::Spec() const {
  v1::AdapterSpec spec;
  spec.set_name(name);
  int64_t number = 0;
  if (absl::SimpleAtoi(version, &number)) {
    spec.set_version(number);
  } else if (!version.empty()) {
    spec.set_label(version);
  }
  return spec;
}

}  // namespace pricer
