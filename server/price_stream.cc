#include "server/price_stream.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/call_deadline.h"
#include "server/call_queue.h"
#include "server/grpc_status.h"
#include "server/retry_after.h"
#include "server/wire_message.h"

namespace pricer {
namespace {

constexpr char kMethod[] = "StreamPredictPrices";
// Read, and their results not written yet; what one message holds may come on top.
constexpr int64_t kMaxOutstandingItems = 1024;
// Results that are ready go out together.
constexpr int kMaxResultsPerMessage = 256;

}  // namespace

// gRPC calls OnReadDone, OnWriteDone and OnCancel on threads of its own; items are done on the
// scheduler's thread for answers; a message is taken apart on the pool. Whoever changes the state
// does so by Update, which has one thread at a time start what the state asks for: a read, a write,
// the end. After the end the stream may be gone, so nothing is touched after Update but by gRPC's
// own callbacks, which it waits for.
class PriceStream final : public PriceStreamReactor {
 public:
  PriceStream(const PricingDoor* door, PricingDoor::Admitted admitted, PriceStreams* streams,
              grpc::CallbackServerContext* context)
      : streams_(streams),
        door_(door),
        context_(context),
        tags_(std::move(admitted.tags)),
        call_(admitted.backend, door->metrics()),
        queue_(&call_) {}

  // Before gRPC knows of the stream: nothing of it happens until this has returned.
  void Start() {
    if (const absl::Status status = streams_->Add(this, tags_.caller); !status.ok()) {
      Fail(status);
    } else {
      StartRead(&request_bytes_);
    }
  }

