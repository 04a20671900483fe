#include "server/pricing_service.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "server/grpc_status.h"
#include "server/proto_text.h"

namespace pricer {
namespace {

// Of one call in the scheduler at once. Keeps all batches full and leaves the queue to other
// callers.
constexpr int64_t kMaxBatchesPerCall = 2;
constexpr char kRetryPushback[] = "grpc-retry-pushback-ms";

// What all items of a call share. Lives from the call's start to OnDone, which gRPC calls after
// Finish alone; whoever finishes the call is therefore the last to touch it.
class PricingCall : public grpc::ServerUnaryReactor {
 public:
  PricingCall(absl::string_view method, const PricingBackend& backend, Metrics* metrics,
              grpc::CallbackServerContext* context)
      : method_(method), backend_(backend), metrics_(metrics), context_(context) {}

  void OnCancel() override { cancelled_->store(true, std::memory_order_relaxed); }
  void OnDone() override { delete this; }

 protected:
  using DoneFunction = std::function<void(TaskResult result, int prompt_tokens, bool truncated)>;

  // Takes the adapter version that the whole call is answered with.
  absl::Status Prepare(const v1::AdapterSpec& adapter, const v1::PredictOptions& options) {
    ASSIGN_OR_RETURN(options_, OptionsFromProto(options));
    ASSIGN_OR_RETURN(const AdapterChoice choice, ChoiceFromProto(adapter));
    ASSIGN_OR_RETURN(adapter_, backend_.registry->Find(choice.name, choice.version));
    deadline_ = absl::FromChrono(context_->deadline());
    return absl::OkStatus();
  }

  // Tokenizes the item.
  absl::StatusOr<PriceTask> MakeTask(const v1::Item& item, DoneFunction done) const {
    ASSIGN_OR_RETURN(const std::string text, ItemTextFromProto(item));
    absl::StatusOr<EncodedPrompt> encoded =
        backend_.engine->Encode(adapter_->manifest.prompt, text);
    if (!encoded.ok()) {
      return absl::Status(encoded.status().code(),
                          absl::StrCat("item: ", encoded.status().message()));
    }
    EncodedPrompt prompt = *std::move(encoded);
    const int prompt_tokens = static_cast<int>(prompt.ids.size());
    PriceTask task;
    task.ids = std::move(prompt.ids);
    task.adapter = adapter_;
    task.deadline = deadline_;
    task.cancelled = cancelled_;
    task.done = [done = std::move(done), prompt_tokens, truncated = prompt.truncated](
                    TaskResult result) { done(std::move(result), prompt_tokens, truncated); };
    return task;
  }

  void Fill(const TaskResult& result, int prompt_tokens, bool truncated,
            v1::Prediction* prediction) const {
    FillPrediction(*result.distribution, options_,
                   {.adapter = *adapter_,
                    .model_fingerprint = backend_.engine->info().model_fingerprint,
                    .prompt_tokens = prompt_tokens,
                    .truncated = truncated,
                    .queue_time = result.queue_time,
                    .compute_time = result.compute_time},
                   prediction);
  }

  void End(const absl::Status& status) {
    metrics_->CallEnded(method_, status.code());
    if (absl::IsResourceExhausted(status)) {
      context_->AddTrailingMetadata(
          kRetryPushback,
          absl::StrCat(absl::ToInt64Milliseconds(backend_.scheduler->RetryDelay())));
    }
    adapter_.reset();
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

 private:
  const absl::string_view method_;
  const PricingBackend& backend_;
  Metrics* const metrics_;
  grpc::CallbackServerContext* const context_;
  const std::shared_ptr<std::atomic<bool>> cancelled_ = std::make_shared<std::atomic<bool>>(false);

  AdapterHandle adapter_;
  PriceOptions options_;
  absl::Time deadline_;
};

class PredictPriceCall final : public PricingCall {
 public:
  using PricingCall::PricingCall;

  void Start(const v1::PredictPriceRequest& request, v1::PredictPriceResponse* response) {
    absl::Status status = Prepare(request.adapter(), request.options());
    if (status.ok()) status = ScheduleItem(request.item(), response);
    if (!status.ok()) End(status);
  }

 private:
  absl::Status ScheduleItem(const v1::Item& item, v1::PredictPriceResponse* response) {
    ASSIGN_OR_RETURN(
        PriceTask task,
        MakeTask(item, [this, response](TaskResult result, int prompt_tokens, bool truncated) {
          if (result.distribution.ok()) {
            Fill(result, prompt_tokens, truncated, response->mutable_prediction());
          }
          End(result.distribution.status());
        }));
    return backend().scheduler->Schedule(std::move(task));
  }
};

// Items are queued as they are tokenized. Those that find no room wait in the call until earlier
// ones of it are done.
class BatchPredictPricesCall final : public PricingCall {
 public:
  using PricingCall::PricingCall;

