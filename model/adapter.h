#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/adapter_directory.h"
#include "model/lora.h"
#include "model/manifest.h"
#include "model/model_config.h"
#include "model/peft_config.h"

namespace pricer {

// A PEFT directory in memory.
struct PeftAdapter {
  PeftConfig config;
  AdapterWeights weights;
};

// Random A in +-1/sqrt(in) (Kaiming, as PEFT), zero B; zero score rows [bins, H] for kSeqCls.
// Deterministic in `seed`: Philox4x32-10 keyed by it, counter (element / 4 as 64 bits, layer *
// kProjectionCount + projection, 0). InvalidArgument where one of the targets matches no linear.
absl::StatusOr<PeftAdapter> MakeAdapter(const PeftConfig& config, const ModelConfig& model,
                                        int bins, uint64_t seed);

// Reads adapter_config.json and adapter_model.safetensors. Strict: DataLoss names missing, extra
// and wrongly shaped tensors (with both shapes) and non-finite values. F32, F16 and BF16 are read,
// fp32 kept. Any PEFT directory, ours or not; `bins` of a SEQ_CLS head is its row count. Links that
// leave the directory are refused, and so is a file that `sha256` (name -> digest) names with other
// bytes. Files are read, not mapped: one that shrinks meanwhile is an error, not a crash.
absl::StatusOr<PeftAdapter> LoadPeftAdapter(const std::string& directory, const ModelConfig& model,
                                            const std::map<std::string, std::string>& sha256 = {});

// Writes both files into an existing directory, as PEFT would (fp32), flushed to the disk.
// InvalidArgument names a tensor that is missing or not finite.
absl::Status SavePeftAdapter(const PeftAdapter& adapter, const std::string& directory);

// A published version: PEFT files plus pricer.json and _READY; or a plain one, PEFT files and an
// empty _READY.
struct PublishedAdapter {
  // From the directory's path; empty and 0 where it is not of the form <name>/<version>.
  std::string name;
  int64_t version = 0;
  std::string directory;
  PeftAdapter adapter;
  // Of a plain version made up: base_fingerprint and weights are empty, nothing was recorded.
  Manifest manifest;
  // SHA-256 of pricer.json, or of what the made-up manifest would be there.
  std::string digest;
};

// Loads ADAPTERS/<name>/<version>/ and checks: _READY present and equal to the digest of
// pricer.json, sha256 of every file, format version, base fingerprint and prompt length against the
// base's context (FailedPrecondition names both), head against tensors, finite values. A directory
// that is a link to outside its ADAPTERS folder is refused. NotFound without _READY or pricer.json;
// DataLoss names the file that is broken.
//
// A directory as PEFT saves it, whose _READY is empty, is read as the published recipe has it: the
// token head, the prompt of the preset "reference", US dollars. Whether it was made for this base
// shows in the shapes alone. FailedPrecondition for a bins head, whose range nothing tells.
absl::StatusOr<PublishedAdapter> LoadPublishedAdapter(const std::string& directory,
                                                      const ModelConfig& model,
                                                      absl::string_view base_fingerprint);

// Publishes the next version of `name` under `root` (made if absent): temporary sibling, fsync,
// rename, marker last. The manifest's `files` are filled in here. Returns the version's directory
// and number. Nothing half-written has a version's name, whatever fails. Safe against other
// publishers of the same name.
absl::StatusOr<PublishedVersion> PublishAdapter(const PeftAdapter& adapter, Manifest manifest,
                                                const std::string& root, const std::string& name);

}  // namespace pricer
