#include "trainer/merge.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/interrupt.h"
#include "base/logging.h"
#include "base/new_directory.h"
#include "base/status_macros.h"
#include "model/adapter.h"
#include "model/price_distribution.h"
#include "trainer/base_model.h"
#include "trainer/inference.h"
#include "trainer/option_checks.h"

namespace pricer {
namespace {

constexpr int64_t kBatchTokens = 1024;

// Where an adapter brings no golden items.
constexpr std::array<absl::string_view, 4> kProbeItems = {
    "Cast iron skillet, 26 cm, pre-seasoned, for all stoves",
    "Wireless over-ear headphones with noise cancelling and 40 hours of battery life",
    "Garden hose, 20 m, with brass fittings and spray gun",
    "Mechanical wrist watch, sapphire glass, stainless steel, water resistant to 100 m"};

struct Tuned {
  PeftAdapter adapter;
  std::optional<Manifest> manifest;  // of a published version
};

absl::StatusOr<Tuned> LoadTuned(const MergeRunOptions& options, const BaseModel& base) {
  Tuned tuned;
  const ModelConfig& config = base.checkpoint->config();
  if (!std::filesystem::exists(absl::StrCat(options.adapter, "/", kManifestFile))) {
    ASSIGN_OR_RETURN(tuned.adapter, LoadPeftAdapter(options.adapter, config));
    return tuned;
  }
  ASSIGN_OR_RETURN(const std::string fingerprint, base.checkpoint->Fingerprint());
  ASSIGN_OR_RETURN(PublishedAdapter published,
                   LoadPublishedAdapter(options.adapter, config, fingerprint));
  tuned.adapter = std::move(published.adapter);
  tuned.manifest = std::move(published.manifest);
  return tuned;
}

absl::StatusOr<WeightsKind> ChooseWeights(const MergeRunOptions& options, const Checkpoint& base,
                                          const Tuned& tuned) {
  if (base.declares_nf4()) {
    if (options.onto != "original") return WeightsKind::kNf4;
    return absl::FailedPreconditionError(
        absl::StrCat("--onto original: ", base.directory(),
                     " is quantized; expected --base with the weights in 16 or 32 bits"));
  }
  if (options.onto == "dequantized") return WeightsKind::kNf4;
  if (options.onto == "original") return WeightsKind::kFp32;
  if (tuned.manifest.has_value()) return ParseWeightsKind(tuned.manifest->weights);
  return absl::InvalidArgumentError(absl::StrCat(
      options.adapter, " has no ", kManifestFile,
      " that says what it was tuned on: give --onto dequantized if the base was quantized to NF4 "
      "in tuning (QLoRA), else --onto original"));
}

void WarnOfAnotherBase(const Tuned& tuned, const Checkpoint& base, WeightsKind onto) {
  if (!tuned.manifest.has_value() || tuned.manifest->weights == WeightsKindName(onto)) return;
  LogWarning(absl::StrCat("the adapter was tuned on ", tuned.manifest->weights,
                          " weights and is merged onto ", base.declares_nf4() ? "stored " : "",
                          WeightsKindName(onto), " ones: prices will differ"));
}

// The price ranges of the bins; LABEL_0 and so on, as transformers has it, where none are known.
std::vector<std::string> BinNames(const Tuned& tuned) {
  if (!tuned.adapter.weights.score.defined()) return {};
  const auto bins = static_cast<int>(tuned.adapter.weights.score.size(0));
  std::vector<std::string> names;
  if (!tuned.manifest.has_value()) {
    for (int i = 0; i < bins; ++i) names.push_back(absl::StrCat("LABEL_", i));
    return names;
  }
  const BinsSpec& spec = tuned.manifest->bins;
  const std::vector<double> edges =
      PriceDistribution(spec.min_price, spec.max_price, std::vector<double>(bins, 1.0)).Edges();
  for (int i = 0; i < bins; ++i) {
    // The number makes narrow bins different.
    names.push_back(absl::StrFormat("bin %d: %.6g to %.6g %s", i, edges[i], edges[i + 1],
                                    tuned.manifest->currency));
  }
  return names;
}

using Prompts = std::vector<std::vector<int32_t>>;

// For a base without a tokenizer: tokens from all over the vocabulary.
Prompts TokenPrompts(const ModelConfig& config) {
  constexpr uint64_t kStride = 2654435761;  // prime, 2^32 / golden ratio: spreads
  Prompts prompts(kProbeItems.size());
  uint64_t next = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const int64_t length = std::min<int64_t>(8 << i, config.MaxSequenceTokens());
    for (int64_t k = 0; k < length; ++k) {
      prompts[i].push_back(static_cast<int32_t>((next += kStride) % config.vocabulary_size));
    }
  }
  return prompts;
}

absl::StatusOr<Prompts> MakePrompts(const Tuned& tuned, const BaseModel& base) {
  const ModelConfig& config = base.checkpoint->config();
  if (base.tokenizer == nullptr) return TokenPrompts(config);
  std::vector<std::string> items(kProbeItems.begin(), kProbeItems.end());
  ASSIGN_OR_RETURN(PromptTemplate prompt, PromptTemplate::Preset("reference", "USD"));
  prompt.max_prompt_tokens = std::min(prompt.max_prompt_tokens, config.MaxSequenceTokens());
  if (tuned.manifest.has_value()) {
    prompt = tuned.manifest->prompt;
    if (!tuned.manifest->golden.empty()) items.clear();
    for (const GoldenItem& golden : tuned.manifest->golden) items.push_back(golden.item);
  }
  Prompts prompts;
  for (const std::string& item : items) {
    ASSIGN_OR_RETURN(EncodedPrompt encoded, EncodePrompt(prompt, *base.tokenizer, item));
    prompts.push_back(std::move(encoded.ids));
  }
  return prompts;
}

// What a network makes of the prompts.
struct Answers {
  at::Tensor hidden;  // [prompts, H] fp32
  at::Tensor logits;  // [prompts, bins or V] fp32
};

absl::StatusOr<Answers> Answer(const Checkpoint& checkpoint, const NetworkOptions& options,
                               const AdapterWeights* adapter, const at::Tensor& score,
                               const Prompts& prompts) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Network> network,
                   Network::Load(checkpoint, options, InterruptRequested));
  std::vector<at::Tensor> hidden;
  std::vector<at::Tensor> logits;
  const auto consume = [&](int64_t, const at::Tensor& states) -> absl::Status {
    hidden.push_back(states.to(at::kFloat));
    logits.push_back(score.defined() ? Network::BinLogits(states, network->Place(score))
                                     : network->Logits(states));
    return InterruptRequested() ? absl::CancelledError("comparing") : absl::OkStatus();
  };
  const std::vector<Prompt> spans(prompts.begin(), prompts.end());
  RETURN_IF_ERROR(ForEachBatch(*network, adapter, spans, kBatchTokens, consume));
  return Answers{at::cat(hidden), at::cat(logits)};
}

