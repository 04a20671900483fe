#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "model/peft_config.h"
#include "model/price_head.h"
#include "model/prompt.h"
#include "trainer/base_model.h"
#include "trainer/launch_environment.h"
#include "trainer/lora_options.h"
#include "trainer/process_group.h"
#include "trainer/sampler.h"
#include "trainer/trainer.h"

// What can be chosen of a tuning run.

namespace pricer {

struct TuningOptions : LoraOptions {
  BaseOptions base;
  std::string data;
  std::string validation;
  std::string output;  // folder of adapters
  std::string name;    // of the adapter
  std::string runs = "runs";
  // Keeps the tokenized training items in <runs>/.token-cache, for the next run over them.
  bool token_cache = true;
  // Directory of an earlier run that is to go on; empty = a new one. The options that decide the
  // result, base, data and number of threads must be what it began with.
  std::string resume;
  double save_minutes = 10;      // between two checkpoints; 0 = after every step
  int64_t keep_checkpoints = 2;  // the newest; each holds the best tensors too

  PromptOptions prompt;
  std::string currency = "USD";
  // From our field names to columns; see ItemReaderOptions.
  std::map<std::string, std::string> columns;
  char csv_delimiter = '\0';  // see ItemReaderOptions
  double max_reject_share = 0.01;

  double lora_alpha = 32;
  bool rslora = false;  // scale = alpha / sqrt(r)
  std::map<std::string, double> alpha_pattern;
  // "bins": a head of price bins is trained with LoRA. "token": LoRA alone, towards the price as
  // text behind the prompt, read from the base's own head.
  std::string head = "bins";
  // Of the token head: what is said behind the whole price; absent = ".00" with the preset
  // "reference", else nothing.
  std::optional<std::string> completion_suffix;
  bool train_end_token = true;  // the completion ends with the base's end token
  int bins = kDefaultBinCount;
  double sigma = kDefaultSigmaBins;
  // "cosine" or "rows": the coordinates in which the price head is trained (head_basis.h).
  std::string head_basis = "cosine";

  Trainer::Options training;
  int64_t epochs = 0;                 // 0 = one, or as many as max_steps takes
  int64_t max_steps = 0;              // 0 = all of the epochs
  double max_minutes = 0;             // 0 = no time budget
  int64_t batch_tokens = 2048;        // of an optimizer step
  int64_t batch_items = 0;            // of an optimizer step, instead of tokens; 0 = by tokens
  int64_t micro_batch_tokens = 1024;  // of a forward and backward pass
  // Of each process: activations that do not fit are computed twice, which changes no bit of the
  // result.
  std::optional<int64_t> memory_budget_bytes;
  int64_t validation_items = 256;  // first rows of the validation file
  int64_t validation_every = 0;    // steps; 0 = four times in the run
  int64_t patience = 0;            // validations without a lower MAE that end the run; 0 = never
  SampleOrder order = SampleOrder::kShuffled;
  uint64_t seed = 1;

  // Which of several processes that tune together this one is, and when one counts as gone. The
  // result does not depend on them beyond rounding.
  LaunchEnvironment launch;
  absl::Duration rank_timeout = ProcessGroup::Options().rank_timeout;

  // Bounds of all numbers, existence of files; InvalidArgument names the option.
  absl::Status Validate() const;
};

std::string CompletionSuffix(const TuningOptions& options);

// The adapter that the options describe, without the base's name.
PeftConfig LoraConfigOf(const TuningOptions& options);

using NamedTexts = std::vector<std::pair<std::string, std::string>>;

// The options that decide what comes out, as the manifest records them: no path, no thread count.
NamedTexts ResultOptions(const TuningOptions& options);
// All of them, as the run's folder records them.
NamedTexts AllOptions(const TuningOptions& options, const PromptTemplate& prompt);

}  // namespace pricer
