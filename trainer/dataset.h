#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "catalog/item_reader.h"
#include "model/prompt.h"
#include "model/tokenizer.h"
#include "trainer/completion.h"

namespace pricer {

// One item, ready for the network.
struct Example {
  std::vector<int32_t> ids;       // the prompt and, for the token head, the completion behind it
  double price = 0;               // in the run's currency
  int64_t completion_tokens = 0;  // how many of the ids are completion
};

struct DatasetOptions {
  ItemReaderOptions reader;
  // Only the first so many good rows; 0 = all.
  int64_t limit = 0;
  // Also keep the texts.
  bool keep_texts = false;
  // Also make completions, for the token head; rows whose price has none are rejected.
  std::optional<CompletionFormat> completion = std::nullopt;
  int threads = 0;  // that tokenize; 0 = as many as the machine has processors
};

// The items of a file, tokenized once.
struct Dataset {
  std::string path;
  std::vector<Example> examples;
  std::vector<std::string> item_ids;  // of the examples, empty where a row has none
  std::vector<int64_t> file_rows;     // of the examples, from 1
  // As long as `examples` where texts are kept, else empty.
  std::vector<std::string> texts;  // ItemText
  ReadSummary summary;
  // Examples whose text was cut to fit.
  int64_t truncated = 0;
  // Ready pairs whose prompt is of another template than the run's.
  int64_t foreign_prompts = 0;

  // "row 12 (id B00X)", or "row 12".
  std::string NameOf(int64_t example) const;
  std::vector<int64_t> Lengths() const;
  std::vector<double> Prices() const;
};

// Reads and tokenizes. Where the reader reads pairs of prompt and completion, a prompt of the run's
// template counts as its item's text; with another one the pair is taken as it is where completions
// are made and no texts kept, else the row is rejected. A row whose text makes no prompt (it spells
// out the token that begins one) is rejected. Cancelled after an interrupt; InvalidArgument where
// question and prefix alone are too long; FailedPrecondition where too many rows were rejected or
// none is good.
absl::StatusOr<Dataset> LoadDataset(const std::string& path, const PromptTemplate& prompt,
                                    const Tokenizer& tokenizer, const DatasetOptions& options);

// "3,000 items, 212,344 tokens, 12 truncated, 3 rejected".
std::string DescribeDataset(const Dataset& dataset);

}  // namespace pricer
