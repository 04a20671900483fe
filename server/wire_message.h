#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>

#include "absl/status/status.h"

// Messages as they come off the wire and go onto it. Services parse their requests themselves:
// gRPC's callback handlers answer one that does not parse with UNIMPLEMENTED and no message, and
// call nobody (1.51, CallbackUnaryHandler::Deserialize).

namespace pricer {

// InvalidArgument where the bytes are no such message, or a string in it is no UTF-8.
absl::Status ParseRequest(const grpc::ByteBuffer& bytes, google::protobuf::Message* request);

absl::Status SerializeResponse(const google::protobuf::Message& response, grpc::ByteBuffer* bytes);

}  // namespace pricer
