#include "model/checkpoint.h"

#include <sys/stat.h>

#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/check.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "model/json_fields.h"

namespace pricer {
namespace {

using Json = nlohmann::json;
using TensorMap = std::map<std::string, TensorView, std::less<>>;
using FileMap = std::map<std::string, std::string, std::less<>>;

constexpr int64_t kFingerprintBytes = 64 << 10;

bool Exists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

// What config.json says beyond the architecture.
struct StorageOptions {
  // Linear layers may be in bitsandbytes' NF4 form.
  bool nf4 = false;
  // Empty where none is declared.
  std::string fingerprint;
};

absl::Status ReadQuantization(const JsonFields& fields, StorageOptions* options) {
  if (!fields.Has("quantization_config")) return absl::OkStatus();
  ASSIGN_OR_RETURN(const JsonFields quantization, fields.Object("quantization_config"));
  const auto unsupported = [&](absl::string_view field, absl::string_view problem) {
    return quantization.Error(absl::StatusCode::kUnimplemented, field, problem);
  };
  std::string method;
  RETURN_IF_ERROR(quantization.Require("quant_method", &method));
  if (method != "bitsandbytes") {
    return unsupported("quant_method",
                       absl::StrCat(Quoted(method), " is not supported; expected 'bitsandbytes'"));
  }
  bool four_bit = false;
  RETURN_IF_ERROR(quantization.Get("load_in_4bit", &four_bit));
  if (!four_bit) return unsupported("load_in_4bit", "expected true: 8 bits are not supported");
  std::string type = "fp4";  // transformers' default
  RETURN_IF_ERROR(quantization.Get("bnb_4bit_quant_type", &type));
  if (type != "nf4") {
    return unsupported("bnb_4bit_quant_type",
                       absl::StrCat(Quoted(type), " is not supported; expected 'nf4'"));
  }
  options->nf4 = true;
  return absl::OkStatus();
}

absl::StatusOr<StorageOptions> ReadStorageOptions(const std::string& path) {
  ASSIGN_OR_RETURN(const Json value, ReadJsonFile(path));
  ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Create(value, path));
  StorageOptions options;
  RETURN_IF_ERROR(ReadQuantization(fields, &options));
  RETURN_IF_ERROR(fields.Get("pricer_base_fingerprint", &options.fingerprint));
  if (!options.fingerprint.empty() && !IsSha256Hex(options.fingerprint)) {
    return fields.Error("pricer_base_fingerprint",
                        absl::StrCat("expected 64 lower-case hexadecimal digits, got ",
                                     Quoted(options.fingerprint)));
  }
  return options;
}

// The architecture's name says only what the head is.
absl::StatusOr<ModelConfig> ReadDecoderConfig(const std::string& path) {
  ASSIGN_OR_RETURN(Json value, ReadJsonFile(path));
  if (value.is_object()) value.erase("architectures");
  return ModelConfig::FromJson(value.dump(), path);
}

// Names of the shards, in order, and which tensor the index puts where.
struct ShardIndex {
  std::vector<std::string> files;
  std::map<std::string, std::string> weight_map;
};

absl::StatusOr<ShardIndex> ReadIndex(const std::string& path) {
  ASSIGN_OR_RETURN(const Json value, ReadJsonFile(path, absl::StatusCode::kDataLoss));
  ASSIGN_OR_RETURN(const JsonFields fields,
                   JsonFields::Create(value, path, "", absl::StatusCode::kDataLoss));
  ShardIndex index;
  RETURN_IF_ERROR(fields.Require("weight_map", &index.weight_map));
  std::set<std::string> files;
  for (const auto& [tensor, file] : index.weight_map) {
    if (!IsPlainFileName(file)) {
      return fields.Error("weight_map",
                          absl::StrCat("tensor ", Quoted(tensor),
                                       ": expected a plain file name, got ", Quoted(file)));
    }
    files.insert(file);
  }
  index.files.assign(files.begin(), files.end());
  return index;
}

// The tensors of an architecture as a checkpoint must have them; every one that is found is struck
// off.
class TensorSetChecker {
 public:
  TensorSetChecker(const ModelConfig& config, bool nf4, const std::string& directory,
                   const TensorMap& tensors, const FileMap& file_of)
      : config_(config), nf4_(nf4), directory_(directory), tensors_(tensors), file_of_(file_of) {
    for (const auto& [name, view] : tensors) unclaimed_.insert(name);
  }

