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
  Value y{Product(rows, group.in, group.out, batch_.element_bytes), nullptr};
  const Buffer states = LowRankStates(group, rows);
  if (!group.adapted.empty()) {
    const Buffer padded = rows < kStableRows ? Take(kStableRows, group.out) : nullptr;
    for (const Group::Part& part : group.adapted) const Buffer b = Cast(part.out, part.rank);
  }
  if (x.gradient == nullptr && (group.adapted.empty() || !records_)) return y;
  y.gradient = NewSlot();
  // The plan that holds the masks lives as long as the graph.
  graph_.insert(graph_.end(), masks.begin(), masks.end());
  Record([this, group, rows, x_saved = x.buffer, states, from = y.gradient, to = x.gradient] {
    const Buffer grad = std::exchange(*from, nullptr);
    LinearBackward(group, rows, to);
  });
  return y;
}

OpMemory::Buffer OpMemory::StackA(size_t parts, int64_t rank, int64_t in) {
  const Buffer joined = parts > 1 || rank == 1 ? TakeFloat(StackedRows(rank), in) : nullptr;
  const Buffer cast = Cast(StackedRows(rank), in);
  return cast != nullptr ? cast : joined;
}

OpMemory::Buffer OpMemory::LowRankStates(const Group& group, int64_t rows) {
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

void OpMemory::LinearBackward(const Group& group, int64_t rows, const GradientSlot& to) {
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
  if (found_ != nullptr) found_->insert(found_->end(), grads.begin(), grads.end());
  Flow(grad_x, to);
}

void OpMemory::DropoutBackward(const Group& group, int64_t rows, bool wants_x,
                               std::vector<Buffer>* grads) {
  for (const Group::Part& part : group.adapted) {
    const Buffer a = Cast(part.rank, group.in);
    if (wants_x) TakeBriefly(rows, group.in);
    const Buffer dropped = Take(rows, group.in);
    grads->push_back(GradientOfMatrix(part.rank, group.in));
  }
}

OpMemory::Buffer OpMemory::GradientOfMatrix(int64_t rows, int64_t columns) {
  const Buffer product = Take(rows, columns);
  const Buffer widened = Widen(rows, columns);
  return widened != nullptr ? widened : product;
}

OpMemory::Buffer OpMemory::FlashScratch(int64_t queries) {
  const int64_t rows = std::min<int64_t>(queries, queries >= 768 ? 256 : queries >= 192 ? 64 : 32);
  const int64_t scores = rows * std::min<int64_t>(sequence_tokens(), 512);
  const int64_t floats = scores + 2 * rows + rows * model_.head_dim;
  const int64_t narrow = computes_in_float() ? 0 : scores;
  return meter_.Take(batch_.threads * (floats * kFloatBytes + narrow * batch_.element_bytes));
}

OpMemory::Buffer OpMemory::AnswerMask(int64_t queries, bool answers_only) {
  if (!answers_only || queries == 1) return nullptr;
  const Buffer mask = TakeFloat(queries, sequence_tokens());
  const Buffer cast = Cast(queries, sequence_tokens());
  return cast != nullptr ? cast : mask;
}

void OpMemory::FlashForward(int64_t queries, bool answers_only) {
  const Buffer mask = AnswerMask(queries, answers_only);
  const Buffer attended = Take(queries, query_width());
  const Buffer scratch = FlashScratch(queries);
}

void OpMemory::AttentionBackward(int64_t queries) {
  const int64_t threads =
      std::min(int64_t{batch_.threads}, batch_.sequences * model_.kv_head_count);
  const bool bf16_products = !computes_in_float() && HeadFitsBf16Products(model_.head_dim);
  const Buffer scratch =
      meter_.Take(threads * AttentionGradientBytes(queries, sequence_tokens(),
                                                   model_.head_count / model_.kv_head_count,
                                                   model_.head_dim, bf16_products));
}

OpMemory::Value OpMemory::Attention(const Value& qkv) {
  Value out{Take(rows_, query_width()), nullptr};
  const Buffer log_sum_exp = TakeFloat(batch_.tokens, model_.head_count);
  FlashForward(sequence_tokens(), /*answers_only=*/false);
  if (qkv.gradient == nullptr) return out;
  out.gradient = NewSlot();
  Record([this, saved = out.buffer, qkv_saved = qkv.buffer, log_sum_exp, from = out.gradient,
          to = qkv.gradient] {
    const Buffer grad_out = std::exchange(*from, nullptr);
    const Buffer grad = Take(rows_, query_width() + 2 * key_width());
    AttentionBackward(sequence_tokens());
    Flow(grad, to);
  });
  return out;
}

OpMemory::Value OpMemory::AnswerAttention(const Value& q, const Value& kv) {
  Value out{Take(batch_.answers, query_width()), nullptr};
  const Buffer log_sum_exp = TakeFloat(batch_.answers, model_.head_count);
  FlashForward(sequence_answers(), /*answers_only=*/true);
  if (q.gradient == nullptr && kv.gradient == nullptr) return out;
  out.gradient = NewSlot();
  Record([this, saved = out.buffer, q_saved = q.buffer, kv_saved = kv.buffer, log_sum_exp,
          from = out.gradient, to_q = q.gradient, to_kv = kv.gradient] {
    const Buffer grad_out = std::exchange(*from, nullptr);
    const Buffer grad_q = Take(batch_.answers, query_width());
    const Buffer grad_kv = Take(rows_, 2 * key_width());
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
    Flow(Take(rows_, hidden_size()), to);
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
