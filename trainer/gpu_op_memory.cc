#include "trainer/gpu_op_memory.h"

#include <algorithm>
#include <utility>

#include "model/ops/lora_sizes.h"

namespace pricer {
namespace {

int64_t Blocks(int64_t count, int64_t size) { return (count + size - 1) / size; }

int64_t PaddedRanks(const OpMemory::Group& group) {
  int64_t ranks = 0;
  for (const OpMemory::Group::Part& part : group.adapted) {
    ranks += Blocks(part.rank, cuda::kLoraRankTile) * cuda::kLoraRankTile;
  }
  return ranks;
}

// Flash attention's kernels: rows of sequences are padded to blocks, head dimensions to tiles; of
// libtorch 2.11's mha_varlen_bwd.
constexpr int64_t kFlashRowBlock = 128;
int64_t FlashDim(int64_t dim) { return dim <= 192 ? Blocks(dim, 32) * 32 : 256; }

}  // namespace

std::vector<OpMemory::Buffer> GpuOpMemory::Operands(const Group& group) {
  std::vector<Buffer> operands;
  for (const Group::Part& part : group.adapted) {
    operands.push_back(Take(part.rank, group.in));
    operands.push_back(Take(part.out, part.rank));
  }
  return operands;
}

OpMemory::Buffer GpuOpMemory::States(const Group& group, int64_t rows) {
  return Take(rows, PaddedRanks(group));
}

OpMemory::Buffer GpuOpMemory::Workspace(const Group& group, int64_t rows) {
  int64_t depth = group.in;
  int64_t values_of_a = 0;
  int64_t values_of_b = 0;
  for (const Group::Part& part : group.adapted) {
    depth = std::max(depth, part.out);
    values_of_a += part.rank * group.in;
    values_of_b += part.rank * part.out;
  }
  const int64_t states = Blocks(depth, cuda::kLoraDepthSplit) * rows * PaddedRanks(group);
  const int64_t weights = Blocks(rows, cuda::kLoraDepthSplit) * std::max(values_of_a, values_of_b);
  return TakeFloat(std::max(states, weights), 1);
}

OpMemory::Value GpuOpMemory::Linear(const Value& x, int64_t rows, const Group& group,
                                    const Source& source) {
  const std::vector<Buffer> masks = DropoutMasks(rows, group);
  Value y{Take(rows, group.out), nullptr};
  const bool adapted = !group.adapted.empty();
  Buffer states;
  if (adapted) {
    const std::vector<Buffer> operands = Operands(group);
    states = States(group, rows);
    const Buffer workspace = Workspace(group, rows);
  }
  if (!records_) states = nullptr;
  if (x.gradient == nullptr && (!adapted || !records_)) return y;
  y.gradient = NewSlot();
  // The plan that holds the masks lives as long as the graph.
  graph_.insert(graph_.end(), masks.begin(), masks.end());
  Record([this, group, rows, adapted, remade = source.from != nullptr,
          extra_bytes = source.extra_bytes,
          kept = !adapted ? nullptr : (source.from != nullptr ? source.from : x.buffer), states,
          from = y.gradient, to = x.gradient] {
    const Buffer grad = std::exchange(*from, nullptr);
    Buffer again;
    if (adapted && remade) {
      again = Take(rows, group.in);
      TakeBytes(extra_bytes);
    }
    const Buffer grad_x = to != nullptr ? Take(rows, group.in) : nullptr;
    if (adapted) LoraBackward(group, rows);
    Flow(grad_x, to);
  });
  return y;
}

void GpuOpMemory::LoraBackward(const Group& group, int64_t rows) {
  const std::vector<Buffer> operands = Operands(group);
  std::vector<Buffer> grads;  // of the LoRA matrices, fp32
  for (const Group::Part& part : group.adapted) {
    grads.push_back(TakeFloat(part.rank, group.in));
    grads.push_back(TakeFloat(part.out, part.rank));
  }
  const Buffer grad_states = States(group, rows);
  const Buffer workspace = Workspace(group, rows);
  if (found_ != nullptr) found_->insert(found_->end(), grads.begin(), grads.end());
}

int64_t GpuOpMemory::padded_dim() const { return Blocks(model_.head_dim, 8) * 8; }

std::vector<OpMemory::Buffer> GpuOpMemory::PaddedHeads(int64_t rows) {
  if (padded_dim() == model_.head_dim) return {};
  const int64_t keys = model_.kv_head_count * padded_dim();
  return {Take(rows, model_.head_count * padded_dim()), Take(batch_.tokens, keys),
          Take(batch_.tokens, keys)};
}

void GpuOpMemory::AttentionForward(bool answers_only) {
  const int64_t rows = queries(answers_only);
  const std::vector<Buffer> heads = PaddedHeads(rows);
  if (!heads.empty()) Take(rows, model_.head_count * padded_dim());
}

void GpuOpMemory::AttentionBackward(bool answers_only) {
  const int64_t rows = queries(answers_only);
  const int64_t width = model_.head_count * padded_dim();
  const int64_t key_width = model_.kv_head_count * padded_dim();
  const std::vector<Buffer> heads = PaddedHeads(rows);
  std::vector<Buffer> held;
  if (!heads.empty()) held = {Take(rows, width), Take(rows, width)};  // out and its gradient
  held.push_back(Take(rows, width));
  held.push_back(Take(batch_.tokens, 2 * key_width));
  const int64_t padded = rows + kFlashRowBlock * batch_.sequences;
  held.push_back(TakeFloat(padded, model_.head_count));
  held.push_back(TakeFloat(padded, model_.head_count * FlashDim(padded_dim())));
  // Of keys that several heads share, each head's own.
  if (model_.head_count != model_.kv_head_count) held.push_back(Take(batch_.tokens, 2 * width));
}

void GpuOpMemory::CrossEntropy(const Value& logits, int64_t rows, int64_t classes) {
  const Buffer loss = TakeFloat(rows, 1);
  const Buffer made = TakeFloat(rows, classes);
  Record([this, rows, classes, made, to = logits.gradient] { Flow(TakeFloat(rows, classes), to); });
}

}  // namespace pricer
