#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace pricer::testing {

// A random Llama small enough for unit tests.
struct TinyModelOptions {
  int64_t hidden_size = 64;
  int64_t ffn_size = 128;
  int64_t layer_count = 2;
  int64_t head_count = 4;
  int64_t kv_head_count = 2;
  int64_t vocabulary_size = 260;  // below 259 the tokenizer has tokens that the model lacks
  bool tied_embeddings = true;
  // Also write tokenizer.json: one token for each byte of UTF-8, ids 3 to 258; 0 pad, 1 bos (not
  // added), 2 eos.
  bool tokenizer = true;
  uint64_t seed = 1;
};

// Writes config.json, model.safetensors (F32) and tokenizer.json into `directory`, made if absent.
// Same options, same bytes.
absl::Status WriteTinyCheckpoint(const std::string& directory,
                                 const TinyModelOptions& options = {});

}  // namespace pricer::testing
