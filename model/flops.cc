#include "model/flops.h"

namespace pricer {
namespace {

// Projections that share their input, in the order of the forward pass.
struct ProjectionGroup {
  Projection first, last;
};
constexpr std::array<ProjectionGroup, 4> kGroups = {{{Projection::kQ, Projection::kV},
                                                     {Projection::kO, Projection::kO},
                                                     {Projection::kGate, Projection::kUp},
                                                     {Projection::kDown, Projection::kDown}}};

// One linear of one layer.
struct Linear {
  double out = 0;
  double in = 0;
  double rank = 0;
  double rows = 0;  // of its activation

  double Base() const { return 2 * out * in * rows; }
  double Lora() const { return 2 * rank * (in + out) * rows; }
};

Linear LinearOf(const ModelConfig& config, const LoraRanks& ranks, int64_t layer,
                Projection projection, const BatchWork& batch) {
  const LinearShape shape = ProjectionShape(config, projection);
  const bool for_all_tokens = layer + 1 < config.layer_count || projection == Projection::kK ||
                              projection == Projection::kV;
  return {.out = static_cast<double>(shape.out),
          .in = static_cast<double>(shape.in),
          .rank = static_cast<double>(ranks[layer][static_cast<int>(projection)]),
          .rows = static_cast<double>(for_all_tokens ? batch.tokens : batch.answers)};
}

// Scores and the sums that they weigh.
double AttentionFlops(const ModelConfig& config, int64_t layer, const BatchWork& batch) {
  const bool last = layer + 1 == config.layer_count;
  return 4.0 * static_cast<double>(config.head_count * config.head_dim) *
         static_cast<double>(last ? batch.answer_pairs : batch.token_pairs);
}

double HeadFlops(const ModelConfig& config, const HeadWork& head, const BatchWork& batch) {
  return 2.0 * static_cast<double>(config.hidden_size) * static_cast<double>(head.rows) *
         static_cast<double>(batch.answers);
}

}  // namespace

void BatchWork::Add(int64_t sequence_tokens, int64_t sequence_answers) {
  const auto pairs = [](int64_t n) { return n * (n + 1) / 2; };
  tokens += sequence_tokens;
  answers += sequence_answers;
  token_pairs += pairs(sequence_tokens);
  answer_pairs += pairs(sequence_tokens) - pairs(sequence_tokens - sequence_answers);
}

double ForwardFlops(const ModelConfig& config, const LoraRanks& ranks, const HeadWork& head,
                    const BatchWork& batch) {
  double flops = HeadFlops(config, head, batch);
  for (int64_t layer = 0; layer < config.layer_count; ++layer) {
    flops += AttentionFlops(config, layer, batch);
    for (int p = 0; p < kProjectionCount; ++p) {
      const Linear linear = LinearOf(config, ranks, layer, static_cast<Projection>(p), batch);
      flops += linear.Base() + linear.Lora();
    }
  }
  return flops;
}

double BackwardFlops(const ModelConfig& config, const LoraRanks& ranks, const HeadWork& head,
                     const BatchWork& batch) {
  double flops = 0;
  // Whether the activation depends on something that is trained, and so has a gradient.
  bool reached = false;
  for (int64_t layer = 0; layer < config.layer_count; ++layer) {
    for (const ProjectionGroup& group : kGroups) {
      const bool input_reached = reached;
      for (int p = static_cast<int>(group.first); p <= static_cast<int>(group.last); ++p) {
        const Linear linear = LinearOf(config, ranks, layer, static_cast<Projection>(p), batch);
        // LoRA as LoraLinear's backward has it: dB and dh, dA, and dx where it is wanted.
        flops += 2 * linear.rank * (2 * linear.out + linear.in) * linear.rows;
        if (input_reached) flops += linear.Base() + 2 * linear.rank * linear.in * linear.rows;
        reached = reached || linear.rank > 0;
      }
      if (group.first == Projection::kQ && reached) {
        flops += 2 * AttentionFlops(config, layer, batch);
      }
    }
  }
  if (head.trained) flops += HeadFlops(config, head, batch);
  if (reached) flops += HeadFlops(config, head, batch);
  return flops;
}

}  // namespace pricer
