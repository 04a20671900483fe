#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/retry.h"
#include "pricer/v1/pricing.pb.h"

namespace pricer {

struct BatchJobOptions {
  // Items: a file as OpenRowSource reads it.
  std::string input;
  // JSON lines {row, id, price, currency, low, high, adapter, version, error}, one for every line
  // of the input, blank ones included, and in its order; id is null where the line has none that
  // can be read. Appears under this name when it is whole; a stream (see OutputPlace) gets lines as
  // they come. Not the input.
  std::string output;
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

struct BatchJobResult {
  int64_t rows = 0;
  // Rows whose `error` is not null.
  int64_t errors = 0;
};

// One call to the server that ends by the deadline. Called from several threads at once.
using BatchPredict = std::function<absl::StatusOr<v1::BatchPredictPricesResponse>(
    const v1::BatchPredictPricesRequest&, absl::Time deadline)>;

// Prices a file. A row that is no item, or that the server refuses, has its error in place; an
// error of a whole call ends the job and leaves no output. Calls that the server has no room for,
// and items of a call that end with RESOURCE_EXHAUSTED or UNAVAILABLE, are sent again before. All
// rows are priced by the version that answered first. `progress` is called with the rows done so
// far, from the calling thread. Cancelled, without an output, where environment.stop() before all
// calls were sent; those in flight are waited for.
absl::StatusOr<BatchJobResult> RunBatchJob(
    const BatchJobOptions& options, const BatchPredict& predict,
    const std::function<void(int64_t rows)>& progress,
    const RetryEnvironment& environment = RetryEnvironment::System());

}  // namespace pricer
