#include "client/load_test.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "client/load_call_source.h"

namespace pricer {
namespace {

constexpr int kMaxConcurrency = 10'000;
constexpr int kMaxInFlight = 1'000'000;
constexpr int kMaxItemsPerCall = 1024;
constexpr int kMaxTextBytes = 64 << 10;
// How soon a wish to stop is heard of.
constexpr absl::Duration kLongestSleep = absl::Milliseconds(100);

absl::Status CheckRange(absl::string_view flag, int value, int least, int most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flag, ": expected a number from ", least, " to ", most, ", got ", value));
}

absl::Status CheckPositive(absl::string_view flag, absl::Duration value) {
  if (value > absl::ZeroDuration()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flag, ": expected more than 0s, got ", absl::FormatDuration(value)));
}

// Calls that are counted in one place while they end elsewhere.
class Tally {
 public:
  explicit Tally(int stages)
      : result_{.stages = std::vector<LoadTestStage>(stages), .messages = {}} {}

  // False where `most` calls are in flight already.
  bool Begin(int stage, int most) {
    MutexLock lock(&mutex_);
    ++result_.stages[stage].due;
    if (in_flight_ >= most) {
      ++result_.stages[stage].not_sent;
      return false;
    }
    ++in_flight_;
    return true;
  }

  void End(int stage, const LoadAnswer& answer, absl::Duration latency,
           absl::Duration since_stage) {
    MutexLock lock(&mutex_);
    LoadTestStage& counts = result_.stages[stage];
    ++counts.calls[answer.status.code()];
    counts.time = std::max(counts.time, since_stage);
    (answer.status.ok() ? counts.latency : counts.failure_latency).Record(latency);
    if (!answer.status.ok()) {
      result_.messages.try_emplace(answer.status.code(), answer.status.message());
    }
    counts.items += static_cast<int64_t>(answer.queue_times.size());
    for (const auto& [code, count] : answer.item_errors) counts.item_errors[code] += count;
    for (const absl::Duration time : answer.queue_times) counts.queue.Record(time);
    for (const absl::Duration time : answer.compute_times) counts.compute.Record(time);
    --in_flight_;
    ended_.SignalAll();
  }

  void WaitUntilFewerThan(int in_flight) {
    MutexLock lock(&mutex_);
    while (in_flight_ >= in_flight) ended_.Wait(&mutex_);
  }

  LoadTestResult Take() {
    MutexLock lock(&mutex_);
    return std::move(result_);
  }

 private:
  Mutex mutex_;
  CondVar ended_;
  int in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  LoadTestResult result_ ABSL_GUARDED_BY(mutex_);
};

class LoadTest {
 public:
  LoadTest(const LoadTestOptions& options, const StartLoadCall& start,
           const RetryEnvironment& environment)
      : options_(options), start_(start), environment_(environment), source_(options) {}

  absl::StatusOr<LoadTestResult> Run() {
    ArrivalOptions warm_up = options_.arrivals;
    warm_up.rate = options_.arrivals.RateOf(0);
    warm_up.steps = 1;
    warm_up.duration = options_.warm_up;
    RETURN_IF_ERROR(RunLoop(warm_up).status());
    return RunLoop(options_.arrivals);
  }

 private:
  absl::StatusOr<LoadTestResult> RunLoop(const ArrivalOptions& arrivals) {
    Tally tally(options_.concurrency > 0 ? 1 : arrivals.stage_count());
    const absl::Status status =
        options_.concurrency > 0 ? RunClosed(arrivals.duration, &tally) : RunOpen(arrivals, &tally);
    // Calls end by their deadlines.
    tally.WaitUntilFewerThan(1);
    RETURN_IF_ERROR(status);
    LoadTestResult result = tally.Take();
    for (size_t i = 0; i < result.stages.size() && options_.concurrency == 0; ++i) {
      result.stages[i].rate = arrivals.RateOf(static_cast<int>(i));
    }
    return result;
  }

