#include "trainer/step_memory.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "trainer/op_memory.h"

namespace pricer {
namespace {

constexpr int64_t kIndexBytes = 8;

// One pass through network and head, as model/network.cc, model/layers/ and the trainer have it.
class Pass {
 public:
  using Buffer = OpMemory::Buffer;
  using GradientSlot = OpMemory::GradientSlot;
  using Value = OpMemory::Value;
  using Stream = OpMemory::Stream;
  using Normed = OpMemory::Normed;
  using Group = OpMemory::Group;
  using Source = OpMemory::Source;

  Pass(const ModelConfig& model, const AdapterShape& adapter, const BatchShape& batch, bool train)
      : model_(model),
        adapter_(adapter),
        batch_(batch),
        train_(train),
        records_(train),
        ops_(OpMemory::Create(model, adapter, batch, train)) {}

  StepMemory Run() {
    const std::vector<Buffer> inputs = Inputs();
    MemoryMeter& meter = ops_->meter();
    StepMemory memory;
    const int64_t before = meter.live();
    const Value hidden = Network();
    memory.activation_bytes = meter.live() - before;
    memory.forward_peak_bytes = meter.peak();
    meter.ResetPeak();
    const size_t network_nodes = ops_->recorded();
    if (adapter_.bins > 0) {
      BinsHead(hidden);
    } else {
      TokenHead(hidden);
    }
    ops_->RunBackward(network_nodes);
    memory.head_peak_bytes = meter.peak();
    meter.ResetPeak();
    ops_->RunBackward(0);
    memory.backward_peak_bytes = meter.peak();
    memory.gradient_weight_bytes = ops_->gradient_weight_bytes();
    return memory;
  }

 private:
  // Ids, positions and targets; answers and rows of the forward context.
  std::vector<Buffer> Inputs() {
    std::vector<Buffer> inputs = {ops_->TakeBytes(2 * batch_.tokens * kIndexBytes),
                                  ops_->TakeBytes(batch_.answers * kIndexBytes)};
    if (train_) {
      inputs.push_back(adapter_.bins > 0 ? ops_->TakeFloat(batch_.answers, adapter_.bins)
                                         : ops_->TakeBytes(batch_.answers * kIndexBytes));
    }
    if (train_ && adapter_.dropout > 0) {
      inputs.push_back(ops_->TakeBytes((batch_.tokens + 2 * batch_.answers) * kIndexBytes));
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
      group.parts.push_back(part);
      if (part.rank > 0) group.adapted.push_back(part);
    }
    return group;
  }

  // A GPU makes inputs of linears again for gradients instead of keeping them.
  bool KeepsSources() const { return batch_.on_gpu && records_; }
  Source NormSource(const Value& sum, int64_t rows) const {
    if (!KeepsSources()) return {};
    return {sum.buffer, rows * OpMemory::kFloatBytes};  // the inverse RMS
  }

  Value Network() {
    Stream stream{.residual = {ops_->Take(batch_.tokens, model_.hidden_size), nullptr},
                  .delta = {}};
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
    return ops_->AddRmsNorm(stream, batch_.answers).normed;
  }

  Stream Layer(const Stream& in, int64_t layer) {
    const int64_t tokens = batch_.tokens;
    const Normed x = ops_->AddRmsNorm(in, tokens);
    const Value qkv = ops_->Linear(x.normed, tokens,
                                   GroupOf(layer, {Projection::kQ, Projection::kK, Projection::kV}),
                                   NormSource(x.sum, tokens));
    const Value attended = ops_->Attention(qkv);
    return Mlp(x.sum, ops_->Linear(attended, tokens, GroupOf(layer, {Projection::kO}), {}), tokens,
               layer);
  }

  bool RecordsGradients(const Stream& in, int64_t layer) const {
    const std::vector<int64_t>& ranks = adapter_.ranks[layer];
    return train_ && (in.residual.gradient != nullptr || in.delta.gradient != nullptr ||
                      std::any_of(ranks.begin(), ranks.end(), [](int64_t r) { return r > 0; }));
  }

  Stream RecomputedLayer(const Stream& in, int64_t layer) {
    const bool adds = in.delta.buffer != nullptr;
    const Buffer sum = adds ? ops_->Take(batch_.tokens, model_.hidden_size) : in.residual.buffer;
    Stream out;
    records_ = false;
    ops_->WithoutGradients([&] { out = Layer({.residual = {sum, nullptr}, .delta = {}}, layer); });
    records_ = true;
    out.residual.gradient = OpMemory::NewSlot();
    out.delta.gradient = OpMemory::NewSlot();
    ops_->Record([this, layer, sum, from_residual = out.residual.gradient,
                  from_delta = out.delta.gradient, to_residual = in.residual.gradient,
                  to_delta = in.delta.gradient] {
      const Buffer grad_residual = std::exchange(*from_residual, nullptr);
      const Buffer grad_delta = std::exchange(*from_delta, nullptr);
      const bool wants_sum = to_residual != nullptr || to_delta != nullptr;
      const Value again{sum, wants_sum ? OpMemory::NewSlot() : nullptr};
      const size_t outer_nodes = ops_->recorded();
      ops_->AsInnerGraph([&] {
        const Stream stream = Layer({.residual = again, .delta = {}}, layer);
        OpMemory::Flow(grad_residual, stream.residual.gradient);
        OpMemory::Flow(grad_delta, stream.delta.gradient);
        ops_->RunBackward(outer_nodes);
      });
      if (!wants_sum) return;
      OpMemory::Flow(*again.gradient, to_residual);
      OpMemory::Flow(*again.gradient, to_delta);
    });
    return out;
  }

