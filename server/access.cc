#include "server/access.h"

#include <random>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "base/steady_clock.h"
#include "server/caller.h"

namespace pricer {
namespace {

constexpr absl::string_view kScheme = "Bearer ";
constexpr char kRequestId[] = "x-request-id";

// Empty where there is none.
std::string MetadataOf(const grpc::CallbackServerContext& context, const char* name) {
  const auto found = context.client_metadata().find(name);
  if (found == context.client_metadata().end()) return "";
  return std::string(found->second.data(), found->second.size());
}

std::string NewRequestId() {
  thread_local std::mt19937_64 generator{std::random_device()()};
  return absl::StrCat(absl::Hex(generator(), absl::kZeroPad16));
}

absl::StatusOr<absl::string_view> BearerToken(const grpc::CallbackServerContext& context) {
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find("authorization");
  if (found == metadata.end()) {
    return absl::UnauthenticatedError("authorization: expected Bearer TOKEN, got nothing");
  }
  const absl::string_view value(found->second.data(), found->second.size());
  // The scheme's case does not matter (RFC 9110, 11.1).
  if (!absl::StartsWithIgnoreCase(value, kScheme)) {
    return absl::UnauthenticatedError("authorization: expected Bearer TOKEN, got another scheme");
  }
  return value.substr(kScheme.size());
}

}  // namespace

absl::StatusOr<std::string> Access::Authenticate(const grpc::CallbackServerContext& context,
                                                 Permission permission) const {
  if (tokens_ != nullptr) {
    ASSIGN_OR_RETURN(const absl::string_view secret, BearerToken(context));
    ASSIGN_OR_RETURN(const std::string name, tokens_->Check(secret, permission));
    return absl::StrCat("token:", name);
  }
  const auto auth = context.auth_context();
  if (auth != nullptr && auth->IsPeerAuthenticated()) {
    const auto names = auth->GetPeerIdentity();
    if (!names.empty()) {
      return absl::StrCat("cert:", absl::string_view(names[0].data(), names[0].size()));
    }
  }
  return CallerOf(context.peer());
}

CallTags TagsOf(grpc::CallbackServerContext* context) {
  CallTags tags;
  tags.started = SteadyClock()->Now();
  tags.request_id = MetadataOf(*context, kRequestId);
  if (!IsRequestId(tags.request_id)) tags.request_id = NewRequestId();
  context->AddTrailingMetadata(kRequestId, tags.request_id);
  tags.trace_parent = MetadataOf(*context, "traceparent");
  if (!IsTraceParent(tags.trace_parent)) tags.trace_parent.clear();
  return tags;
}

}  // namespace pricer
