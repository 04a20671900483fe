#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/base_model.h"

// What a model makes of raw prompts, for comparison with other programs: what `pricer-trainer
// probe` does.

namespace pricer {

struct ProbeOptions {
  BaseOptions base;
  // A published version or any PEFT directory; empty = the base alone.
  std::string adapter;
  // JSON lines {"id","prompt"}, tokenized as the checkpoint's own tokenizer does, or
  // {"id","tokens"}, for which the checkpoint needs no tokenizer.json. An id is a string or a
  // number.
  std::string input;
  std::string output;  // empty = standard output
  int64_t top = 20;
  // Reads the whole prices 0 to 999 behind each prompt, which end in a price prefix, instead of the
  // likeliest tokens. Lines with a prompt alone; not with a bins head.
  bool prices = false;
  int64_t batch_tokens = 2048;

  // InvalidArgument names the option.
  absl::Status Validate() const;
};

// Writes one line for every input line, in their order: {"id","tokens","log_probabilities"} of the
// `top` likeliest next tokens, likeliest first, of equals the lower id; or {"id","bin_logits"}
// where the adapter has a bins head; or, of `prices`, {"id","prices","pruned","overflow",
// "not_a_price"}, masses that add up to 1. The output is written when all is done; returns the
// number of lines. InvalidArgument names file, line and field; Cancelled once InterruptRequested().
absl::StatusOr<int64_t> RunProbe(const ProbeOptions& options);

}  // namespace pricer
