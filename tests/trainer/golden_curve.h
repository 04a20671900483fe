#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/testing/golden.h"
#include "trainer/loss.h"
#include "trainer/trainer.h"

// What the golden loss curves were made with, as the trainer takes it.

namespace pricer::testing {

inline Trainer::Options GoldenOptions(const nlohmann::json& json) {
  Trainer::Options options;
  options.learning_rate = json.at("learning_rate");
  options.head_learning_rate = json.value("head_learning_rate", 0.0);
  options.max_gradient_norm = json.at("max_gradient_norm");
  options.adamw.beta1 = json.at("betas")[0];
  options.adamw.beta2 = json.at("betas")[1];
  options.adamw.epsilon = json.at("epsilon");
  options.adamw.weight_decay = json.at("weight_decay");
  return options;
}

inline LrSchedule GoldenSchedule(const nlohmann::json& json) {
  const std::string name = json.at("schedule");
  LrSchedule schedule;
  schedule.total_steps = json.at("total_steps");
  schedule.warmup_steps = json.at("warmup_steps");
  schedule.kind = *ParseLrScheduleKind(name == "constant_with_warmup" ? "constant" : name);
  return schedule;
}

// The rows of one head, as examples; a bins head's targets are the reference's own.
struct GoldenRows {
  std::vector<Example> examples;
  at::Tensor targets;  // [rows, bins] or undefined
};

inline GoldenRows ReadGoldenRows(const std::string& head) {
  const GoldenTensors tensors("curves/" + head + "_rows.safetensors");
  const at::Tensor ids = tensors.Get("ids").to(at::kInt).contiguous();
  const at::Tensor offsets = tensors.Get("offsets");
  GoldenRows rows;
  for (int64_t i = 0; i + 1 < offsets.size(0); ++i) {
    const int32_t* const data = ids.const_data_ptr<int32_t>();
    Example& example = rows.examples.emplace_back();
    example.ids.assign(data + offsets[i].item<int64_t>(), data + offsets[i + 1].item<int64_t>());
    if (head != "token") continue;
    example.completion_tokens =
        static_cast<int64_t>(example.ids.size()) - tensors.Get("prompt_lengths")[i].item<int64_t>();
  }
  if (head == "bins") rows.targets = tensors.Get("targets");
  return rows;
}

// The rows of a step in `count` micro-batches of one size.
inline std::vector<MicroBatch> GoldenStep(const GoldenRows& rows, const std::vector<int64_t>& step,
                                          int64_t count) {
  const int64_t size = static_cast<int64_t>(step.size()) / count;
  std::vector<MicroBatch> micro_batches;
  for (int64_t m = 0; m < count; ++m) {
    const absl::Span<const int64_t> indices = absl::MakeSpan(step).subspan(m * size, size);
    if (!rows.targets.defined()) {
      micro_batches.push_back(MakeTokenMicroBatch(rows.examples, indices));
      continue;
    }
    const BinsSpec bins = {.bins = 2, .min_price = 1, .max_price = 2, .sigma = 1};
    std::vector<Example> priced = rows.examples;
    for (Example& example : priced) example.price = 1;
    micro_batches.push_back(MakeBinsMicroBatch(priced, indices, bins));
    micro_batches.back().targets = rows.targets.index_select(
        0, at::tensor(at::ArrayRef<int64_t>(indices.data(), indices.size()), at::kLong));
  }
  return micro_batches;
}

}  // namespace pricer::testing
