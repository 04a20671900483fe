#include "server/model_engine.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "model/adapter.h"
#include "model/checkpoint.h"
#include "model/network.h"
#include "model/tokenizer.h"
#include "server/predictor.h"

namespace pricer {
namespace {

class ModelEngine final : public Engine {
 public:
  ModelEngine(EngineInfo info, std::unique_ptr<Tokenizer> tokenizer,
              std::unique_ptr<Network> network, int threads)
      : info_(std::move(info)),
        tokenizer_(std::move(tokenizer)),
        network_(std::move(network)),
        predictor_(network_.get(), threads) {}

  const EngineInfo& info() const override { return info_; }
  BatchPredictor* predictor() override { return &predictor_; }

  absl::StatusOr<EncodedPrompt> Encode(const PromptTemplate& prompt,
                                       absl::string_view item_text) const override {
    return EncodePrompt(prompt, *tokenizer_, item_text);
  }

  absl::StatusOr<std::shared_ptr<LoadedAdapter>> LoadAdapter(
      const std::string& directory) const override;

 private:
  const EngineInfo info_;
  const std::unique_ptr<Tokenizer> tokenizer_;
  const std::unique_ptr<Network> network_;
  Predictor predictor_;
};

absl::StatusOr<std::shared_ptr<LoadedAdapter>> ModelEngine::LoadAdapter(
    const std::string& directory) const {
  ASSIGN_OR_RETURN(PublishedAdapter published,
                   LoadPublishedAdapter(directory, network_->config(), info_.model_fingerprint));
  auto adapter = std::make_shared<ModelAdapter>();
  adapter->key = {published.name, published.version};
  adapter->digest = std::move(published.digest);
  adapter->manifest = std::move(published.manifest);
  adapter->weights = std::move(published.adapter.weights);
  adapter->memory_bytes = adapter->weights.bytes();
  return adapter;
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
  ASSIGN_OR_RETURN(network_options.dtype, ParseComputeDtype(options.dtype));
  // For what runs on this thread; the batch thread sets its own.
  if (options.threads > 0) at::set_num_threads(options.threads);
  ASSIGN_OR_RETURN(ModelFiles files, OpenModelFiles(options));
  EngineInfo info;
  ASSIGN_OR_RETURN(info.model_fingerprint, files.checkpoint->Fingerprint());
  ASSIGN_OR_RETURN(std::unique_ptr<Network> network,
                   Network::Load(*files.checkpoint, network_options));
  info.weights = std::string(WeightsKindName(network_options.weights));
  info.dtype = std::string(ComputeDtypeName(network_options.dtype));
  info.device = options.device;
  LogInfo("base loaded", {{"path", options.base},
                          {"model", info.model_fingerprint},
                          {"weight_bytes", absl::StrCat(network->weight_bytes())},
                          {"seconds", absl::StrCat(absl::ToDoubleSeconds(absl::Now() - start))}});
  return std::make_unique<ModelEngine>(std::move(info), std::move(files.tokenizer),
                                       std::move(network), options.threads);
}

}  // namespace pricer
