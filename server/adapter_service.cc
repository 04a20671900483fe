#include "server/adapter_service.h"

#include "base/status_macros.h"
#include "server/grpc_status.h"
#include "server/proto_text.h"
#include "server/wire_message.h"

namespace pricer {
namespace {

v1::AdapterState StateToProto(AdapterState state) {
  switch (state) {
    case AdapterState::kStart:
      return v1::ADAPTER_STATE_START;
    case AdapterState::kLoading:
      return v1::ADAPTER_STATE_LOADING;
    case AdapterState::kAvailable:
      return v1::ADAPTER_STATE_AVAILABLE;
    case AdapterState::kUnloading:
      return v1::ADAPTER_STATE_UNLOADING;
    case AdapterState::kEnd:
      return v1::ADAPTER_STATE_END;
  }
  return v1::ADAPTER_STATE_UNSPECIFIED;
}

void StatusToProto(const AdapterStatus& status, v1::AdapterVersion* proto) {
  proto->set_name(status.key.name);
  proto->set_version(status.key.version);
  proto->set_state(StateToProto(status.state));
  proto->set_reason(ToValidUtf8(status.reason));
  proto->set_digest(status.digest);
  proto->set_memory_bytes(status.memory_bytes);
  SetDuration(status.load_time, proto->mutable_load_time());
  SetTimestamp(status.changed_at, proto->mutable_changed_at());
  proto->set_serves_by_default(status.serves_by_default);
}

}  // namespace

grpc::ServerUnaryReactor* AdapterService::ListAdapters(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request,
                                                       grpc::ByteBuffer* response) {
  const absl::Status status = List(*request, response);
  metrics_->CallEnded("ListAdapters", status.code());
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

absl::Status AdapterService::List(const grpc::ByteBuffer& request_bytes,
                                  grpc::ByteBuffer* response_bytes) const {
  v1::ListAdaptersRequest request;
  RETURN_IF_ERROR(ParseRequest(request_bytes, &request));
  v1::ListAdaptersResponse response;
  for (const AdapterStatus& status : registry_->List(request.name())) {
    StatusToProto(status, response.add_versions());
  }
  return SerializeResponse(response, response_bytes);
}

}  // namespace pricer
