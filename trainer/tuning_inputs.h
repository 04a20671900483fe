#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/manifest.h"
#include "model/price_head.h"
#include "model/prompt.h"
#include "model/token_trie.h"
#include "trainer/base_model.h"
#include "trainer/completion.h"
#include "trainer/dataset.h"
#include "trainer/tuning_options.h"

namespace pricer {

// All that is known before the weights are loaded.
struct TuningInputs {
  PromptTemplate prompt;
  BaseModel base;
  std::string fingerprint;
  Dataset train;
  Dataset validation;
  // With a token head; else `bins` is set.
  std::optional<PriceTokens> tokens;
  std::optional<CompletionFormat> completion;
  BinsSpec bins;
  std::string data_digest;

  // Only with what says how prices are read.
  Manifest Reader() const {
    Manifest manifest;
    manifest.head = tokens.has_value() ? HeadKind::kToken : HeadKind::kBins;
    manifest.bins = bins;
    return manifest;
  }
};

// Opens the base without its weights. FailedPrecondition or Unimplemented where the options ask for
// a token head and the tokenizer has no tokens for it.
absl::StatusOr<TuningInputs> OpenInputs(const TuningOptions& options);

// Reads and tokenizes both files; rejects go to rejects-*.jsonl in the run's directory.
absl::Status LoadData(const TuningOptions& options, const std::string& run_directory,
                      TuningInputs* inputs);

// To standard error, for people.
void DescribeInputs(const TuningOptions& options, const TuningInputs& inputs);

}  // namespace pricer
