#include "trainer/step_memory.h"

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "trainer/op_memory.h"

namespace pricer {
namespace {

constexpr int64_t kIndexBytes = 8;

// One pass through network and head, as model/network.cc, model/layers/ and the trainer have it.
class Pass : public OpMemory {
 public:
  using OpMemory::OpMemory;

  StepMemory Run() {
    const std::vector<Buffer> inputs = Inputs();
    StepMemory memory;
    const int64_t before = meter_.live();
    const Value hidden = Network();
    memory.activation_bytes = meter_.live() - before;
    memory.forward_peak_bytes = meter_.peak();
    meter_.ResetPeak();
    const size_t network_nodes = tape_.size();
    if (adapter_.bins > 0) {
      BinsHead(hidden);
    } else {
      TokenHead(hidden);
    }
    RunBackward(network_nodes);
    memory.head_peak_bytes = meter_.peak();
    meter_.ResetPeak();
    RunBackward(0);
    memory.backward_peak_bytes = meter_.peak();
    memory.gradient_weight_bytes = gradient_weight_bytes_;
    return memory;
  }

 private:
  // Ids, positions and targets; answers and rows of the forward context.
  std::vector<Buffer> Inputs() {
    std::vector<Buffer> inputs = {meter_.Take(2 * batch_.tokens * kIndexBytes),
                                  meter_.Take(batch_.answers * kIndexBytes)};
    if (train_) {
      inputs.push_back(adapter_.bins > 0 ? TakeFloat(batch_.answers, adapter_.bins)
                                         : meter_.Take(batch_.answers * kIndexBytes));
    }
    if (has_dropout()) {
      inputs.push_back(meter_.Take((batch_.tokens + 2 * batch_.answers) * kIndexBytes));
    }
    return inputs;
  }

  Group GroupOf(int64_t layer, const std::vector<Projection>& projections) const {
    Group group;
    for (const Projection projection : projections) {
      const LinearShape shape = ProjectionShape(model_, projection);
      const Group::Part part{shape.out, adapter_.ranks[layer][static_cast<int>(projection)]};
      group.in = shape.in;
      group.out += part.out;
      group.ranks += RoundUp(kProductTile, part.rank);
      group.parts.push_back(part);
      if (part.rank > 0) group.adapted.push_back(part);
    }
    return group;
  }

  Value Network() {
    Stream stream{.residual = {Take(batch_.tokens, hidden_size()), nullptr}, .delta = {}};
    int64_t recomputed = 0;
    for (int64_t layer = 0; layer + 1 < model_.layer_count; ++layer) {
      if (recomputed < batch_.recomputed_layers && RecordsGradients(stream, layer)) {
        stream = RecomputedLayer(stream, layer);
        ++recomputed;
      } else {
        stream = Layer(stream, layer);
      }
    }
    stream = LastLayer(stream, model_.layer_count - 1);
    return AddRmsNorm(stream, batch_.answers).normed;
  }

  Stream Layer(const Stream& in, int64_t layer) {
    const int64_t tokens = batch_.tokens;
    const Normed x = AddRmsNorm(in, tokens);
    const Value qkv =
        Linear(x.normed, tokens, GroupOf(layer, {Projection::kQ, Projection::kK, Projection::kV}));
    const Value attended = Attention(qkv);
    return Mlp(x.sum, Linear(attended, tokens, GroupOf(layer, {Projection::kO})), tokens, layer);
  }

  bool RecordsGradients(const Stream& in, int64_t layer) const {
    const std::vector<int64_t>& ranks = adapter_.ranks[layer];
    return train_ && (in.residual.gradient != nullptr || in.delta.gradient != nullptr ||
                      std::any_of(ranks.begin(), ranks.end(), [](int64_t r) { return r > 0; }));
  }

  Stream RecomputedLayer(const Stream& in, int64_t layer) {
    const bool adds = in.delta.buffer != nullptr;
    const Buffer sum = adds ? Take(batch_.tokens, hidden_size()) : in.residual.buffer;
    records_ = false;
    Stream out = Layer({.residual = {sum, nullptr}, .delta = {}}, layer);
    records_ = true;
    out.residual.gradient = NewSlot();
    out.delta.gradient = NewSlot();
    Record([this, layer, sum, from_residual = out.residual.gradient,
            from_delta = out.delta.gradient, to_residual = in.residual.gradient,
            to_delta = in.delta.gradient] {
      const Buffer grad_residual = std::exchange(*from_residual, nullptr);
      const Buffer grad_delta = std::exchange(*from_delta, nullptr);
      const bool wants_sum = to_residual != nullptr || to_delta != nullptr;
      const Value again{sum, wants_sum ? NewSlot() : nullptr};
      const size_t outer_nodes = tape_.size();
      const size_t outer_masks = graph_.size();
      const Stream stream = Layer({.residual = again, .delta = {}}, layer);
      Flow(grad_residual, stream.residual.gradient);
      Flow(grad_delta, stream.delta.gradient);
      // What the layer's own graph finds is handed on when it is done.
      std::vector<Buffer> found;
      found_ = &found;
      RunBackward(outer_nodes);
      found_ = nullptr;
      graph_.resize(outer_masks);
      if (!wants_sum) return;
      Flow(*again.gradient, to_residual);
      Flow(*again.gradient, to_delta);
    });
    return out;
  }

