#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/safetensors.h"

// The files of a Hugging Face checkpoint directory, as transformers' save_pretrained names them. No
// torch.

namespace pricer {

// What transformers 4 cut at by default, in binary units.
inline constexpr int64_t kDefaultMaxShardBytes = int64_t{5} << 30;

// Tensors that readers expect in one file, such as the parts of a quantized weight.
using TensorGroup = std::vector<StreamedTensor>;

// Writes the groups, in their order, to model.safetensors in an existing directory, or, where they
// take more than `max_shard_bytes`, to model-00001-of-0000N.safetensors and so on with
// model.safetensors.index.json. A group that is larger stands in a shard of its own. All is flushed
// to the disk. Returns the bytes of the tensors. Errors are StreamSafetensors' and the streams'.
absl::StatusOr<int64_t> WriteShards(const std::string& directory, std::vector<TensorGroup> groups,
                                    int64_t max_shard_bytes);

// Copies what stands beside config.json and the weights and is the same for every form of a model:
// tokenizer, chat template, generation settings, licence. What is not there is passed over. Links
// are followed. Flushed to the disk.
absl::Status CopyCompanionFiles(const std::string& from, const std::string& to);

}  // namespace pricer
