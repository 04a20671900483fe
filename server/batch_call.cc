#include "server/batch_call.h"

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "base/status_macros.h"
#include "server/price_request.h"

namespace pricer {
namespace {

// Of a call, so many are tokenized before an idle batch thread is woken for them: one that is woken
// for each of them computes batches of one and has most of its time taken by being woken.
constexpr int kItemsHandedOver = 8;

}  // namespace

absl::Status BatchCall::Submit() {
  RETURN_IF_ERROR(CheckItemCount(request_.items_size()));
  RETURN_IF_ERROR(Prepare(request_.adapter(), request_.options()));
  // All made here, so that each is then written by one thread alone.
  items_.resize(static_cast<size_t>(request_.items_size()));
  pending_.store(request_.items_size() + 1, std::memory_order_relaxed);
  return pool()->Submit([this] { ScheduleAll(); });
}

void BatchCall::ScheduleAll() {
  bool awaits = false;  // results of items that other calls are computing
  BatchScheduler& scheduler = *call_.backend().scheduler;
  const absl::Cleanup wake = [&scheduler] { scheduler.Wake(); };
  for (int i = 0; i < request_.items_size(); ++i) {
    if (i % kItemsHandedOver == 0) scheduler.Wake();
    const auto done = [this, i](PriceCache::Outcome outcome,
                                const PricingCall::Answering& answering) {
      items_[i] = {std::move(outcome), answering};
      OneDone();
    };
    PricingCall::PendingItem item;
    const absl::StatusOr<bool> reused =
        call_.Read(request_.items(i), /*ask_first=*/false, done, &item);
    if (!reused.ok()) ItemFailed(reused.status(), i);
    awaits = awaits || (reused.ok() && *reused);
    if (!reused.ok() || *reused) continue;
    item.task.wake = false;
    const absl::Status refused = queue_.Add(std::move(item), done);
    if (refused.ok()) continue;
    if (!awaits) {
      Ended(refused);
      return;
    }
    ItemFailed(refused, i);
  }
  OneDone();
}

void BatchCall::ItemFailed(const absl::Status& status, int item) {
  items_[item].outcome.result.distribution = status;
  OneDone();
}

void BatchCall::OneDone() {
  if (pending_.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
  // Mostly on the scheduler's thread for answers, which has other calls to answer.
  if (!pool()->SubmitFirst([this] { Answer(); }).ok()) Answer();
}

void BatchCall::Answer() {
  for (int i = 0; i < request_.items_size(); ++i) {
    v1::ItemResult* const result = response_.add_results();
    result->set_id(request_.items(i).id());
    const PricedItem& item = items_[i];
    const absl::Status& status = item.outcome.result.distribution.status();
    if (status.ok()) {
      call_.Fill(item.outcome, item.answering, result->mutable_prediction());
    } else {
      FillError(status, result->mutable_error());
    }
  }
  Ended(call_.Abandoned());
}

}  // namespace pricer
