#include "client/client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/channel.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "pricer/v1/adapters.grpc.pb.h"
#include "pricer/v1/operations.grpc.pb.h"
#include "pricer/v1/pricing.grpc.pb.h"

namespace pricer {

struct Client::Stubs {
  explicit Stubs(const std::shared_ptr<grpc::Channel>& opened)
      : channel(opened),
        pricing(v1::PricingService::NewStub(channel)),
        adapters(v1::AdapterService::NewStub(channel)),
        operations(v1::OperationsService::NewStub(channel)),
        health(grpc::health::v1::Health::NewStub(channel)) {}

  const std::shared_ptr<grpc::Channel> channel;
  const std::unique_ptr<v1::PricingService::Stub> pricing;
  const std::unique_ptr<v1::AdapterService::Stub> adapters;
  const std::unique_ptr<v1::OperationsService::Stub> operations;
  const std::unique_ptr<grpc::health::v1::Health::Stub> health;
};

namespace {

// For a connection, before a call is tried again.
constexpr absl::Duration kReconnectWait = absl::Seconds(1);

// One unary method with deadline and retry, over by `latest`.
template <typename Response, typename Method>
absl::StatusOr<Response> Call(const ClientOptions& options, const RetryEnvironment& environment,
                              grpc::Channel* channel, const Method& method,
                              absl::Time latest = absl::InfiniteFuture()) {
  RetryOptions retry = options.retry;
  retry.timeout = std::min(retry.timeout, latest - environment.clock->Now());
  Response response;
  bool again = false;
  RETURN_IF_ERROR(CallWithRetry(retry, environment, [&](absl::Time deadline) {
    // A connection is made while somebody waits for it, else looked at every five seconds: a call
    // that fails at once does not wait.
    if (std::exchange(again, true)) {
      const absl::Time soon = environment.clock->Now() + kReconnectWait;
      channel->WaitForConnected(absl::ToChronoTime(std::min(deadline, soon)));
    }
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(deadline));
    AddToken(options, &context);
    absl::Status status = FromGrpc(method(&context, &response), options.server);
    if (!absl::IsCancelled(status)) return status;
    // Nobody here has cancelled it: gRPC's server does so to what comes while it shuts down.
    return absl::UnavailableError(
        absl::StrCat(options.server, ": ended the call, as servers do that are stopping"));
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
  ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, OpenChannel(options));
  auto stubs = std::make_unique<Stubs>(channel);
  return std::unique_ptr<Client>(new Client(options, std::move(environment), std::move(stubs)));
}

Client::Client(ClientOptions options, RetryEnvironment environment, std::unique_ptr<Stubs> stubs)
    : options_(std::move(options)),
      environment_(std::move(environment)),
      stubs_(std::move(stubs)) {}

Client::~Client() = default;

absl::StatusOr<v1::PredictPriceResponse> Client::PredictPrice(
    const v1::PredictPriceRequest& request) {
  return Call<v1::PredictPriceResponse>(options_, environment_, stubs_->channel.get(),
                                        [&](grpc::ClientContext* context, auto* response) {
                                          return stubs_->pricing->PredictPrice(context, request,
                                                                               response);
                                        });
}

absl::StatusOr<v1::BatchPredictPricesResponse> Client::BatchPredictPrices(
    const v1::BatchPredictPricesRequest& request, absl::Time latest) {
  return Call<v1::BatchPredictPricesResponse>(
      options_, environment_, stubs_->channel.get(),
      [&](grpc::ClientContext* context, auto* response) {
        return stubs_->pricing->BatchPredictPrices(context, request, response);
      },
      latest);
}

absl::StatusOr<v1::ListAdaptersResponse> Client::ListAdapters(
    const v1::ListAdaptersRequest& request) {
  return Call<v1::ListAdaptersResponse>(options_, environment_, stubs_->channel.get(),
                                        [&](grpc::ClientContext* context, auto* response) {
                                          return stubs_->adapters->ListAdapters(context, request,
                                                                                response);
                                        });
}

absl::Status Client::WatchAdapters(
    const v1::WatchAdaptersRequest& request,
    const std::function<bool(const v1::WatchAdaptersResponse& change)>& on_change) {
  grpc::ClientContext context;
  AddToken(options_, &context);
  const auto reader = stubs_->adapters->WatchAdapters(&context, request);
  v1::WatchAdaptersResponse change;
  while (reader->Read(&change)) {
    if (on_change(change)) continue;
    context.TryCancel();
    reader->Finish();
    return absl::OkStatus();
  }
  return FromGrpc(reader->Finish(), options_.server);
}

absl::StatusOr<v1::LoadAdapterResponse> Client::LoadAdapter(const v1::LoadAdapterRequest& request) {
  return Call<v1::LoadAdapterResponse>(WithoutRetry(options_), environment_, stubs_->channel.get(),
                                       [&](grpc::ClientContext* context, auto* response) {
                                         return stubs_->adapters->LoadAdapter(context, request,
                                                                              response);
                                       });
}

absl::StatusOr<v1::UnloadAdapterResponse> Client::UnloadAdapter(
    const v1::UnloadAdapterRequest& request) {
  return Call<v1::UnloadAdapterResponse>(
      WithoutRetry(options_), environment_, stubs_->channel.get(),
      [&](grpc::ClientContext* context, auto* response) {
        return stubs_->adapters->UnloadAdapter(context, request, response);
      });
}

absl::StatusOr<v1::PinAdapterResponse> Client::PinAdapter(const v1::PinAdapterRequest& request) {
  return Call<v1::PinAdapterResponse>(WithoutRetry(options_), environment_, stubs_->channel.get(),
                                      [&](grpc::ClientContext* context, auto* response) {
                                        return stubs_->adapters->PinAdapter(context, request,
                                                                            response);
                                      });
}

absl::StatusOr<v1::GetLabelsResponse> Client::GetLabels(const v1::GetLabelsRequest& request) {
  return Call<v1::GetLabelsResponse>(options_, environment_, stubs_->channel.get(),
                                     [&](grpc::ClientContext* context, auto* response) {
                                       return stubs_->adapters->GetLabels(context, request,
                                                                          response);
                                     });
}

absl::StatusOr<v1::SetLabelResponse> Client::SetLabel(const v1::SetLabelRequest& request) {
  return Call<v1::SetLabelResponse>(WithoutRetry(options_), environment_, stubs_->channel.get(),
                                    [&](grpc::ClientContext* context, auto* response) {
                                      return stubs_->adapters->SetLabel(context, request, response);
                                    });
}

absl::StatusOr<v1::RemoveLabelResponse> Client::RemoveLabel(const v1::RemoveLabelRequest& request) {
  return Call<v1::RemoveLabelResponse>(WithoutRetry(options_), environment_, stubs_->channel.get(),
                                       [&](grpc::ClientContext* context, auto* response) {
                                         return stubs_->adapters->RemoveLabel(context, request,
                                                                              response);
                                       });
}

absl::StatusOr<v1::RollbackLabelResponse> Client::RollbackLabel(
    const v1::RollbackLabelRequest& request) {
  // Without a version to go back from, a second call would go one further.
  return Call<v1::RollbackLabelResponse>(
      request.from_version() > 0 ? options_ : WithoutRetry(options_), environment_,
      stubs_->channel.get(), [&](grpc::ClientContext* context, auto* response) {
        return stubs_->adapters->RollbackLabel(context, request, response);
      });
}

absl::StatusOr<v1::SetLogLevelResponse> Client::SetLogLevel(const v1::SetLogLevelRequest& request) {
  return Call<v1::SetLogLevelResponse>(options_, environment_, stubs_->channel.get(),
                                       [&](grpc::ClientContext* context, auto* response) {
                                         return stubs_->operations->SetLogLevel(context, request,
                                                                                response);
                                       });
}

absl::StatusOr<bool> Client::IsServing(const std::string& name) {
  using grpc::health::v1::HealthCheckResponse;
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(name);
  ASSIGN_OR_RETURN(
      const HealthCheckResponse response,
      Call<HealthCheckResponse>(WithoutRetry(options_), environment_, stubs_->channel.get(),
                                [&](grpc::ClientContext* context, auto* out) {
                                  return stubs_->health->Check(context, request, out);
                                }));
  return response.status() == HealthCheckResponse::SERVING;
}

}  // namespace pricer
