#include "trainer/step_memory.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "model/ops/attention_blocks.h"

namespace pricer {
namespace {

constexpr int64_t kFloatBytes = 4;
constexpr int64_t kIndexBytes = 8;
// Products have at least so many rows; model/ops/lora_linear.cc.
constexpr int64_t kStableRows = 32;

// Counts what is held.
class Meter {
 public:
  // The memory of one tensor, given back with its last owner.
  using Buffer = std::shared_ptr<const int64_t>;

  Buffer Take(int64_t bytes) {
    live_ += bytes;
    peak_ = std::max(peak_, live_);
    return {new int64_t(bytes), [this](const int64_t* held) {
              live_ -= *held;
              delete held;
            }};
  }

  int64_t live() const { return live_; }
  int64_t peak() const { return peak_; }
  void ResetPeak() { peak_ = live_; }

 private:
  int64_t live_ = 0;
  int64_t peak_ = 0;
};

using Buffer = Meter::Buffer;

// Where the gradient of a tensor gathers; null where autograd does not follow the tensor.
using GradientSlot = std::shared_ptr<Buffer>;

struct Value {
  Buffer buffer;
  GradientSlot gradient;
};

struct Stream {
  Value residual;
  Value delta;
};

struct Normed {
  Value sum;
  Value normed;
};

// A second gradient is added to the first in place.
void Flow(Buffer gradient, const GradientSlot& to) {
  if (to != nullptr && *to == nullptr) *to = std::move(gradient);
}

// Linears that share an input; those of rank 0 carry no LoRA.
struct Group {
  struct Part {
    int64_t out = 0;
    int64_t rank = 0;
  };
  int64_t in = 0;
  int64_t out = 0;   // sum
  int64_t rank = 0;  // sum
  std::vector<Part> parts;
  std::vector<Part> adapted;  // those with LoRA
};

// One pass. Every function stands for the op of its name in model/ and trainer/.
class Pass {
 public:
  Pass(const ModelConfig& model, const AdapterShape& adapter, const BatchShape& batch, bool train)
      : model_(model), adapter_(adapter), batch_(batch), train_(train) {}

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
    return memory;
  }

 private:
  Buffer Take(int64_t rows, int64_t columns) {
    return meter_.Take(rows * columns * batch_.element_bytes);
  }
  Buffer TakeFloat(int64_t rows, int64_t columns) {
    return meter_.Take(rows * columns * kFloatBytes);
  }
  bool computes_in_float() const { return batch_.element_bytes == kFloatBytes; }
  // What `.to(dtype)` makes of an fp32 tensor and `.to(kFloat)` of one in the compute dtype:
  // nothing where the two are the same.
  Buffer Cast(int64_t rows, int64_t columns) {
    return computes_in_float() ? nullptr : Take(rows, columns);
  }
  Buffer Widen(int64_t rows, int64_t columns) {
    return computes_in_float() ? nullptr : TakeFloat(rows, columns);
  }

  int64_t hidden_size() const { return model_.hidden_size; }
  int64_t query_width() const { return model_.head_count * model_.head_dim; }
  int64_t key_width() const { return model_.kv_head_count * model_.head_dim; }
  int64_t sequence_tokens() const {
    return (batch_.tokens + batch_.sequences - 1) / batch_.sequences;
  }
  int64_t sequence_answers() const { return batch_.answers / batch_.sequences; }
  bool has_dropout() const { return train_ && adapter_.dropout > 0; }

  static GradientSlot NewSlot() { return std::make_shared<Buffer>(); }

  // The function owns what the forward pass saves, which is freed when it has run.
  void Record(std::function<void()> backward) { tape_.push_back(std::move(backward)); }

