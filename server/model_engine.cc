#include "server/model_engine.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/logging.h"
#include "base/mutex.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "model/adapter.h"
#include "model/checkpoint.h"
#include "model/cuda/device.h"
#include "model/network.h"
#include "model/nf4_cache.h"
#include "model/processor.h"
#include "model/token_head.h"
#include "model/tokenizer.h"
#include "model/torch_status.h"
#include "server/predictor.h"

namespace pricer {
namespace {

class ModelEngine final : public Engine {
 public:
  ModelEngine(EngineInfo info, std::unique_ptr<Tokenizer> tokenizer,
              std::unique_ptr<Network> network, const ServerOptions& options)
      : info_(std::move(info)),
        tokenizer_(std::move(tokenizer)),
        network_(std::move(network)),
        base_preset_(options.base_preset),
        base_currency_(options.base_currency),
        predictor_(network_.get(), options.threads) {}

  const EngineInfo& info() const override { return info_; }
  BatchPredictor* predictor() override { return &predictor_; }

  absl::StatusOr<EncodedPrompt> Encode(const PromptTemplate& prompt,
                                       absl::string_view item_text) const override {
    return EncodePrompt(prompt, *tokenizer_, item_text);
  }

  absl::StatusOr<LoadedVersion> LoadAdapter(const std::string& directory) const override;

  bool has_device_memory() const override { return cuda::RunsOn(network_->device()); }
  absl::StatusOr<TensorsHandle> CopyToDevice(const LoadedAdapter& adapter,
                                             const TensorsHandle& host) const override;

  absl::StatusOr<std::shared_ptr<LoadedAdapter>> LoadBase() const override;

 private:
  // Makes the adapter read its prices off the base's own head. FailedPrecondition where the
  // tokenizer has no tokens for them.
  absl::Status AddTokenHead(ModelAdapter* adapter) const;
  absl::StatusOr<std::shared_ptr<const PriceTokens>> TokensOf(const PromptTemplate& prompt) const;

  const EngineInfo info_;
  const std::unique_ptr<Tokenizer> tokenizer_;
  const std::unique_ptr<Network> network_;
  const std::string base_preset_;
  const std::string base_currency_;
  Predictor predictor_;