  Stream LastLayer(const Stream& in, int64_t layer) {
    const int64_t answers = batch_.answers;
    const Normed x = ops_->AddRmsNorm(in, batch_.tokens);
    const Value rows = ops_->SelectAnswers(x.normed);
    const Value q = ops_->Linear(rows, answers, GroupOf(layer, {Projection::kQ}), {});
    const Value kv =
        ops_->Linear(x.normed, batch_.tokens, GroupOf(layer, {Projection::kK, Projection::kV}),
                     NormSource(x.sum, batch_.tokens));
    const Value attended = ops_->AnswerAttention(q, kv);
    return Mlp(ops_->SelectAnswers(x.sum),
               ops_->Linear(attended, answers, GroupOf(layer, {Projection::kO}), {}), answers,
               layer);
  }

  Stream Mlp(const Value& residual, const Value& attended, int64_t rows, int64_t layer) {
    const Normed x = ops_->AddRmsNorm({residual, attended}, rows);
    Value gate_up =
        ops_->Linear(x.normed, rows, GroupOf(layer, {Projection::kGate, Projection::kUp}),
                     NormSource(x.sum, rows));
    const Value gated = ops_->Swiglu(gate_up, rows);
    const Source source = KeepsSources() ? Source{.from = gate_up.buffer} : Source{};
    gate_up = {};
    return {x.sum, ops_->Linear(gated, rows, GroupOf(layer, {Projection::kDown}), source)};
  }

  // The rows of the head from what is trained.
  Buffer Score(const GradientSlot& gradient) {
    if (!adapter_.cosine_head || !train_) return nullptr;
    const int64_t bins = adapter_.bins;
    const int64_t width = model_.hidden_size;
    const Buffer along_mean = ops_->TakeFloat(bins - 1, width);
    const Buffer difference = ops_->TakeFloat(bins - 1, width);
    ops_->Record([this, bins, width, from = gradient] {
      const Buffer grad_score = std::exchange(*from, nullptr);
      const Buffer grad = ops_->TakeFloat(bins - 1, width);
      const Buffer negative = ops_->TakeFloat(bins - 1, width);
      const Buffer product = ops_->TakeFloat(bins - 1, width);
    });
    return ops_->TakeFloat(bins, width);
  }

  void BinsHead(const Value& hidden) {
    const int64_t answers = batch_.answers;
    const int64_t bins = adapter_.bins;
    const int64_t width = model_.hidden_size;
    const GradientSlot to_score = OpMemory::NewSlot();
    const Buffer score = Score(to_score);
    const Buffer widened = ops_->Widen(answers, width);
    const Buffer x = widened != nullptr ? widened : hidden.buffer;
    const Value logits{ops_->Product(answers, width, bins, OpMemory::kFloatBytes),
                       OpMemory::NewSlot()};
    if (!train_) return;
    const bool pads = answers < OpMemory::kStableRows;
    const Buffer padded = pads ? ops_->TakeFloat(OpMemory::kStableRows, width) : nullptr;
    ops_->Record([this, answers, bins, width, score, x, padded, from = logits.gradient,
                  to = hidden.gradient, to_score] {
      const int64_t rows = std::max(answers, OpMemory::kStableRows);
      std::exchange(*from, nullptr);
      const Buffer grad = ops_->TakeFloat(rows, bins);
      if (to != nullptr) {
        const Buffer grad_x = ops_->TakeFloat(rows, width);
        const Buffer cast = ops_->Cast(answers, width);
        OpMemory::Flow(cast != nullptr ? cast : grad_x, to);
      }
      OpMemory::Flow(ops_->TakeFloat(bins, width), to_score);
    });
    ops_->CrossEntropy(logits, answers, bins);
  }

  void TokenHead(const Value& hidden) {
    const int64_t answers = batch_.answers;
    const int64_t vocabulary = model_.vocabulary_size;
    Value logits{ops_->Product(answers, model_.hidden_size, vocabulary, batch_.element_bytes),
                 OpMemory::NewSlot()};
    if (const Buffer widened = ops_->Widen(answers, vocabulary)) logits.buffer = widened;
    if (!train_) return;
    ops_->Record([this, answers, vocabulary, from = logits.gradient, to = hidden.gradient] {
      Buffer grad = std::exchange(*from, nullptr);
      if (const Buffer cast = ops_->Cast(answers, vocabulary)) grad = cast;
      const bool pads = answers < OpMemory::kStableRows;
      if (pads) grad = ops_->Take(OpMemory::kStableRows, vocabulary);
      OpMemory::Flow(ops_->Take(std::max(answers, OpMemory::kStableRows), model_.hidden_size), to);
    });
    ops_->CrossEntropy(logits, answers, vocabulary);
  }

  const ModelConfig& model_;
  const AdapterShape& adapter_;
  const BatchShape batch_;
  const bool train_;
  bool records_;  // as ops_
  const std::unique_ptr<OpMemory> ops_;
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
