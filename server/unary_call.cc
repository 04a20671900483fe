#include "server/unary_call.h"

#include <string>

#include "server/caller.h"

namespace pricer {

absl::StatusOr<const PricingBackend*> PricingDoor::Backend() const {
  if (refusing_.load(std::memory_order_relaxed)) {
    return absl::UnavailableError("the server is stopping");
  }
  const PricingBackend* const backend = backend_.load(std::memory_order_acquire);
  if (backend == nullptr) return absl::UnavailableError("the server is starting");
  return backend;
}

absl::StatusOr<PricingDoor::Admitted> PricingDoor::Admit(
    absl::string_view method, grpc::CallbackServerContext* context) const {
  Admitted admitted;
  admitted.tags = TagsOf(context);
  absl::StatusOr<std::string> caller = access_.Authenticate(*context, Permission::kPredict);
  const absl::StatusOr<const PricingBackend*> backend = Backend();
  if (caller.ok() && backend.ok()) {
    admitted.backend = *backend;
    admitted.tags.caller = *std::move(caller);
    return admitted;
  }
  admitted.tags.caller = caller.ok() ? *caller : CallerOf(context->peer());
  const absl::Status refused = caller.ok() ? backend.status() : caller.status();
  log_.Ended(method, refused, admitted.tags);
  return refused;
}

}  // namespace pricer