  mutable Mutex mutex_;
  // By what prompts are written with; those that nobody uses any more are gone.
  mutable std::map<std::pair<std::string, std::string>, std::weak_ptr<const PriceTokens>> tokens_
      ABSL_GUARDED_BY(mutex_);
};

absl::StatusOr<TensorsHandle> ModelEngine::CopyToDevice(const LoadedAdapter& adapter,
                                                        const TensorsHandle& host) const {
  const AdapterWeights& weights = static_cast<const ModelTensors&>(*host).weights;
  const at::Device device = network_->device();
  const std::string what =
      absl::StrCat("adapter \"", adapter.key.name, "\" version ", adapter.key.version);
  return CatchTorch(what, [&]() -> absl::StatusOr<TensorsHandle> {
    auto placed = std::make_shared<ModelTensors>();
    // By a stream of its own, so that batches go on meanwhile.
    cuda::RunOnOwnStream(device, [&] { placed->weights = CopyTo(weights, device, at::kBFloat16); });
    return placed;
  });
}

absl::StatusOr<LoadedVersion> ModelEngine::LoadAdapter(const std::string& directory) const {
  ASSIGN_OR_RETURN(PublishedAdapter published,
                   LoadPublishedAdapter(directory, network_->config(), info_.model_fingerprint));
  auto adapter = std::make_shared<ModelAdapter>();
  adapter->key = {published.name, published.version};
  adapter->digest = std::move(published.digest);
  adapter->manifest = std::move(published.manifest);
  adapter->memory_bytes = published.adapter.weights.bytes();
  if (adapter->manifest.head == HeadKind::kToken) {
    if (const absl::Status status = AddTokenHead(adapter.get()); !status.ok()) {
      return absl::Status(status.code(), absl::StrCat(directory, ": ", status.message()));
    }
  }
  auto tensors = std::make_shared<ModelTensors>();
  tensors->weights = std::move(published.adapter.weights);
  return LoadedVersion{std::move(adapter), std::move(tensors)};
}

absl::StatusOr<std::shared_ptr<LoadedAdapter>> ModelEngine::LoadBase() const {
  auto base = std::make_shared<ModelAdapter>();
  base->key = BaseKey();
  Manifest& manifest = base->manifest;
  manifest.base_fingerprint = info_.model_fingerprint;
  manifest.weights = info_.weights;
  manifest.dtype = info_.dtype;
  manifest.head = HeadKind::kToken;
  manifest.currency = base_currency_;
  ASSIGN_OR_RETURN(manifest.prompt, PromptTemplate::Preset(base_preset_, base_currency_));
  const int64_t needed = manifest.prompt.max_prompt_tokens + kMaxPriceDigits;
  if (needed > network_->config().context_tokens) {
    return absl::FailedPreconditionError(absl::StrCat("expected a context of at least ", needed,
                                                      " tokens, got ",
                                                      network_->config().context_tokens));
  }
  base->digest = Sha256Hex(manifest.ToJson());
  RETURN_IF_ERROR(AddTokenHead(base.get()));
  return base;
}

absl::Status ModelEngine::AddTokenHead(ModelAdapter* adapter) const {
  absl::StatusOr<std::shared_ptr<const PriceTokens>> tokens = TokensOf(adapter->manifest.prompt);
  if (!tokens.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat("no prices can be read off the base's own head behind the prompt's prefix: ",
                     tokens.status().message()));
  }
  adapter->tokens = *std::move(tokens);
  if (adapter->tokens->kind == PriceTokens::Kind::kDigits) {
    adapter->tree_rows = std::make_shared<RowEstimate>(kWholePriceCount);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const PriceTokens>> ModelEngine::TokensOf(
    const PromptTemplate& prompt) const {
  const std::pair<std::string, std::string> key(prompt.question, prompt.prefix);
  MutexLock lock(&mutex_);
  std::erase_if(tokens_, [](const auto& entry) { return entry.second.expired(); });
  if (const auto found = tokens_.find(key); found != tokens_.end()) {
    if (auto tokens = found->second.lock()) return tokens;
  }
  ASSIGN_OR_RETURN(PriceTokens probed, ProbePriceTokens(prompt, *tokenizer_));
  auto tokens = std::make_shared<const PriceTokens>(std::move(probed));
  tokens_[key] = tokens;
  return tokens;
}

struct ModelFiles {
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Tokenizer> tokenizer;
};

absl::StatusOr<ModelFiles> OpenModelFiles(const ServerOptions& options) {
  ModelFiles files;
  ASSIGN_OR_RETURN(files.checkpoint, Checkpoint::Open(options.base));
  ASSIGN_OR_RETURN(files.tokenizer, Tokenizer::FromDirectory(
                                        options.base, files.checkpoint->config().vocabulary_size));
  return files;
}

}  // namespace

absl::Status CheckModelFiles(const ServerOptions& options) {
  return OpenModelFiles(options).status();
}

absl::StatusOr<std::unique_ptr<Engine>> LoadModelEngine(const ServerOptions& options) {
  const absl::Time start = absl::Now();
  NetworkOptions network_options;
  ASSIGN_OR_RETURN(network_options.weights, ParseWeightsKind(options.weights));
  ASSIGN_OR_RETURN(network_options.device, ParseDevice(options.device));
  ASSIGN_OR_RETURN(network_options.dtype, ParseComputeDtype(options.dtype, network_options.device));
  if (network_options.device.is_cpu()) {
    const std::string warning =
        ProcessorWarning(ThisProcessor(), network_options.dtype == at::kBFloat16);
    if (!warning.empty()) LogWarning(warning);
  }
  // For what runs on this thread; the batch thread sets its own.
  if (options.threads > 0) at::set_num_threads(options.threads);
  ASSIGN_OR_RETURN(ModelFiles files, OpenModelFiles(options));
  EngineInfo info;
  ASSIGN_OR_RETURN(info.model_fingerprint, files.checkpoint->Fingerprint());
  network_options.keep_nf4 = KeepsNf4(*files.checkpoint, network_options, Residency::kWhatFits);
  std::unique_ptr<Checkpoint> form;
  if (!options.nf4_cache.empty() && network_options.weights == WeightsKind::kNf4 &&
      !files.checkpoint->declares_nf4()) {
    ASSIGN_OR_RETURN(form, OpenNf4Form(*files.checkpoint, options.nf4_cache));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<Network> network,
                   Network::Load(form != nullptr ? *form : *files.checkpoint, network_options));
  info.weights = std::string(WeightsKindName(network_options.weights));
  info.dtype = std::string(ComputeDtypeName(network_options.dtype));
  info.device = network_options.device.str();
  LogInfo("base loaded", {{"path", options.base},
                          {"model", info.model_fingerprint},
                          {"weight_bytes", absl::StrCat(network->weight_bytes())},
                          {"seconds", absl::StrCat(absl::ToDoubleSeconds(absl::Now() - start))}});
  return std::make_unique<ModelEngine>(std::move(info), std::move(files.tokenizer),
                                       std::move(network), options);
}

}  // namespace pricer
