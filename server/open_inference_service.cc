#include "server/open_inference_service.h"

#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/build_info.h"
#include "base/status_macros.h"
#include "server/batch_call.h"
#include "server/call_deadline.h"
#include "server/caller.h"
#include "server/grpc_status.h"
#include "server/open_inference.h"
#include "server/price_request.h"
#include "server/proto_text.h"
#include "server/wire_message.h"

namespace pricer {
namespace {

constexpr Permission kPredict = Permission::kPredict;
constexpr Permission kAdmin = Permission::kAdmin;

class InferCall final : public BatchCall {
 public:
  using BatchCall::BatchCall;

  void Start(const grpc::ByteBuffer& request_bytes) {
    if (const absl::Status status = Begin(request_bytes); !status.ok()) Ended(status);
  }

 private:
  absl::Status Begin(const grpc::ByteBuffer& request_bytes) {
    RETURN_IF_ERROR(ParseRequest(request_bytes, &infer_request_));
    ASSIGN_OR_RETURN(request_, BatchFromInfer(infer_request_));
    return Submit();
  }

  void Ended(const absl::Status& status) override {
    if (!status.ok()) {
      End(status, inference::ModelInferResponse());
      return;
    }
    const absl::StatusOr<inference::ModelInferResponse> response =
        InferFromBatch(infer_request_, response_);
    End(response.status(), response.ok() ? *response : inference::ModelInferResponse());
  }

