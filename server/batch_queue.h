#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/batch_cost.h"
#include "server/lane.h"
#include "server/metrics.h"
#include "server/price_task.h"

namespace pricer {

struct BatchSchedulerOptions {
  // Tokens of one batch, with the rows of price trees. More makes better use of the processor and
  // makes a request that has just missed a batch wait longer. A single longer item is computed
  // alone.
  int64_t max_batch_tokens = 2048;
  // Tokens of each lane that may wait; beyond them tasks are refused at once, but for those that
  // replace others: about a batch more. At least max_batch_tokens.
  int64_t max_queue_tokens = 65536;
  // Of the tokens computed while tasks of both lanes wait, the least share that are bulk.
  double min_bulk_share = 0.1;
  // Most tokens a second of a caller, by its name; who is not named has no such limit. A second's
  // worth may come at once.
  std::map<std::string, double> quotas = {};

  absl::Status Validate() const;
};

// Which tasks wait, which may, and in which order they are computed: the rules of the batch
// scheduler without its thread. All times are given, so that a test decides what time it is. Not
// thread-safe.
//
// Order. The server's own tasks come first. Of each lane, callers take turns so that those with
// tasks waiting get equal shares of the tokens (start-time fair queueing, Goyal et al. 1996); of
// one caller, and of callers that are equally far, the task comes first that must be started first
// to meet its deadline. One without a deadline must be started kPatience after it came.
//
// Lanes. A batch takes online tasks, then bulk tasks into what is left of it. While both wait, bulk
// has a credit of min_bulk_share of every batch, and what it affords comes before online tasks: so
// bulk never starves, and an online task waits because of bulk for the batch that is being computed
// and for that share.
//
// Room. Each lane holds max_queue_tokens. A caller may hold kShareOfFree times what is free in the
// lane (dynamic thresholds, Choudhury and Hahne 1998): one alone nearly all of it, several equal
// parts, and there is always room for one more.
//
// Parking. A task whose adapter's tensors are not in memory is parked: it counts in the queue as
// any other, and takes its place in the order when they are there.
//
// Deadlines. A task that cannot be computed before its deadline, at the speed of the latest batches
// and behind what comes before it, is refused; of the time that it can wait, a part is kept back
// for the batch that will be made around it. A batch closes before it makes one of its tasks late.
// Tasks whose deadline has passed or cannot be met any more, or whose caller has gone, are dropped
// instead of taken, but for the last one, which is tried. What was learnt of the speed is not held
// against a task that comes to an idle predictor kTrust after the latest batch, so that a server
// that was slow once finds out that it no longer is.
class BatchQueue {
 public:
  static constexpr absl::Duration kPatience = absl::Seconds(30);
  static constexpr int64_t kShareOfFree = 8;
  static constexpr absl::Duration kTrust = absl::Milliseconds(200);

  struct Waiting {
    PriceTask task;
    absl::Time admitted;
    // Of a dropped task: that its deadline could not be met, or why its adapter could not be
    // fetched; OK = it was dropped otherwise.
    absl::Status failure = absl::OkStatus();
    DropReason failed_by = DropReason::kAdapter;
  };
  // Gives a task its tensors. Leaves it without where they are still to be fetched; an error = they
  // cannot be.
  using Acquire = std::function<absl::Status(PriceTask* task)>;
  struct Taken {
    std::vector<Waiting> batch;
    std::vector<Waiting> dropped;
    int64_t tokens = 0;  // of the batch
    // The first of its tasks' deadlines, but for one that was tried though it is late.
    absl::Time done_by = absl::InfiniteFuture();
  };
  // What admission asks of a task, which need not be tokenized yet.
  struct Request {
    Lane lane = Lane::kOnline;
    const std::string& caller;
    int64_t tokens = 0;
    absl::Time deadline = absl::InfiniteFuture();
    bool internal = false;
    bool replaces = false;
  };
  struct Refusal {
    absl::Status status;  // OK = admitted
    RefusalReason reason = RefusalReason::kQueueFull;
  };

  explicit BatchQueue(const BatchSchedulerOptions& options);
  BatchQueue(const BatchQueue&) = delete;
  BatchQueue& operator=(const BatchQueue&) = delete;

  // Whether such a task would be admitted now. ResourceExhausted, which says when to try again
  // (server/retry_after.h): the lane is full, or the caller's share of it, or its quota used up.
  // DeadlineExceeded: the deadline has passed or cannot be met.
  Refusal Check(const Request& request, absl::Time now);
  // Takes the task where Check says so and `acquire`, where there is one, gives no error; else it
  // is as it was. It is parked where `acquire` leaves it without tensors.
  Refusal Admit(PriceTask&& task, absl::Time now, const Acquire& acquire = nullptr);

