#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/base_files.h"
#include "trainer/base_model.h"
#include "trainer/inspect_data.h"
#include "trainer/lora_options.h"
#include "trainer/memory_plan.h"
#include "trainer/tokenizer_probe.h"

// What a base, and a data set, will be like to tune: what `pricer-trainer inspect` does.

namespace pricer {

struct InspectionOptions : LoraOptions {
  BaseOptions base;
  PromptOptions prompt;

  // Of the memory plan: tuning as `tune` would with these options, micro-batches, a server's
  // batches.
  std::optional<int64_t> memory_budget_bytes;
  std::vector<int64_t> tokens = {1024, 2048, 8192};
  std::string head = "bins";  // or "token"
  int bins = 128;
  // Of a typical prompt; 0 = the median of the data, or 128 without data.
  int64_t prompt_tokens = 0;

  std::string data;        // empty = the base alone is inspected
  std::string validation;  // empty = none
  std::string currency = "USD";
  std::map<std::string, std::string> columns;
  char csv_delimiter = '\0';       // see ItemReaderOptions
  double max_reject_share = 0.01;  // more is warned of: tuning would stop
  // Share of the validation's rows that the training data has too: more than the first is warned
  // of, more than the second fails.
  double warn_leak = 0.01;
  double max_leak = 0.1;

  std::string json;  // InspectionJson goes here; empty = nowhere

  // InvalidArgument names the option.
  absl::Status Validate() const;
};

struct Inspection {
  std::string name;
  std::string fingerprint;
  ModelConfig config;
  ParameterCounts parameters;
  BaseFiles files;
  std::optional<TokenizerProbe> tokenizer;  // absent where the directory has none
  MemoryPlanRequest memory_request;
  MemoryPlan memory;
  std::optional<DataInspection> data;
  // What speaks against tuning with these, worst first; the first `failures` of them fail.
  std::vector<std::string> warnings;
  int64_t failures = 0;
};

// Cancelled once InterruptRequested().
absl::StatusOr<Inspection> RunInspection(const InspectionOptions& options);

}  // namespace pricer