  void RunBackward(size_t remaining) {
    while (tape_.size() > remaining) {
      tape_.back()();
      tape_.pop_back();
    }
  }

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
      group.rank += part.rank;
      group.parts.push_back(part);
      if (part.rank > 0) group.adapted.push_back(part);
    }
    return group;
  }

  Value Network() {
    Stream stream{.residual = {Take(batch_.tokens, hidden_size()), nullptr}, .delta = {}};
    for (int64_t layer = 0; layer + 1 < model_.layer_count; ++layer) stream = Layer(stream, layer);
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

  Normed AddRmsNorm(const Stream& in, int64_t rows) {
    const bool adds = in.delta.buffer != nullptr;
    Normed out;
    out.sum = adds ? Value{Take(rows, hidden_size()), nullptr} : in.residual;
    out.normed = {Take(rows, hidden_size()), nullptr};
    const Buffer inverse_rms = TakeFloat(rows, 1);
    const Buffer weight = Widen(1, hidden_size());
    if (in.residual.gradient == nullptr && in.delta.gradient == nullptr) return out;
    if (adds) out.sum.gradient = NewSlot();
    out.normed.gradient = NewSlot();
    Record([this, rows, saved = out.sum.buffer, inverse_rms, from_sum = out.sum.gradient,
            from_normed = out.normed.gradient, to_residual = in.residual.gradient,
            to_delta = in.delta.gradient] {
      Buffer grad_sum = std::exchange(*from_sum, nullptr);
      const Buffer grad_normed = std::exchange(*from_normed, nullptr);
      // Autograd makes zeros of a gradient that nothing flows into.
      if (grad_sum == nullptr) grad_sum = Take(rows, hidden_size());
      const Buffer grad = Take(rows, hidden_size());
      const Buffer widened = Widen(1, hidden_size());
      Flow(grad, to_residual);
      Flow(grad, to_delta);
    });
    return out;
  }

  // x W^T, on copies with more rows where there are few.
  Buffer Product(int64_t rows, int64_t in, int64_t out, int64_t element_bytes) {
    const auto take = [&](int64_t product_rows, int64_t columns) {
      return meter_.Take(product_rows * columns * element_bytes);
    };
    if (rows >= kStableRows) return take(rows, out);
    const Buffer padded = take(kStableRows, in);
    const Buffer product = take(kStableRows, out);
    return take(rows, out);
  }

  Value Linear(const Value& x, int64_t rows, const Group& group) {
    std::vector<Buffer> masks;
    if (has_dropout()) {
      for (size_t p = 0; p < group.adapted.size(); ++p) {
        masks.push_back(TakeFloat(rows, (group.in + 31) / 32));
      }
    }
    Value y{Product(rows, group.in, group.out, batch_.element_bytes), nullptr};
    const Buffer states = LowRankStates(group, rows);
    if (!group.adapted.empty()) {
      const Buffer padded = rows < kStableRows ? Take(kStableRows, group.out) : nullptr;
      for (const Group::Part& part : group.adapted) const Buffer b = Cast(part.out, part.rank);
    }
    if (x.gradient == nullptr && (group.adapted.empty() || !train_)) return y;
    y.gradient = NewSlot();
    // The plan that holds the masks lives as long as the graph.
    graph_.insert(graph_.end(), masks.begin(), masks.end());
    Record([this, group, rows, x_saved = x.buffer, states, from = y.gradient, to = x.gradient] {
      const Buffer grad = std::exchange(*from, nullptr);
      LinearBackward(group, rows, to);
    });
    return y;
  }

  // At least two rows are stacked.
  static int64_t StackedRows(int64_t rank) { return std::max<int64_t>(rank, 2); }

  Buffer StackA(size_t parts, int64_t rank, int64_t in) {
    const Buffer joined = parts > 1 || rank == 1 ? TakeFloat(StackedRows(rank), in) : nullptr;
    const Buffer cast = Cast(StackedRows(rank), in);
    return cast != nullptr ? cast : joined;
  }

  Buffer LowRankStates(const Group& group, int64_t rows) {
    if (group.adapted.empty()) return nullptr;
    const int64_t padded_rows = std::max(rows, kStableRows);
    const auto states_of = [&](size_t parts, int64_t rank) {
      const Buffer padded = rows < kStableRows ? Take(kStableRows, group.in) : nullptr;
      const Buffer a = StackA(parts, rank, group.in);
      return Take(padded_rows, StackedRows(rank));
    };
    if (!has_dropout()) return states_of(group.adapted.size(), group.rank);
    std::vector<Buffer> states;
    for (const Group::Part& part : group.adapted) {
      const Buffer dropped = Take(rows, group.in);
      states.push_back(states_of(1, part.rank));
    }
    return Take(padded_rows, group.rank);
  }

  void LinearBackward(const Group& group, int64_t rows, const GradientSlot& to) {
    const Buffer grad_x = to != nullptr ? Take(rows, group.in) : nullptr;
    std::vector<Buffer> grads;  // of the LoRA matrices, fp32
    if (!group.adapted.empty()) {
      const Buffer a = StackA(group.adapted.size(), group.rank, group.in);
      const Buffer grad_states = Take(rows, StackedRows(group.rank));
      for (const Group::Part& part : group.adapted) {
        const Buffer b = Cast(part.out, part.rank);
        TakeBriefly(rows, part.rank);
        grads.push_back(GradientOfMatrix(part.out, part.rank));
      }
      if (!has_dropout()) grads.push_back(GradientOfMatrix(StackedRows(group.rank), group.in));
      if (has_dropout()) DropoutBackward(group, rows, to != nullptr, &grads);
    }
    Flow(grad_x, to);
  }

  void DropoutBackward(const Group& group, int64_t rows, bool wants_x, std::vector<Buffer>* grads) {
    for (const Group::Part& part : group.adapted) {
      const Buffer a = Cast(part.rank, group.in);
      if (wants_x) TakeBriefly(rows, group.in);
      const Buffer dropped = Take(rows, group.in);
      grads->push_back(GradientOfMatrix(part.rank, group.in));
    }
  }

  void TakeBriefly(int64_t rows, int64_t columns) { const Buffer taken = Take(rows, columns); }

  Buffer GradientOfMatrix(int64_t rows, int64_t columns) {
    const Buffer product = Take(rows, columns);
    const Buffer widened = Widen(rows, columns);
    return widened != nullptr ? widened : product;
  }

  // The flash kernel's own, by thread; aten/src/ATen/native/cpu/FlashAttentionKernel.cpp.
  Buffer FlashScratch(int64_t queries) {
    const int64_t rows = std::min<int64_t>(queries, queries >= 768   ? 256
                                                    : queries >= 192 ? 64
                                                                     : 32);
    const int64_t scores = rows * std::min<int64_t>(sequence_tokens(), 512);
    const int64_t floats = scores + 2 * rows + rows * model_.head_dim;
    const int64_t narrow = computes_in_float() ? 0 : scores;
    return meter_.Take(batch_.threads * (floats * kFloatBytes + narrow * batch_.element_bytes));
  }

  // Several answers do not see those that follow.
  Buffer AnswerMask(int64_t queries, bool answers_only) {
    if (!answers_only || queries == 1) return nullptr;
    const Buffer mask = TakeFloat(queries, sequence_tokens());
    const Buffer cast = Cast(queries, sequence_tokens());
    return cast != nullptr ? cast : mask;
  }

  // Of one sequence; the others come before and behind it.
  void FlashForward(int64_t queries, bool answers_only) {
    const Buffer mask = AnswerMask(queries, answers_only);
    const Buffer attended = Take(queries, query_width());
    const Buffer scratch = FlashScratch(queries);
  }

  void AttentionBackward(int64_t queries) {
    const int64_t threads =
        std::min(int64_t{batch_.threads}, batch_.sequences * model_.kv_head_count);
    const bool bf16_products = !computes_in_float() && HeadFitsBf16Products(model_.head_dim);
    const Buffer scratch =
        meter_.Take(threads * AttentionGradientBytes(queries, sequence_tokens(),
                                                     model_.head_count / model_.kv_head_count,
                                                     model_.head_dim, bf16_products));
  }

  Value Attention(const Value& qkv) {
    Value out{Take(batch_.tokens, query_width()), nullptr};
    const Buffer log_sum_exp = TakeFloat(batch_.tokens, model_.head_count);
    FlashForward(sequence_tokens(), /*answers_only=*/false);
    if (qkv.gradient == nullptr) return out;
    out.gradient = NewSlot();
    Record([this, saved = out.buffer, qkv_saved = qkv.buffer, log_sum_exp, from = out.gradient,
            to = qkv.gradient] {
      const Buffer grad_out = std::exchange(*from, nullptr);
      const Buffer grad = Take(batch_.tokens, query_width() + 2 * key_width());
      AttentionBackward(sequence_tokens());
      Flow(grad, to);
    });
    return out;
  }

  Value AnswerAttention(const Value& q, const Value& kv) {
    Value out{Take(batch_.answers, query_width()), nullptr};
    const Buffer log_sum_exp = TakeFloat(batch_.answers, model_.head_count);
    FlashForward(sequence_answers(), /*answers_only=*/true);
    if (q.gradient == nullptr && kv.gradient == nullptr) return out;
    out.gradient = NewSlot();
    Record([this, saved = out.buffer, q_saved = q.buffer, kv_saved = kv.buffer, log_sum_exp,
            from = out.gradient, to_q = q.gradient, to_kv = kv.gradient] {
      const Buffer grad_out = std::exchange(*from, nullptr);
      const Buffer grad_q = Take(batch_.answers, query_width());
      const Buffer grad_kv = Take(batch_.tokens, 2 * key_width());
      AttentionBackward(sequence_answers());
      Flow(grad_q, to_q);
      Flow(grad_kv, to_kv);
    });
    return out;
  }

  // Backward, the other tokens' rows are zeros.
  Value SelectAnswers(const Value& x) {
    Value selected{Take(batch_.answers, hidden_size()), nullptr};
    if (x.gradient == nullptr) return selected;
    selected.gradient = NewSlot();
    Record([this, from = selected.gradient, to = x.gradient] {
      const Buffer grad = std::exchange(*from, nullptr);
      Flow(Take(batch_.tokens, hidden_size()), to);
    });
    return selected;
  }

  Value Swiglu(const Value& gate_up, int64_t rows) {
    Value out{Take(rows, model_.ffn_size), nullptr};
    if (gate_up.gradient == nullptr) return out;
    out.gradient = NewSlot();
    Record([this, rows, saved = gate_up.buffer, from = out.gradient, to = gate_up.gradient] {
      const Buffer grad = std::exchange(*from, nullptr);
      Flow(Take(rows, 2 * model_.ffn_size), to);
    });
    return out;
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

  const ModelConfig& model_;
  const AdapterShape& adapter_;
  const BatchShape batch_;
  const bool train_;
  Meter meter_;  // outlives what it has given
  std::vector<std::function<void()>> tape_;
  std::vector<Buffer> graph_;
};

std::vector<std::string> ProjectionNames() {
  std::vector<std::string> names;
  for (int p = 0; p < kProjectionCount; ++p) {
    const std::pair<std::string, std::string> path =
        absl::StrSplit(ProjectionPath(static_cast<Projection>(p)), '.');
    names.push_back(path.second);
  }
  return names;
}

}  // namespace

