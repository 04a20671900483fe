#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "model/model_config.h"
#include "trainer/adapter_shape.h"
#include "trainer/memory_meter.h"

namespace pricer {

// One packed batch of sequences that are equally long but for one token.
struct BatchShape {
  int64_t tokens = 1;         // T
  int64_t sequences = 1;      // B, 1 to T
  int64_t answers = 1;        // A, a multiple of B
  int64_t element_bytes = 4;  // of the compute dtype
  int threads = 1;            // of a CPU; each has a scratch of its own in attention
  bool on_gpu = false;        // whose ops compute it
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
    int64_t out = 0;  // sum
    std::vector<Part> parts;
    std::vector<Part> adapted;  // those with LoRA
  };

  // What a linear's input is made of again when gradients need it; null = it is kept instead.
  struct Source {
    Buffer from;
    int64_t extra_bytes = 0;  // beside the input, while it is made
  };

  // Those of a CPU, or of a GPU where the batch says so. With `train` gradients are recorded.
  // `model` and `adapter` must outlive the result.
  static std::unique_ptr<OpMemory> Create(const ModelConfig& model, const AdapterShape& adapter,
                                          const BatchShape& batch, bool train);
  virtual ~OpMemory() = default;
  OpMemory(const OpMemory&) = delete;
  OpMemory& operator=(const OpMemory&) = delete;

  Normed AddRmsNorm(const Stream& in, int64_t rows);
  virtual Value Linear(const Value& x, int64_t rows, const Group& group, const Source& source) = 0;
  Value Attention(const Value& qkv);
  Value AnswerAttention(const Value& q, const Value& kv);
  // Backward, the other tokens' rows are zeros.
  Value SelectAnswers(const Value& x);
  Value Swiglu(const Value& gate_up, int64_t rows);
  // A head's x W^T, on copies with more rows where there are few.
  Buffer Product(int64_t rows, int64_t in, int64_t out, int64_t element_bytes);
  // CrossEntropySum of fp32 logits.
  virtual void CrossEntropy(const Value& logits, int64_t rows, int64_t classes) = 0;

  Buffer TakeBytes(int64_t bytes) { return meter_.Take(bytes); }
  Buffer Take(int64_t rows, int64_t columns) {
    return meter_.Take(rows * columns * batch_.element_bytes);
  }
  Buffer TakeFloat(int64_t rows, int64_t columns) {
    return meter_.Take(rows * columns * kFloatBytes);
  }
  // What `.to(dtype)` makes of an fp32 tensor and `.to(kFloat)` of one in the compute dtype:
  // nothing where the two are the same.
  Buffer Cast(int64_t rows, int64_t columns) {
    return computes_in_float() ? nullptr : Take(rows, columns);
  }
  Buffer Widen(int64_t rows, int64_t columns) {
    return computes_in_float() ? nullptr : TakeFloat(rows, columns);
  }

  static GradientSlot NewSlot() { return std::make_shared<Buffer>(); }
  // A second gradient is added to the first in place.
  static void Flow(Buffer gradient, const GradientSlot& to);
  // The function owns what the forward pass saves, which is freed when it has run.
  void Record(std::function<void()> backward) { tape_.push_back(std::move(backward)); }
  size_t recorded() const { return tape_.size(); }
  // Until so many are left.
  void RunBackward(size_t remaining);

  // Runs body() as a layer that will be recomputed: nothing is recorded.
  void WithoutGradients(const std::function<void()>& body);
  // Runs body(), which records a graph of its own and runs it: what that finds of LoRA's gradients
  // is handed on when it is done.
  void AsInnerGraph(const std::function<void()>& body);

  MemoryMeter& meter() { return meter_; }
  // Of the frozen weights that gradients went through: their second layout.
  int64_t gradient_weight_bytes() const { return gradient_weight_bytes_; }

  // The heads' products have at least so many rows; model/ops/lora_linear.cc.
  static constexpr int64_t kStableRows = 32;
  static constexpr int64_t kFloatBytes = 4;

 protected:
  OpMemory(const ModelConfig& model, const AdapterShape& adapter, const BatchShape& batch,
           bool train)
      : model_(model), adapter_(adapter), batch_(batch), train_(train), records_(train) {}

  // Weights of norms in fp32, as the CPU reads them.
  virtual Buffer WidenedNorm() = 0;

  // What attention holds beside its results, of all tokens' queries or of the answers' alone.
  virtual void AttentionForward(bool answers_only) = 0;
  virtual void AttentionBackward(bool answers_only) = 0;

  bool computes_in_float() const { return batch_.element_bytes == kFloatBytes; }
  int64_t hidden_size() const { return model_.hidden_size; }
  int64_t query_width() const { return model_.head_count * model_.head_dim; }
  int64_t key_width() const { return model_.kv_head_count * model_.head_dim; }
  int64_t sequence_tokens() const {
    return (batch_.tokens + batch_.sequences - 1) / batch_.sequences;
  }
  int64_t sequence_answers() const { return batch_.answers / batch_.sequences; }
  bool has_dropout() const { return train_ && adapter_.dropout > 0; }
  // Of a group's adapted linears.
  std::vector<Buffer> DropoutMasks(int64_t rows, const Group& group);

  const ModelConfig& model_;
  const AdapterShape& adapter_;
  const BatchShape batch_;
  const bool train_;
  bool records_;       // gradients
  MemoryMeter meter_;  // outlives what it has given
  std::vector<std::function<void()>> tape_;
  std::vector<Buffer> graph_;  // what lives as long as the whole graph
  int64_t gradient_weight_bytes_ = 0;
  std::vector<Buffer>* found_ = nullptr;  // keeps the gradients of LoRA matrices; null = no one
};

}  // namespace pricer