absl::StatusOr<double> MedianPrice(const Manifest& manifest, const std::vector<float>& logits) {
  ASSIGN_OR_RETURN(const PriceDistribution distribution,
                   PriceDistribution::FromLogits(manifest.bins.min_price, manifest.bins.max_price,
                                                 logits, manifest.temperature));
  return distribution.Estimate({});
}

absl::StatusOr<double> LargestPriceChange(const Manifest& manifest, const at::Tensor& before,
                                          const at::Tensor& after) {
  const auto from = RowsOf(before);
  const auto to = RowsOf(after);
  double largest = 0;
  for (size_t i = 0; i < from.size(); ++i) {
    ASSIGN_OR_RETURN(const double old_price, MedianPrice(manifest, from[i]));
    ASSIGN_OR_RETURN(const double new_price, MedianPrice(manifest, to[i]));
    largest = std::max(largest, std::abs(new_price / old_price - 1.0));
  }
  return largest;
}

double LargestDifference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

// `directory` is the merged checkpoint before it gets its name.
absl::StatusOr<MergeComparison> Compare(const MergeRunOptions& options, const BaseModel& base,
                                        const Tuned& tuned, WeightsKind onto,
                                        const std::string& directory) {
  ASSIGN_OR_RETURN(const Prompts prompts, MakePrompts(tuned, base));
  NetworkOptions network;
  ASSIGN_OR_RETURN(network.dtype, ParseComputeDtype(options.check));
  // What the adapter was tuned on shows what merging onto anything else costs.
  network.weights = onto;
  if (tuned.manifest.has_value()) {
    ASSIGN_OR_RETURN(network.weights, ParseWeightsKind(tuned.manifest->weights));
  }
  const AdapterWeights& weights = tuned.adapter.weights;
  ASSIGN_OR_RETURN(const Answers before,
                   Answer(*base.checkpoint, network, &weights, weights.score, prompts));
  network.weights = WeightsKind::kFp32;  // as stored
  ASSIGN_OR_RETURN(
      const std::unique_ptr<Checkpoint> merged,
      weights.score.defined() ? Checkpoint::OpenDecoder(directory) : Checkpoint::Open(directory));
  ASSIGN_OR_RETURN(const Answers after,
                   Answer(*merged, network, /*adapter=*/nullptr, weights.score, prompts));
  MergeComparison comparison;
  comparison.prompts = static_cast<int64_t>(prompts.size());
  comparison.golden = tuned.manifest.has_value() && !tuned.manifest->golden.empty();
  comparison.hidden_difference = LargestDifference(before.hidden, after.hidden);
  comparison.logits_difference = LargestDifference(before.logits, after.logits);
  if (tuned.manifest.has_value()) {
    ASSIGN_OR_RETURN(comparison.price_change,
                     LargestPriceChange(*tuned.manifest, before.logits, after.logits));
  }
  return comparison;
}

