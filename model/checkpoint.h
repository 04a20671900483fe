#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/model_config.h"
#include "model/nf4.h"
#include "model/safetensors.h"

namespace pricer {

// A Hugging Face checkpoint directory: config.json and model.safetensors, or
// model.safetensors.index.json with shards. Memory-mapped, immutable, thread-safe. No torch.
class Checkpoint {
 public:
  // Opens and checks that the tensors are exactly those of the architecture, each with its shape:
  // DataLoss names file and tensor for a missing, extra, doubled or wrongly shaped one, or an index
  // that disagrees with its shards. Linear layers and the head may be stored in bitsandbytes' NF4
  // form (packed weight + quant state); rotary inv_freq buffers are ignored. A head
  // that is stored though tie_word_embeddings is true is ignored where it equals the embedding, bit
  // for bit; otherwise it is used and the embeddings count as untied, as in transformers 5.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& directory);

  // The same of the decoder alone, for hidden states: a head that is there is left out and the
  // embeddings count as tied. So it also opens a LlamaForSequenceClassification checkpoint.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> OpenDecoder(const std::string& directory);

  const std::string& directory() const { return directory_; }
  // As in config.json, but tied_embeddings says whether the head is the embedding.
  const ModelConfig& config() const { return config_; }

  // Every tensor by its name on disk, without the ignored ones.
  const std::map<std::string, TensorView, std::less<>>& tensors() const { return tensors_; }
  // REQUIRES: the tensor exists (names that the architecture demands always do, except NF4 ones).
  const TensorView& tensor(absl::string_view name) const;
  bool has_tensor(absl::string_view name) const { return tensors_.count(name) > 0; }
  // Whether config.json declares bitsandbytes' NF4: a linear that is in another form was left so on
  // purpose.
  bool declares_nf4() const { return declares_nf4_; }
  // Whether `module`.weight is stored in bitsandbytes' NF4 form.
  bool IsNf4(absl::string_view module) const;
  // The weight of such a module. DataLoss: its absmax is not finite.
  absl::StatusOr<Nf4Tensor> ReadNf4(absl::string_view module) const;
  // Name of the file that holds the tensor, for messages.
  const std::string& FileOf(absl::string_view tensor_name) const;

  // tokenizer.json of the directory; it need not exist.
  std::string tokenizer_path() const { return directory_ + "/tokenizer.json"; }

  // SHA-256 over the architecture, tokenizer.json and the first and last 64 KiB of every tensor, as
  // hex. For an NF4 checkpoint that carries `pricer_base_fingerprint` in config.json, that one. A
  // missing tokenizer.json counts as empty. The digested text: ArchitectureJson(), newline, SHA-256
  // of tokenizer.json, newline, and for every tensor in the order of names `<name>
  // [<extent>,<extent>] <SHA-256 of its ends>`, newline; tensors of up to 128 KiB are digested
  // whole.
  absl::StatusOr<std::string> Fingerprint() const;

  // The process holds none of the tensors' bytes in memory until they are looked at again.
  void ReleasePages() const;

 private:
  enum class Parts { kAll, kDecoder };

  Checkpoint() = default;
  static absl::StatusOr<std::unique_ptr<Checkpoint>> OpenParts(const std::string& directory,
                                                               Parts parts);
  // Map model.safetensors, or the shards that the index names.
  absl::Status OpenFiles();
  absl::Status OpenFile(const std::string& path);
  void LeaveOutHeads();
  // Drops what is ignored and decides whether the head is tied.
  absl::Status SettleTensors();

  std::string directory_;
  ModelConfig config_;
  bool declares_nf4_ = false;
  std::string declared_fingerprint_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, TensorView, std::less<>> tensors_;
  std::map<std::string, std::string, std::less<>> file_of_;
};

}  // namespace pricer
