#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/adapter.h"
#include "model/checkpoint.h"
#include "model/checkpoint_writer.h"
#include "model/weights.h"

namespace pricer {

struct MergeOptions {
  // What the base's linear weights are rounded to before the adapter is added: what it was tuned
  // on, or it corrects errors that are not there. Of a base in NF4 what it stores is taken.
  WeightsKind weights = WeightsKind::kNf4;
  // Of what is written: kF32, kBF16 or kF16. The score is always F32.
  Dtype dtype = Dtype::kBF16;
  int64_t max_shard_bytes = kDefaultMaxShardBytes;
  // Of an adapter with a bins head: what config.json calls its rows, each name once.
  std::vector<std::string> bin_names;
};

// What rounding the merged weights, those with LoRA, to the output's dtype costs.
struct MergeSummary {
  int64_t merged = 0;  // linear layers with LoRA
  int64_t bytes = 0;   // of all tensors written
  double max_relative_error = 0;
  std::string worst_module;  // which has the largest; empty where none has an error
  double mean_relative_error = 0;
  // Norm of all errors as a share of the norm of what the adapter changed.
  double error_of_change = 0;
};

// Writes W + scale * B A, with every other weight of the base, as a plain checkpoint into an
// existing empty directory, flushed to the disk: LlamaForCausalLM, or, of an adapter with a bins
// head, LlamaForSequenceClassification with score.weight and a pad_token_id, which transformers
// needs for batches. Companion files are copied. Sums are made in fp32 and rounded once.
//
// Memory: one weight of the base in fp32, beside mapped input and adapter. InvalidArgument names
// file and tensor of what does not fit the dtype. Cancelled once `cancelled` (may be empty) returns
// true; it is asked at every tensor. On an error the directory holds a part.
absl::StatusOr<MergeSummary> MergeAdapter(const Checkpoint& base, const PeftAdapter& adapter,
                                          const MergeOptions& options, const std::string& directory,
                                          const std::function<bool()>& cancelled = nullptr);

}  // namespace pricer
