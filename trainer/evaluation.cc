#include "trainer/evaluation.h"

#include <filesystem>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/logging.h"
#include "base/progress.h"
#include "base/status_macros.h"
#include "catalog/median.h"
#include "model/adapter.h"
#include "trainer/dataset.h"
#include "trainer/generate.h"
#include "trainer/inference.h"
#include "trainer/option_checks.h"

namespace pricer {
namespace {

constexpr absl::string_view kGenerate = "generate";

// What prices the items.
struct Pricer {
  std::optional<PeftAdapter> adapter;
  std::optional<Manifest> manifest;  // of a published adapter
  PromptTemplate prompt;
  std::string currency;
  // Where the base's own head is read.
  std::optional<PriceTokens> tokens;

  bool reads_bins() const { return manifest.has_value() && manifest->head == HeadKind::kBins; }
  double conformal_offset() const {
    return manifest.has_value() ? manifest->ConformalOffset(kDefaultIntervalCoverage) : 0.0;
  }
  const AdapterWeights* weights() const {
    return adapter.has_value() ? &adapter->weights : nullptr;
  }
};

std::string CurrencyOf(const EvaluationOptions& options) {
  return options.currency.empty() ? "USD" : options.currency;
}

// Prompts and prices of a published adapter are as it was tuned; other wishes are not passed over.
absl::Status CheckGiven(const EvaluationOptions& options, const Manifest& manifest) {
  const auto check = [&](absl::string_view option, const std::optional<std::string>& given,
                         absl::string_view tuned) -> absl::Status {
    if (!given.has_value() || *given == tuned) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(option, " is \"", *given, "\", but ", options.adapter, " was tuned with \"",
                     tuned, "\"; an adapter's prompt and currency come from its ", kManifestFile));
  };
  const auto unless_empty = [](const std::string& text) {
    return text.empty() ? std::nullopt : std::optional<std::string>(text);
  };
  const PromptOptions& given = options.prompt;
  std::optional<std::string> tokens;
  if (given.max_prompt_tokens.has_value()) tokens = absl::StrCat(*given.max_prompt_tokens);
  RETURN_IF_ERROR(check("--currency", unless_empty(options.currency), manifest.currency));
  RETURN_IF_ERROR(check("--preset", unless_empty(given.preset), manifest.prompt.preset));
  RETURN_IF_ERROR(check("--question", given.question, manifest.prompt.question));
  RETURN_IF_ERROR(check("--prefix", given.prefix, manifest.prompt.prefix));
  return check("--max-prompt-tokens", tokens, absl::StrCat(manifest.prompt.max_prompt_tokens));
}

absl::StatusOr<Pricer> PublishedPricer(const EvaluationOptions& options, const BaseModel& base) {
  ASSIGN_OR_RETURN(const std::string fingerprint, base.checkpoint->Fingerprint());
  ASSIGN_OR_RETURN(PublishedAdapter published,
                   LoadPublishedAdapter(options.adapter, base.checkpoint->config(), fingerprint));
  RETURN_IF_ERROR(CheckGiven(options, published.manifest));
  Pricer pricer;
  pricer.prompt = published.manifest.prompt;
  pricer.currency = published.manifest.currency;
  pricer.adapter = std::move(published.adapter);
  pricer.manifest = std::move(published.manifest);
  return pricer;
}

bool Generates(const EvaluationOptions& options) { return options.estimator == kGenerate; }

absl::StatusOr<Pricer> OpenPricer(const EvaluationOptions& options, const BaseModel& base) {
  if (!options.adapter.empty() && std::filesystem::exists(options.adapter + "/pricer.json")) {
    return PublishedPricer(options, base);
  }
  Pricer pricer;
  pricer.currency = CurrencyOf(options);
  PromptOptions prompt = options.prompt;
  // Adapters of other programs are of the published recipe.
  if (prompt.preset.empty() && !options.adapter.empty()) prompt.preset = "reference";
  ASSIGN_OR_RETURN(pricer.prompt, MakePrompt(prompt, pricer.currency));
  if (options.adapter.empty()) return pricer;
  ASSIGN_OR_RETURN(pricer.adapter, LoadPeftAdapter(options.adapter, base.checkpoint->config()));
  if (pricer.adapter->config.task == PeftTask::kSeqCls) {
    return absl::FailedPreconditionError(absl::StrCat(
        options.adapter, ": a SEQ_CLS adapter without pricer.json has no price range"));
  }
  return pricer;
}

absl::StatusOr<Pricer> MakePricer(const EvaluationOptions& options, const BaseModel& base) {
  ASSIGN_OR_RETURN(Pricer pricer, OpenPricer(options, base));
  if (pricer.reads_bins()) {
    if (!Generates(options)) return pricer;
    return absl::InvalidArgumentError(absl::StrCat("--estimator is generate, but ", options.adapter,
                                                   " has a bins head and writes no text"));
  }
  if (Generates(options)) return pricer;
  absl::StatusOr<PriceTokens> tokens = ProbePriceTokens(pricer.prompt, *base.tokenizer);
  if (!tokens.ok()) {
    return absl::Status(tokens.status().code(),
                        absl::StrCat(options.base.directory, ": ", tokens.status().message(),
                                     "; --estimator generate does without"));
  }
  pricer.tokens = *std::move(tokens);
  return pricer;
}

ItemReaderOptions ReaderOptions(const EvaluationOptions& options, const std::string& currency) {
  ItemReaderOptions reader;
  reader.columns = options.columns;
  reader.csv_delimiter = options.csv_delimiter;
  reader.currency = currency;
  reader.max_reject_share = options.max_reject_share;
  return reader;
}

absl::StatusOr<std::vector<double>> ReadAllPrices(const std::string& path,
                                                  const ItemReaderOptions& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ItemReader> reader, ItemReader::Open(path, options));
  std::vector<double> prices;
  Item item;
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, reader->Next(&item));
    if (!found) break;
    if (InterruptRequested()) return absl::CancelledError(absl::StrCat("reading ", path));
    prices.push_back(*item.price);
  }
  if (prices.empty()) return absl::FailedPreconditionError(absl::StrCat(path, ": no item"));
  return prices;
}

