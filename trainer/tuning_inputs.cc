#include "trainer/tuning_inputs.h"

#include <cstdio>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/logging.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "model/token_head.h"
#include "trainer/publication.h"
#include "trainer/token_cache.h"

namespace pricer {
namespace {

// What the base's own head is to say, and where prices are read.
absl::Status OpenTokenHead(const TuningOptions& options, TuningInputs* inputs) {
  absl::StatusOr<PriceTokens> tokens = ProbePriceTokens(inputs->prompt, *inputs->base.tokenizer);
  if (!tokens.ok()) {
    return absl::Status(tokens.status().code(),
                        absl::StrCat(options.base.directory, ": ", tokens.status().message(),
                                     "; --head bins does with any tokenizer"));
  }
  inputs->tokens = *std::move(tokens);
  inputs->completion.emplace();
  inputs->completion->suffix = CompletionSuffix(options);
  if (!options.train_end_token) return absl::OkStatus();
  // The tokenizer's comes first, as with TRL: an instruct model's config names several.
  std::optional<int32_t> end = inputs->base.tokenizer->end_token();
  const std::vector<int64_t>& ends = inputs->base.checkpoint->config().eos_token_ids;
  if (!end.has_value() && !ends.empty()) end = static_cast<int32_t>(ends[0]);
  if (!end.has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat(options.base.directory, ": neither tokenizer nor config.json names an end ",
                     "token to end a completion with; --no-train-end-token does without"));
  }
  inputs->completion->end_token = end;
  return inputs->base.tokenizer->CheckIds({*end});
}

DatasetOptions PartOptions(const TuningOptions& options, const std::string& rejects_path) {
  DatasetOptions dataset;
  dataset.reader.columns = options.columns;
  dataset.reader.csv_delimiter = options.csv_delimiter;
  dataset.reader.currency = options.currency;
  dataset.reader.max_reject_share = options.max_reject_share;
  dataset.reader.rejects_path = rejects_path;
  dataset.reader.pairs = options.head == "token";
  dataset.threads = options.base.threads;
  return dataset;
}

absl::StatusOr<Dataset> LoadValidation(const TuningOptions& options, const TuningInputs& inputs,
                                       const std::string& rejects_path) {
  DatasetOptions dataset = PartOptions(options, rejects_path);
  dataset.limit = options.validation_items;
  dataset.keep_texts = true;
  return LoadDataset(options.validation, inputs.prompt, *inputs.base.tokenizer, dataset);
}

// From the cache, or read, tokenized and put there. A cache that does not work costs time alone.
absl::StatusOr<Dataset> LoadTraining(const TuningOptions& options, const TuningInputs& inputs,
                                     const std::string& digest, const std::string& rejects_path) {
  DatasetOptions dataset_options = PartOptions(options, rejects_path);
  dataset_options.completion = inputs.completion;
  const auto read = [&] {
    return LoadDataset(options.data, inputs.prompt, *inputs.base.tokenizer, dataset_options);
  };
  if (!options.token_cache) return read();
  const TokenCache cache(options.runs + "/.token-cache");
  ASSIGN_OR_RETURN(
      const std::string key,
      TokenCacheKey(options.data, digest, options.base.directory, inputs.prompt, dataset_options));
  absl::StatusOr<std::optional<Dataset>> cached = cache.Load(key, rejects_path);
  if (!cached.ok()) LogWarning(absl::StrCat("token cache: ", cached.status().message()));
  if (cached.ok() && cached->has_value()) {
    (*cached)->path = options.data;
    return **std::move(cached);
  }
  ASSIGN_OR_RETURN(Dataset dataset, read());
  const absl::Status saved = cache.Save(key, dataset, rejects_path);
  if (!saved.ok()) LogWarning(absl::StrCat("token cache: ", saved.message()));
  return dataset;
}

}  // namespace

absl::StatusOr<TuningInputs> OpenInputs(const TuningOptions& options) {
  TuningInputs inputs;
  ASSIGN_OR_RETURN(inputs.prompt, MakePrompt(options.prompt, options.currency));
  ASSIGN_OR_RETURN(inputs.base, OpenBase(options.base, /*needs_tokenizer=*/true));
  if (options.head == "token") RETURN_IF_ERROR(OpenTokenHead(options, &inputs));
  // Of a completion and of the digits that are read.
  constexpr int64_t kAnswerTokens = 16;
  RETURN_IF_ERROR(CheckContext(inputs.prompt, inputs.tokens.has_value() ? kAnswerTokens : 0,
                               inputs.base.checkpoint->config()));
  ASSIGN_OR_RETURN(inputs.fingerprint, inputs.base.checkpoint->Fingerprint());
  return inputs;
}

absl::Status LoadData(const TuningOptions& options, const std::string& run_directory,
                      TuningInputs* inputs) {
  ASSIGN_OR_RETURN(inputs->validation,
                   LoadValidation(options, *inputs, run_directory + "/rejects-validation.jsonl"));
  if (static_cast<int64_t>(inputs->validation.examples.size()) < kMinGoldenItems) {
    return absl::FailedPreconditionError(
        absl::StrCat(options.validation, ": ", inputs->validation.examples.size(),
                     " items; at least ", kMinGoldenItems, " are needed"));
  }
  ASSIGN_OR_RETURN(const std::string train_digest, Sha256HexOfFile(options.data));
  ASSIGN_OR_RETURN(inputs->train, LoadTraining(options, *inputs, train_digest,
                                               run_directory + "/rejects-train.jsonl"));
  if (inputs->train.foreign_prompts > 0) {
    LogWarning(absl::StrCat(inputs->train.foreign_prompts, " of ", inputs->train.examples.size(),
                            " training prompts are of another wording than --question and "
                            "--prefix, with which validation and server ask"));
  }
  if (!inputs->tokens.has_value()) {
    ASSIGN_OR_RETURN(inputs->bins,
                     BinsSpec::FromPrices(inputs->train.Prices(), options.bins, options.sigma));
  }
  ASSIGN_OR_RETURN(const std::string validation_digest, Sha256HexOfFile(options.validation));
  inputs->data_digest = Sha256Hex(absl::StrCat(train_digest, "\n", validation_digest, "\n"));
  return absl::OkStatus();
}

void DescribeInputs(const TuningOptions& options, const TuningInputs& inputs) {
  absl::FPrintF(stderr, "training: %s\nvalidation: %s\n", DescribeDataset(inputs.train),
                DescribeDataset(inputs.validation));
  if (inputs.tokens.has_value()) {
    absl::FPrintF(stderr, "prices: 0 to 999 %s as the base's own %s, \"%s\" behind them\n",
                  options.currency,
                  inputs.tokens->kind == PriceTokens::Kind::kWhole ? "tokens" : "digits",
                  inputs.completion->suffix);
    return;
  }
  absl::FPrintF(stderr, "prices: %d bins from %.2f to %.2f %s\n", inputs.bins.bins,
                inputs.bins.min_price, inputs.bins.max_price, options.currency);
}

}  // namespace pricer
