#pragma once

#include <vector>

#include "model/ops/product_blocks.h"
#include "trainer/op_memory.h"

namespace pricer {

// The ops as model/ops/*_cpu.cc and the products of blocks have them.
class CpuOpMemory : public OpMemory {
 public:
  CpuOpMemory(const ModelConfig& model, const AdapterShape& adapter, const BatchShape& batch,
              bool train)
      : OpMemory(model, adapter, batch, train) {}

  Value Linear(const Value& x, int64_t rows, const Group& group, const Source& source) override;
  void CrossEntropy(const Value& logits, int64_t rows, int64_t classes) override;

 private:
  Buffer WidenedNorm() override { return Widen(1, hidden_size()); }

  // Elements that are read together lie together; model/ops/matrix_product.h.
  int64_t RowsTogether() const { return kFloatBytes / batch_.element_bytes; }
  int64_t PackedBytes(int64_t rows, int64_t columns) const {
    return RoundUp(RowsTogether(), rows) * RoundUp(kProductTile, columns) * batch_.element_bytes;
  }
  // A right operand, of a matrix that is cast where it is LoRA's.
  Buffer Pack(int64_t rows, int64_t columns) { return meter_.Take(PackedBytes(rows, columns)); }
  Buffer PackCast(int64_t rows, int64_t columns);
  std::vector<Buffer> ForwardOperands(const Group& group);
  std::vector<Buffer> BackwardOperands(const Group& group);
  // Of each adapted linear's input and output states.
  Buffer States(const Group& group, int64_t rows);
  void LinearBackward(const Group& group, int64_t rows, const GradientSlot& to);
  // The threads' own scratch.
  void AttentionForward(bool answers_only) override;
  void AttentionBackward(bool answers_only) override;
};

}  // namespace pricer
