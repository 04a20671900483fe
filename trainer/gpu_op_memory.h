#pragma once

#include <vector>

#include "trainer/op_memory.h"

namespace pricer {

// The ops as model/ops/*_cuda.cc and libtorch's flash attention have them, in bf16. What libtorch's
// allocator rounds up is not counted.
class GpuOpMemory : public OpMemory {
 public:
  GpuOpMemory(const ModelConfig& model, const AdapterShape& adapter, const BatchShape& batch,
              bool train)
      : OpMemory(model, adapter, batch, train) {}

  Value Linear(const Value& x, int64_t rows, const Group& group, const Source& source) override;
  void CrossEntropy(const Value& logits, int64_t rows, int64_t classes) override;

 private:
  Buffer WidenedNorm() override { return nullptr; }

  // LoRA's matrices of a group in the compute dtype.
  std::vector<Buffer> Operands(const Group& group);
  Buffer States(const Group& group, int64_t rows);
  // Of one launch of LoRA's kernels over the group.
  Buffer Workspace(const Group& group, int64_t rows);
  void LoraBackward(const Group& group, int64_t rows);

  // Of heads that flash attention takes padded: copies of q, k and v; none where nothing is padded.
  std::vector<Buffer> PaddedHeads(int64_t rows);
  int64_t padded_dim() const;
  int64_t queries(bool answers_only) const { return answers_only ? batch_.answers : batch_.tokens; }
  void AttentionForward(bool answers_only) override;
  void AttentionBackward(bool answers_only) override;
};

}  // namespace pricer