  inference::ModelInferRequest infer_request_;
};

const char* RepositoryState(AdapterState state) {
  switch (state) {
    case AdapterState::kAvailable:
      return "READY";
    case AdapterState::kStart:
    case AdapterState::kLoading:
      return "LOADING";
    case AdapterState::kUnloading:
      return "UNLOADING";
    case AdapterState::kEnd:
      return "UNAVAILABLE";
  }
  return "UNKNOWN";
}

absl::StatusOr<AdapterRoute> RouteTo(const AdapterRegistry& registry, const std::string& name,
                                     const std::string& version) {
  ASSIGN_OR_RETURN(const AdapterChoice choice, ChoiceFromProto(SpecFromModel(name, version)));
  return registry.Route(choice.name, choice.version, choice.label);
}

}  // namespace

OpenInferenceService::OpenInferenceService(Listener listener, const PricingDoor* door,
                                           const AdapterRegistry* registry,
                                           std::function<bool()> is_ready)
    : listener_(listener), door_(door), registry_(registry), is_ready_(std::move(is_ready)) {}

template <typename Request, typename Response, typename Fill>
grpc::ServerUnaryReactor* OpenInferenceService::Answer(const char* method,
                                                       const Permission* permission,
                                                       grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer& request_bytes,
                                                       grpc::ByteBuffer* response_bytes,
                                                       const Fill& fill) const {
  CallTags tags = TagsOf(context);
  tags.caller = CallerOf(context->peer());
  const auto answer = [&]() -> absl::Status {
    if (permission != nullptr) {
      ASSIGN_OR_RETURN(tags.caller, door_->access().Authenticate(*context, *permission));
    }
    Request request;
    RETURN_IF_ERROR(ParseRequest(request_bytes, &request));
    Response response;
    RETURN_IF_ERROR(fill(request, &response));
    return SerializeResponse(response, response_bytes);
  };
  const absl::Status status = answer();
  door_->Ended(method, status, tags);
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

grpc::ServerUnaryReactor* OpenInferenceService::ServerLive(grpc::CallbackServerContext* context,
                                                           const grpc::ByteBuffer* request,
                                                           grpc::ByteBuffer* response) {
  return Answer<inference::ServerLiveRequest, inference::ServerLiveResponse>(
      "ServerLive", nullptr, context, *request, response, [](const auto&, auto* out) {
        out->set_live(true);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* OpenInferenceService::ServerReady(grpc::CallbackServerContext* context,
                                                            const grpc::ByteBuffer* request,
                                                            grpc::ByteBuffer* response) {
  return Answer<inference::ServerReadyRequest, inference::ServerReadyResponse>(
      "ServerReady", nullptr, context, *request, response, [this](const auto&, auto* out) {
        out->set_ready(is_ready_());
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* OpenInferenceService::ModelReady(grpc::CallbackServerContext* context,
                                                           const grpc::ByteBuffer* request,
                                                           grpc::ByteBuffer* response) {
  return Answer<inference::ModelReadyRequest, inference::ModelReadyResponse>(
      "ModelReady", &kPredict, context, *request, response, [this](const auto& in, auto* out) {
        out->set_ready(is_ready_() && RouteTo(*registry_, in.name(), in.version()).ok());
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* OpenInferenceService::ServerMetadata(grpc::CallbackServerContext* context,
                                                               const grpc::ByteBuffer* request,
                                                               grpc::ByteBuffer* response) {
  return Answer<inference::ServerMetadataRequest, inference::ServerMetadataResponse>(
      "ServerMetadata", &kPredict, context, *request, response, [](const auto&, auto* out) {
        out->set_name("pricer-server");
        out->set_version(std::string(BuildVersion()));
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* OpenInferenceService::ModelMetadata(grpc::CallbackServerContext* context,
                                                              const grpc::ByteBuffer* request,
                                                              grpc::ByteBuffer* response) {
  return Answer<inference::ModelMetadataRequest, inference::ModelMetadataResponse>(
      "ModelMetadata", &kPredict, context, *request, response,
      [this](const auto& in, auto* out) -> absl::Status {
        ASSIGN_OR_RETURN(const AdapterRoute route, RouteTo(*registry_, in.name(), in.version()));
        const std::string& name = route.adapter->key.name;
        out->set_name(name);
        for (const AdapterStatus& status : registry_->List(name)) {
          if (status.state == AdapterState::kAvailable) {
            out->add_versions(absl::StrCat(status.key.version));
          }
        }
        out->set_platform("pricer");
        FillTensorMetadata(out);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* OpenInferenceService::ModelInfer(grpc::CallbackServerContext* context,
                                                           const grpc::ByteBuffer* request,
                                                           grpc::ByteBuffer* response) {
  return door_->StartCall<InferCall>("ModelInfer", context, *request, response);
}

absl::Status OpenInferenceService::CheckAdminListener() const {
  if (listener_ == Listener::kAdmin) return absl::OkStatus();
  return absl::PermissionDeniedError("the repository answers on the admin listener alone");
}

grpc::ServerUnaryReactor* OpenInferenceService::RepositoryIndex(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  return Answer<inference::RepositoryIndexRequest, inference::RepositoryIndexResponse>(
      "RepositoryIndex", &kAdmin, context, *request, response,
      [this](const auto& in, auto* out) -> absl::Status {
        RETURN_IF_ERROR(CheckAdminListener());
        for (const AdapterStatus& status : registry_->List()) {
          if (in.ready() && status.state != AdapterState::kAvailable) continue;
          auto* const model = out->add_models();
          model->set_name(status.key.name);
          model->set_version(absl::StrCat(status.key.version));
          model->set_state(RepositoryState(status.state));
          model->set_reason(ToValidUtf8(status.reason));
        }
        return absl::OkStatus();
      });
}

template <typename Request, typename Response, typename Change>
grpc::ServerUnaryReactor* OpenInferenceService::ChangeRepository(
    const char* method, grpc::CallbackServerContext* context, const grpc::ByteBuffer& request_bytes,
    grpc::ByteBuffer* response_bytes, Change change) const {
  CallTags tags = TagsOf(context);
  tags.caller = CallerOf(context->peer());
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  Request request;
  AdapterOperator* const adapters = adapters_.load(std::memory_order_acquire);
  const auto check = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(tags.caller, door_->access().Authenticate(*context, Permission::kAdmin));
    RETURN_IF_ERROR(CheckAdminListener());
    if (adapters == nullptr) return absl::UnavailableError("the server is starting");
    return ParseRequest(request_bytes, &request);
  };
  absl::Status status = check();
  const auto finish = [this, method, reactor, tags](const absl::Status& end) {
    door_->Ended(method, end, tags);
    reactor->Finish(ToGrpcStatus(end));
  };
  if (status.ok()) {
    status = pool_->Submit([adapters, finish, change, response_bytes, by = tags.caller,
                            request = std::move(request), deadline = CallDeadline(*context)] {
      const absl::Status changed = change(adapters, request, by, deadline);
      finish(changed.ok() ? SerializeResponse(Response(), response_bytes) : changed);
    });
  }
  if (!status.ok()) finish(status);
  return reactor;
}

grpc::ServerUnaryReactor* OpenInferenceService::RepositoryModelLoad(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  using Request = inference::RepositoryModelLoadRequest;
  return ChangeRepository<Request, inference::RepositoryModelLoadResponse>(
      "RepositoryModelLoad", context, *request, response,
      [](AdapterOperator* adapters, const Request& in, const std::string& by,
         absl::Time deadline) -> absl::Status {
        // Its newest version, as `stable` goes where no label is set.
        return adapters->Load({in.model_name(), 0}, by, deadline).status();
      });
}

grpc::ServerUnaryReactor* OpenInferenceService::RepositoryModelUnload(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  using Request = inference::RepositoryModelUnloadRequest;
  return ChangeRepository<Request, inference::RepositoryModelUnloadResponse>(
      "RepositoryModelUnload", context, *request, response,
      [](AdapterOperator* adapters, const Request& in, const std::string& by, absl::Time deadline)
          -> absl::Status { return adapters->UnloadAll(in.model_name(), by, deadline); });
}

}  // namespace pricer