absl::StatusOr<AdapterShape> AdapterShape::Of(const PeftConfig& config, const ModelConfig& model,
                                              int64_t bins) {
  PeftConfig named = config;
  if (named.target_modules == std::vector<std::string>{std::string(kAllLinear)}) {
    named.target_modules = ProjectionNames();
  }
  for (const std::string& module : named.target_modules) {
    PeftConfig single;
    single.task = named.task;
    single.target_modules = {module};
    RETURN_IF_ERROR(single.Targets(model).status());
  }
  ASSIGN_OR_RETURN(const auto targets, named.Targets(model));
  AdapterShape shape;
  for (const auto& layer : targets) {
    std::vector<int64_t>& ranks = shape.ranks.emplace_back();
    for (const PeftConfig::Target& target : layer) ranks.push_back(target.rank);
  }
  shape.dropout = config.dropout;
  shape.bins = bins;
  return shape;
}

int64_t AdapterShape::LoraValues(const ModelConfig& model) const {
  int64_t values = 0;
  for (const std::vector<int64_t>& layer : ranks) {
    for (int p = 0; p < kProjectionCount; ++p) {
      const LinearShape linear = ProjectionShape(model, static_cast<Projection>(p));
      values += layer[p] * (linear.in + linear.out);
    }
  }
  return values;
}

int64_t AdapterShape::ScoreValues(const ModelConfig& model) const {
  return bins * model.hidden_size;
}

int64_t AdapterShape::HeadValues(const ModelConfig& model) const {
  return (cosine_head && bins > 0 ? bins - 1 : bins) * model.hidden_size;
}

StepMemory PredictStepMemory(const ModelConfig& model, const AdapterShape& adapter,
                             const BatchShape& batch) {
  return Pass(model, adapter, batch, /*train=*/true).Run();
}

int64_t PredictForwardMemory(const ModelConfig& model, const AdapterShape& adapter,
                             const BatchShape& batch) {
  return Pass(model, adapter, batch, /*train=*/false).Run().peak_bytes();
}

}  // namespace pricer
