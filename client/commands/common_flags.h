#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "client/client.h"
#include "pricer/v1/pricing.pb.h"

namespace CLI {
class App;
}  // namespace CLI

namespace pricer {

// What is wrong with a duration, as CLI11's check() asks for it: empty = nothing.
std::string DurationError(const std::string& text);

// Which server, how to be known to it, and for how long.
struct ConnectionFlags {
  std::string server;
  std::string timeout = "30s";
  TlsOptions tls;
  std::string token_file;
  bool allow_insecure_token = false;

  void AddTo(CLI::App* app, const std::string& default_server);

  // InvalidArgument names what is wrong; other codes the file that cannot be read.
  absl::StatusOr<ClientOptions> Options() const;
  // Looks at no file.
  absl::Status Validate() const { return OptionsWithoutToken().status(); }

 private:
  absl::StatusOr<ClientOptions> OptionsWithoutToken() const;
};

// Which adapter answers.
struct AdapterFlags {
  std::string name;
  std::string version;  // number or label

  void AddTo(CLI::App* app);

  v1::AdapterSpec Spec() const;
};

}  // namespace pricer
