#include "server/pricing_service.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "model/adapter_labels.h"
#include "server/adapter_route.h"
#include "server/caller.h"
#include "server/grpc_status.h"
#include "server/proto_text.h"
#include "server/retry_after.h"
#include "server/wire_message.h"

namespace pricer {
namespace {

// Of one call in the scheduler at once. Keeps all batches full and leaves the queue to other
// callers.
constexpr int64_t kMaxBatchesPerCall = 2;
// Longer items are tokenized on the pool, so that they hold up no other call.
constexpr size_t kMaxBytesTokenizedAtOnce = 4096;
constexpr char kRetryPushback[] = "grpc-retry-pushback-ms";

// What all items of a call share. Lives from the call's start to OnDone, which gRPC calls after
// Finish alone; whoever finishes the call is therefore the last to touch it.
class PricingCall : public grpc::ServerUnaryReactor {
 public:
  PricingCall(absl::string_view method, const PricingBackend& backend, Metrics* metrics,
              grpc::CallbackServerContext* context, grpc::ByteBuffer* response_bytes)
      : method_(method),
        backend_(backend),
        metrics_(metrics),
        context_(context),
        response_bytes_(response_bytes) {}

  void OnCancel() override { cancelled_->store(true, std::memory_order_relaxed); }
  void OnDone() override { delete this; }

 protected:
  // Which version answers an item, and the label that led to it. Both live as long as the call.
  struct Answering {
    const AdapterHandle* adapter = nullptr;
    absl::string_view label;
  };
  // An item on its way to be computed.
  struct PendingItem {
    Answering answering;
    PriceCache::Key key;
    PriceTask task;
    PriceCache::PromptFacts prompt;
    PriceCache::Asker asker;
  };
  using DoneFunction = std::function<void(PriceCache::Outcome)>;

  // Takes the adapter versions that the whole call is answered with.
  absl::Status Prepare(const v1::AdapterSpec& adapter, const v1::PredictOptions& options) {
    ASSIGN_OR_RETURN(options_, OptionsFromProto(options));
    ASSIGN_OR_RETURN(lane_, LaneFromProto(options.lane()));
    ASSIGN_OR_RETURN(const AdapterChoice choice, ChoiceFromProto(adapter));
    ASSIGN_OR_RETURN(route_, backend_.registry->Route(choice.name, choice.version, choice.label));
    deadline_ = absl::FromChrono(context_->deadline());
    caller_ = CallerOf(context_->peer());
    return absl::OkStatus();
  }

  Answering AnsweringOf(const v1::Item& item, absl::string_view text) const {
    if (route_.IsCanarys(item.id().empty() ? text : absl::string_view(item.id()))) {
      return {&route_.canary, kCanaryLabel};
    }
    return {&route_.adapter, route_.label};
  }

  // Whether an item of so many bytes would be admitted, before it is tokenized: few texts have more
  // than eight bytes to a token.
  absl::Status CheckAdmission(const v1::Item& item, const LoadedAdapter& adapter) const {
    constexpr int64_t kBytesPerToken = 8;
    const int64_t most = adapter.manifest.prompt.max_prompt_tokens;
    const auto bytes = static_cast<int64_t>(item.ByteSizeLong());
    const int64_t tokens = std::clamp<int64_t>(bytes / kBytesPerToken, 1, most);
    return backend_.scheduler->Check({.lane = lane_,
                                      .caller = caller_,
                                      .tokens = tokens + adapter.extra_rows(),
                                      .deadline = deadline_});
  }

  // Answers the item from what is known, or joins it to the same item of another call; `done` is
  // called then. False: neither, and `item` is to be tokenized. REQUIRES: `item` has its version.
  absl::StatusOr<bool> Reuse(const std::string& text, DoneFunction done, PendingItem* item) const {
    item->key = PriceCache::KeyOf(**item->answering.adapter, text);
    if (std::optional<PriceCache::Priced> known = backend_.cache->Find(item->key)) {
      done({{std::move(known->distribution), absl::ZeroDuration(), absl::ZeroDuration()},
            known->prompt});
      return true;
    }
    item->asker = {
        .lane = lane_, .deadline = deadline_, .cancelled = cancelled_, .done = std::move(done)};
    return backend_.cache->Join(item->key, &item->asker);
  }

