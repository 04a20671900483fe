#include "server/unary_call.h"

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
    absl::string_view method, const grpc::CallbackServerContext& context) const {
  absl::StatusOr<std::string> caller = access_.Authenticate(context, Permission::kPredict);
  const absl::StatusOr<const PricingBackend*> backend = Backend();
  if (caller.ok() && backend.ok()) return Admitted{*backend, *std::move(caller)};
  const absl::Status refused = caller.ok() ? backend.status() : caller.status();
  metrics_->CallEnded(method, refused.code());
  return refused;
}

}  // namespace pricer