  // Reads no more; ends once what was read is answered.
  void Fail(const absl::Status& status) {
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      if (failure_.ok()) failure_ = status;
    });
  }

  void OnReadDone(bool ok) override {
    bool take = false;
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      reading_ = false;
      take = taking_apart_ = ok && failure_.ok() && !cancelled_;
      reads_done_ = !take;
    });
    if (!take) return;
    // A stream that was let in waits its turn for the pool, with one message at most.
    const absl::Status status = call_.backend().pool->SubmitOngoing([this] { TakeApart(); });
    if (!status.ok()) TakenApart(status);
  }

  void OnWriteDone(bool ok) override {
    if (!ok) call_.Cancel();
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      writing_ = false;
      outstanding_ -= being_written_;
      // Nobody reads any more.
      if (!ok) cancelled_ = true;
    });
  }

  void OnCancel() override {
    call_.Cancel();
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { cancelled_ = true; });
  }

  void OnDone() override {
    streams_->Remove(this, tags_.caller);
    delete this;
  }

 private:
  void TakeApart() { TakenApart(TakeItems()); }

  absl::Status TakeItems() {
    v1::StreamPredictPricesRequest request;
    RETURN_IF_ERROR(ParseRequest(request_bytes_, &request));
    request_bytes_.Clear();
    RETURN_IF_ERROR(Prepare(request));
    if (request.items_size() > kMaxItemsPerMessage) {
      return absl::InvalidArgumentError(absl::StrCat("items: expected at most ",
                                                     kMaxItemsPerMessage, " a message, got ",
                                                     request.items_size()));
    }
    for (const v1::Item& item : request.items()) RETURN_IF_ERROR(Take(item));
    return absl::OkStatus();
  }

  absl::Status Prepare(const v1::StreamPredictPricesRequest& request) {
    if (!prepared_) {
      prepared_ = true;
      return call_.Prepare(request.adapter(), request.options(), CallDeadline(*context_),
                           tags_.caller);
    }
    if (!request.has_adapter() && !request.has_options()) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(request.has_adapter() ? "adapter" : "options",
                                                   ": given in a later message than the first"));
  }

  // An error is the whole stream's.
  absl::Status Take(const v1::Item& item) {
    const int64_t index = next_index_++;
    bool is_alone = false;
    {
      MutexLock lock(&mutex_);
      is_alone = outstanding_ == 0;
      ++outstanding_;
    }
    const PricingCall::DoneFunction done = [this, index, id = item.id()](
                                               const PriceCache::Outcome& outcome,
                                               const PricingCall::Answering& answering) {
      ItemDone(index, id, outcome, answering);
    };
    PricingCall::PendingItem pending;
    const absl::StatusOr<bool> reused = call_.Read(item, /*ask_first=*/false, done, &pending);
    if (reused.ok() && *reused) return absl::OkStatus();
    absl::Status status = reused.status();
    bool found_room = true;
    if (status.ok()) {
      status = queue_.Add(std::move(pending), done);
      found_room = status.ok();
    }
    if (status.ok()) return status;
    if (!found_room && is_alone) {
      MutexLock lock(&mutex_);
      --outstanding_;
      return status;
    }
    v1::ItemResult result;
    result.set_id(item.id());
    FillError(status, result.mutable_error());
    Answer(index, std::move(result));
    return absl::OkStatus();
  }

  void TakenApart(const absl::Status& status) {
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      taking_apart_ = false;
      if (failure_.ok()) failure_ = status;
    });
  }

  void ItemDone(int64_t index, const std::string& id, const PriceCache::Outcome& outcome,
                const PricingCall::Answering& answering) {
    v1::ItemResult result;
    result.set_id(id);
    if (outcome.result.distribution.ok()) {
      call_.Fill(outcome, answering, result.mutable_prediction());
    } else {
      FillError(outcome.result.distribution.status(), result.mutable_error());
    }
    Answer(index, std::move(result));
  }

  void Answer(int64_t index, v1::ItemResult result) {
    Update([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      v1::StreamItemResult& out = results_.emplace_back();
      out.set_index(index);
      *out.mutable_result() = std::move(result);
    });
  }

  // What the state asks for.
  struct Step {
    bool read = false;
    std::optional<v1::StreamPredictPricesResponse> response;
    std::optional<absl::Status> end;
  };

  template <typename Change>
  void Update(const Change& change) {
    {
      MutexLock lock(&mutex_);
      change();
      changed_ = true;
      if (stepping_) return;
      stepping_ = true;
    }
    while (true) {
      Step step;
      {
        MutexLock lock(&mutex_);
        if (!changed_) {
          stepping_ = false;
          return;
        }
        changed_ = false;
        step = NextStep();
      }
      if (step.read) StartRead(&request_bytes_);
      if (step.response.has_value()) {
        response_bytes_.Clear();
        // Cannot fail for a message that was just made.
        SerializeResponse(*step.response, &response_bytes_).IgnoreError();
        StartWrite(&response_bytes_);
      }
      if (step.end.has_value()) {
        // Nobody steps after this.
        End(*step.end);
        return;
      }
    }
  }

  Step NextStep() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    Step step;
    if (cancelled_) {
      outstanding_ -= static_cast<int64_t>(results_.size());
      results_.clear();
    }
    if (!writing_ && !results_.empty()) step.response = NextResponse();
    const bool ending = reads_done_ || !failure_.ok() || cancelled_;
    step.read = !ending && !reading_ && !taking_apart_ && outstanding_ < kMaxOutstandingItems;
    if (step.read) reading_ = true;
    if (ending && !taking_apart_ && !writing_ && outstanding_ == 0) {
      step.end = failure_.ok() && cancelled_ ? call_.Abandoned() : failure_;
    }
    return step;
  }

  v1::StreamPredictPricesResponse NextResponse() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    v1::StreamPredictPricesResponse response;
    while (!results_.empty() && response.results_size() < kMaxResultsPerMessage) {
      *response.add_results() = std::move(results_.front());
      results_.pop_front();
    }
    being_written_ = response.results_size();
    writing_ = true;
    return response;
  }

  void End(const absl::Status& status) {
    door_->Ended(kMethod, status, tags_);
    AddRetryPushback(status, context_);
    call_.Release();
    Finish(ToGrpcStatus(status));
  }

  PriceStreams* const streams_;
  const PricingDoor* const door_;
  grpc::CallbackServerContext* const context_;
  const CallTags tags_;
  PricingCall call_;
  CallQueue queue_;

  // Of whoever takes a message apart.
  bool prepared_ = false;
  int64_t next_index_ = 0;
  // gRPC's while it reads and writes.
  grpc::ByteBuffer request_bytes_;
  grpc::ByteBuffer response_bytes_;

  Mutex mutex_;
  bool reading_ ABSL_GUARDED_BY(mutex_) = true;
  bool reads_done_ ABSL_GUARDED_BY(mutex_) = false;
  bool taking_apart_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  // A thread starts what is asked for, and what it has not seen yet.
  bool stepping_ ABSL_GUARDED_BY(mutex_) = false;
  bool changed_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  // Items whose results have not been written.
  int64_t outstanding_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t being_written_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<v1::StreamItemResult> results_ ABSL_GUARDED_BY(mutex_);
};

absl::Status PriceStreams::Add(PriceStream* stream, const std::string& caller) {
  MutexLock lock(&mutex_);
  if (ending_) return absl::UnavailableError("the server is stopping");
  int& count = by_caller_[caller];
  if (count >= kMaxStreamsPerCaller) {
    return absl::ResourceExhaustedError(
        absl::StrCat("streams: expected at most ", kMaxStreamsPerCaller, " at once of ", caller));
  }
  ++count;
  streams_.insert(stream);
  return absl::OkStatus();
}

void PriceStreams::Remove(PriceStream* stream, const std::string& caller) {
  MutexLock lock(&mutex_);
  if (streams_.erase(stream) == 0) return;
  const auto count = by_caller_.find(caller);
  if (--count->second == 0) by_caller_.erase(count);
}

void PriceStreams::EndAll() {
  MutexLock lock(&mutex_);
  ending_ = true;
  // A stream that is removed waits for the lock, so that those in the set are there.
  for (PriceStream* const stream : streams_) {
    stream->Fail(absl::UnavailableError("the server is stopping"));
  }
}

PriceStreamReactor* StartPriceStream(const PricingDoor* door, PricingDoor::Admitted admitted,
                                     PriceStreams* streams, grpc::CallbackServerContext* context) {
  auto* const stream = new PriceStream(door, std::move(admitted), streams, context);
  stream->Start();
  return stream;
}

}  // namespace pricer