  absl::Status Check() {
    const int64_t hidden = config_.hidden_size;
    RETURN_IF_ERROR(CheckTensor("model.embed_tokens.weight", {config_.vocabulary_size, hidden}));
    RETURN_IF_ERROR(CheckTensor("model.norm.weight", {hidden}));
    for (int64_t layer = 0; layer < config_.layer_count; ++layer)
      RETURN_IF_ERROR(CheckLayer(layer));
    if (!config_.tied_embeddings) {
      RETURN_IF_ERROR(CheckLinear("lm_head", {config_.vocabulary_size, hidden}));
    }
    if (unclaimed_.empty()) return absl::OkStatus();
    return Corrupt(*unclaimed_.begin(),
                   absl::StrCat("extra tensor: a Llama of ", config_.layer_count,
                                " layers has none of this name"));
  }

 private:
  absl::Status CheckLayer(int64_t layer) {
    const std::string prefix = absl::StrCat("model.layers.", layer);
    for (const char* norm : {".input_layernorm.weight", ".post_attention_layernorm.weight"}) {
      RETURN_IF_ERROR(CheckTensor(absl::StrCat(prefix, norm), {config_.hidden_size}));
    }
    for (int p = 0; p < kProjectionCount; ++p) {
      const Projection projection = static_cast<Projection>(p);
      const std::string module = ModulePath(layer, projection);
      const LinearShape shape = ProjectionShape(config_, projection);
      RETURN_IF_ERROR(CheckLinear(module, shape));
      const bool bias = projection <= Projection::kO ? config_.attention_bias : config_.mlp_bias;
      if (bias) RETURN_IF_ERROR(CheckTensor(absl::StrCat(module, ".bias"), {shape.out}));
    }
    return absl::OkStatus();
  }

  absl::Status CheckLinear(const std::string& module, LinearShape shape) {
    const std::string weight = absl::StrCat(module, ".weight");
    const std::string fp4 = absl::StrCat(weight, ".quant_state.bitsandbytes__fp4");
    if (tensors_.count(fp4) > 0) {
      return absl::UnimplementedError(absl::StrCat(FileOf(fp4), ": tensor ", Quoted(fp4),
                                                   ": fp4 is not supported; expected nf4"));
    }
    const std::string state = absl::StrCat(weight, kNf4StateSuffix);
    if (tensors_.count(state) == 0) return CheckTensor(weight, {shape.out, shape.in});
    if (!nf4_) {
      return Corrupt(state, "a quantized layer, but config.json has no quantization_config");
    }
    const Nf4Parts parts = FindNf4Parts([&](absl::string_view suffix) -> const TensorView* {
      const auto found = tensors_.find(absl::StrCat(weight, suffix));
      if (found == tensors_.end()) return nullptr;
      unclaimed_.erase(found->first);
      return &found->second;
    });
    const auto fault = [&](absl::string_view problem) {
      return absl::DataLossError(
          absl::StrCat(FileOf(state), ": tensor ", Quoted(weight), ": ", problem));
    };
    const absl::StatusOr<Nf4Tensor> stored = CheckNf4(parts);
    if (!stored.ok()) return fault(stored.status().message());
    if (stored->shape == std::vector<int64_t>{shape.out, shape.in}) return absl::OkStatus();
    return fault(absl::StrCat("expected shape [", shape.out, ", ", shape.in, "], got NF4 [",
                              absl::StrJoin(stored->shape, ", "), "]"));
  }