// The constant that unparsable rows get and that the model has to beat.
absl::StatusOr<Baseline> FindBaseline(const EvaluationOptions& options, const Pricer& pricer,
                                      const std::vector<double>& truths) {
  Baseline baseline{.median_of = "training items", .median = 0, .metrics = {}};
  if (!options.train_data.empty()) {
    ASSIGN_OR_RETURN(const std::vector<double> prices,
                     ReadAllPrices(options.train_data, ReaderOptions(options, pricer.currency)));
    baseline.median = Median(prices);
  } else if (pricer.manifest.has_value() &&
             pricer.manifest->evaluation.count("training_median") > 0) {
    baseline.median = pricer.manifest->evaluation.at("training_median");
  } else {
    baseline.median_of = "evaluated items";
    baseline.median = Median(truths);
  }
  baseline.metrics = MeasureConstant(baseline.median, truths);
  return baseline;
}

absl::StatusOr<std::vector<ScoredPrice>> ReadBins(const Network& network, const Pricer& pricer,
                                                  absl::Span<const Prompt> prompts,
                                                  const std::vector<double>& truths,
                                                  const EvaluationOptions& options,
                                                  const BatchObserver& observer) {
  ASSIGN_OR_RETURN(const Estimator estimator, Estimator::Parse(options.estimator));
  ASSIGN_OR_RETURN(
      const std::vector<std::vector<float>> logits,
      ComputeBinLogits(network, *pricer.weights(), prompts, options.batch_tokens, observer));
  std::vector<ScoredPrice> scores;
  for (size_t i = 0; i < logits.size(); ++i) {
    ASSIGN_OR_RETURN(const PriceDistribution distribution,
                     pricer.manifest->Distribution(logits[i]));
    scores.push_back(
        ScoreDistribution(distribution, pricer.conformal_offset(), truths[i], estimator));
  }
  return scores;
}

