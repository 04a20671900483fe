#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "client/retry.h"
#include "pricer/v1/adapters.pb.h"
#include "pricer/v1/operations.pb.h"
#include "pricer/v1/pricing.pb.h"

namespace pricer {

// Of connections by TLS. Paths of PEM files.
struct TlsOptions {
  bool enabled = false;
  // Authorities of the server's certificate; empty = those that the system trusts.
  std::string ca;
  // What the client shows where the server asks; both or none.
  std::string cert;
  std::string key;
  // The name that the server's certificate must have, where it is not that of `server`.
  std::string server_name;
};

struct ClientOptions {
  // HOST:PORT, or any target that gRPC resolves, such as dns:///prices:8500 for a headless service:
  // calls then go round robin over its addresses.
  std::string server;
  TlsOptions tls;
  // Bearer token; empty = none. Never shown.
  std::string token;
  // Sends the token without TLS, where it can be read on the way.
  bool allow_insecure_token = false;
  // gRPC's service config, JSON, as of callers that leave retries to gRPC; empty = none.
  std::string service_config;
  RetryOptions retry;

  absl::Status Validate() const;
};

// Blocking calls to a pricing server over one shared channel. Every call but a watch has a
// deadline. Calls that only ask are tried again with back-off while the server is unavailable;
// those that change something are made once, unless a second time changes nothing. Thread-safe;
// make one and keep it.
//
// Errors are the server's status with its message; DeadlineExceeded and Unavailable name the
// server.
class Client {
 public:
  // Does not connect yet. InvalidArgument names the option; other codes the file that cannot be
  // read.
  static absl::StatusOr<std::unique_ptr<Client>> Create(
      const ClientOptions& options, RetryEnvironment environment = RetryEnvironment::System());
  ~Client();

  absl::StatusOr<v1::PredictPriceResponse> PredictPrice(const v1::PredictPriceRequest& request);

  // Results in the order of the items, each with its own status. `latest` is where the call ends if
  // that is before the timeout.
  absl::StatusOr<v1::BatchPredictPricesResponse> BatchPredictPrices(
      const v1::BatchPredictPricesRequest& request, absl::Time latest = absl::InfiniteFuture());

  // On the server's admin listener.
  absl::StatusOr<v1::ListAdaptersResponse> ListAdapters(const v1::ListAdaptersRequest& request);
  // Versions as they are and each change from then on, until `on_change` returns false: OK. Has no
  // deadline; an error is why the server ended it.
  absl::Status WatchAdapters(
      const v1::WatchAdaptersRequest& request,
      const std::function<bool(const v1::WatchAdaptersResponse& change)>& on_change);
  absl::StatusOr<v1::LoadAdapterResponse> LoadAdapter(const v1::LoadAdapterRequest& request);
  absl::StatusOr<v1::UnloadAdapterResponse> UnloadAdapter(const v1::UnloadAdapterRequest& request);
  absl::StatusOr<v1::PinAdapterResponse> PinAdapter(const v1::PinAdapterRequest& request);
  absl::StatusOr<v1::GetLabelsResponse> GetLabels(const v1::GetLabelsRequest& request);
  absl::StatusOr<v1::SetLabelResponse> SetLabel(const v1::SetLabelRequest& request);
  absl::StatusOr<v1::RemoveLabelResponse> RemoveLabel(const v1::RemoveLabelRequest& request);
  absl::StatusOr<v1::RollbackLabelResponse> RollbackLabel(const v1::RollbackLabelRequest& request);
  absl::StatusOr<v1::SetLogLevelResponse> SetLogLevel(const v1::SetLogLevelRequest& request);

  // On the server's health listener: whether it serves under a name of grpc.health.v1. Asked once.
  absl::StatusOr<bool> IsServing(const std::string& name);

 private:
  struct Stubs;
  Client(ClientOptions options, RetryEnvironment environment, std::unique_ptr<Stubs> stubs);

  const ClientOptions options_;
  const RetryEnvironment environment_;
  const std::unique_ptr<Stubs> stubs_;
};

}  // namespace pricer
