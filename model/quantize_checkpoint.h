#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "model/checkpoint.h"
#include "model/checkpoint_writer.h"

namespace pricer {

struct QuantizeOptions {
  // Block maxima in 8 bits too: 4.13 instead of 4.5 bits a weight.
  bool double_quantization = true;
  int64_t max_shard_bytes = kDefaultMaxShardBytes;
};

struct QuantizeSummary {
  int64_t linears = 0;
  int64_t bytes_before = 0;  // of all tensors
  int64_t bytes = 0;
};

// Makes a checkpoint directory whose linear layers are in bitsandbytes' NF4 form, as transformers
// saves it: the bytes that bitsandbytes makes on a CPU (nf4.h). Embeddings, norms, biases and head
// stay as they are, and so do the tokenizer's and other companion files. config.json gets a
// quantization_config and the base's fingerprint as `pricer_base_fingerprint`, so that adapters of
// both forms are each other's. The directory appears whole or not at all, after Checkpoint::Open
// has read it.
//
// Memory: one weight beside the mapped input. Each is quantized two or three times, since a
// safetensors file has the parts of one weight in several places.
//
// FailedPrecondition where the base is quantized already; AlreadyExists where there is something in
// the directory; InvalidArgument names file and tensor of weights that are not finite. Cancelled,
// with nothing left behind, once `cancelled` (may be empty) returns true; it is asked at every
// tensor.
absl::StatusOr<QuantizeSummary> QuantizeCheckpoint(
    const Checkpoint& base, const std::string& directory, const QuantizeOptions& options = {},
    const std::function<bool()>& cancelled = nullptr);

}  // namespace pricer