  void Start(const v1::BatchPredictPricesRequest& request,
             v1::BatchPredictPricesResponse* response) {
    absl::Status status = CheckItemCount(request.items_size());
    if (status.ok()) status = Prepare(request.adapter(), request.options());
    if (status.ok()) {
      // All made here, so that each is then written by one thread alone.
      for (const v1::Item& item : request.items()) response->add_results()->set_id(item.id());
      pending_.store(request.items_size() + 1, std::memory_order_relaxed);
      status =
          backend().pool->Submit([this, &request, response] { ScheduleAll(request, response); });
    }
    if (!status.ok()) {
      response->Clear();
      End(status);
    }
  }

 private:
  // Tokenized and not yet handed to the scheduler.
  struct WaitingItem {
    PriceTask task;
    v1::ItemResult* result;
  };

  void ScheduleAll(const v1::BatchPredictPricesRequest& request,
                   v1::BatchPredictPricesResponse* response) {
    for (int i = 0; i < request.items_size(); ++i) {
      v1::ItemResult* const result = response->mutable_results(i);
      absl::StatusOr<PriceTask> task = MakeItemTask(request.items(i), result);
      if (!task.ok()) {
        ItemFailed(task.status(), result);
        continue;
      }
      const absl::Status refused = Queue(*std::move(task), result);
      if (refused.ok()) continue;
      response->Clear();
      End(refused);
      return;
    }
    OneDone();
  }

  // Queues the item now or later. An error, which only the first item that comes here can have, is
  // the call's: nothing of it is queued.
  absl::Status Queue(PriceTask task, v1::ItemResult* result) {
    MutexLock lock(&mutex_);
    if (most_tokens_ == 0) {
      const auto tokens = static_cast<int64_t>(task.ids.size());
      RETURN_IF_ERROR(backend().scheduler->Schedule(std::move(task)));
      most_tokens_ = queued_tokens_ = tokens;
      return absl::OkStatus();
    }
    waiting_.push_back({std::move(task), result});
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
      const auto tokens = static_cast<int64_t>(next.task.ids.size());
      const int64_t queued = queued_tokens_ + tokens;
      next.task.replaces = queued_tokens_ == 0 || queued <= most_tokens_;
      if (!next.task.replaces && (queued > share || !scheduler.HasRoom(tokens))) return;
      absl::Status status = Abandoned();
      if (status.ok()) status = scheduler.Schedule(std::move(next.task));
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

  void ItemDone(const TaskResult& task, int prompt_tokens, bool truncated, v1::ItemResult* result) {
    {
      // Before this item is counted as done: until then the call cannot end.
      MutexLock lock(&mutex_);
      queued_tokens_ -= prompt_tokens;
      QueueWaiting();
    }
    if (!task.distribution.ok()) {
      ItemFailed(task.distribution.status(), result);
      return;
    }
    Fill(task, prompt_tokens, truncated, result->mutable_prediction());
    OneDone();
  }

  void ItemFailed(const absl::Status& status, v1::ItemResult* result) {
    result->mutable_error()->set_code(static_cast<int>(ToGrpcStatus(status).error_code()));
    result->mutable_error()->set_message(ToValidUtf8(status.message()));
    OneDone();
  }

  void OneDone() {
    if (pending_.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
    End(Abandoned());
  }

  absl::StatusOr<PriceTask> MakeItemTask(const v1::Item& item, v1::ItemResult* result) {
    RETURN_IF_ERROR(Abandoned());
    return MakeTask(item, [this, result](TaskResult task, int prompt_tokens, bool truncated) {
      ItemDone(task, prompt_tokens, truncated, result);
    });
  }

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

template <typename Call, typename Request, typename Response>
grpc::ServerUnaryReactor* StartCall(absl::string_view method,
                                    const absl::StatusOr<const PricingBackend*>& backend,
                                    Metrics* metrics, grpc::CallbackServerContext* context,
                                    const Request& request, Response* response) {
  if (!backend.ok()) {
    metrics->CallEnded(method, backend.status().code());
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(ToGrpcStatus(backend.status()));
    return reactor;
  }
  // Deletes itself when gRPC is done with it.
  Call* const call = new Call(method, **backend, metrics, context);
  call->Start(request, response);
  return call;
}

}  // namespace

grpc::ServerUnaryReactor* PricingService::PredictPrice(grpc::CallbackServerContext* context,
                                                       const v1::PredictPriceRequest* request,
                                                       v1::PredictPriceResponse* response) {
  return StartCall<PredictPriceCall>("PredictPrice", Backend(), metrics_, context, *request,
                                     response);
}

grpc::ServerUnaryReactor* PricingService::BatchPredictPrices(
    grpc::CallbackServerContext* context, const v1::BatchPredictPricesRequest* request,
    v1::BatchPredictPricesResponse* response) {
  return StartCall<BatchPredictPricesCall>("BatchPredictPrices", Backend(), metrics_, context,
                                           *request, response);
}

}  // namespace pricer
