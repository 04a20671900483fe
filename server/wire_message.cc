#include "server/wire_message.h"

#include <grpcpp/impl/codegen/proto_utils.h>

#include "absl/strings/str_cat.h"

namespace pricer {
namespace {

using Traits = grpc::SerializationTraits<google::protobuf::Message>;

}  // namespace

absl::Status ParseRequest(const grpc::ByteBuffer& bytes, google::protobuf::Message* request) {
  // Shares the bytes; parsing lets go of them.
  grpc::ByteBuffer parsed(bytes);
  if (Traits::Deserialize(&parsed, request).ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "request: not a valid ", request->GetDescriptor()->name(), "; strings must be UTF-8"));
}

absl::Status SerializeResponse(const google::protobuf::Message& response, grpc::ByteBuffer* bytes) {
  bool own_buffer = false;
  if (Traits::Serialize(response, bytes, &own_buffer).ok()) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("cannot write a ", response.GetDescriptor()->name()));
}

}  // namespace pricer
