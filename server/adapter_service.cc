#include "server/adapter_service.h"

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/adapter_proto.h"
#include "server/call_deadline.h"
#include "server/caller.h"
#include "server/grpc_status.h"
#include "server/proto_text.h"
#include "server/wire_message.h"

namespace pricer {
namespace {

void TargetToProto(const LabelTarget& target, v1::LabelTarget* proto) {
  proto->set_version(target.version);
  proto->set_percent(target.percent);
}

void LabelsToProto(const std::string& adapter, const AdapterLabelStatus& status,
                   v1::AdapterLabels* proto) {
  proto->set_name(adapter);
  proto->set_generation(status.labels.generation);
  proto->set_error(ToValidUtf8(status.error));
  for (const auto& [label, target] : status.labels.labels) {
    v1::Label* const out = proto->add_labels();
    out->set_label(label);
    TargetToProto(target, out->mutable_target());
    const auto live = status.live.find(label);
    if (live != status.live.end()) out->set_live_version(live->second);
  }
  for (const LabelMove& move : status.labels.history) {
    v1::LabelMove* const out = proto->add_history();
    out->set_label(move.label);
    if (move.from.has_value()) TargetToProto(*move.from, out->mutable_from());
    if (move.to.has_value()) TargetToProto(*move.to, out->mutable_to());
    SetTimestamp(move.author.at, out->mutable_moved_at());
    out->set_moved_by(ToValidUtf8(move.author.by));
    out->set_rollback(move.rollback);
  }
}

}  // namespace

template <typename Request, typename Response>
grpc::ServerUnaryReactor* AdapterService::Answer(const char* method,
                                                 Handler<Request, Response> handler, bool on_pool,
                                                 grpc::CallbackServerContext* context,
                                                 const grpc::ByteBuffer* request_bytes,
                                                 grpc::ByteBuffer* response_bytes) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  CallTags tags = TagsOf(context);
  const absl::StatusOr<std::string> caller = access_.Authenticate(*context, Permission::kAdmin);
  tags.caller = caller.ok() ? *caller : CallerOf(context->peer());
  const auto finish = [this, method, reactor, tags](const absl::Status& status) {
    log_.Ended(method, status, tags);
    reactor->Finish(ToGrpcStatus(status));
  };
  if (!caller.ok()) {
    finish(caller.status());
    return reactor;
  }
  Request request;
  if (const absl::Status status = ParseRequest(*request_bytes, &request); !status.ok()) {
    finish(status);
    return reactor;
  }
  auto work = [this, handler, finish, response_bytes, request = std::move(request),
               asking = Asking{*caller, CallDeadline(*context)}] {
    const absl::StatusOr<Response> response = (this->*handler)(request, asking);
    finish(response.ok() ? SerializeResponse(*response, response_bytes) : response.status());
  };
  if (!on_pool) {
    work();
  } else if (const absl::Status status = pool_->Submit(std::move(work)); !status.ok()) {
    finish(status);
  }
  return reactor;
}

grpc::ServerUnaryReactor* AdapterService::ListAdapters(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request,
                                                       grpc::ByteBuffer* response) {
  return Answer("ListAdapters", &AdapterService::List, /*on_pool=*/false, context, request,
                response);
}

grpc::ServerUnaryReactor* AdapterService::GetLabels(grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer* request,
                                                    grpc::ByteBuffer* response) {
  return Answer("GetLabels", &AdapterService::Get, /*on_pool=*/false, context, request, response);
}

grpc::ServerUnaryReactor* AdapterService::SetLabel(grpc::CallbackServerContext* context,
                                                   const grpc::ByteBuffer* request,
                                                   grpc::ByteBuffer* response) {
  return Answer("SetLabel", &AdapterService::Set, /*on_pool=*/true, context, request, response);
}

grpc::ServerUnaryReactor* AdapterService::RemoveLabel(grpc::CallbackServerContext* context,
                                                      const grpc::ByteBuffer* request,
                                                      grpc::ByteBuffer* response) {
  return Answer("RemoveLabel", &AdapterService::Remove, /*on_pool=*/true, context, request,
                response);
}

grpc::ServerUnaryReactor* AdapterService::RollbackLabel(grpc::CallbackServerContext* context,
                                                        const grpc::ByteBuffer* request,
                                                        grpc::ByteBuffer* response) {
  return Answer("RollbackLabel", &AdapterService::RollBack, /*on_pool=*/true, context, request,
                response);
}

absl::StatusOr<v1::ListAdaptersResponse> AdapterService::List(
    const v1::ListAdaptersRequest& request, const Asking& /*asking*/) const {
  v1::ListAdaptersResponse response;
  for (const AdapterStatus& status : registry_->List(request.name())) {
    AdapterStatusToProto(status, response.add_versions());
  }
  return response;
}

absl::StatusOr<v1::GetLabelsResponse> AdapterService::Get(const v1::GetLabelsRequest& request,
                                                          const Asking& /*asking*/) const {
  v1::GetLabelsResponse response;
  ASSIGN_OR_RETURN(const AdapterLabelStatus status, registry_->Labels(request.name()));
  LabelsToProto(request.name(), status, response.mutable_labels());
  return response;
}

