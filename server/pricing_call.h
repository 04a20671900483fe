#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/steady_clock.h"
#include "pricer/v1/pricing.pb.h"
#include "server/adapter_registry.h"
#include "server/adapter_route.h"
#include "server/batch_queue.h"
#include "server/batch_scheduler.h"
#include "server/engine.h"
#include "server/metrics.h"
#include "server/price_answer.h"
#include "server/price_cache.h"
#include "server/price_task.h"
#include "server/worker_pool.h"

namespace pricer {

// What calls are answered with. All outlive the calls.
struct PricingBackend {
  const Engine* engine = nullptr;
  const AdapterRegistry* registry = nullptr;
  BatchScheduler* scheduler = nullptr;
  PriceCache* cache = nullptr;
  // Tokenizes long items and those of calls with many, so that they hold up neither small calls nor
  // probes.
  WorkerPool* pool = nullptr;
  const Clock* clock = SteadyClock();
};

// What all items of a call share, whatever kind of call it is, and an item's way from the message
// to the scheduler and back. Lives until the last of its items is done. Thread-safe after Prepare.
class PricingCall {
 public:
  // Which version answers an item, and the label that led to it. Both live as long as the call.
  struct Answering {
    const AdapterHandle* adapter = nullptr;
    absl::string_view label;
  };
  // Mostly called on the scheduler's thread for answers: it must not block.
  using DoneFunction = std::function<void(PriceCache::Outcome outcome, const Answering& answering)>;
  // An item that is tokenized and not yet handed over.
  struct PendingItem {
    Answering answering;
    PriceCache::Key key;
    PriceTask task;
    PriceCache::PromptFacts prompt;
    PriceCache::Asker asker;
  };

  // Both must outlive the call.
  PricingCall(const PricingBackend* backend, Metrics* metrics)
      : backend_(backend), metrics_(metrics) {}

  // Takes the adapter versions that the whole call is answered with. `caller` is whose share of the
  // queue it takes. Once, before all else.
  absl::Status Prepare(const v1::AdapterSpec& adapter, const v1::PredictOptions& options,
                       absl::Time deadline, const std::string& caller);

  // Nobody waits for the answer any more.
  void Cancel() { cancelled_->store(true, std::memory_order_relaxed); }
  // Why nobody does; OK while somebody does.
  absl::Status Abandoned() const;

  // Answers the item from what is known, or joins it to the same item of another call: true, and
  // `done` is called, perhaps before this returns. Else false, and it is tokenized; the item's
  // `asker` has no `done` yet. `ask_first`: is refused before it is tokenized where the scheduler
  // would refuse so many bytes.
  absl::StatusOr<bool> Read(const v1::Item& proto, bool ask_first, const DoneFunction& done,
                            PendingItem* item) const;

  // Hands the item over; `done` is called unless this returns an error, by which `item` is as it
  // was but for its asker's `done`.
  absl::Status Schedule(PendingItem* item, const DoneFunction& done) const;

  // What the scheduler is asked for an item of the call.
  BatchQueue::Request RequestOf(const PriceTask& task) const;

  // REQUIRES: the outcome has a distribution.
  void Fill(const PriceCache::Outcome& outcome, const Answering& answering,
            v1::Prediction* prediction) const;

  // Lets go of the adapter versions. REQUIRES: no item is on its way.
  void Release() { route_ = AdapterRoute(); }

  const PricingBackend& backend() const { return *backend_; }

 private:
  Answering AnsweringOf(const v1::Item& item, absl::string_view text) const;
  absl::Status CheckAdmission(const v1::Item& item, const LoadedAdapter& adapter) const;
  absl::Status Encode(const std::string& text, PendingItem* item) const;
  void AddShadow(const std::string& text, PriceTask* task) const;

  const PricingBackend* const backend_;
  Metrics* const metrics_;
  const std::shared_ptr<std::atomic<bool>> cancelled_ = std::make_shared<std::atomic<bool>>(false);

  AdapterRoute route_;
  PriceOptions options_;
  Lane lane_ = Lane::kOnline;
  bool no_cache_ = false;
  absl::Time deadline_ = absl::InfiniteFuture();
  std::string caller_;
};

// Writes an error as it stands beside other items' results.
void FillError(const absl::Status& status, v1::ItemError* error);

}  // namespace pricer
