#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/merge_adapter.h"
#include "model/weights.h"

// An adapter and its base as one plain checkpoint: what `pricer-trainer merge` does.

namespace pricer {

struct MergeRunOptions {
  std::string base;
  // A published version, or any PEFT directory.
  std::string adapter;
  std::string output;
  // "dequantized": onto the base as rounded to NF4; "original": onto the base as stored; "auto":
  // whichever the adapter was tuned on, as its manifest says.
  std::string onto = "auto";
  std::string dtype = "bf16";  // of the output: bf16, fp16 or fp32
  int64_t max_shard_bytes = kDefaultMaxShardBytes;
  // What the comparison computes in: "fp32" or "bf16"; "none" = no comparison, for which the whole
  // model must fit into memory.
  std::string check = "fp32";
  int threads = 0;  // of libtorch; 0 = as many as it finds cores

  // InvalidArgument names the option.
  absl::Status Validate() const;
};

// Base with adapter against the merged checkpoint as it was written, over a few prompts.
struct MergeComparison {
  int64_t prompts = 0;
  bool golden = false;                 // of the manifest's golden items
  double hidden_difference = 0;        // largest, of the final hidden states
  double logits_difference = 0;        // of the bins, or of the language model's head
  std::optional<double> price_change;  // largest share; of adapters with a price range
};

struct MergeOutcome {
  MergeSummary summary;
  WeightsKind onto = WeightsKind::kNf4;
  bool has_bins = false;
  std::optional<MergeComparison> comparison;
};

// The output directory appears whole or not at all. InvalidArgument where `onto` is "auto" and
// nothing says what the adapter was tuned on; FailedPrecondition where it is "original" and the
// base is quantized, or the adapter was made for another base; AlreadyExists where there is
// something in the output directory. Cancelled once InterruptRequested().
absl::StatusOr<MergeOutcome> RunMerge(const MergeRunOptions& options);

}  // namespace pricer