absl::StatusOr<std::vector<ScoredPrice>> ReadTokens(const Network& network, const Pricer& pricer,
                                                    absl::Span<const Prompt> prompts,
                                                    const std::vector<double>& truths,
                                                    const EvaluationOptions& options,
                                                    const BatchObserver& observer, double fallback,
                                                    std::optional<TokenMass>* token_mass,
                                                    int64_t* unparsable) {
  ASSIGN_OR_RETURN(const Estimator estimator, Estimator::Parse(options.estimator));
  ASSIGN_OR_RETURN(const std::vector<PriceTree::Result> results,
                   ComputeTokenPrices(network, pricer.weights(), *pricer.tokens, prompts,
                                      options.batch_tokens, observer));
  Manifest reader;  // of a base or adapter without one
  reader.head = HeadKind::kToken;
  const auto share = 1.0 / static_cast<double>(results.size());
  TokenMass mass;
  std::vector<ScoredPrice> scores;
  for (size_t i = 0; i < results.size(); ++i) {
    const PriceTree::Result& result = results[i];
    ASSIGN_OR_RETURN(const PriceDistribution distribution, reader.Distribution(MassesOf(result)));
    const bool says_prices = PriceMass(result) > 0;
    if (!says_prices) ++*unparsable;
    scores.push_back(says_prices ? ScoreDistribution(distribution, pricer.conformal_offset(),
                                                     truths[i], estimator)
                                 : ScorePoint(fallback, truths[i]));
    mass.pruned += share * result.pruned;
    mass.overflow += share * result.overflow;
    mass.not_a_price += share * result.not_a_price;
  }
  mass.prices = 1.0 - mass.pruned - mass.overflow - mass.not_a_price;
  *token_mass = mass;
  return scores;
}

absl::StatusOr<std::vector<ScoredPrice>> GenerateScores(
    const Network& network, const Pricer& pricer, const Tokenizer& tokenizer,
    absl::Span<const Prompt> prompts, const std::vector<double>& truths, double fallback,
    int64_t batch_tokens, const BatchObserver& observer, int64_t* unparsable) {
  ASSIGN_OR_RETURN(
      const std::vector<GeneratedPrice> generated,
      GeneratePrices(network, pricer.weights(), tokenizer, prompts, batch_tokens, observer));
  std::vector<ScoredPrice> scores;
  for (size_t i = 0; i < generated.size(); ++i) {
    if (!generated[i].price.has_value()) ++*unparsable;
    scores.push_back(ScorePoint(generated[i].price.value_or(fallback), truths[i]));
  }
  return scores;
}

void WarnOfDifferences(const Pricer& pricer, const Network& network) {
  if (!pricer.manifest.has_value()) return;
  const absl::string_view weights = WeightsKindName(network.options().weights);
  const absl::string_view dtype = ComputeDtypeName(network.options().dtype);
  if (weights == pricer.manifest->weights && dtype == pricer.manifest->dtype) return;
  const std::string tuned_in =
      pricer.manifest->dtype.empty() ? "an unknown dtype" : pricer.manifest->dtype;
  LogWarning(absl::StrCat("the adapter was tuned on ", pricer.manifest->weights, " weights in ",
                          tuned_in, " and is evaluated on ", weights, " in ", dtype));
}

absl::Status WriteResults(const EvaluationOptions& options, const Dataset& data,
                          const std::vector<ScoredPrice>& scores,
                          const EvaluationOutcome& outcome) {
  std::string lines;
  for (size_t i = 0; i < scores.size(); ++i) {
    absl::StrAppend(&lines, PredictionLine(data.item_ids[i], scores[i]));
  }
  RETURN_IF_ERROR(WriteFileAtomically(options.predictions, lines));
  return WriteFileAtomically(options.json, EvaluationJson(outcome.metrics, outcome.baseline));
}

// No file that is written is one that is read, or another that is written.
absl::Status CheckOutputs(const EvaluationOptions& options) {
  RETURN_IF_ERROR(CheckOtherFile("--json", options.json, "--predictions", options.predictions));
  const std::pair<absl::string_view, std::string> outputs[] = {
      {"--predictions", options.predictions},
      {"--json", options.json},
      {"rejects of --predictions", RejectsPath(options.predictions)}};
  for (const auto& [option, path] : outputs) {
    RETURN_IF_ERROR(CheckOtherFile(option, path, "--data", options.data));
    RETURN_IF_ERROR(CheckOtherFile(option, path, "--train-data", options.train_data));
  }
  return CheckOtherFile("--json", options.json, "rejects of --predictions",
                        RejectsPath(options.predictions));
}

}  // namespace

std::string RejectsPath(const std::string& predictions) {
  const absl::StatusOr<OutputPlace> place = FindOutputPlace(predictions);
  const bool stream = place.ok() && place->is_stream;
  return stream ? "" : predictions + ".rejects.jsonl";
}

