#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "model/safetensors.h"

namespace pricer {

// Makes a Hugging Face checkpoint directory (config.json, tokenizer.json, tokenizer_config.json,
// model.safetensors) that transformers loads, out of a GGUF file of the Llama architecture. The
// directory appears whole or not at all. `dtype` is kF32 or kBF16 (fp32 rounded to nearest even).
// Memory: one row of the widest tensor beside the mapped file and the vocabulary.
//
// Unimplemented names the architecture, tokenizer model, pre-tokenizer, rope scaling or tensor type
// that is not read; AlreadyExists where `directory` is a file or not empty; NotFound, DataLoss and
// InvalidArgument name the key or tensor that is missing or wrong. Cancelled, with nothing left
// behind, once `cancelled` (may be empty) returns true; it is asked at every tensor.
absl::Status ImportGguf(const std::string& gguf_path, const std::string& directory, Dtype dtype,
                        const std::function<bool()>& cancelled = nullptr);

}  // namespace pricer