  absl::Status RunOpen(const ArrivalOptions& options, Tally* tally) {
    Arrivals arrivals(options, options_.seed);
    const absl::Time begin = environment_.clock->Now();
    while (const std::optional<Arrivals::Arrival> next = arrivals.Next()) {
      RETURN_IF_ERROR(SleepUntil(begin + next->time));
      if (!tally->Begin(next->stage, options_.max_in_flight)) continue;
      Start(begin + next->time, begin + options.stage_duration() * next->stage, next->stage, tally);
    }
    return absl::OkStatus();
  }

  absl::Status RunClosed(absl::Duration duration, Tally* tally) {
    const absl::Time begin = environment_.clock->Now();
    while (true) {
      tally->WaitUntilFewerThan(options_.concurrency);
      const absl::Time now = environment_.clock->Now();
      if (now >= begin + duration) return absl::OkStatus();
      if (stopped()) return absl::CancelledError("stopped");
      tally->Begin(0, options_.concurrency);
      Start(now, begin, 0, tally);
    }
  }

  void Start(absl::Time due, absl::Time stage_begin, int stage, Tally* tally) {
    start_(source_.Next(due + options_.deadline),
           [this, due, stage_begin, stage, tally](const LoadAnswer& answer) {
             const absl::Time now = environment_.clock->Now();
             tally->End(stage, answer, now - due, now - stage_begin);
           });
  }

  absl::Status SleepUntil(absl::Time time) {
    while (true) {
      if (stopped()) return absl::CancelledError("stopped");
      const absl::Duration left = time - environment_.clock->Now();
      if (left <= absl::ZeroDuration()) return absl::OkStatus();
      environment_.sleep(std::min(left, kLongestSleep));
    }
  }

  bool stopped() const { return environment_.stop != nullptr && environment_.stop(); }

  const LoadTestOptions& options_;
  const StartLoadCall& start_;
  const RetryEnvironment& environment_;
  LoadCallSource source_;
};

}  // namespace

absl::Status LoadTestOptions::Validate() const {
  RETURN_IF_ERROR(arrivals.Validate());
  RETURN_IF_ERROR(CheckRange("--concurrency", concurrency, 0, kMaxConcurrency));
  RETURN_IF_ERROR(CheckRange("--max-in-flight", max_in_flight, 1, kMaxInFlight));
  RETURN_IF_ERROR(CheckRange("--items-per-call", items_per_call, 1, kMaxItemsPerCall));
  RETURN_IF_ERROR(CheckPositive("--deadline", deadline));
  if (text_bytes.empty()) {
    return absl::InvalidArgumentError("--text-bytes: expected at least one length, got none");
  }
  for (const int bytes : text_bytes) {
    RETURN_IF_ERROR(CheckRange("--text-bytes", bytes, 1, kMaxTextBytes));
  }
  if (!(zipf >= 0 && zipf <= 10)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--zipf: expected an exponent from 0 to 10, got ", zipf));
  }
  return absl::OkStatus();
}

int64_t LoadTestStage::ok_calls() const {
  const auto found = calls.find(absl::StatusCode::kOk);
  return found == calls.end() ? 0 : found->second;
}

LoadTestStage LoadTestResult::Total() const {
  LoadTestStage total;
  for (const LoadTestStage& stage : stages) {
    total.time += stage.time;
    total.due += stage.due;
    total.not_sent += stage.not_sent;
    for (const auto& [code, count] : stage.calls) total.calls[code] += count;
    total.items += stage.items;
    for (const auto& [code, count] : stage.item_errors) total.item_errors[code] += count;
    total.latency.Merge(stage.latency);
    total.failure_latency.Merge(stage.failure_latency);
    total.queue.Merge(stage.queue);
    total.compute.Merge(stage.compute);
  }
  if (total.time > absl::ZeroDuration()) {
    total.rate = static_cast<double>(total.due) / absl::ToDoubleSeconds(total.time);
  }
  if (stages.size() == 1) total.rate = stages[0].rate;
  return total;
}

absl::StatusOr<LoadTestResult> RunLoadTest(const LoadTestOptions& options,
                                           const StartLoadCall& start,
                                           const RetryEnvironment& environment) {
  RETURN_IF_ERROR(options.Validate());
  return LoadTest(options, start, environment).Run();
}

}  // namespace pricer
