#include "trainer/op_memory.h"

#include <algorithm>

#include "model/ops/attention_blocks.h"

namespace pricer {

void OpMemory::Flow(Buffer gradient, const GradientSlot& to) {
  if (to != nullptr && *to == nullptr) *to = std::move(gradient);
}

OpMemory::Normed OpMemory::AddRmsNorm(const Stream& in, int64_t rows) {
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

OpMemory::Buffer OpMemory::Product(int64_t rows, int64_t in, int64_t out, int64_t element_bytes) {
  const auto take = [&](int64_t product_rows, int64_t columns) {
    return meter_.Take(product_rows * columns * element_bytes);
  };
  if (rows >= kStableRows) return take(rows, out);
  const Buffer padded = take(kStableRows, in);
  const Buffer product = take(kStableRows, out);
  return take(rows, out);
}

OpMemory::Value OpMemory::Linear(const Value& x, int64_t rows, const Group& group) {
  std::vector<Buffer> masks;
  if (has_dropout()) {
    for (size_t p = 0; p < group.adapted.size(); ++p) {
      masks.push_back(TakeFloat(rows, (group.in + 31) / 32));
    }
  }
  Value y{Take(rows, group.out), nullptr};
  const bool adapted = !group.adapted.empty();
  const Buffer states = adapted && records_ ? States(group, rows) : nullptr;
  ForwardOperands(group);
  if (x.gradient == nullptr && (!adapted || !records_)) return y;
  y.gradient = NewSlot();
  // The plan that holds the masks lives as long as the graph.
  graph_.insert(graph_.end(), masks.begin(), masks.end());
  Record([this, group, rows, x_saved = x.buffer, states, from = y.gradient, to = x.gradient] {
    const Buffer grad = std::exchange(*from, nullptr);
    LinearBackward(group, rows, to);
  });
  return y;
}

OpMemory::Buffer OpMemory::PackCast(int64_t rows, int64_t columns) {
  const Buffer cast = Cast(rows, columns);
  return Pack(rows, columns);
}

std::vector<OpMemory::Buffer> OpMemory::ForwardOperands(const Group& group) {
  std::vector<Buffer> operands;
  if (group.adapted.empty()) return operands;
  if (!has_dropout()) {
    const Buffer stacked = Take(group.ranks, group.in);
    operands.push_back(Pack(group.in, group.ranks));
  }
  for (const Group::Part& part : group.adapted) {
    if (has_dropout()) operands.push_back(PackCast(group.in, part.rank));
    operands.push_back(PackCast(part.rank, part.out));
  }
  return operands;
}

std::vector<OpMemory::Buffer> OpMemory::BackwardOperands(const Group& group) {
  std::vector<Buffer> operands;
  if (group.adapted.empty()) return operands;
  const Buffer stacked = Take(group.ranks, group.in);
  operands.push_back(Pack(group.ranks, group.in));
  for (const Group::Part& part : group.adapted) {
    operands.push_back(PackCast(part.out, part.rank));
  }
  return operands;
}

void OpMemory::LinearBackward(const Group& group, int64_t rows, const GradientSlot& to) {
  const Buffer grad_x = to != nullptr ? Take(rows, group.in) : nullptr;
  std::vector<Buffer> grads;  // of the LoRA matrices, fp32
  if (!group.adapted.empty()) {
    const Buffer grad_states = States(group, rows);
    BackwardOperands(group);
    for (const Group::Part& part : group.adapted) {
      grads.push_back(TakeFloat(part.rank, group.in));
      grads.push_back(TakeFloat(part.out, part.rank));
    }
  }
  if (found_ != nullptr) found_->insert(found_->end(), grads.begin(), grads.end());
  if (to == nullptr) return;
  for (const Group::Part& part : group.parts) {
    gradient_weight_bytes_ += PackedBytes(part.out, group.in);
  }
  Flow(grad_x, to);
}

void OpMemory::AttentionScratch() {
  // One task for each key head, or for each head where those are few.
  int64_t tasks = batch_.sequences * model_.kv_head_count;
  if (tasks < 4 * batch_.threads) tasks = batch_.sequences * model_.head_count;
  const Buffer scratch =
      meter_.Take(std::min<int64_t>(batch_.threads, tasks) *
                  AttentionForwardBytes(sequence_tokens(), model_.head_dim, batch_.element_bytes));
}

void OpMemory::AttentionBackward(int64_t queries) {
  const int64_t threads =
      std::min(int64_t{batch_.threads}, batch_.sequences * model_.kv_head_count);
  AttentionGradientSizes sizes;
  sizes.Include(queries, sequence_tokens(), model_.head_count / model_.kv_head_count,
                model_.head_dim);
  const Buffer scratch = meter_.Take(threads * sizes.bytes(model_.head_dim, batch_.element_bytes));
}

OpMemory::Value OpMemory::Attention(const Value& qkv) {
  Value out{Take(batch_.tokens, query_width()), nullptr};
  const Buffer log_sum_exp = TakeFloat(batch_.tokens, model_.head_count);
  AttentionScratch();
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

OpMemory::Value OpMemory::AnswerAttention(const Value& q, const Value& kv) {
  Value out{Take(batch_.answers, query_width()), nullptr};
  const Buffer log_sum_exp = TakeFloat(batch_.answers, model_.head_count);
  AttentionScratch();
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
