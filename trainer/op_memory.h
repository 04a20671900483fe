#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "model/model_config.h"
#include "model/ops/product_blocks.h"
#include "trainer/adapter_shape.h"
#include "trainer/memory_meter.h"

namespace pricer {

// One packed batch of sequences that are equally long but for one token.
struct BatchShape {
  int64_t tokens = 1;         // T
  int64_t sequences = 1;      // B, 1 to T
  int64_t answers = 1;        // A, a multiple of B
  int64_t element_bytes = 4;  // of the compute dtype
  int threads = 1;            // each has a scratch of its own in attention
  // Of a training step: of so many layers inputs alone are kept; see Network::Forward.
  int64_t recomputed_layers = 0;
};

// The memory of the ops of model/, one function for each, in one pass over a packed batch: buffers
// are taken and dropped where op and autograd take and drop theirs. Nothing is computed. No torch.
// The functions that are recorded for the backward pass refer to the object.
class OpMemory {
 public:
  using Buffer = MemoryMeter::Buffer;

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

  // Linears that share an input; those of rank 0 carry no LoRA.
  struct Group {
    struct Part {
      int64_t out = 0;
      int64_t rank = 0;
    };
    int64_t in = 0;
    int64_t out = 0;    // sum
    int64_t ranks = 0;  // sum, each in multiples of kProductTile
    std::vector<Part> parts;
    std::vector<Part> adapted;  // those with LoRA
  };

  // With `train` gradients are recorded. `model` and `adapter` must outlive this.
  OpMemory(const ModelConfig& model, const AdapterShape& adapter, const BatchShape& batch,
           bool train)
      : model_(model), adapter_(adapter), batch_(batch), train_(train), records_(train) {}
  OpMemory(const OpMemory&) = delete;
  OpMemory& operator=(const OpMemory&) = delete;

  Normed AddRmsNorm(const Stream& in, int64_t rows);
  // A head's x W^T, on copies with more rows where there are few.
  Buffer Product(int64_t rows, int64_t in, int64_t out, int64_t element_bytes);
  Value Linear(const Value& x, int64_t rows, const Group& group);
  Value Attention(const Value& qkv);
  Value AnswerAttention(const Value& q, const Value& kv);
  // Backward, the other tokens' rows are zeros.
  Value SelectAnswers(const Value& x);
  Value Swiglu(const Value& gate_up, int64_t rows);

 protected:
  static constexpr int64_t kFloatBytes = 4;
  // The heads' products have at least so many rows; model/ops/lora_linear.cc.
  static constexpr int64_t kStableRows = 32;

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
      const std::function<void()> backward = std::move(tape_.back());
      tape_.pop_back();
      backward();
    }
  }

  // A second gradient is added to the first in place.
  static void Flow(Buffer gradient, const GradientSlot& to);

  const ModelConfig& model_;
  const AdapterShape& adapter_;
  const BatchShape batch_;
  const bool train_;
  bool records_;       // gradients; false while a layer runs that will be recomputed
  MemoryMeter meter_;  // outlives what it has given
  std::vector<std::function<void()>> tape_;
  std::vector<Buffer> graph_;  // what lives as long as the whole graph
  int64_t gradient_weight_bytes_ = 0;
  std::vector<Buffer>* found_ = nullptr;  // keeps the gradients of LoRA matrices; null = no one

 private:
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
  Buffer States(const Group& group, int64_t rows) { return Take(group.ranks, StateColumns(rows)); }
  void LinearBackward(const Group& group, int64_t rows, const GradientSlot& to);
  // Of so many queries of each sequence; the threads' own.
  void AttentionScratch();
  void AttentionBackward(int64_t queries);
};

}  // namespace pricer
