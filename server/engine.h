#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/prompt.h"
#include "server/batch_predictor.h"
#include "server/loaded_adapter.h"

namespace pricer {

// What an engine computes with.
struct EngineInfo {
  // Fingerprint of the base model.
  std::string model_fingerprint;
  std::string weights;  // "nf4", "bf16", "fp32"
  std::string dtype;    // "fp32", "bf16"
  std::string device;   // what computes: "cpu", "cuda:0"
};

// All that the server needs of the model; what knows tensors is behind it.
class Engine {
 public:
  virtual ~Engine() = default;

  virtual const EngineInfo& info() const = 0;

  // For the batch thread alone.
  virtual BatchPredictor* predictor() = 0;

  // Renders, tokenizes and truncates. Thread-safe.
  virtual absl::StatusOr<EncodedPrompt> Encode(const PromptTemplate& prompt,
                                               absl::string_view item_text) const = 0;

  // Reads and checks the files of ADAPTERS/<name>/<version>/; a link that leads out of the folder
  // is refused. The adapter's key is that name and version; its tensors are in host memory.
  // FailedPrecondition where it does not fit the base, or the base's tokenizer its head.
  // Thread-safe.
  virtual absl::StatusOr<LoadedVersion> LoadAdapter(const std::string& directory) const = 0;

  // Whether batches are computed in memory of a device's own.
  virtual bool has_device_memory() const { return false; }

  // Brings an adapter's tensors there, while batches go on. Thread-safe.
  // REQUIRES: has_device_memory().
  virtual absl::StatusOr<TensorsHandle> CopyToDevice(const LoadedAdapter& /*adapter*/,
                                                     const TensorsHandle& host) const {
    return host;
  }

  // The base without an adapter, under BaseKey(): its own head is read, and it has no tensors.
  // FailedPrecondition says why it cannot be. Thread-safe.
  virtual absl::StatusOr<std::shared_ptr<LoadedAdapter>> LoadBase() const = 0;
};

}  // namespace pricer