  // Tokenizes the item.
  absl::Status Encode(const std::string& text, PendingItem* item) const {
    const AdapterHandle& adapter = *item->answering.adapter;
    absl::StatusOr<EncodedPrompt> encoded = backend_.engine->Encode(adapter->manifest.prompt, text);
    if (!encoded.ok()) {
      return absl::Status(encoded.status().code(),
                          absl::StrCat("item: ", encoded.status().message()));
    }
    item->prompt = {.tokens = static_cast<int>(encoded->ids.size()),
                    .truncated = encoded->truncated};
    item->task.ids = std::move(encoded->ids);
    item->task.adapter = adapter;
    item->task.extra_rows = adapter->extra_rows();
    item->task.caller = caller_;
    if (adapter == route_.adapter && route_.shadow != nullptr) AddShadow(text, &item->task);
    return absl::OkStatus();
  }

  // Where the shadow cannot read the item, the item has none.
  void AddShadow(const std::string& text, PriceTask* task) const {
    const AdapterHandle& shadow = route_.shadow;
    absl::StatusOr<EncodedPrompt> encoded = backend_.engine->Encode(shadow->manifest.prompt, text);
    if (encoded.ok()) {
      task->shadow = {std::move(encoded->ids), shadow, shadow->extra_rows()};
    } else {
      metrics_->ShadowFailed();
    }
  }

  // On error `item` is as it was.
  absl::Status Schedule(PendingItem* item) const {
    return backend_.cache->ScheduleOrJoin(item->key, std::move(item->task), item->prompt,
                                          std::move(item->asker));
  }

  void Fill(const PriceCache::Outcome& outcome, const Answering& answering,
            v1::Prediction* prediction) const {
    FillPrediction(*outcome.result.distribution, options_,
                   {.adapter = **answering.adapter,
                    .label = answering.label,
                    .model_fingerprint = backend_.engine->info().model_fingerprint,
                    .prompt_tokens = outcome.prompt.tokens,
                    .truncated = outcome.prompt.truncated,
                    .queue_time = outcome.result.queue_time,
                    .compute_time = outcome.result.compute_time},
                   prediction);
  }

  // `response` counts where `status` is OK.
  void End(absl::Status status, const google::protobuf::Message& response) {
    if (status.ok()) status = SerializeResponse(response, response_bytes_);
    metrics_->CallEnded(method_, status.code());
    if (const std::optional<absl::Duration> delay = RetryAfterOf(status)) {
      context_->AddTrailingMetadata(kRetryPushback,
                                    absl::StrCat(absl::ToInt64Milliseconds(*delay)));
    }
    route_ = AdapterRoute();
    Finish(ToGrpcStatus(status));
  }

  // Why nobody waits for the answer any more; OK while somebody does. The deadline first, because
  // gRPC cancels a call when it passes.
  absl::Status Abandoned() const {
    if (deadline_ <= backend_.clock->Now()) {
      return absl::DeadlineExceededError("the deadline passed before the call was answered");
    }
    if (!cancelled_->load(std::memory_order_relaxed)) return absl::OkStatus();
    return absl::CancelledError("the caller has gone");
  }
  const PricingBackend& backend() const { return backend_; }
  // What the scheduler is asked for an item of the call.
  BatchQueue::Request RequestOf(const PriceTask& task) const {
    return {.lane = lane_,
            .caller = caller_,
            .tokens = task.tokens(),
            .deadline = deadline_,
            .replaces = task.replaces};
  }

 private:
  const absl::string_view method_;
  const PricingBackend& backend_;
  Metrics* const metrics_;
  grpc::CallbackServerContext* const context_;
  grpc::ByteBuffer* const response_bytes_;
  const std::shared_ptr<std::atomic<bool>> cancelled_ = std::make_shared<std::atomic<bool>>(false);

  AdapterRoute route_;
  PriceOptions options_;
  Lane lane_ = Lane::kOnline;
  absl::Time deadline_;
  std::string caller_;
};

class PredictPriceCall final : public PricingCall {
 public:
  using PricingCall::PricingCall;

  void Start(const grpc::ByteBuffer& request_bytes) {
    const absl::Status status = Schedule(request_bytes);
    if (!status.ok()) End(status, response_);
  }

 private:
  absl::Status Schedule(const grpc::ByteBuffer& request_bytes) {
    RETURN_IF_ERROR(ParseRequest(request_bytes, &request_));
    RETURN_IF_ERROR(Prepare(request_.adapter(), request_.options()));
    if (request_.item().ByteSizeLong() <= kMaxBytesTokenizedAtOnce) return ScheduleItem();
    return backend().pool->Submit([this] {
      const absl::Status status = ScheduleItem();
      if (!status.ok()) End(status, response_);
    });
  }