  // Tasks parked for an adapter are asked for their tensors again.
  void Unpark(const LoadedAdapter* adapter, const Acquire& acquire);
  // They are dropped instead.
  void FailParked(const LoadedAdapter* adapter, const absl::Status& status);

  // The next batch, and what was dropped on the way to it; with `give_up` all is dropped, parked
  // tasks as well. The batch is empty where nothing else waits.
  Taken Take(absl::Time now, bool give_up = false);

  // A batch of so many tokens is computed from now on; it was computed.
  void BatchStarted(int64_t tokens, absl::Time now);
  void BatchEnded(int64_t tokens, absl::Duration time, absl::Time now);

  bool empty() const { return items_ == 0 && swept_.empty(); }
  // Whether Take has something to give: more than parked tasks wait.
  bool ready() const { return items_ > parked_items_ || !swept_.empty(); }
  bool has_parked() const { return parked_items_ > 0; }
  int64_t items() const { return items_; }
  int64_t tokens(Lane lane) const { return lanes_[static_cast<int>(lane)].tokens; }
  const BatchCost& cost() const { return cost_; }
  // Until about a batch has left the queue.
  absl::Duration RetryDelay(absl::Time now) const;

 private:
  // When a task must be started, and its number in the order of arrival.
  using Turn = std::pair<absl::Time, uint64_t>;
  struct Caller {
    std::string name;
    double virtual_time = 0;  // tokens that it was served, as fair queueing counts them
    int64_t tokens = 0;
    std::map<Turn, Waiting> waiting;
  };
  struct Parked {
    Waiting waiting;
    Turn turn;
  };
  struct Place {
    double virtual_time;
    Turn first;
    Caller* caller;
    auto operator<=>(const Place&) const = default;
  };
  struct LaneQueue {
    std::unordered_map<std::string, Caller> callers;
    std::set<Place> places;  // of callers with tasks
    double virtual_time = 0;
    int64_t tokens = 0;
  };
  struct Quota {
    double rate = 0;       // tokens a second, and the most that is saved up
    double available = 0;  // tokens
    absl::Time updated = absl::InfinitePast();
  };

  absl::Time LatestStart(absl::Time deadline, int64_t tokens, absl::Time now) const;
  absl::Status CheckRoom(const Request& request, absl::Time now);
  absl::Status CheckQuota(const Request& request, absl::Time now);
  absl::Status CheckDeadline(const Request& request, absl::Time now) const;
  // Whether the predictor is idle and was for long.
  bool Rested(absl::Time now) const;
  // Tokens that are computed before such a task, no more than `enough` of its caller's own.
  int64_t TokensBefore(const Request& request, const Turn& turn, int64_t enough) const;
  bool HasRoom(const Request& request) const;
  Quota* QuotaOf(const std::string& caller, absl::Time now);

  static Place PlaceOf(Caller* caller);
  // Gives an admitted task its place in the order.
  void Insert(Waiting waiting, const Turn& turn);
  // Its tokens wait, or no longer do.
  void Count(const PriceTask& task);
  void Discount(const PriceTask& task);
  // Takes a parked task, which has been taken out of parked_, out of the queue.
  void DropParked(Parked parked, absl::Status failure);
  // The first task of the lane, out of it. `charged`: it counts as served.
  Waiting PopFirst(LaneQueue* lane, bool charged);
  void ForgetIdle(LaneQueue* lane, Caller* caller);
  // REQUIRES: a task waits in the lane.
  static int64_t FirstTokens(const LaneQueue& lane);
  // REQUIRES: the caller has no tasks left.
  void ForgetIfServed(Lane lane, const std::string& caller);
  // Drops what cannot be computed any more; what can, is taken where it fits what is left of the
  // batch in tokens and in time or, of any size, into an empty batch. False = nothing was taken.
  bool TakeFirst(LaneQueue* lane, absl::Time now, bool give_up, Taken* taken);
  // Makes room by dropping what cannot be computed any more.
  void Sweep(absl::Time now);
  void SweepParked(absl::Time now);

  const BatchSchedulerOptions options_;
  std::deque<Waiting> internal_;
  std::array<LaneQueue, kLaneCount> lanes_;
  std::unordered_map<const LoadedAdapter*, std::vector<Parked>> parked_;
  int64_t parked_items_ = 0;
  // Dropped since the last Take.
  std::vector<Waiting> swept_;
  absl::Time last_sweep_ = absl::InfinitePast();
  std::map<std::string, Quota> quotas_;
  BatchCost cost_;
  absl::Time busy_until_ = absl::InfinitePast();
  absl::Time last_batch_ = absl::InfinitePast();  // when it ended
  double bulk_credit_ = 0;                        // tokens
  uint64_t arrivals_ = 0;
  int64_t items_ = 0;
};

}  // namespace pricer
