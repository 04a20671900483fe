#include "tests/server/tiny_adapter.h"

#include <ATen/core/grad_mode.h>

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/checkpoint.h"
#include "model/token_head.h"
#include "server/price_answer.h"

namespace pricer::testing {
namespace {

constexpr int kGoldenItems = 8;

PeftConfig TinyConfig(PeftTask task) {
  PeftConfig config;
  config.task = task;
  config.r = 4;
  config.alpha = 8;
  config.target_modules = {"q_proj", "v_proj", "down_proj"};
  return config;
}

absl::StatusOr<PeftAdapter> MakeRandomPeft(const ModelConfig& model, int bins, uint64_t seed) {
  ASSIGN_OR_RETURN(PeftAdapter adapter,
                   MakeAdapter(TinyConfig(PeftTask::kSeqCls), model, bins, seed));
  const at::NoGradGuard no_gradients;
  at::manual_seed(seed);
  // New adapters price as the base does: B and the head begin at zero.
  for (auto& layer : adapter.weights.layers) {
    for (LoraWeights& lora : layer) {
      if (lora.defined()) lora.b = at::randn(lora.b.sizes()) * 0.1;
    }
  }
  adapter.weights.score = at::randn(adapter.weights.score.sizes());
  return adapter;
}

absl::Status AddGoldenItems(Engine* engine, double factor, TinyAdapter* adapter) {
  for (int i = 0; i < kGoldenItems; ++i) {
    const std::string item = absl::StrCat("golden item ", i);
    ASSIGN_OR_RETURN(const EncodedPrompt prompt, engine->Encode(adapter->manifest.prompt, item));
    const PredictorSequence sequence{prompt.ids, adapter, adapter};
    const BatchPredictor::Results results = engine->predictor()->PredictBatch({&sequence, 1});
    RETURN_IF_ERROR(results[0].status());
    const PriceAnswer answer = AnswerFrom(*results[0], adapter->manifest, PriceOptions());
    adapter->manifest.golden.push_back(
        {item, answer.price * factor, answer.intervals[0].low, answer.intervals[0].high});
  }
  return absl::OkStatus();
}

absl::StatusOr<PublishedVersion> Publish(TinyAdapter adapter, Engine* engine,
                                         const std::string& root, const std::string& name,
                                         double golden_factor) {
  RETURN_IF_ERROR(AddGoldenItems(engine, golden_factor, &adapter));
  const PeftTask task = adapter.tokens == nullptr ? PeftTask::kSeqCls : PeftTask::kCausalLm;
  return PublishAdapter({.config = TinyConfig(task), .weights = adapter.weights}, adapter.manifest,
                        root, name);
}

}  // namespace

absl::StatusOr<TinyAdapter> MakeTinyAdapter(const std::string& base, uint64_t seed) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint, Checkpoint::Open(base));
  TinyAdapter adapter;
  adapter.key = {"tiny", static_cast<int64_t>(seed)};
  Manifest& manifest = adapter.manifest;
  ASSIGN_OR_RETURN(manifest.base_fingerprint, checkpoint->Fingerprint());
  manifest.base_name = "tiny";
  manifest.weights = "fp32";
  manifest.dtype = "fp32";
  manifest.currency = "USD";
  ASSIGN_OR_RETURN(manifest.prompt, PromptTemplate::Preset("default", manifest.currency));
  manifest.bins = {.bins = 16, .min_price = 5, .max_price = 500};
  manifest.trainer_version = "test";
  ASSIGN_OR_RETURN(PeftAdapter peft,
                   MakeRandomPeft(checkpoint->config(), manifest.bins.bins, seed));
  adapter.weights = std::move(peft.weights);
  return adapter;
}

absl::StatusOr<PublishedVersion> PublishTinyAdapter(const std::string& base, Engine* engine,
                                                    const std::string& root,
                                                    const std::string& name, uint64_t seed,
                                                    double golden_factor) {
  ASSIGN_OR_RETURN(TinyAdapter adapter, MakeTinyAdapter(base, seed));
  return Publish(std::move(adapter), engine, root, name, golden_factor);
}

absl::StatusOr<TinyAdapter> MakeTinyTokenAdapter(const std::string& base, uint64_t seed) {
  ASSIGN_OR_RETURN(TinyAdapter adapter, MakeTinyAdapter(base, seed));
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, Tokenizer::FromDirectory(base));
  ASSIGN_OR_RETURN(PriceTokens tokens, ProbePriceTokens(adapter.manifest.prompt, *tokenizer));
  adapter.tokens = std::make_shared<const PriceTokens>(std::move(tokens));
  adapter.tree_rows = std::make_shared<RowEstimate>(kWholePriceCount);
  adapter.manifest.head = HeadKind::kToken;
  adapter.weights.score = at::Tensor();
  return adapter;
}

absl::StatusOr<PublishedVersion> PublishTinyTokenAdapter(const std::string& base, Engine* engine,
                                                         const std::string& root,
                                                         const std::string& name, uint64_t seed,
                                                         double golden_factor) {
  ASSIGN_OR_RETURN(TinyAdapter adapter, MakeTinyTokenAdapter(base, seed));
  return Publish(std::move(adapter), engine, root, name, golden_factor);
}

absl::Status PlacePlainAdapter(const std::string& base, const std::string& root,
                               const std::string& name, uint64_t seed) {
  ASSIGN_OR_RETURN(const TinyAdapter adapter, MakeTinyTokenAdapter(base, seed));
  const std::string directory = absl::StrCat(root, "/", name, "/1");
  std::filesystem::create_directories(directory);
  RETURN_IF_ERROR(SavePeftAdapter(
      {.config = TinyConfig(PeftTask::kCausalLm), .weights = adapter.weights}, directory));
  return WriteFile(directory + "/_READY", "");
}

}  // namespace pricer::testing