  absl::Status ScheduleItem() {
    RETURN_IF_ERROR(Abandoned());
    ASSIGN_OR_RETURN(const std::string text, ItemTextFromProto(request_.item()));
    PendingItem item;
    item.answering = AnsweringOf(request_.item(), text);
    const auto answer = [this, answering = item.answering](const PriceCache::Outcome& outcome) {
      Answer(outcome, answering);
    };
    ASSIGN_OR_RETURN(const bool reused, Reuse(text, answer, &item));
    if (reused) return absl::OkStatus();
    RETURN_IF_ERROR(CheckAdmission(request_.item(), **item.answering.adapter));
    RETURN_IF_ERROR(Encode(text, &item));
    return PricingCall::Schedule(&item);
  }

  void Answer(const PriceCache::Outcome& outcome, const Answering& answering) {
    const auto& distribution = outcome.result.distribution;
    if (distribution.ok()) Fill(outcome, answering, response_.mutable_prediction());
    End(distribution.status(), response_);
  }

  v1::PredictPriceRequest request_;
  v1::PredictPriceResponse response_;
};

// Items are queued as they are tokenized. Those that find no room wait in the call until earlier
// ones of it are done.
class BatchPredictPricesCall final : public PricingCall {
 public:
  using PricingCall::PricingCall;

  void Start(const grpc::ByteBuffer& request_bytes) {
    const absl::Status status = Submit(request_bytes);
    if (!status.ok()) End(status, response_);
  }

 private:
  // Tokenized and not yet handed to the scheduler.
  struct WaitingItem {
    PendingItem item;
    v1::ItemResult* result;
  };

  absl::Status Submit(const grpc::ByteBuffer& request_bytes) {
    RETURN_IF_ERROR(ParseRequest(request_bytes, &request_));
    RETURN_IF_ERROR(CheckItemCount(request_.items_size()));
    RETURN_IF_ERROR(Prepare(request_.adapter(), request_.options()));
    // All made here, so that each is then written by one thread alone.
    for (const v1::Item& item : request_.items()) response_.add_results()->set_id(item.id());
    pending_.store(request_.items_size() + 1, std::memory_order_relaxed);
    return backend().pool->Submit([this] { ScheduleAll(); });
  }

  void ScheduleAll() {
    bool awaits = false;  // results of items that other calls are computing
    for (int i = 0; i < request_.items_size(); ++i) {
      v1::ItemResult* const result = response_.mutable_results(i);
      PendingItem item;
      const absl::StatusOr<bool> reused = Read(request_.items(i), result, &item);
      if (!reused.ok()) ItemFailed(reused.status(), result);
      awaits = awaits || (reused.ok() && *reused);
      if (!reused.ok() || *reused) continue;
      const absl::Status refused = Queue(std::move(item), result);
      if (refused.ok()) continue;
      if (!awaits) {
        End(refused, response_);
        return;
      }
      ItemFailed(refused, result);
    }
    OneDone();
  }

  // Tokenizes the item unless it can be answered without; true = its result comes or is there.
  absl::StatusOr<bool> Read(const v1::Item& proto, v1::ItemResult* result, PendingItem* item) {
    RETURN_IF_ERROR(Abandoned());
    ASSIGN_OR_RETURN(const std::string text, ItemTextFromProto(proto));
    item->answering = AnsweringOf(proto, text);
    const auto done = [this, answering = item->answering,
                       result](const PriceCache::Outcome& outcome) {
      ItemDone(outcome, answering, /*queue_tokens=*/0, result);
    };
    ASSIGN_OR_RETURN(const bool reused, Reuse(text, done, item));
    if (!reused) RETURN_IF_ERROR(Encode(text, item));
    return reused;
  }

  // Queues the item now or later. An error, which only an item before which none was queued can
  // have, is the call's unless it waits for results already.
  absl::Status Queue(PendingItem item, v1::ItemResult* result) {
    const int64_t tokens = item.task.tokens();
    item.asker.done = [this, answering = item.answering, tokens,
                       result](const PriceCache::Outcome& outcome) {
      ItemDone(outcome, answering, tokens, result);
    };
    MutexLock lock(&mutex_);
    if (most_tokens_ == 0) {
      RETURN_IF_ERROR(PricingCall::Schedule(&item));
      most_tokens_ = queued_tokens_ = tokens;
      return absl::OkStatus();
    }
    waiting_.push_back({std::move(item), result});
    QueueWaiting();
    return absl::OkStatus();
  }

