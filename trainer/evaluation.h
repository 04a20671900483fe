#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/base_model.h"
#include "trainer/metrics.h"
#include "trainer/report.h"

// Prices the items of a file and measures the errors: what `pricer-trainer evaluate` does.

namespace pricer {

struct EvaluationOptions {
  BaseOptions base;
  // A published version or a plain PEFT directory; empty = the base alone. Prices are read from the
  // adapter's bins head, or else from the base's own head.
  std::string adapter;
  // As Estimator::Parse, or "generate": the first number of text that is generated greedily, where
  // there is no bins head.
  std::string estimator = "median";
  std::string data;
  // Whose median is the baseline where the adapter does not know its own training median; empty =
  // `data`.
  std::string train_data;
  std::string predictions;  // written line by line as PredictionLine has it
  std::string json;         // EvaluationJson

  // Of the base alone, or of a plain PEFT directory. A published adapter brings its own: what is
  // given here must be equal. Empty currency = the adapter's, or USD.
  PromptOptions prompt;
  std::string currency;
  std::map<std::string, std::string> columns;
  char csv_delimiter = '\0';  // see ItemReaderOptions
  double max_reject_share = 0.01;

  int64_t limit = 0;  // items; 0 = all
  int64_t batch_tokens = 2048;

  // InvalidArgument names the option.
  absl::Status Validate() const;
};

// "<predictions>.rejects.jsonl"; empty where the predictions go to a stream, beside which there is
// no file: rejects are then only counted.
std::string RejectsPath(const std::string& predictions);

// Where the mass of the base's own head went, means over the items.
struct TokenMass {
  double prices = 0;  // the whole prices that were read
  double pruned = 0;
  double overflow = 0;     // higher prices
  double not_a_price = 0;  // whatever else
};

struct EvaluationOutcome {
  Metrics metrics;
  std::optional<TokenMass> token_mass;  // where the token head was read
  Baseline baseline;
  int64_t rejects = 0;
};

// When all is done the predictions and then the metrics are written, each file whole or not at all:
// where the metrics cannot be, the new predictions are there. Cancelled, with neither written, once
// InterruptRequested(). Rejected rows go to RejectsPath.
absl::StatusOr<EvaluationOutcome> RunEvaluation(const EvaluationOptions& options);

}  // namespace pricer
