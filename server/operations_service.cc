#include "server/operations_service.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "server/caller.h"
#include "server/grpc_status.h"
#include "server/wire_message.h"

namespace pricer {
namespace {

absl::StatusOr<LogLevel> LevelFromProto(v1::LogLevel proto) {
  switch (proto) {
    case v1::LOG_LEVEL_DEBUG:
      return LogLevel::kDebug;
    case v1::LOG_LEVEL_INFO:
      return LogLevel::kInfo;
    case v1::LOG_LEVEL_WARNING:
      return LogLevel::kWarning;
    case v1::LOG_LEVEL_ERROR:
      return LogLevel::kError;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("level: expected LOG_LEVEL_DEBUG, _INFO, _WARNING or _ERROR, got ", proto));
  }
}

v1::LogLevel LevelToProto(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return v1::LOG_LEVEL_DEBUG;
    case LogLevel::kInfo:
      return v1::LOG_LEVEL_INFO;
    case LogLevel::kWarning:
      return v1::LOG_LEVEL_WARNING;
    case LogLevel::kError:
      return v1::LOG_LEVEL_ERROR;
  }
  return v1::LOG_LEVEL_UNSPECIFIED;
}

}  // namespace

grpc::ServerUnaryReactor* OperationsService::SetLogLevel(grpc::CallbackServerContext* context,
                                                         const grpc::ByteBuffer* request,
                                                         grpc::ByteBuffer* response) {
  CallTags tags = TagsOf(context);
  const absl::StatusOr<std::string> caller = access_.Authenticate(*context, Permission::kAdmin);
  tags.caller = caller.ok() ? *caller : CallerOf(context->peer());
  const absl::Status status = caller.ok() ? Set(tags.caller, *request, response) : caller.status();
  log_.Ended("SetLogLevel", status, tags);
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

absl::Status OperationsService::Set(const std::string& caller,
                                    const grpc::ByteBuffer& request_bytes,
                                    grpc::ByteBuffer* response_bytes) const {
  v1::SetLogLevelRequest request;
  RETURN_IF_ERROR(ParseRequest(request_bytes, &request));
  ASSIGN_OR_RETURN(const LogLevel level, LevelFromProto(request.level()));
  v1::SetLogLevelResponse response;
  response.set_before(LevelToProto(CurrentLogLevel()));
  // Of whatever level is about to be logged: it says who made the log fall silent.
  Log(CurrentLogLevel(), "log level changed",
      {{"before", v1::LogLevel_Name(response.before())},
       {"after", v1::LogLevel_Name(request.level())},
       {"by", caller}});
  pricer::SetLogLevel(level);
  return SerializeResponse(response, response_bytes);
}

}  // namespace pricer
