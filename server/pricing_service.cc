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
  // What is known of an item before it is computed.
  struct ItemFacts {
    int prompt_tokens = 0;
    bool truncated = false;
    int64_t queue_tokens = 0;  // PriceTask::tokens()
  };
  using DoneFunction = std::function<void(TaskResult result, const ItemFacts& facts)>;

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
    ItemFacts facts;
    facts.prompt_tokens = static_cast<int>(prompt.ids.size());
    facts.truncated = prompt.truncated;
    PriceTask task;
    task.ids = std::move(prompt.ids);
    task.adapter = adapter_;
    task.extra_rows = adapter_->extra_rows();
    facts.queue_tokens = task.tokens();
    task.deadline = deadline_;
    task.cancelled = cancelled_;
    task.done = [done = std::move(done), facts](TaskResult result) {
      done(std::move(result), facts);
    };
    return task;
  }

  void Fill(const TaskResult& result, const ItemFacts& facts, v1::Prediction* prediction) const {
    FillPrediction(*result.distribution, options_,
                   {.adapter = *adapter_,
                    .model_fingerprint = backend_.engine->info().model_fingerprint,
                    .prompt_tokens = facts.prompt_tokens,
                    .truncated = facts.truncated,
                    .queue_time = result.queue_time,
                    .compute_time = result.compute_time},
                   prediction);
  }

  // `response` counts where `status` is OK.
  void End(absl::Status status, const google::protobuf::Message& response) {
    if (status.ok()) status = SerializeResponse(response, response_bytes_);
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
  grpc::ByteBuffer* const response_bytes_;
  const std::shared_ptr<std::atomic<bool>> cancelled_ = std::make_shared<std::atomic<bool>>(false);

  AdapterHandle adapter_;
  PriceOptions options_;
  absl::Time deadline_;
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
    ASSIGN_OR_RETURN(PriceTask task, MakeTask(request_.item(), [this](const TaskResult& result,
                                                                      const ItemFacts& facts) {
                       if (result.distribution.ok()) {
                         Fill(result, facts, response_.mutable_prediction());
                       }
                       End(result.distribution.status(), response_);
                     }));
    return backend().scheduler->Schedule(std::move(task));
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
    PriceTask task;
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
    for (int i = 0; i < request_.items_size(); ++i) {
      v1::ItemResult* const result = response_.mutable_results(i);
      absl::StatusOr<PriceTask> task = MakeItemTask(request_.items(i), result);
      if (!task.ok()) {
        ItemFailed(task.status(), result);
        continue;
      }
      const absl::Status refused = Queue(*std::move(task), result);
      if (refused.ok()) continue;
      End(refused, response_);
      return;
    }
    OneDone();
  }

  // Queues the item now or later. An error, which only the first item that comes here can have, is
  // the call's: nothing of it is queued.
  absl::Status Queue(PriceTask task, v1::ItemResult* result) {
    MutexLock lock(&mutex_);
    if (most_tokens_ == 0) {
      const int64_t tokens = task.tokens();
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
      const int64_t tokens = next.task.tokens();
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

  void ItemDone(const TaskResult& task, const ItemFacts& facts, v1::ItemResult* result) {
    {
      // Before this item is counted as done: until then the call cannot end.
      MutexLock lock(&mutex_);
      queued_tokens_ -= facts.queue_tokens;
      QueueWaiting();
    }
    if (!task.distribution.ok()) {
      ItemFailed(task.distribution.status(), result);
      return;
    }
    Fill(task, facts, result->mutable_prediction());
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

  absl::StatusOr<PriceTask> MakeItemTask(const v1::Item& item, v1::ItemResult* result) {
    RETURN_IF_ERROR(Abandoned());
    return MakeTask(item, [this, result](const TaskResult& task, const ItemFacts& facts) {
      ItemDone(task, facts, result);
    });
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