  Stream LastLayer(const Stream& in, int64_t layer) {
    const int64_t answers = batch_.answers;
    const Normed x = AddRmsNorm(in, batch_.tokens);
    const Value rows = SelectAnswers(x.normed);
    const Value q = Linear(rows, answers, GroupOf(layer, {Projection::kQ}));
    const Value kv =
        Linear(x.normed, batch_.tokens, GroupOf(layer, {Projection::kK, Projection::kV}));
    const Value attended = AnswerAttention(q, kv);
    return Mlp(SelectAnswers(x.sum), Linear(attended, answers, GroupOf(layer, {Projection::kO})),
               answers, layer);
  }

  Stream Mlp(const Value& residual, const Value& attended, int64_t rows, int64_t layer) {
    const Normed x = AddRmsNorm({residual, attended}, rows);
    const Value gated =
        Swiglu(Linear(x.normed, rows, GroupOf(layer, {Projection::kGate, Projection::kUp})), rows);
    return {x.sum, Linear(gated, rows, GroupOf(layer, {Projection::kDown}))};
  }

  // The rows of the head from what is trained.
  Buffer Score(const GradientSlot& gradient) {
    if (!adapter_.cosine_head || !train_) return nullptr;
    const int64_t bins = adapter_.bins;
    const Buffer along_mean = TakeFloat(bins - 1, hidden_size());
    const Buffer difference = TakeFloat(bins - 1, hidden_size());
    Record([this, bins, from = gradient] {
      const Buffer grad_score = std::exchange(*from, nullptr);
      const Buffer grad = TakeFloat(bins - 1, hidden_size());
      const Buffer negative = TakeFloat(bins - 1, hidden_size());
      const Buffer product = TakeFloat(bins - 1, hidden_size());
    });
    return TakeFloat(bins, hidden_size());
  }

  void BinsHead(const Value& hidden) {
    const int64_t answers = batch_.answers;
    const int64_t bins = adapter_.bins;
    const GradientSlot to_score = NewSlot();
    const Buffer score = Score(to_score);
    const Buffer widened = Widen(answers, hidden_size());
    const Buffer x = widened != nullptr ? widened : hidden.buffer;
    const Buffer logits = Product(answers, hidden_size(), bins, kFloatBytes);
    if (!train_) return;
    const Buffer padded = answers < kStableRows ? TakeFloat(kStableRows, hidden_size()) : nullptr;
    const Buffer log_probabilities = TakeFloat(answers, bins);
    const Buffer product = TakeFloat(answers, bins);
    Record([this, answers, bins, score, x, padded, to = hidden.gradient, to_score] {
      const int64_t rows = std::max(answers, kStableRows);
      const Buffer grad = TakeFloat(rows, bins);
      if (to != nullptr) {
        const Buffer grad_x = TakeFloat(rows, hidden_size());
        const Buffer cast = Cast(answers, hidden_size());
        Flow(cast != nullptr ? cast : grad_x, to);
      }
      Flow(TakeFloat(bins, hidden_size()), to_score);
    });
    Record([this, answers, bins, log_probabilities] {
      const Buffer grad = TakeFloat(answers, bins);
      const Buffer grad_logits = TakeFloat(answers, bins);
    });
  }

  void TokenHead(const Value& hidden) {
    const int64_t answers = batch_.answers;
    const int64_t vocabulary = model_.vocabulary_size;
    Buffer logits = Product(answers, hidden_size(), vocabulary, batch_.element_bytes);
    if (const Buffer widened = Widen(answers, vocabulary)) logits = widened;
    if (!train_) return;
    const Buffer log_probabilities = TakeFloat(answers, vocabulary);
    Record([this, answers, vocabulary, log_probabilities, to = hidden.gradient] {
      Buffer grad = TakeFloat(answers, vocabulary);
      grad = TakeFloat(answers, vocabulary);
      if (const Buffer cast = Cast(answers, vocabulary)) grad = cast;
      if (answers < kStableRows) grad = Take(kStableRows, vocabulary);
      Flow(Take(std::max(answers, kStableRows), hidden_size()), to);
    });
  }
};

}  // namespace

StepMemory PredictStepMemory(const ModelConfig& model, const AdapterShape& adapter,
                             const BatchShape& batch) {
  return Pass(model, adapter, batch, /*train=*/true).Run();
}

int64_t PredictForwardMemory(const ModelConfig& model, const AdapterShape& adapter,
                             const BatchShape& batch) {
  return Pass(model, adapter, batch, /*train=*/false).Run().peak_bytes();
}

}  // namespace pricer
