#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/arrivals.h"
#include "client/latency_histogram.h"
#include "client/retry.h"
#include "pricer/v1/pricing.pb.h"

namespace pricer {

struct LoadTestOptions {
  // An open loop: calls start when they are due, however long others take.
  ArrivalOptions arrivals;
  // More than 0 = a closed loop instead, of `arrivals` the duration alone counts: so many calls are
  // in flight at all times, as of callers that wait for their answers.
  int concurrency = 0;
  // Before the duration, at the first stage's rate, and not counted: connections come about, and a
  // server's caches fill.
  absl::Duration warm_up = absl::Seconds(2);
  // Of each call, from when it was due.
  absl::Duration deadline = absl::Seconds(1);
  // An open loop's calls that are due while so many are in flight are not sent, and counted so: the
  // memory of this process is bounded.
  int max_in_flight = 10'000;

  // 1 = PredictPrice, more = BatchPredictPrices.
  int items_per_call = 1;
  // Which adapters are asked, the most popular first; none = the server's default. An adapter is
  // drawn for each call, the n-th with a share of 1 / n^zipf: 0 = all alike.
  std::vector<std::string> adapters;
  double zipf = 0;
  // Bytes of an item's text, drawn evenly from these. Texts begin with a number, so that no two are
  // alike and each is computed.
  std::vector<int> text_bytes = {400};
  // Texts to send instead, one after the other and again from the first.
  std::vector<std::string> texts = {};
  v1::Lane lane = v1::LANE_ONLINE;
  uint64_t seed = 1;

  // InvalidArgument names the flag of `pricer load-test`.
  absl::Status Validate() const;
};

// What a call asks for, and until when.
struct LoadCall {
  v1::AdapterSpec adapter;
  v1::PredictOptions options;
  std::vector<std::string> texts;
  absl::Time deadline;
};

// What became of it.
struct LoadAnswer {
  absl::Status status;
  // Where the status is OK, of each item that was priced: in the server's queue, and of its batch.
  std::vector<absl::Duration> queue_times;
  std::vector<absl::Duration> compute_times;
  // Of items that failed alone.
  std::map<absl::StatusCode, int64_t> item_errors;
};

// Starts a call and returns at once; `done` is called when it has ended, by any thread.
using StartLoadCall =
    std::function<void(LoadCall call, std::function<void(const LoadAnswer& answer)> done)>;

// One stage of a load test.
struct LoadTestStage {
  // Calls a second that were due; 0 of a closed loop.
  double rate = 0;
  // From the stage's beginning to the end of its last call.
  absl::Duration time;
  int64_t due = 0;
  int64_t not_sent = 0;
  std::map<absl::StatusCode, int64_t> calls;
  int64_t items = 0;  // priced
  std::map<absl::StatusCode, int64_t> item_errors;
  // From when a call was due to its end: a server that stalls shows in the calls that it kept from
  // starting, too ("coordinated omission" is what leaves them out).
  LatencyHistogram latency;          // of calls that ended OK
  LatencyHistogram failure_latency;  // of the others
  // As the server says, of each item.
  LatencyHistogram queue;
  LatencyHistogram compute;

  int64_t ok_calls() const;
};

struct LoadTestResult {
  std::vector<LoadTestStage> stages;
  // Why calls and items failed: one message of each code.
  std::map<absl::StatusCode, std::string> messages;

  // All stages as one.
  LoadTestStage Total() const;
};

// Calls until the duration is over and all calls have ended. `environment` is whose time it is;
// Cancelled where it says stop. Blocks.
absl::StatusOr<LoadTestResult> RunLoadTest(
    const LoadTestOptions& options, const StartLoadCall& start,
    const RetryEnvironment& environment = RetryEnvironment::System());

}  // namespace pricer