  absl::Status CheckTensor(const std::string& name, const std::vector<int64_t>& shape) {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) {
      return absl::DataLossError(
          absl::StrCat(directory_, ": tensor ", Quoted(name), " is missing"));
    }
    unclaimed_.erase(found->first);
    const TensorView& view = found->second;
    if (view.dtype != Dtype::kF32 && view.dtype != Dtype::kBF16 && view.dtype != Dtype::kF16) {
      return Corrupt(name, absl::StrCat("expected dtype F32, BF16, F16, got ", view.ToString()));
    }
    if (view.shape == shape) return absl::OkStatus();
    return Corrupt(name, absl::StrCat("expected shape [", absl::StrJoin(shape, ", "), "], got ",
                                      view.ToString()));
  }

  absl::Status Corrupt(absl::string_view name, absl::string_view problem) const {
    return absl::DataLossError(
        absl::StrCat(FileOf(name), ": tensor ", Quoted(name), ": ", problem));
  }

  const std::string& FileOf(absl::string_view name) const { return file_of_.find(name)->second; }

  const ModelConfig& config_;
  const bool nf4_;
  const std::string& directory_;
  const TensorMap& tensors_;
  const FileMap& file_of_;
  std::set<absl::string_view> unclaimed_;
};

// SHA-256 of the first and last 64 KiB; of everything where that is shorter than both.
std::string EndsDigest(absl::string_view data) {
  Sha256 digest;
  if (data.size() <= 2 * kFingerprintBytes) {
    digest.Update(data);
  } else {
    digest.Update(data.substr(0, kFingerprintBytes));
    digest.Update(data.substr(data.size() - kFingerprintBytes));
  }
  return digest.HexDigest();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& directory) {
  return OpenParts(directory, Parts::kAll);
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::OpenDecoder(const std::string& directory) {
  return OpenParts(directory, Parts::kDecoder);
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::OpenParts(const std::string& directory,
                                                                  Parts parts) {
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint());
  checkpoint->directory_ = std::string(absl::StripSuffix(directory, "/"));
  const std::string config_path = checkpoint->directory_ + "/config.json";
  ASSIGN_OR_RETURN(checkpoint->config_, parts == Parts::kAll ? ModelConfig::FromFile(config_path)
                                                             : ReadDecoderConfig(config_path));
  ASSIGN_OR_RETURN(const StorageOptions options, ReadStorageOptions(config_path));
  checkpoint->declares_nf4_ = options.nf4;
  if (options.nf4) checkpoint->declared_fingerprint_ = options.fingerprint;
  RETURN_IF_ERROR(checkpoint->OpenFiles());
  if (parts == Parts::kDecoder) checkpoint->LeaveOutHeads();
  RETURN_IF_ERROR(checkpoint->SettleTensors());
  TensorSetChecker checker(checkpoint->config_, options.nf4, checkpoint->directory_,
                           checkpoint->tensors_, checkpoint->file_of_);
  RETURN_IF_ERROR(checker.Check());
  return checkpoint;
}

absl::Status Checkpoint::OpenFiles() {
  // As transformers: a whole file is preferred to shards.
  const std::string whole = directory_ + "/model.safetensors";
  if (Exists(whole)) return OpenFile(whole);
  const std::string index_path = directory_ + "/model.safetensors.index.json";
  if (!Exists(index_path)) {
    return absl::NotFoundError(absl::StrCat(
        directory_, ": expected model.safetensors or model.safetensors.index.json, found neither"));
  }
  ASSIGN_OR_RETURN(const ShardIndex index, ReadIndex(index_path));
  for (const std::string& file : index.files) RETURN_IF_ERROR(OpenFile(directory_ + "/" + file));
  for (const auto& [tensor, file] : index.weight_map) {
    const auto found = file_of_.find(tensor);
    if (found != file_of_.end() && found->second == directory_ + "/" + file) continue;
    return absl::DataLossError(
        absl::StrCat(index_path, ": tensor ", Quoted(tensor), ": expected in ", Quoted(file),
                     ", it is ", found == file_of_.end() ? "in no shard" : "in " + found->second));
  }
  for (const auto& [tensor, file] : file_of_) {
    if (index.weight_map.count(tensor) > 0) continue;
    return absl::DataLossError(
        absl::StrCat(file, ": tensor ", Quoted(tensor), " is not in ", index_path));
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::OpenFile(const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsFile> file, SafetensorsFile::Open(path));
  for (const auto& [name, view] : file->tensors()) {
    const auto [place, is_new] = file_of_.emplace(name, path);
    if (!is_new) {
      return absl::DataLossError(
          absl::StrCat(path, ": tensor ", Quoted(name), " is also in ", place->second));
    }
    tensors_.emplace(name, view);
  }
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

void Checkpoint::LeaveOutHeads() {
  for (const absl::string_view head : {"lm_head.", "score."}) {
    auto it = tensors_.lower_bound(head);
    while (it != tensors_.end() && absl::StartsWith(it->first, head)) it = tensors_.erase(it);
  }
  config_.tied_embeddings = true;
}

absl::Status Checkpoint::SettleTensors() {
  for (auto it = tensors_.begin(); it != tensors_.end();) {
    it = absl::EndsWith(it->first, "rotary_emb.inv_freq") ? tensors_.erase(it) : std::next(it);
  }
  const auto head = tensors_.find("lm_head.weight");
  if (!config_.tied_embeddings || head == tensors_.end()) return absl::OkStatus();
  const std::vector<int64_t> expected = {config_.vocabulary_size, config_.hidden_size};
  if (head->second.shape != expected) {
    return absl::DataLossError(absl::StrCat(
        FileOf(head->first), ": tensor 'lm_head.weight': expected the embedding's shape [",
        absl::StrJoin(expected, ", "), "], since tie_word_embeddings is true, got ",
        head->second.ToString()));
  }
  const auto embedding = tensors_.find("model.embed_tokens.weight");
  config_.tied_embeddings =
      embedding == tensors_.end() || (embedding->second.dtype == head->second.dtype &&
                                      embedding->second.data == head->second.data);
  if (config_.tied_embeddings) tensors_.erase(head);
  return absl::OkStatus();
}

const TensorView& Checkpoint::tensor(absl::string_view name) const {
  const auto found = tensors_.find(name);
  PRICER_CHECK(found != tensors_.end());
  return found->second;
}

bool Checkpoint::IsNf4(absl::string_view module) const {
  return has_tensor(absl::StrCat(module, ".weight", kNf4StateSuffix));
}

absl::StatusOr<Nf4Tensor> Checkpoint::ReadNf4(absl::string_view module) const {
  const std::string weight = absl::StrCat(module, ".weight");
  absl::StatusOr<Nf4Tensor> stored = ParseNf4(FindNf4Parts([&](absl::string_view suffix) {
    const auto found = tensors_.find(absl::StrCat(weight, suffix));
    return found == tensors_.end() ? nullptr : &found->second;
  }));
  if (stored.ok()) return stored;
  return absl::DataLossError(
      absl::StrCat(FileOf(weight), ": tensor ", Quoted(weight), ": ", stored.status().message()));
}

const std::string& Checkpoint::FileOf(absl::string_view tensor_name) const {
  const auto found = file_of_.find(tensor_name);
  PRICER_CHECK(found != file_of_.end());
  return found->second;
}

absl::StatusOr<std::string> Checkpoint::Fingerprint() const {
  if (!declared_fingerprint_.empty()) return declared_fingerprint_;
  absl::StatusOr<std::string> tokenizer = Sha256HexOfFile(tokenizer_path());
  if (absl::IsNotFound(tokenizer.status())) tokenizer = Sha256Hex("");
  if (!tokenizer.ok()) return tokenizer.status();
  Sha256 digest;
  digest.Update(absl::StrCat(config_.ArchitectureJson(), "\n", *tokenizer, "\n"));
  for (const auto& [name, view] : tensors_) {
    digest.Update(absl::StrCat(name, " [", absl::StrJoin(view.shape, ","), "] ",
                               EndsDigest(view.data), "\n"));
  }
  return digest.HexDigest();
}

void Checkpoint::ReleasePages() const {
  for (const auto& file : files_) file->ReleasePages();
}

}  // namespace pricer