Dtype OutputDtype(absl::string_view text) {
  if (text == "fp32") return Dtype::kF32;
  return text == "fp16" ? Dtype::kF16 : Dtype::kBF16;
}

absl::Status CheckChoice(absl::string_view option, absl::string_view value,
                         std::initializer_list<absl::string_view> choices) {
  if (std::find(choices.begin(), choices.end(), value) != choices.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(option, " is ", value, "; expected ", absl::StrJoin(choices, ", ")));
}

}  // namespace

absl::Status MergeRunOptions::Validate() const {
  RETURN_IF_ERROR(CheckDirectory("--base", base));
  RETURN_IF_ERROR(CheckDirectory("--adapter", adapter));
  RETURN_IF_ERROR(CheckNotEmpty("--output", output));
  RETURN_IF_ERROR(CheckChoice("--onto", onto, {"auto", "dequantized", "original"}));
  RETURN_IF_ERROR(CheckChoice("--dtype", dtype, {"bf16", "fp16", "fp32"}));
  RETURN_IF_ERROR(CheckChoice("--check", check, {"fp32", "bf16", "none"}));
  return CheckBounds("--threads", threads, 0, 1024);
}

absl::StatusOr<MergeOutcome> RunMerge(const MergeRunOptions& options) {
  RETURN_IF_ERROR(options.Validate());
  if (options.threads > 0) at::set_num_threads(options.threads);
  BaseOptions base_options;
  base_options.directory = options.base;
  ASSIGN_OR_RETURN(const BaseModel base, OpenBase(base_options, /*needs_tokenizer=*/false));
  ASSIGN_OR_RETURN(const Tuned tuned, LoadTuned(options, base));
  ASSIGN_OR_RETURN(const WeightsKind onto, ChooseWeights(options, *base.checkpoint, tuned));
  WarnOfAnotherBase(tuned, *base.checkpoint, onto);
  ASSIGN_OR_RETURN(NewDirectory made, NewDirectory::Create(options.output));
  MergeOutcome outcome;
  outcome.onto = onto;
  outcome.has_bins = tuned.adapter.weights.score.defined();
  ASSIGN_OR_RETURN(outcome.summary, MergeAdapter(*base.checkpoint, tuned.adapter,
                                                 {.weights = onto,
                                                  .dtype = OutputDtype(options.dtype),
                                                  .max_shard_bytes = options.max_shard_bytes,
                                                  .bin_names = BinNames(tuned)},
                                                 made.path(), InterruptRequested));
  if (options.check != "none") {
    ASSIGN_OR_RETURN(outcome.comparison, Compare(options, base, tuned, onto, made.path()));
  }
  RETURN_IF_ERROR(made.Commit());
  return outcome;
}

}  // namespace pricer
