#include "client/load_target.h"

#include <google/protobuf/arena.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <utility>

#include "base/status_macros.h"
#include "client/channel.h"
#include "pricer/v1/pricing.grpc.pb.h"

namespace pricer {
namespace {

using Done = std::function<void(const LoadAnswer& answer)>;

absl::Duration ToDuration(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

void AddPrediction(const v1::Prediction& prediction, LoadAnswer* answer) {
  answer->queue_times.push_back(ToDuration(prediction.queue_time()));
  answer->compute_times.push_back(ToDuration(prediction.compute_time()));
}

void Read(const v1::PredictPriceResponse& response, LoadAnswer* answer) {
  AddPrediction(response.prediction(), answer);
}

void Read(const v1::BatchPredictPricesResponse& response, LoadAnswer* answer) {
  for (const v1::ItemResult& result : response.results()) {
    if (result.has_prediction()) {
      AddPrediction(result.prediction(), answer);
    } else {
      ++answer->item_errors[static_cast<absl::StatusCode>(result.error().code())];
    }
  }
}

// What a call needs until it has ended.
template <typename Request, typename Response>
struct CallState {
  grpc::ClientContext context;
  google::protobuf::Arena arena;
  Request request;
  Response* const response = google::protobuf::Arena::CreateMessage<Response>(&arena);
  Done done;
};

template <typename Request, typename Response, typename Method>
void StartCall(const ClientOptions& options, absl::Time deadline, Request request, const Done& done,
               const Method& method) {
  auto state = std::make_shared<CallState<Request, Response>>();
  state->context.set_deadline(absl::ToChronoTime(deadline));
  AddToken(options, &state->context);
  state->request = std::move(request);
  state->done = done;
  const auto& server = options.server;
  method(&state->context, &state->request, state->response,
         [state, server](const grpc::Status& status) mutable {
           LoadAnswer answer;
           answer.status = FromGrpc(status, server);
           if (status.ok()) Read(*state->response, &answer);
           const Done ended = std::move(state->done);
           // Before the caller may end the channel: the context holds it too, and the last to let
           // it go waits for this thread.
           state.reset();
           ended(answer);
         });
}

}  // namespace

struct LoadTarget::Connections {
  ClientOptions options;
  std::vector<std::unique_ptr<v1::PricingService::Stub>> stubs;
  std::atomic<size_t> next{0};
};

LoadTarget::LoadTarget(std::unique_ptr<Connections> connections)
    : connections_(std::move(connections)) {}

LoadTarget::~LoadTarget() = default;

absl::StatusOr<std::unique_ptr<LoadTarget>> LoadTarget::Open(const ClientOptions& options,
                                                             int connections) {
  RETURN_IF_ERROR(options.Validate());
  auto opened = std::make_unique<Connections>();
  opened->options = options;
  for (int i = 0; i < connections; ++i) {
    ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel,
                     OpenChannel(options, /*own_connections=*/true));
    opened->stubs.push_back(v1::PricingService::NewStub(channel));
  }
  return std::unique_ptr<LoadTarget>(new LoadTarget(std::move(opened)));
}

void LoadTarget::Start(LoadCall call, const Done& done) {
  const size_t turn = connections_->next.fetch_add(1, std::memory_order_relaxed);
  auto* const stub = connections_->stubs[turn % connections_->stubs.size()]->async();
  if (call.texts.size() == 1) {
    v1::PredictPriceRequest request;
    *request.mutable_adapter() = std::move(call.adapter);
    *request.mutable_options() = std::move(call.options);
    request.mutable_item()->set_text(std::move(call.texts[0]));
    StartCall<v1::PredictPriceRequest, v1::PredictPriceResponse>(
        connections_->options, call.deadline, std::move(request), done,
        [stub](auto&&... arguments) { stub->PredictPrice(arguments...); });
    return;
  }
  v1::BatchPredictPricesRequest request;
  *request.mutable_adapter() = std::move(call.adapter);
  *request.mutable_options() = std::move(call.options);
  for (std::string& text : call.texts) request.add_items()->set_text(std::move(text));
  StartCall<v1::BatchPredictPricesRequest, v1::BatchPredictPricesResponse>(
      connections_->options, call.deadline, std::move(request), done,
      [stub](auto&&... arguments) { stub->BatchPredictPrices(arguments...); });
}

}  // namespace pricer
