#include "trainer/op_memory.h"

#include <utility>

#include "trainer/cpu_op_memory.h"
#include "trainer/gpu_op_memory.h"

namespace pricer {

std::unique_ptr<OpMemory> OpMemory::Create(const ModelConfig& model, const AdapterShape& adapter,
                                           const BatchShape& batch, bool train) {
  if (batch.on_gpu) return std::make_unique<GpuOpMemory>(model, adapter, batch, train);
  return std::make_unique<CpuOpMemory>(model, adapter, batch, train);
}

void OpMemory::Flow(Buffer gradient, const GradientSlot& to) {
  if (to != nullptr && *to == nullptr) *to = std::move(gradient);
}

void OpMemory::RunBackward(size_t remaining) {
  while (tape_.size() > remaining) {
    const std::function<void()> backward = std::move(tape_.back());
    tape_.pop_back();
    backward();
  }
}

void OpMemory::WithoutGradients(const std::function<void()>& body) {
  records_ = false;
  body();
  records_ = true;
}

void OpMemory::AsInnerGraph(const std::function<void()>& body) {
  std::vector<Buffer> found;
  const size_t outer_graph = graph_.size();
  found_ = &found;
  body();
  found_ = nullptr;
  graph_.resize(outer_graph);
}

OpMemory::Normed OpMemory::AddRmsNorm(const Stream& in, int64_t rows) {
  const bool adds = in.delta.buffer != nullptr;
  Normed out;
  out.sum = adds ? Value{Take(rows, hidden_size()), nullptr} : in.residual;
  out.normed = {Take(rows, hidden_size()), nullptr};
  const Buffer inverse_rms = TakeFloat(rows, 1);
  const Buffer weight = WidenedNorm();
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
    const Buffer widened = WidenedNorm();
    Flow(grad, to_residual);
    Flow(grad, to_delta);
  });
  return out;
}

OpMemory::Buffer OpMemory::Product(int64_t rows, int64_t in, int64_t out, int64_t element_bytes) {
  const auto take = [&](int64_t product_rows, int64_t columns) {
    return meter_.Take(product_rows * columns * element_bytes);
  };
  if (rows >= kStableRows) return take(rows, out);
  const Buffer padded = take(kStableRows, in);
  const Buffer product = take(kStableRows, out);
  return take(rows, out);
}

std::vector<OpMemory::Buffer> OpMemory::DropoutMasks(int64_t rows, const Group& group) {
  std::vector<Buffer> masks;
  if (!has_dropout()) return masks;
  for (size_t p = 0; p < group.adapted.size(); ++p) {
    masks.push_back(TakeFloat(rows, (group.in + 31) / 32));
  }
  return masks;
}

OpMemory::Value OpMemory::Attention(const Value& qkv) {
  Value out{Take(batch_.tokens, query_width()), nullptr};
  const Buffer log_sum_exp = TakeFloat(batch_.tokens, model_.head_count);
  AttentionForward(/*answers_only=*/false);
  if (qkv.gradient == nullptr) return out;
  out.gradient = NewSlot();
  Record([this, saved = out.buffer, qkv_saved = qkv.buffer, log_sum_exp, from = out.gradient,
          to = qkv.gradient] {
    const Buffer grad_out = std::exchange(*from, nullptr);
    const Buffer grad = Take(batch_.tokens, query_width() + 2 * key_width());
    AttentionBackward(/*answers_only=*/false);
    Flow(grad, to);
  });
  return out;
}

OpMemory::Value OpMemory::AnswerAttention(const Value& q, const Value& kv) {
  Value out{Take(batch_.answers, query_width()), nullptr};
  const Buffer log_sum_exp = TakeFloat(batch_.answers, model_.head_count);
  AttentionForward(/*answers_only=*/true);
  if (q.gradient == nullptr && kv.gradient == nullptr) return out;
  out.gradient = NewSlot();
  Record([this, saved = out.buffer, q_saved = q.buffer, kv_saved = kv.buffer, log_sum_exp,
          from = out.gradient, to_q = q.gradient, to_kv = kv.gradient] {
    const Buffer grad_out = std::exchange(*from, nullptr);
    const Buffer grad_q = Take(batch_.answers, query_width());
    const Buffer grad_kv = Take(batch_.tokens, 2 * key_width());
    AttentionBackward(/*answers_only=*/true);
    Flow(grad_q, to_q);
    Flow(grad_kv, to_kv);
  });
  return out;
}

OpMemory::Value OpMemory::SelectAnswers(const Value& x) {
  Value selected{Take(batch_.answers, hidden_size()), nullptr};
  if (x.gradient == nullptr) return selected;
  selected.gradient = NewSlot();
  Record([this, from = selected.gradient, to = x.gradient] {
    const Buffer grad = std::exchange(*from, nullptr);
    Flow(Take(batch_.tokens, hidden_size()), to);
  });
  return selected;
}

OpMemory::Value OpMemory::Swiglu(const Value& gate_up, int64_t rows) {
  Value out{Take(rows, model_.ffn_size), nullptr};
  if (gate_up.gradient == nullptr) return out;
  out.gradient = NewSlot();
  Record([this, rows, saved = gate_up.buffer, from = out.gradient, to = gate_up.gradient] {
    const Buffer grad = std::exchange(*from, nullptr);
    Flow(Take(rows, 2 * model_.ffn_size), to);
  });
  return out;
}

}  // namespace pricer
