#include "client/client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "pricer/v1/adapters.grpc.pb.h"
#include "pricer/v1/operations.grpc.pb.h"
#include "pricer/v1/pricing.grpc.pb.h"

namespace pricer {
namespace {

constexpr int kMaxMessageBytes = 64 << 20;

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeCredentials(const TlsOptions& tls) {
  if (!tls.enabled) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions options;
  const std::pair<const std::string*, std::string*> files[] = {
      {&tls.ca, &options.pem_root_certs},
      {&tls.cert, &options.pem_cert_chain},
      {&tls.key, &options.pem_private_key}};
  for (const auto& [path, pem] : files) {
    if (path->empty()) continue;
    ASSIGN_OR_RETURN(*pem, ReadFile(*path));
  }
  return grpc::SslCredentials(options);
}

std::shared_ptr<grpc::Channel> MakeChannel(
    const ClientOptions& options, const std::shared_ptr<grpc::ChannelCredentials>& credentials) {
  grpc::ChannelArguments arguments;
  arguments.SetLoadBalancingPolicyName("round_robin");
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  // gRPC's own pause between attempts to connect; the retry loop waits for it anyway. The minimum
  // is also what a connection may take to come about.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 10'000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  if (!options.tls.server_name.empty()) {
    arguments.SetSslTargetNameOverride(options.tls.server_name);
  }
  return grpc::CreateCustomChannel(options.server, credentials, arguments);
}

absl::Status FromGrpc(const grpc::Status& status, const std::string& server) {
  if (status.ok()) return absl::OkStatus();
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  const bool name_server =
      code == absl::StatusCode::kUnavailable || code == absl::StatusCode::kDeadlineExceeded;
  return absl::Status(code, name_server ? absl::StrCat(server, ": ", status.error_message())
                                        : status.error_message());
}

}  // namespace

struct Client::Stubs {
  explicit Stubs(const std::shared_ptr<grpc::Channel>& channel)
      : pricing(v1::PricingService::NewStub(channel)),
        adapters(v1::AdapterService::NewStub(channel)),
        operations(v1::OperationsService::NewStub(channel)),
        health(grpc::health::v1::Health::NewStub(channel)) {}

  const std::unique_ptr<v1::PricingService::Stub> pricing;
  const std::unique_ptr<v1::AdapterService::Stub> adapters;
  const std::unique_ptr<v1::OperationsService::Stub> operations;
  const std::unique_ptr<grpc::health::v1::Health::Stub> health;
};

namespace {

// One unary method with deadline and retry, over by `latest`.
template <typename Response, typename Method>
absl::StatusOr<Response> Call(const ClientOptions& options, const RetryEnvironment& environment,
                              const Method& method, absl::Time latest = absl::InfiniteFuture()) {
  RetryOptions retry = options.retry;
  retry.timeout = std::min(retry.timeout, latest - environment.clock->Now());
  Response response;
  RETURN_IF_ERROR(CallWithRetry(retry, environment, [&](absl::Time deadline) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(deadline));
    if (!options.token.empty()) context.AddMetadata("authorization", "Bearer " + options.token);
    return FromGrpc(method(&context, &response), options.server);
  }));
  return response;
}

ClientOptions WithoutRetry(ClientOptions options) {
  options.retry.max_attempts = 1;
  return options;
}

}  // namespace

absl::Status ClientOptions::Validate() const {
  if (server.empty()) return absl::InvalidArgumentError("server: expected HOST:PORT, got nothing");
  if (tls.cert.empty() != tls.key.empty()) {
    return absl::InvalidArgumentError("tls: expected a certificate and its key, got one of them");
  }
  if (!token.empty() && !tls.enabled && !allow_insecure_token) {
    return absl::InvalidArgumentError(
        "token: without TLS it can be read on the way; allow that, or use TLS");
  }
  return retry.Validate();
}

