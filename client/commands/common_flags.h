#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "client/client.h"
#include "pricer/v1/pricing.pb.h"

namespace CLI {
class App;
}  // namespace CLI

namespace pricer {

// Which server, and for how long.
struct ConnectionFlags {
  std::string server;
  std::string timeout = "30s";

  void AddTo(CLI::App* app, const std::string& default_server);

  // InvalidArgument names what is wrong.
  absl::StatusOr<ClientOptions> Options() const;
  absl::Status Validate() const { return Options().status(); }
};

// Which adapter answers.
struct AdapterFlags {
  std::string name;
  std::string version;  // number or label

  void AddTo(CLI::App* app);

  v1::AdapterSpec Spec() const;
};

}  // namespace pricer
