#include "server/batch_call.h"

#include <utility>

#include "base/status_macros.h"
#include "server/price_request.h"

namespace pricer {

absl::Status BatchCall::Submit() {
  RETURN_IF_ERROR(CheckItemCount(request_.items_size()));
  RETURN_IF_ERROR(Prepare(request_.adapter(), request_.options()));
  // All made here, so that each is then written by one thread alone.
  for (const v1::Item& item : request_.items()) response_.add_results()->set_id(item.id());
  pending_.store(request_.items_size() + 1, std::memory_order_relaxed);
  return pool()->Submit([this] { ScheduleAll(); });
}

void BatchCall::ScheduleAll() {
  bool awaits = false;  // results of items that other calls are computing
  for (int i = 0; i < request_.items_size(); ++i) {
    v1::ItemResult* const result = response_.mutable_results(i);
    const auto done = [this, result](const PriceCache::Outcome& outcome,
                                     const PricingCall::Answering& answering) {
      ItemDone(outcome, answering, result);
    };
    PricingCall::PendingItem item;
    const absl::StatusOr<bool> reused =
        call_.Read(request_.items(i), /*ask_first=*/false, done, &item);
    if (!reused.ok()) ItemFailed(reused.status(), result);
    awaits = awaits || (reused.ok() && *reused);
    if (!reused.ok() || *reused) continue;
    const absl::Status refused = queue_.Add(std::move(item), done);
    if (refused.ok()) continue;
    if (!awaits) {
      Ended(refused);
      return;
    }
    ItemFailed(refused, result);
  }
  OneDone();
}

void BatchCall::ItemDone(const PriceCache::Outcome& outcome,
                         const PricingCall::Answering& answering, v1::ItemResult* result) {
  if (!outcome.result.distribution.ok()) {
    ItemFailed(outcome.result.distribution.status(), result);
    return;
  }
  call_.Fill(outcome, answering, result->mutable_prediction());
  OneDone();
}

void BatchCall::ItemFailed(const absl::Status& status, v1::ItemResult* result) {
  FillError(status, result->mutable_error());
  OneDone();
}

void BatchCall::OneDone() {
  if (pending_.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
  Ended(call_.Abandoned());
}

}  // namespace pricer
