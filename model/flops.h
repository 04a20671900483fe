#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "model/model_config.h"

// How many floating-point operations the network's work takes, a multiply-add being two. Matrix
// products and attention count; lookups, norms, rotary embedding and activations do not, nor do
// rows that only pad a product and scores that attention's backward pass computes once more. No
// torch.

namespace pricer {

// What the work depends on of a packed batch, as sums over its sequences.
struct BatchWork {
  int64_t tokens = 0;        // T
  int64_t answers = 0;       // A
  int64_t token_pairs = 0;   // of each token with itself and with those before it
  int64_t answer_pairs = 0;  // of the answers alone with the same

  // One more sequence, whose last `answers` tokens are asked for. REQUIRES: 1 <= answers <= tokens.
  void Add(int64_t sequence_tokens, int64_t sequence_answers);
};

// [layer_count]: the rank of the LoRA on each linear; 0 = none.
using LoraRanks = std::vector<std::array<int64_t, kProjectionCount>>;

// The head on the answers' final states: of bins, or the base's own.
struct HeadWork {
  int64_t rows = 0;  // bins or V
  bool trained = false;
};

// Network::Forward and the head: in the last layer keys and values for all tokens, everything else
// for the answers alone. REQUIRES: ranks of every layer.
double ForwardFlops(const ModelConfig& config, const LoraRanks& ranks, const HeadWork& head,
                    const BatchWork& batch);

// What a training step adds to that: gradients of LoRA and head, and of activations down to the
// lowest LoRA. Frozen weights have none.
double BackwardFlops(const ModelConfig& config, const LoraRanks& ranks, const HeadWork& head,
                     const BatchWork& batch);

}  // namespace pricer