  // Hands over what there is room for: in the queue, and in this call's share of it. A call keeps
  // the room it once had, though others have filled the queue; so while items wait, others of the
  // call are queued or computed, and their end brings them here.
  void QueueWaiting() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    BatchScheduler& scheduler = *backend().scheduler;
    const int64_t share = kMaxBatchesPerCall * scheduler.options().max_batch_tokens;
    while (!waiting_.empty()) {
      WaitingItem& next = waiting_.front();
      PriceTask& task = next.item.task;
      const int64_t tokens = task.tokens();
      const int64_t queued = queued_tokens_ + tokens;
      task.replaces = queued_tokens_ == 0 || queued <= most_tokens_;
      if (!task.replaces && (queued > share || !scheduler.HasRoom(RequestOf(task)))) return;
      absl::Status status = Abandoned();
      if (status.ok()) status = PricingCall::Schedule(&next.item);
      if (absl::IsResourceExhausted(status)) return;
      if (status.ok()) {
        queued_tokens_ = queued;
        most_tokens_ = std::max(most_tokens_, queued);
      } else {
        ItemFailed(status, next.result);
      }
      waiting_.pop_front();
    }
  }

  void ItemDone(const PriceCache::Outcome& outcome, const Answering& answering,
                int64_t queue_tokens, v1::ItemResult* result) {
    if (queue_tokens > 0) {
      // Before this item is counted as done: until then the call cannot end.
      MutexLock lock(&mutex_);
      queued_tokens_ -= queue_tokens;
      QueueWaiting();
    }
    if (!outcome.result.distribution.ok()) {
      ItemFailed(outcome.result.distribution.status(), result);
      return;
    }
    Fill(outcome, answering, result->mutable_prediction());
    OneDone();
  }

  void ItemFailed(const absl::Status& status, v1::ItemResult* result) {
    result->mutable_error()->set_code(static_cast<int>(ToGrpcStatus(status).error_code()));
    result->mutable_error()->set_message(ToValidUtf8(status.message()));
    OneDone();
  }

  void OneDone() {
    if (pending_.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
    End(Abandoned(), response_);
  }

  v1::BatchPredictPricesRequest request_;
  v1::BatchPredictPricesResponse response_;
  // Items without a result, and one more for the loop that queues them.
  std::atomic<int> pending_{0};

  Mutex mutex_;
  std::deque<WaitingItem> waiting_ ABSL_GUARDED_BY(mutex_);
  // Of this call's tasks that the scheduler has: now, and at most so far.
  int64_t queued_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t most_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace

absl::StatusOr<const PricingBackend*> PricingService::Backend() const {
  if (refusing_.load(std::memory_order_relaxed)) {
    return absl::UnavailableError("the server is stopping");
  }
  const PricingBackend* const backend = backend_.load(std::memory_order_acquire);
  if (backend == nullptr) return absl::UnavailableError("the server is starting");
  return backend;
}

namespace {

template <typename Call>
grpc::ServerUnaryReactor* StartCall(absl::string_view method,
                                    const absl::StatusOr<const PricingBackend*>& backend,
                                    Metrics* metrics, grpc::CallbackServerContext* context,
                                    const grpc::ByteBuffer& request, grpc::ByteBuffer* response) {
  if (!backend.ok()) {
    metrics->CallEnded(method, backend.status().code());
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(ToGrpcStatus(backend.status()));
    return reactor;
  }
  // Deletes itself when gRPC is done with it.
  Call* const call = new Call(method, **backend, metrics, context, response);
  call->Start(request);
  return call;
}

}  // namespace

grpc::ServerUnaryReactor* PricingService::PredictPrice(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request,
                                                       grpc::ByteBuffer* response) {
  return StartCall<PredictPriceCall>("PredictPrice", Backend(), metrics_, context, *request,
                                     response);
}

grpc::ServerUnaryReactor* PricingService::BatchPredictPrices(grpc::CallbackServerContext* context,
                                                             const grpc::ByteBuffer* request,
                                                             grpc::ByteBuffer* response) {
  return StartCall<BatchPredictPricesCall>("BatchPredictPrices", Backend(), metrics_, context,
                                           *request, response);
}

}  // namespace pricer