absl::Status EvaluationOptions::Validate() const {
  RETURN_IF_ERROR(base.Validate());
  if (!adapter.empty()) RETURN_IF_ERROR(CheckDirectory("--adapter", adapter));
  RETURN_IF_ERROR(CheckFile("--data", data));
  if (!train_data.empty()) RETURN_IF_ERROR(CheckFile("--train-data", train_data));
  RETURN_IF_ERROR(CheckOutputFile("--predictions", predictions));
  RETURN_IF_ERROR(CheckOutputFile("--json", json));
  RETURN_IF_ERROR(CheckOutputs(*this));
  RETURN_IF_ERROR(MakePrompt(prompt, CurrencyOf(*this)).status());
  if (!Generates(*this)) {
    if (const absl::Status status = Estimator::Parse(estimator).status(); !status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--", status.message(), "; or generate, where there is no bins head"));
    }
  }
  RETURN_IF_ERROR(CheckBounds("--max-reject-share", max_reject_share, 0.0, 1.0));
  RETURN_IF_ERROR(CheckBounds<int64_t>("--limit", limit, 0, kManyItems));
  return CheckBounds<int64_t>("--batch-tokens", batch_tokens, 1, kManyItems);
}

absl::StatusOr<EvaluationOutcome> RunEvaluation(const EvaluationOptions& options) {
  RETURN_IF_ERROR(options.Validate());
  ASSIGN_OR_RETURN(const BaseModel base, OpenBase(options.base, /*needs_tokenizer=*/true));
  ASSIGN_OR_RETURN(const Pricer pricer, MakePricer(options, base));
  const int64_t answer_tokens =
      pricer.reads_bins() ? 0 : (pricer.tokens.has_value() ? kMaxPriceDigits : kMaxGeneratedTokens);
  RETURN_IF_ERROR(CheckContext(pricer.prompt, answer_tokens, base.checkpoint->config()));
  DatasetOptions dataset{.reader = ReaderOptions(options, pricer.currency),
                         .limit = options.limit,
                         .keep_texts = true};
  dataset.threads = options.base.threads;
  dataset.reader.rejects_path = RejectsPath(options.predictions);
  ASSIGN_OR_RETURN(const Dataset data,
                   LoadDataset(options.data, pricer.prompt, *base.tokenizer, dataset));
  const std::vector<double> truths = data.Prices();
  EvaluationOutcome outcome;
  outcome.rejects = data.summary.rejects;
  ASSIGN_OR_RETURN(outcome.baseline, FindBaseline(options, pricer, truths));
  ASSIGN_OR_RETURN(const std::unique_ptr<Network> network,
                   LoadNetwork(base, options.base,
                               pricer.manifest.has_value() ? pricer.manifest->weights : "nf4"));
  WarnOfDifferences(pricer, *network);

  std::vector<Prompt> prompts;
  for (const Example& example : data.examples) prompts.push_back(example.ids);
  Progress bar(stderr, StderrProgress("pricing", "items", static_cast<int64_t>(prompts.size())));
  const auto observe = [&](int64_t done) -> absl::Status {
    bar.Update(done, absl::StrFormat("%.1f items/s", static_cast<double>(done) /
                                                         absl::ToDoubleSeconds(bar.elapsed())));
    return InterruptRequested() ? absl::CancelledError("evaluation") : absl::OkStatus();
  };
  int64_t unparsable = 0;
  absl::StatusOr<std::vector<ScoredPrice>> scores;
  if (pricer.reads_bins()) {
    scores = ReadBins(*network, pricer, prompts, truths, options, observe);
  } else if (pricer.tokens.has_value()) {
    scores = ReadTokens(*network, pricer, prompts, truths, options, observe,
                        outcome.baseline.median, &outcome.token_mass, &unparsable);
  } else {
    scores = GenerateScores(*network, pricer, *base.tokenizer, prompts, truths,
                            outcome.baseline.median, options.batch_tokens, observe, &unparsable);
  }
  RETURN_IF_ERROR(scores.status());
  outcome.metrics = Measure(*scores);
  outcome.metrics.unparsable = unparsable;
  RETURN_IF_ERROR(WriteResults(options, data, *scores, outcome));
  return outcome;
}

}  // namespace pricer