absl::StatusOr<std::unique_ptr<Client>> Client::Create(const ClientOptions& options,
                                                       RetryEnvironment environment) {
  RETURN_IF_ERROR(options.Validate());
  ASSIGN_OR_RETURN(const std::shared_ptr<grpc::ChannelCredentials> credentials,
                   MakeCredentials(options.tls));
  auto stubs = std::make_unique<Stubs>(MakeChannel(options, credentials));
  return std::unique_ptr<Client>(new Client(options, std::move(environment), std::move(stubs)));
}

Client::Client(ClientOptions options, RetryEnvironment environment, std::unique_ptr<Stubs> stubs)
    : options_(std::move(options)),
      environment_(std::move(environment)),
      stubs_(std::move(stubs)) {}

Client::~Client() = default;

absl::StatusOr<v1::PredictPriceResponse> Client::PredictPrice(
    const v1::PredictPriceRequest& request) {
  return Call<v1::PredictPriceResponse>(
      options_, environment_, [&](grpc::ClientContext* context, auto* response) {
        return stubs_->pricing->PredictPrice(context, request, response);
      });
}

absl::StatusOr<v1::BatchPredictPricesResponse> Client::BatchPredictPrices(
    const v1::BatchPredictPricesRequest& request, absl::Time latest) {
  return Call<v1::BatchPredictPricesResponse>(
      options_, environment_,
      [&](grpc::ClientContext* context, auto* response) {
        return stubs_->pricing->BatchPredictPrices(context, request, response);
      },
      latest);
}

absl::StatusOr<v1::ListAdaptersResponse> Client::ListAdapters(
    const v1::ListAdaptersRequest& request) {
  return Call<v1::ListAdaptersResponse>(
      options_, environment_, [&](grpc::ClientContext* context, auto* response) {
        return stubs_->adapters->ListAdapters(context, request, response);
      });
}

absl::StatusOr<v1::GetLabelsResponse> Client::GetLabels(const v1::GetLabelsRequest& request) {
  return Call<v1::GetLabelsResponse>(
      options_, environment_, [&](grpc::ClientContext* context, auto* response) {
        return stubs_->adapters->GetLabels(context, request, response);
      });
}

absl::StatusOr<v1::SetLabelResponse> Client::SetLabel(const v1::SetLabelRequest& request) {
  return Call<v1::SetLabelResponse>(WithoutRetry(options_), environment_,
                                    [&](grpc::ClientContext* context, auto* response) {
                                      return stubs_->adapters->SetLabel(context, request, response);
                                    });
}

absl::StatusOr<v1::RemoveLabelResponse> Client::RemoveLabel(const v1::RemoveLabelRequest& request) {
  return Call<v1::RemoveLabelResponse>(
      WithoutRetry(options_), environment_, [&](grpc::ClientContext* context, auto* response) {
        return stubs_->adapters->RemoveLabel(context, request, response);
      });
}

absl::StatusOr<v1::RollbackLabelResponse> Client::RollbackLabel(
    const v1::RollbackLabelRequest& request) {
  return Call<v1::RollbackLabelResponse>(
      WithoutRetry(options_), environment_, [&](grpc::ClientContext* context, auto* response) {
        return stubs_->adapters->RollbackLabel(context, request, response);
      });
}

absl::StatusOr<v1::SetLogLevelResponse> Client::SetLogLevel(const v1::SetLogLevelRequest& request) {
  return Call<v1::SetLogLevelResponse>(
      options_, environment_, [&](grpc::ClientContext* context, auto* response) {
        return stubs_->operations->SetLogLevel(context, request, response);
      });
}

absl::StatusOr<bool> Client::IsServing(const std::string& name) {
  using grpc::health::v1::HealthCheckResponse;
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(name);
  ASSIGN_OR_RETURN(const HealthCheckResponse response,
                   Call<HealthCheckResponse>(WithoutRetry(options_), environment_,
                                             [&](grpc::ClientContext* context, auto* out) {
                                               return stubs_->health->Check(context, request, out);
                                             }));
  return response.status() == HealthCheckResponse::SERVING;
}

}  // namespace pricer
