#include "trainer/cpu_op_memory.h"

#include <algorithm>
#include <utility>

#include "model/ops/attention_blocks.h"

namespace pricer {
namespace {

int64_t PaddedRanks(const OpMemory::Group& group) {
  int64_t ranks = 0;
  for (const OpMemory::Group::Part& part : group.parts) ranks += RoundUp(kProductTile, part.rank);
  return ranks;
}

}  // namespace

OpMemory::Value CpuOpMemory::Linear(const Value& x, int64_t rows, const Group& group,
                                    const Source& /*source*/) {
  const std::vector<Buffer> masks = DropoutMasks(rows, group);
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

OpMemory::Buffer CpuOpMemory::PackCast(int64_t rows, int64_t columns) {
  const Buffer cast = Cast(rows, columns);
  return Pack(rows, columns);
}

OpMemory::Buffer CpuOpMemory::States(const Group& group, int64_t rows) {
  return Take(PaddedRanks(group), StateColumns(rows));
}

std::vector<OpMemory::Buffer> CpuOpMemory::ForwardOperands(const Group& group) {
  std::vector<Buffer> operands;
  if (group.adapted.empty()) return operands;
  if (!has_dropout()) {
    const Buffer stacked = Take(PaddedRanks(group), group.in);
    operands.push_back(Pack(group.in, PaddedRanks(group)));
  }
  for (const Group::Part& part : group.adapted) {
    if (has_dropout()) operands.push_back(PackCast(group.in, part.rank));
    operands.push_back(PackCast(part.rank, part.out));
  }
  return operands;
}

std::vector<OpMemory::Buffer> CpuOpMemory::BackwardOperands(const Group& group) {
  std::vector<Buffer> operands;
  if (group.adapted.empty()) return operands;
  const Buffer stacked = Take(PaddedRanks(group), group.in);
  operands.push_back(Pack(PaddedRanks(group), group.in));
  for (const Group::Part& part : group.adapted) {
    operands.push_back(PackCast(part.out, part.rank));
  }
  return operands;
}

void CpuOpMemory::LinearBackward(const Group& group, int64_t rows, const GradientSlot& to) {
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

void CpuOpMemory::AttentionForward(bool /*answers_only*/) {
  // One task for each key head, or for each head where those are few.
  int64_t tasks = batch_.sequences * model_.kv_head_count;
  if (tasks < 4 * batch_.threads) tasks = batch_.sequences * model_.head_count;
  const Buffer scratch =
      meter_.Take(std::min<int64_t>(batch_.threads, tasks) *
                  AttentionForwardBytes(sequence_tokens(), model_.head_dim, batch_.element_bytes));
}

void CpuOpMemory::AttentionBackward(bool answers_only) {
  const int64_t queries = answers_only ? sequence_answers() : sequence_tokens();
  const int64_t threads =
      std::min(int64_t{batch_.threads}, batch_.sequences * model_.kv_head_count);
  AttentionGradientSizes sizes;
  sizes.Include(queries, sequence_tokens(), model_.head_count / model_.kv_head_count,
                model_.head_dim);
  const Buffer scratch = meter_.Take(threads * sizes.bytes(model_.head_dim, batch_.element_bytes));
}

void CpuOpMemory::CrossEntropy(const Value& logits, int64_t rows, int64_t classes) {
  const Buffer log_probabilities = TakeFloat(rows, classes);
  // Towards a distribution, of as many classes as a head has bins.
  const Buffer product = adapter_.bins > 0 ? TakeFloat(rows, classes) : nullptr;
  Record([this, rows, classes, log_probabilities, to = logits.gradient] {
    const Buffer grad = TakeFloat(rows, classes);
    Flow(TakeFloat(rows, classes), to);
  });
}

}  // namespace pricer
