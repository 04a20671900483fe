#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "model/lora.h"
#include "model/network.h"
#include "trainer/process_group.h"
#include "trainer/trainer.h"
#include "trainer/tuning_inputs.h"

// What a tuning run makes of its held-out items.

namespace pricer {

// As Manifest::Distribution takes them.
using Scores = std::vector<std::vector<float>>;  // [items][bins or whole prices]

at::Tensor ToMatrix(const Scores& scores);  // fp32
// REQUIRES: fp32, contiguous, on the CPU.
Scores ToRows(const at::Tensor& matrix);

// What the scores of the validation items are worth. DataLoss where they are not as many; Internal
// where they are not finite.
absl::StatusOr<Validation> Score(const TuningInputs& inputs, Scores scores);

// Prices the validation items with `weights`, the processes of the group each its share of the
// tokens, and scores them. Cancelled once InterruptRequested() on any of them.
absl::StatusOr<Validation> Validate(const Network& network, const TuningInputs& inputs,
                                    const AdapterWeights& weights, int64_t batch_tokens,
                                    ProcessGroup* group);

}  // namespace pricer
