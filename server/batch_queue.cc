#include "server/batch_queue.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "server/retry_after.h"

namespace pricer {
namespace {

constexpr absl::Duration kMinRetryDelay = absl::Milliseconds(50);
constexpr absl::Duration kMaxRetryDelay = absl::Seconds(10);
// A batch that takes so many times the constant of a batch loses little by it.
constexpr int kAmortized = 10;
constexpr absl::Duration kSweepInterval = absl::Milliseconds(10);
// Of callers that were served more than their share and have nothing waiting, so many are kept.
constexpr size_t kMostIdleCallers = 1024;

absl::Duration Bounded(absl::Duration delay) {
  return std::clamp(delay, kMinRetryDelay, kMaxRetryDelay);
}

absl::Status TooLateError(absl::Duration needed, absl::Duration left) {
  return absl::DeadlineExceededError(
      absl::StrFormat("the item would be computed in about %d ms, and its deadline is in %d ms",
                      absl::ToInt64Milliseconds(needed), absl::ToInt64Milliseconds(left)));
}

}  // namespace

absl::Status BatchSchedulerOptions::Validate() const {
  if (max_batch_tokens < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max-batch-tokens: expected at least 1, got ", max_batch_tokens));
  }
  if (max_queue_tokens < max_batch_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max-queue-tokens: expected at least --max-batch-tokens (", max_batch_tokens,
                     "), got ", max_queue_tokens));
  }
  if (!(min_bulk_share >= 0 && min_bulk_share < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--min-bulk-share: expected at least 0 and below 1, got ", min_bulk_share));
  }
  for (const auto& [caller, rate] : quotas) {
    if (!(rate > 0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("the quota of ", caller, ": expected tokens a second above 0, got ", rate));
    }
  }
  return absl::OkStatus();
}

BatchQueue::BatchQueue(const BatchSchedulerOptions& options) : options_(options) {
  for (const auto& [caller, rate] : options.quotas) {
    quotas_[caller] = {.rate = rate, .available = rate};
  }
}

absl::Time BatchQueue::LatestStart(absl::Time deadline, int64_t tokens, absl::Time now) const {
  if (deadline == absl::InfiniteFuture()) return now + kPatience;
  return cost_.known() ? deadline - cost_.OfBatch(tokens) : deadline;
}

BatchQueue::Refusal BatchQueue::Check(const Request& request, absl::Time now) {
  if (request.deadline <= now) {
    return {absl::DeadlineExceededError("the deadline passed before the item was computed"),
            RefusalReason::kExpired};
  }
  if (request.internal) return {};
  if (!request.replaces) {
    if (absl::Status full = CheckRoom(request, now); !full.ok()) {
      return {std::move(full), RefusalReason::kQueueFull};
    }
  }
  if (absl::Status late = CheckDeadline(request, now); !late.ok()) {
    return {std::move(late), RefusalReason::kTooLate};
  }
  if (absl::Status used_up = CheckQuota(request, now); !used_up.ok()) {
    return {std::move(used_up), RefusalReason::kQuota};
  }
  return {};
}

bool BatchQueue::HasRoom(const Request& request) const {
  const LaneQueue& lane = lanes_[static_cast<int>(request.lane)];
  if (lane.tokens == 0) return true;
  if (lane.tokens + request.tokens > options_.max_queue_tokens) return false;
  const auto caller = lane.callers.find(request.caller);
  const int64_t held = caller == lane.callers.end() ? 0 : caller->second.tokens;
  return held + request.tokens <= kShareOfFree * (options_.max_queue_tokens - lane.tokens);
}

absl::Status BatchQueue::CheckRoom(const Request& request, absl::Time now) {
  if (HasRoom(request)) return absl::OkStatus();
  Sweep(now);
  if (HasRoom(request)) return absl::OkStatus();
  const LaneQueue& lane = lanes_[static_cast<int>(request.lane)];
  const bool full = lane.tokens + request.tokens > options_.max_queue_tokens;
  return WithRetryAfter(
      absl::ResourceExhaustedError(absl::StrCat(
          "the queue is full", full ? "" : " for this caller", ": ", lane.tokens, " of ",
          options_.max_queue_tokens, " tokens wait in the lane ", LaneName(request.lane))),
      RetryDelay(now));
}

BatchQueue::Quota* BatchQueue::QuotaOf(const std::string& caller, absl::Time now) {
  const auto found = quotas_.find(caller);
  if (found == quotas_.end()) return nullptr;
  Quota& quota = found->second;
  if (quota.updated != absl::InfinitePast() && now > quota.updated) {
    const double earned = quota.rate * absl::ToDoubleSeconds(now - quota.updated);
    quota.available = std::min(quota.rate, quota.available + earned);
  }
  quota.updated = std::max(quota.updated, now);
  return &quota;
}

absl::Status BatchQueue::CheckQuota(const Request& request, absl::Time now) {
  // A call that was let in goes on: what it takes beyond the quota is owed.
  const Quota* const quota = request.replaces ? nullptr : QuotaOf(request.caller, now);
  if (quota == nullptr) return absl::OkStatus();
  // More than a second's worth is taken when all of that is saved up, and owed.
  const double needed = std::min(static_cast<double>(request.tokens), quota->rate);
  if (quota->available >= needed) return absl::OkStatus();
  return WithRetryAfter(
      absl::ResourceExhaustedError(absl::StrFormat("the caller's quota of %g tokens a second is "
                                                   "used up",
                                                   quota->rate)),
      Bounded(absl::Seconds((needed - quota->available) / quota->rate)));
}

int64_t BatchQueue::TokensBefore(const Request& request, const Turn& turn, int64_t enough) const {
  const LaneQueue& lane = lanes_[static_cast<int>(request.lane)];
  int64_t own = 0;
  const auto caller = lane.callers.find(request.caller);
  if (caller != lane.callers.end()) {
    for (const auto& [other, waiting] : caller->second.waiting) {
      if (other > turn || own > enough) break;
      own += waiting.task.tokens();
    }
  }
  // The others take turns with it.
  int64_t others = 0;
  for (const Place& place : lane.places) {
    if (place.caller->name == request.caller) continue;
    others += std::min(place.caller->tokens, own + request.tokens);
    if (others > enough) break;
  }
  const int64_t in_lane = own + others;
  const LaneQueue& online = lanes_[static_cast<int>(Lane::kOnline)];
  const LaneQueue& bulk = lanes_[static_cast<int>(Lane::kBulk)];
  const double share = options_.min_bulk_share;
  if (request.lane == Lane::kOnline) {
    const double with_bulk = static_cast<double>(in_lane + request.tokens) * share / (1 - share);
    return in_lane + std::min(bulk.tokens, static_cast<int64_t>(with_bulk));
  }
  if (share == 0) return in_lane + online.tokens;
  const double by_share = static_cast<double>(in_lane + request.tokens) * (1 - share) / share;
  return in_lane + static_cast<int64_t>(std::min(static_cast<double>(online.tokens), by_share));
}

bool BatchQueue::Rested(absl::Time now) const {
  const bool idle = !ready() && busy_until_ == absl::InfinitePast();
  return idle && now - last_batch_ >= kTrust;
}

absl::Status BatchQueue::CheckDeadline(const Request& request, absl::Time now) const {
  if (request.deadline == absl::InfiniteFuture() || !cost_.known()) return absl::OkStatus();
  if (Rested(now)) return absl::OkStatus();
  const absl::Duration left = request.deadline - now;
  const absl::Duration alone = cost_.OfBatch(request.tokens);
  // Kept back: what is let in at the edge of its deadline is late by the least error, and makes
  // small batches, which waste what a batch costs whatever its size.
  const absl::Duration slack = std::max(left - alone, absl::ZeroDuration());
  const absl::Duration kept = std::clamp(kAmortized * cost_.Constant(), slack / 4, slack / 2);
  const int64_t most = std::max(
      request.tokens,
      std::min(options_.max_batch_tokens, cost_.TokensIn(alone + kept, options_.max_batch_tokens)));
  const absl::Duration until_free = std::max(busy_until_ - now, absl::ZeroDuration());
  const absl::Duration time = left - kept - until_free;
  const int64_t waiting = tokens(Lane::kOnline) + tokens(Lane::kBulk);
  // Behind everything, which is quickly found.
  if (cost_.OfQueue(waiting + request.tokens, most) <= time) return absl::OkStatus();
  const Turn turn(LatestStart(request.deadline, request.tokens, now), arrivals_);
  const int64_t before = TokensBefore(request, turn, cost_.TokensIn(time, most));
  const absl::Duration needed = cost_.OfQueue(before + request.tokens, most);
  if (needed <= time) return absl::OkStatus();
  return TooLateError(until_free + needed, left);
}

BatchQueue::Refusal BatchQueue::Admit(PriceTask&& task, absl::Time now, const Acquire& acquire) {
  Refusal refusal = Check({.lane = task.lane,
                           .caller = task.caller,
                           .tokens = task.tokens(),
                           .deadline = task.deadline,
                           .internal = task.internal,
                           .replaces = task.replaces},
                          now);
  if (!refusal.status.ok()) return refusal;
  if (acquire != nullptr) {
    absl::Status acquired = acquire(&task);
    if (!acquired.ok()) return {std::move(acquired), RefusalReason::kAdapter};
  }
  const bool parks = acquire != nullptr && task.adapter->has_tensors() && task.tensors == nullptr;
  Quota* const quota = task.internal ? nullptr : QuotaOf(task.caller, now);
  if (quota != nullptr) quota->available -= static_cast<double>(task.tokens());
  const Turn turn(LatestStart(task.deadline, task.tokens(), now), arrivals_++);
  Count(task);
  if (parks) {
    ++parked_items_;
    std::vector<Parked>& parked = parked_[task.adapter.get()];
    parked.push_back({{std::move(task), now}, turn});
  } else {
    Insert({std::move(task), now}, turn);
  }
  return refusal;
}

void BatchQueue::Count(const PriceTask& task) {
  ++items_;
  if (task.internal) return;
  LaneQueue& lane = lanes_[static_cast<int>(task.lane)];
  Caller& caller = lane.callers[task.caller];
  if (caller.tokens == 0) {
    caller.name = task.caller;
    caller.virtual_time = std::max(caller.virtual_time, lane.virtual_time);
  }
  caller.tokens += task.tokens();
  lane.tokens += task.tokens();
}

void BatchQueue::Discount(const PriceTask& task) {
  --items_;
  if (task.internal) return;
  LaneQueue& lane = lanes_[static_cast<int>(task.lane)];
  lane.callers.at(task.caller).tokens -= task.tokens();
  lane.tokens -= task.tokens();
}

void BatchQueue::DropParked(Parked parked, absl::Status failure) {
  const PriceTask& task = parked.waiting.task;
  --parked_items_;
  Discount(task);
  if (!task.internal) ForgetIfServed(task.lane, task.caller);
  parked.waiting.failure = std::move(failure);
  parked.waiting.failed_by = DropReason::kAdapter;
  swept_.push_back(std::move(parked.waiting));
}

void BatchQueue::Unpark(const LoadedAdapter* adapter, const Acquire& acquire) {
  const auto found = parked_.find(adapter);
  if (found == parked_.end()) return;
  std::vector<Parked> parked = std::move(found->second);
  parked_.erase(found);
  std::vector<Parked> still;
  for (Parked& one : parked) {
    PriceTask& task = one.waiting.task;
    Discount(task);  // what it counts may change with its tensors
    absl::Status status = acquire(&task);
    Count(task);
    if (!status.ok()) {
      DropParked(std::move(one), std::move(status));
    } else if (task.tensors == nullptr) {
      still.push_back(std::move(one));
    } else {
      --parked_items_;
      Insert(std::move(one.waiting), one.turn);
    }
  }
  if (!still.empty()) parked_[adapter] = std::move(still);
}

void BatchQueue::FailParked(const LoadedAdapter* adapter, const absl::Status& status) {
  const auto found = parked_.find(adapter);
  if (found == parked_.end()) return;
  std::vector<Parked> parked = std::move(found->second);
  parked_.erase(found);
  for (Parked& one : parked) DropParked(std::move(one), status);
}

BatchQueue::Place BatchQueue::PlaceOf(Caller* caller) {
  return {caller->virtual_time, caller->waiting.begin()->first, caller};
}

void BatchQueue::Insert(Waiting waiting, const Turn& turn) {
  if (waiting.task.internal) {
    internal_.push_back(std::move(waiting));
    return;
  }
  LaneQueue& lane = lanes_[static_cast<int>(waiting.task.lane)];
  Caller& caller = lane.callers.at(waiting.task.caller);
  if (caller.waiting.empty()) {
    caller.virtual_time = std::max(caller.virtual_time, lane.virtual_time);
  } else {
    lane.places.erase(PlaceOf(&caller));
  }
  caller.waiting.emplace(turn, std::move(waiting));
  lane.places.insert(PlaceOf(&caller));
}

BatchQueue::Waiting BatchQueue::PopFirst(LaneQueue* lane, bool charged) {
  Caller* const caller = lane->places.begin()->caller;
  lane->places.erase(lane->places.begin());
  auto first = caller->waiting.extract(caller->waiting.begin());
  Waiting waiting = std::move(first.mapped());
  Discount(waiting.task);
  if (charged) {
    lane->virtual_time = std::max(lane->virtual_time, caller->virtual_time);
    caller->virtual_time += static_cast<double>(waiting.task.tokens());
  }
  if (!caller->waiting.empty()) {
    lane->places.insert(PlaceOf(caller));
  } else if (caller->tokens == 0) {
    ForgetIdle(lane, caller);
  }
  return waiting;
}

void BatchQueue::ForgetIfServed(Lane lane, const std::string& caller) {
  LaneQueue& in = lanes_[static_cast<int>(lane)];
  const auto found = in.callers.find(caller);
  if (found->second.tokens == 0) ForgetIdle(&in, &found->second);
}

void BatchQueue::ForgetIdle(LaneQueue* lane, Caller* caller) {
  // One that is ahead of the others stays so if it comes back before they have caught up.
  if (caller->virtual_time <= lane->virtual_time) {
    lane->callers.erase(std::string(caller->name));
    return;
  }
  if (lane->callers.size() <= lane->places.size() + kMostIdleCallers) return;
  std::erase_if(lane->callers, [](const auto& entry) { return entry.second.tokens == 0; });
}

bool BatchQueue::TakeFirst(LaneQueue* lane, absl::Time now, bool give_up, Taken* taken) {
  while (!lane->places.empty()) {
    const PriceTask& task = lane->places.begin()->caller->waiting.begin()->second.task;
    if (give_up || task.gone() || task.expired(now)) {
      taken->dropped.push_back(PopFirst(lane, /*charged=*/false));
      continue;
    }
    const int64_t tokens = taken->tokens + task.tokens();
    const absl::Time needed_by = task.needed_by();
    bool late = false;
    if (!taken->batch.empty() && tokens > options_.max_batch_tokens) return false;
    if (cost_.known()) {
      if (!taken->batch.empty() && now + cost_.AtMost(tokens) > taken->done_by) return false;
      const absl::Duration needed = cost_.OfBatch(tokens);
      late = now + needed > needed_by;
      if (late && (!taken->batch.empty() || items_ - parked_items_ > 1)) {
        Waiting dropped = PopFirst(lane, /*charged=*/false);
        dropped.failure = TooLateError(needed, needed_by - now);
        dropped.failed_by = DropReason::kTooLate;
        taken->dropped.push_back(std::move(dropped));
        continue;
      }
    }
    if (!late) taken->done_by = std::min(taken->done_by, needed_by);
    taken->tokens = tokens;
    taken->batch.push_back(PopFirst(lane, /*charged=*/true));
    return true;
  }
  return false;
}

int64_t BatchQueue::FirstTokens(const LaneQueue& lane) {
  return lane.places.begin()->caller->waiting.begin()->second.task.tokens();
}

BatchQueue::Taken BatchQueue::Take(absl::Time now, bool give_up) {
  Taken taken;
  while (give_up && !parked_.empty()) FailParked(parked_.begin()->first, absl::OkStatus());
  SweepParked(now);
  taken.dropped = std::exchange(swept_, {});
  const int64_t most = options_.max_batch_tokens;
  while (!internal_.empty()) {
    Waiting& first = internal_.front();
    const bool drop = give_up || first.task.gone() || first.task.expired(now);
    const int64_t tokens = first.task.tokens();
    if (!drop && !taken.batch.empty() && taken.tokens + tokens > most) break;
    if (!drop) taken.tokens += tokens;
    Discount(first.task);
    (drop ? taken.dropped : taken.batch).push_back(std::move(first));
    internal_.pop_front();
  }
  LaneQueue& online = lanes_[static_cast<int>(Lane::kOnline)];
  LaneQueue& bulk = lanes_[static_cast<int>(Lane::kBulk)];
  const double share = options_.min_bulk_share;
  const bool both_wait = !online.places.empty() && !bulk.places.empty();
  if (both_wait) {
    bulk_credit_ += share * static_cast<double>(most);
    bulk_credit_ = std::min(bulk_credit_, static_cast<double>(std::max(most, FirstTokens(bulk))));
  } else {
    bulk_credit_ = 0;
  }
  while (!bulk.places.empty() && static_cast<double>(FirstTokens(bulk)) <= bulk_credit_) {
    const int64_t before = taken.tokens;
    if (!TakeFirst(&bulk, now, give_up, &taken)) break;
    bulk_credit_ -= static_cast<double>(taken.tokens - before);
  }
  while (TakeFirst(&online, now, give_up, &taken)) {
  }
  while (TakeFirst(&bulk, now, give_up, &taken)) {
  }
  // A share of this batch, which deadlines may have made smaller.
  if (both_wait && taken.tokens < most) {
    bulk_credit_ -= share * static_cast<double>(most - taken.tokens);
  }
  return taken;
}

void BatchQueue::Sweep(absl::Time now) {
  if (now - last_sweep_ < kSweepInterval) return;
  last_sweep_ = now;
  for (LaneQueue& lane : lanes_) {
    std::set<Place> places;
    for (const Place& place : lane.places) {
      Caller& caller = *place.caller;
      for (auto it = caller.waiting.begin(); it != caller.waiting.end();) {
        const PriceTask& task = it->second.task;
        if (!task.gone() && !task.expired(now)) {
          ++it;
          continue;
        }
        Discount(task);
        swept_.push_back(std::move(it->second));
        it = caller.waiting.erase(it);
      }
      if (!caller.waiting.empty()) places.insert(PlaceOf(&caller));
    }
    lane.places = std::move(places);
    std::erase_if(lane.callers, [&lane](const auto& entry) {
      return entry.second.tokens == 0 && entry.second.virtual_time <= lane.virtual_time;
    });
  }
  SweepParked(now);
}

void BatchQueue::SweepParked(absl::Time now) {
  for (auto& [adapter, parked] : parked_) {
    const auto dead = std::stable_partition(parked.begin(), parked.end(), [now](const Parked& one) {
      return !one.waiting.task.gone() && !one.waiting.task.expired(now);
    });
    std::vector<Parked> dropped(std::make_move_iterator(dead),
                                std::make_move_iterator(parked.end()));
    parked.erase(dead, parked.end());
    for (Parked& one : dropped) DropParked(std::move(one), absl::OkStatus());
  }
  std::erase_if(parked_, [](const auto& entry) { return entry.second.empty(); });
}

void BatchQueue::BatchStarted(int64_t tokens, absl::Time now) {
  busy_until_ = cost_.known() ? now + cost_.OfBatch(tokens) : now;
}

void BatchQueue::BatchEnded(int64_t tokens, absl::Duration time, absl::Time now) {
  cost_.Add(tokens, time);
  busy_until_ = absl::InfinitePast();
  last_batch_ = now;
}

absl::Duration BatchQueue::RetryDelay(absl::Time now) const {
  if (!cost_.known()) return kMinRetryDelay;
  const absl::Duration until_free = std::max(busy_until_ - now, absl::ZeroDuration());
  return Bounded(until_free + cost_.OfBatch(options_.max_batch_tokens));
}

}  // namespace pricer