absl::StatusOr<v1::SetLabelResponse> AdapterService::Set(const v1::SetLabelRequest& request,
                                                         const Asking& asking) const {
  ASSIGN_OR_RETURN(const Operators operators, WhoOperates());
  LabelTarget target{.version = request.version()};
  if (request.percent() != 0) target.percent = request.percent();
  const PromotionGate gate{.golden_items = request.gate().golden_items(),
                           .max_shift = request.gate().max_shift()};
  ASSIGN_OR_RETURN(
      const LabelMoveResult result,
      operators.labels->Move(request.name(), request.label(), target, gate, asking.by));
  v1::SetLabelResponse response;
  LabelsToProto(request.name(), result.labels, response.mutable_labels());
  if (result.shift.has_value()) response.set_shift(*result.shift);
  return response;
}

absl::StatusOr<v1::RemoveLabelResponse> AdapterService::Remove(
    const v1::RemoveLabelRequest& request, const Asking& asking) const {
  ASSIGN_OR_RETURN(const Operators operators, WhoOperates());
  ASSIGN_OR_RETURN(const LabelMoveResult result,
                   operators.labels->Remove(request.name(), request.label(), asking.by));
  v1::RemoveLabelResponse response;
  LabelsToProto(request.name(), result.labels, response.mutable_labels());
  return response;
}

absl::StatusOr<v1::RollbackLabelResponse> AdapterService::RollBack(
    const v1::RollbackLabelRequest& request, const Asking& asking) const {
  ASSIGN_OR_RETURN(const Operators operators, WhoOperates());
  if (request.from_version() < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "from_version: expected a number of at least 0, got ", request.from_version()));
  }
  std::optional<int64_t> from;
  if (request.from_version() > 0) from = request.from_version();
  ASSIGN_OR_RETURN(const LabelMoveResult result,
                   operators.labels->RollBack(request.name(), request.label(), from, asking.by));
  v1::RollbackLabelResponse response;
  LabelsToProto(request.name(), result.labels, response.mutable_labels());
  return response;
}

WatchReactor* AdapterService::WatchAdapters(grpc::CallbackServerContext* context,
                                            const grpc::ByteBuffer* request_bytes) {
  CallTags tags = TagsOf(context);
  v1::WatchAdaptersRequest request;
  const auto check = [&]() -> absl::Status {
    tags.caller = CallerOf(context->peer());
    ASSIGN_OR_RETURN(tags.caller, access_.Authenticate(*context, Permission::kAdmin));
    return ParseRequest(*request_bytes, &request);
  };
  const absl::Status status = check();
  return watches_.Start(request.name(), status, [this, tags](const absl::Status& end) {
    log_.Ended("WatchAdapters", end, tags);
  });
}

grpc::ServerUnaryReactor* AdapterService::LoadAdapter(grpc::CallbackServerContext* context,
                                                      const grpc::ByteBuffer* request,
                                                      grpc::ByteBuffer* response) {
  return Answer("LoadAdapter", &AdapterService::Load, /*on_pool=*/true, context, request, response);
}

grpc::ServerUnaryReactor* AdapterService::UnloadAdapter(grpc::CallbackServerContext* context,
                                                        const grpc::ByteBuffer* request,
                                                        grpc::ByteBuffer* response) {
  return Answer("UnloadAdapter", &AdapterService::Unload, /*on_pool=*/true, context, request,
                response);
}

grpc::ServerUnaryReactor* AdapterService::PinAdapter(grpc::CallbackServerContext* context,
                                                     const grpc::ByteBuffer* request,
                                                     grpc::ByteBuffer* response) {
  return Answer("PinAdapter", &AdapterService::Pin, /*on_pool=*/true, context, request, response);
}

absl::StatusOr<v1::LoadAdapterResponse> AdapterService::Load(const v1::LoadAdapterRequest& request,
                                                             const Asking& asking) const {
  ASSIGN_OR_RETURN(const Operators operators, WhoOperates());
  ASSIGN_OR_RETURN(
      const AdapterStatus status,
      operators.adapters->Load({request.name(), request.version()}, asking.by, asking.deadline));
  v1::LoadAdapterResponse response;
  AdapterStatusToProto(status, response.mutable_version());
  return response;
}

absl::StatusOr<v1::UnloadAdapterResponse> AdapterService::Unload(
    const v1::UnloadAdapterRequest& request, const Asking& asking) const {
  ASSIGN_OR_RETURN(const Operators operators, WhoOperates());
  ASSIGN_OR_RETURN(
      const UnloadResult result,
      operators.adapters->Unload({request.name(), request.version()}, asking.by, asking.deadline));
  v1::UnloadAdapterResponse response;
  response.set_freed_host_bytes(result.freed[static_cast<int>(MemoryTier::kHost)]);
  response.set_freed_device_bytes(result.freed[static_cast<int>(MemoryTier::kDevice)]);
  response.set_in_use(result.in_use);
  return response;
}

absl::StatusOr<v1::PinAdapterResponse> AdapterService::Pin(const v1::PinAdapterRequest& request,
                                                           const Asking& asking) const {
  ASSIGN_OR_RETURN(const Operators operators, WhoOperates());
  ASSIGN_OR_RETURN(const AdapterStatus status,
                   operators.adapters->SetPinned({request.name(), request.version()},
                                                 request.pinned(), asking.by, asking.deadline));
  v1::PinAdapterResponse response;
  AdapterStatusToProto(status, response.mutable_version());
  return response;
}

absl::StatusOr<AdapterService::Operators> AdapterService::WhoOperates() const {
  if (serving_.load(std::memory_order_acquire)) return operators_;
  return absl::UnavailableError("the server is starting");
}

}  // namespace pricer
