#include "server/batch_queue.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "server/retry_after.h"

namespace pricer {
namespace {

constexpr absl::Duration kMinRetryDelay = absl::Milliseconds(50);
constexpr absl::Duration kMaxRetryDelay = absl::Seconds(10);
constexpr absl::Duration kSweepInterval = absl::Milliseconds(10);
// Of callers that were served more than their share and have nothing waiting, so many are kept.
constexpr size_t kMostIdleCallers = 1024;

absl::Duration Bounded(absl::Duration delay) {
  return std::clamp(delay, kMinRetryDelay, kMaxRetryDelay);
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

absl::Status BatchQueue::CheckDeadline(const Request& request, absl::Time now) const {
  if (request.deadline == absl::InfiniteFuture() || !cost_.known()) return absl::OkStatus();
  const int64_t most = options_.max_batch_tokens;
  const absl::Duration until_free = std::max(busy_until_ - now, absl::ZeroDuration());
  const absl::Duration time = request.deadline - now - until_free;
  const int64_t waiting = tokens(Lane::kOnline) + tokens(Lane::kBulk);
  // Behind everything, which is quickly found.
  if (cost_.OfQueue(waiting + request.tokens, most) <= time) return absl::OkStatus();
  const Turn turn(LatestStart(request.deadline, request.tokens, now), arrivals_);
  const int64_t before = TokensBefore(request, turn, cost_.TokensIn(time, most));
  // Its batch is done as a whole.
  const int64_t batches = (before + request.tokens + most - 1) / most;
  const int64_t computed =
      std::min(std::max(batches * most, request.tokens), waiting + request.tokens);
  const absl::Duration needed = cost_.OfQueue(computed, most);
  if (needed <= time) return absl::OkStatus();
  return absl::DeadlineExceededError(
      absl::StrFormat("the item would be computed in about %d ms, and its deadline is in %d ms",
                      absl::ToInt64Milliseconds(until_free + needed),
                      absl::ToInt64Milliseconds(request.deadline - now)));
}

BatchQueue::Refusal BatchQueue::Admit(PriceTask&& task, absl::Time now) {
  Refusal refusal = Check({.lane = task.lane,
                           .caller = task.caller,
                           .tokens = task.tokens(),
                           .deadline = task.deadline,
                           .internal = task.internal,
                           .replaces = task.replaces},
                          now);
  if (!refusal.status.ok()) return refusal;
  ++items_;
  if (task.internal) {
    internal_.push_back({std::move(task), now});
    return refusal;
  }
  if (Quota* const quota = QuotaOf(task.caller, now)) {
    quota->available -= static_cast<double>(task.tokens());
  }
  const Turn turn(LatestStart(task.deadline, task.tokens(), now), arrivals_++);
  Insert({std::move(task), now}, turn);
  return refusal;
}

BatchQueue::Place BatchQueue::PlaceOf(Caller* caller) {
  return {caller->virtual_time, caller->waiting.begin()->first, caller};
}

void BatchQueue::Insert(Waiting waiting, const Turn& turn) {
  LaneQueue& lane = lanes_[static_cast<int>(waiting.task.lane)];
  Caller& caller = lane.callers[waiting.task.caller];
  const int64_t tokens = waiting.task.tokens();
  if (caller.waiting.empty()) {
    caller.name = waiting.task.caller;
    caller.virtual_time = std::max(caller.virtual_time, lane.virtual_time);
  } else {
    lane.places.erase(PlaceOf(&caller));
  }
  caller.waiting.emplace(turn, std::move(waiting));
  lane.places.insert(PlaceOf(&caller));
  caller.tokens += tokens;
  lane.tokens += tokens;
}

BatchQueue::Waiting BatchQueue::PopFirst(LaneQueue* lane, bool charged) {
  Caller* const caller = lane->places.begin()->caller;
  lane->places.erase(lane->places.begin());
  auto first = caller->waiting.extract(caller->waiting.begin());
  Waiting waiting = std::move(first.mapped());
  const int64_t tokens = waiting.task.tokens();
  caller->tokens -= tokens;
  lane->tokens -= tokens;
  --items_;
  if (charged) {
    lane->virtual_time = std::max(lane->virtual_time, caller->virtual_time);
    caller->virtual_time += static_cast<double>(tokens);
  }
  if (caller->waiting.empty()) {
    ForgetIdle(lane, caller);
  } else {
    lane->places.insert(PlaceOf(caller));
  }
  return waiting;
}

void BatchQueue::ForgetIdle(LaneQueue* lane, Caller* caller) {
  // One that is ahead of the others stays so if it comes back before they have caught up.
  if (caller->virtual_time <= lane->virtual_time) {
    lane->callers.erase(std::string(caller->name));
    return;
  }
  if (lane->callers.size() <= lane->places.size() + kMostIdleCallers) return;
  std::erase_if(lane->callers, [](const auto& entry) { return entry.second.waiting.empty(); });
}

bool BatchQueue::TakeFirst(LaneQueue* lane, int64_t limit, absl::Time now, bool give_up,
                           Taken* taken) {
  while (!lane->places.empty()) {
    const PriceTask& task = lane->places.begin()->caller->waiting.begin()->second.task;
    if (give_up || task.gone() || task.expired(now)) {
      taken->dropped.push_back(PopFirst(lane, /*charged=*/false));
      continue;
    }
    const int64_t tokens = task.tokens();
    if (!taken->batch.empty() && tokens > limit) return false;
    taken->tokens += tokens;
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
  taken.dropped = std::exchange(swept_, {});
  const int64_t most = options_.max_batch_tokens;
  while (!internal_.empty()) {
    Waiting& first = internal_.front();
    const bool drop = give_up || first.task.gone() || first.task.expired(now);
    const int64_t tokens = first.task.tokens();
    if (!drop && !taken.batch.empty() && taken.tokens + tokens > most) break;
    if (!drop) taken.tokens += tokens;
    (drop ? taken.dropped : taken.batch).push_back(std::move(first));
    internal_.pop_front();
    --items_;
  }
  LaneQueue& online = lanes_[static_cast<int>(Lane::kOnline)];
  LaneQueue& bulk = lanes_[static_cast<int>(Lane::kBulk)];
  if (online.places.empty() || bulk.places.empty()) {
    bulk_credit_ = 0;
  } else {
    bulk_credit_ += options_.min_bulk_share * static_cast<double>(most);
    bulk_credit_ = std::min(bulk_credit_, static_cast<double>(std::max(most, FirstTokens(bulk))));
    while (!bulk.places.empty() && static_cast<double>(FirstTokens(bulk)) <= bulk_credit_) {
      const int64_t before = taken.tokens;
      if (!TakeFirst(&bulk, most - taken.tokens, now, give_up, &taken)) break;
      bulk_credit_ -= static_cast<double>(taken.tokens - before);
    }
  }
  while (TakeFirst(&online, most - taken.tokens, now, give_up, &taken)) {
  }
  while (TakeFirst(&bulk, most - taken.tokens, now, give_up, &taken)) {
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
        caller.tokens -= task.tokens();
        lane.tokens -= task.tokens();
        --items_;
        swept_.push_back(std::move(it->second));
        it = caller.waiting.erase(it);
      }
      if (!caller.waiting.empty()) places.insert(PlaceOf(&caller));
    }
    lane.places = std::move(places);
    std::erase_if(lane.callers, [&lane](const auto& entry) {
      return entry.second.waiting.empty() && entry.second.virtual_time <= lane.virtual_time;
    });
  }
}

void BatchQueue::BatchStarted(int64_t tokens, absl::Time now) {
  busy_until_ = cost_.known() ? now + cost_.OfBatch(tokens) : now;
}

void BatchQueue::BatchEnded(int64_t tokens, absl::Duration time) {
  cost_.Add(tokens, time);
  busy_until_ = absl::InfinitePast();
}

absl::Duration BatchQueue::RetryDelay(absl::Time now) const {
  if (!cost_.known()) return kMinRetryDelay;
  const absl::Duration until_free = std::max(busy_until_ - now, absl::ZeroDuration());
  return Bounded(until_free + cost_.OfBatch(options_.max_batch_tokens));
}

}  // namespace pricer
