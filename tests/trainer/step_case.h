#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "tests/testing/tiny_model.h"
#include "trainer/step_memory.h"
#include "trainer/trainer.h"

// Training steps whose memory is predicted and counted.

namespace pricer::testing {

// Of what an allocator counts. Threads need not be at their peaks together.
inline constexpr double kMemoryTolerance = 0.05;

// Wide enough that the activations are most of what a step holds.
inline constexpr TinyModelOptions kStepModel = {.hidden_size = 128,
                                                .ffn_size = 320,
                                                .layer_count = 5,
                                                .head_count = 4,
                                                .kv_head_count = 2,
                                                .vocabulary_size = 500};

struct StepCase {
  std::string name;
  int64_t tokens = 512;
  int64_t sequences = 8;
  int64_t rank = 8;
  at::ScalarType dtype = at::kFloat;
  int64_t bins = 32;    // 0 = the token head
  int64_t answers = 1;  // of a sequence
  double dropout = 0;
  std::vector<std::string> targets = {"all-linear"};
  bool cosine_head = true;
  std::vector<int64_t> layers = {};
  int64_t recomputed_layers = 0;

  PeftConfig Config() const {
    PeftConfig config;
    config.task = bins > 0 ? PeftTask::kSeqCls : PeftTask::kCausalLm;
    config.r = rank;
    config.alpha = 8;
    config.dropout = dropout;
    config.target_modules = targets;
    config.layers_to_transform = layers;
    return config;
  }

  std::vector<Example> Examples() const {
    std::vector<Example> examples(sequences);
    for (int64_t b = 0; b < sequences; ++b) {
      const int64_t count = (b + 1) * tokens / sequences - b * tokens / sequences;
      for (int64_t t = 0; t < count; ++t) {
        examples[b].ids.push_back(static_cast<int32_t>(3 + (b * 31 + t * 17) % 200));
      }
      examples[b].price = 10.0 + static_cast<double>(b);
      if (bins > 0) continue;
      examples[b].ids.push_back(5);
      examples[b].completion_tokens = answers;
    }
    return examples;
  }

  MicroBatch Batch() const {
    std::vector<int64_t> indices;
    for (int64_t b = 0; b < sequences; ++b) indices.push_back(b);
    const BinsSpec spec{.bins = static_cast<int>(bins), .min_price = 5, .max_price = 400};
    return bins > 0 ? MakeBinsMicroBatch(Examples(), indices, spec)
                    : MakeTokenMicroBatch(Examples(), indices);
  }

  BatchShape Shape() const {
    return {.tokens = tokens,
            .sequences = sequences,
            .answers = sequences * answers,
            .element_bytes = dtype == at::kFloat ? 4 : 2,
            .threads = at::get_num_threads(),
            .recomputed_layers = recomputed_layers};
  }

  HeadBasis Basis(int64_t hidden_size = kStepModel.hidden_size) const {
    return bins > 0 && cosine_head ? HeadBasis::Cosine(bins, at::ones({hidden_size}))
                                   : HeadBasis::Rows();
  }
};

inline void PrintTo(const StepCase& test, std::ostream* out) { *out << test.name; }

}  // namespace pricer::testing
