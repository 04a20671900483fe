#include "server/pricing_call.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/adapter_labels.h"
#include "server/grpc_status.h"
#include "server/price_request.h"
#include "server/proto_text.h"

namespace pricer {

absl::Status PricingCall::Prepare(const v1::AdapterSpec& adapter, const v1::PredictOptions& options,
                                  absl::Time deadline, const std::string& caller) {
  ASSIGN_OR_RETURN(options_, OptionsFromProto(options));
  ASSIGN_OR_RETURN(lane_, LaneFromProto(options.lane()));
  no_cache_ = options.no_cache();
  ASSIGN_OR_RETURN(const AdapterChoice choice, ChoiceFromProto(adapter));
  ASSIGN_OR_RETURN(route_, backend_->registry->Route(choice.name, choice.version, choice.label));
  deadline_ = deadline;
  caller_ = caller;
  return absl::OkStatus();
}

absl::Status PricingCall::Abandoned() const {
  // First, because gRPC cancels a call when its deadline passes.
  if (deadline_ <= backend_->clock->Now()) {
    return absl::DeadlineExceededError("the deadline passed before the call was answered");
  }
  if (!cancelled_->load(std::memory_order_relaxed)) return absl::OkStatus();
  return absl::CancelledError("the caller has gone");
}

absl::StatusOr<bool> PricingCall::Read(const v1::Item& proto, bool ask_first,
                                       const DoneFunction& done, PendingItem* item) const {
  RETURN_IF_ERROR(Abandoned());
  ASSIGN_OR_RETURN(const std::string text, ItemTextFromProto(proto));
  item->answering = AnsweringOf(proto, text);
  const LoadedAdapter& adapter = **item->answering.adapter;
  item->key = PriceCache::KeyOf(adapter, text);
  item->asker = {.lane = lane_,
                 .deadline = deadline_,
                 .cancelled = cancelled_,
                 .done = [done, answering = item->answering](PriceCache::Outcome outcome) {
                   done(std::move(outcome), answering);
                 }};
  PriceCache::Found found = backend_->cache->FindOrJoin(item->key, !no_cache_, &item->asker);
  if (found.joined) return true;
  if (found.priced.has_value()) {
    done({{std::move(found.priced->distribution), absl::ZeroDuration(), absl::ZeroDuration()},
          found.priced->prompt},
         item->answering);
    return true;
  }
  item->asker.done = nullptr;
  if (ask_first) RETURN_IF_ERROR(CheckAdmission(proto, adapter));
  RETURN_IF_ERROR(Encode(text, item));
  return false;
}

absl::Status PricingCall::Schedule(PendingItem* item, const DoneFunction& done) const {
  item->asker.done = [done, answering = item->answering](PriceCache::Outcome outcome) {
    done(std::move(outcome), answering);
  };
  return backend_->cache->ScheduleOrJoin(item->key, std::move(item->task), item->prompt,
                                         std::move(item->asker));
}

BatchQueue::Request PricingCall::RequestOf(const PriceTask& task) const {
  return {.lane = lane_,
          .caller = caller_,
          .tokens = task.tokens(),
          .deadline = deadline_,
          .replaces = task.replaces};
}

void PricingCall::Fill(const PriceCache::Outcome& outcome, const Answering& answering,
                       v1::Prediction* prediction) const {
  FillPrediction(*outcome.result.distribution, options_,
                 {.adapter = **answering.adapter,
                  .label = answering.label,
                  .model_fingerprint = backend_->engine->info().model_fingerprint,
                  .prompt_tokens = outcome.prompt.tokens,
                  .truncated = outcome.prompt.truncated,
                  .queue_time = outcome.result.queue_time,
                  .compute_time = outcome.result.compute_time},
                 prediction);
}

PricingCall::Answering PricingCall::AnsweringOf(const v1::Item& item,
                                                absl::string_view text) const {
  if (route_.IsCanarys(item.id().empty() ? text : absl::string_view(item.id()))) {
    return {&route_.canary, kCanaryLabel};
  }
  return {&route_.adapter, route_.label};
}

absl::Status PricingCall::CheckAdmission(const v1::Item& item, const LoadedAdapter& adapter) const {
  // Few texts have more.
  constexpr int64_t kBytesPerToken = 8;
  const int64_t most = adapter.manifest.prompt.max_prompt_tokens;
  const auto bytes = static_cast<int64_t>(item.ByteSizeLong());
  const int64_t tokens = std::clamp<int64_t>(bytes / kBytesPerToken, 1, most);
  return backend_->scheduler->Check({.lane = lane_,
                                     .caller = caller_,
                                     .tokens = tokens + adapter.extra_rows(),
                                     .deadline = deadline_});
}

absl::Status PricingCall::Encode(const std::string& text, PendingItem* item) const {
  const AdapterHandle& adapter = *item->answering.adapter;
  absl::StatusOr<EncodedPrompt> encoded = backend_->engine->Encode(adapter->manifest.prompt, text);
  if (!encoded.ok()) {
    return absl::Status(encoded.status().code(),
                        absl::StrCat("item: ", encoded.status().message()));
  }
  item->prompt = {.tokens = static_cast<int>(encoded->ids.size()), .truncated = encoded->truncated};
  item->task.ids = std::move(encoded->ids);
  item->task.adapter = adapter;
  item->task.extra_rows = adapter->extra_rows();
  item->task.caller = caller_;
  if (adapter == route_.adapter && route_.shadow != nullptr) AddShadow(text, &item->task);
  return absl::OkStatus();
}

// Where the shadow cannot read the item, the item has none.
void PricingCall::AddShadow(const std::string& text, PriceTask* task) const {
  const AdapterHandle& shadow = route_.shadow;
  absl::StatusOr<EncodedPrompt> encoded = backend_->engine->Encode(shadow->manifest.prompt, text);
  if (encoded.ok()) {
    task->shadow = {.ids = std::move(encoded->ids),
                    .adapter = shadow,
                    .tensors = nullptr,
                    .extra_rows = shadow->extra_rows()};
  } else {
    metrics_->ShadowFailed();
  }
}

void FillError(const absl::Status& status, v1::ItemError* error) {
  error->set_code(static_cast<int>(ToGrpcStatus(status).error_code()));
  error->set_message(ToValidUtf8(status.message()));
}

}  // namespace pricer
