#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/gguf.h"
#include "model/gguf_tokenizer.h"
#include "model/model_config.h"

namespace pricer {

// Unimplemented, naming the key, where the file is not a whole model of the Llama architecture.
absl::Status CheckGgufIsLlama(const GgufFile& file);

// The architecture of such a file, validated. llama3 rope scaling, which such files hold as one
// factor per frequency in the tensor `rope_freqs.weight`, is recovered from the factors: numbers
// that give the same factors, though perhaps not the author's. Unimplemented names a rope scaling
// that is not Llama's; NotFound, InvalidArgument and DataLoss name the key or tensor at fault.
absl::StatusOr<ModelConfig> ReadGgufConfig(const GgufFile& file, const GgufTokenizer& tokenizer);

// config.json with the fields of transformers 4, which version 5 reads too. `dtype` as in
// ModelConfig.
std::string HuggingFaceConfigJson(const ModelConfig& config);

}  // namespace pricer
