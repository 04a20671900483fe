#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/batch_shards.h"
#include "client/retry.h"
#include "pricer/v1/pricing.pb.h"

namespace pricer {

struct BatchJobOptions {
  // Items: a file as OpenRowSource reads it.
  std::string input;
  // Lines as client/batch_row.h describes them, one for every line of the input, blank ones
  // included, and in its order. Appears under this name, or that of its shard, when it is whole; a
  // stream (see OutputPlace) gets lines as they come. Not the input.
  std::string output;
  // The lines of the output that have errors; no file where there are none. "" = not written.
  std::string rejects;
  Shard shard;
  // A whole job leaves a marker too when it is done, and is not done again where there is one: for
  // callers that have yet to take its output elsewhere.
  bool marks_whole = false;
  // Goes on with what an earlier run of the same job has left.
  bool resume = true;
  // From our field names to the input's columns; see ItemParser::Create.
  std::map<std::string, std::string> columns;
  char csv_delimiter = '\0';  // see ItemReaderOptions
  // Of the input's prices, where it has any.
  std::string currency = "USD";
  v1::AdapterSpec adapter;
  // "" = median.
  std::string estimator;
  // Of the interval low to high.
  double coverage = 0.8;
  // Items of one call, fewer where they are long. More amortizes the call, fewer shortens the wait
  // for the first answer.
  int items_per_call = 64;
  // Calls in flight at once, each with a thread, so that the server packs the next batch while one
  // is computed. At most 256.
  int calls_in_flight = 4;
  // Of one call and its items that the server has no room for or stops before.
  RetryOptions retry = {.timeout = absl::Minutes(5)};

  // InvalidArgument names the flag of `pricer batch`.
  absl::Status Validate() const;
};

// Not so of a pipe.
bool CanBeReadAgain(const std::string& input);

struct BatchJobResult {
  // Of the output, and of them those whose `error` is not null.
  int64_t rows = 0;
  int64_t errors = 0;
  // Of the rows, those that an earlier run had done.
  int64_t resumed = 0;
  // Of a shard: how many of the job's shards are done, this one included.
  int shards_done = 0;
};

struct BatchProgress {
  int64_t rows = 0;     // done, those of earlier runs included
  int64_t resumed = 0;  // of them, those
  double fraction = 0;  // of the input that has been read; 0 where its length is not known
};

// What became of a job.
struct BatchJobOutcome {
  // OK = the output is whole. Cancelled = environment.stop().
  absl::Status status;
  BatchJobResult result;
  // Of a failed one: its rows are kept, and the same job goes on with them.
  bool kept = false;
};

// One call to the server that ends by the deadline. Called from several threads at once.
using BatchPredict = std::function<absl::StatusOr<v1::BatchPredictPricesResponse>(
    const v1::BatchPredictPricesRequest&, absl::Time deadline)>;

// Prices a file, or a shard of it. A row that is no item, or that the server refuses, has its error
// in place; an error of a whole call ends the job. Calls that the server has no room for, and items
// of a call that end with RESOURCE_EXHAUSTED, UNAVAILABLE or DEADLINE_EXCEEDED, are sent again
// before; where there was no time for an item to the last, the job ends. All rows are priced by the
// version that answered first, also those of a later run that goes on with this one; where that
// version is gone or has become another (by its digest), the job fails. Shards that ask for a label
// agree on one version (AgreeOnVersion). `progress` is called from
// the calling thread. Calls in flight are waited for.
//
// A shard that is done has a marker (ShardMarkerPath); one of the same job is not done again.
// Items may be an object (catalog/object_store.h).
BatchJobOutcome RunBatchJob(const BatchJobOptions& options, const BatchPredict& predict,
                            const std::function<void(const BatchProgress&)>& progress,
                            const RetryEnvironment& environment = RetryEnvironment::System());

}  // namespace pricer
