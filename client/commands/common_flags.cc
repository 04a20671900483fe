#include "client/commands/common_flags.h"

#include <CLI/CLI.hpp>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/units.h"

namespace pricer {

std::string DurationError(const std::string& text) {
  return std::string(ParseDuration(text).status().message());
}

void ConnectionFlags::AddTo(CLI::App* app, const std::string& default_server) {
  server = default_server;
  app->add_option("--server", server, "HOST:PORT of the server")->capture_default_str();
  app->add_option("--timeout", timeout, "of one call, with its retries")
      ->capture_default_str()
      ->check(DurationError);
  app->add_flag("--tls", tls.enabled, "TLS, with the authorities that the system trusts");
  app->add_option("--tls-ca", tls.ca, "PEM file of authorities instead; TLS");
  app->add_option("--tls-cert", tls.cert, "PEM file of the certificate to show; TLS");
  app->add_option("--tls-key", tls.key, "PEM file of its key");
  app->add_option("--tls-server-name", tls.server_name,
                  "name in the server's certificate, where it is not that of --server");
  app->add_option("--token-file", token_file, "file with the bearer token to show");
  app->add_flag("--allow-insecure-token", allow_insecure_token, "show it without TLS");
}

absl::StatusOr<ClientOptions> ConnectionFlags::OptionsWithoutToken() const {
  ClientOptions options;
  options.server = server;
  options.tls = tls;
  options.tls.enabled = tls.enabled || !tls.ca.empty() || !tls.cert.empty();
  options.allow_insecure_token = allow_insecure_token;
  if (!token_file.empty() && !options.tls.enabled && !allow_insecure_token) {
    return absl::InvalidArgumentError(
        "--token-file: without TLS the token can be read on the way; --allow-insecure-token sends "
        "it all the same");
  }
  ASSIGN_OR_RETURN(options.retry.timeout, ParseDuration(timeout));
  RETURN_IF_ERROR(options.Validate());
  return options;
}

absl::StatusOr<ClientOptions> ConnectionFlags::Options() const {
  ASSIGN_OR_RETURN(ClientOptions options, OptionsWithoutToken());
  if (token_file.empty()) return options;
  ASSIGN_OR_RETURN(const std::string contents, ReadFile(token_file));
  options.token = std::string(absl::StripAsciiWhitespace(contents));
  if (options.token.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--token-file ", token_file, ": expected a token, got nothing"));
  }
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
