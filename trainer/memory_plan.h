#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/checkpoint.h"
#include "trainer/step_memory.h"
#include "trainer/weights_memory.h"

// How much memory a base needs to be tuned and served, before anything is loaded: tensors, and what
// NF4 needs beside them. No torch.

namespace pricer {

// What a tuning run keeps beside the base, in bytes. All fp32.
struct TunedTensors {
  int64_t adapter = 0;    // LoRA matrices, the head's rows, and the head as it is trained
  int64_t gradients = 0;  // of what is trained
  int64_t moments = 0;    // two
  int64_t best = 0;       // a copy of the best adapter so far, from the first validation on; a
                          // GPU's run keeps it in main memory

  int64_t total() const { return adapter + gradients + moments + best; }
};
TunedTensors PredictTunedTensors(const ModelConfig& model, const AdapterShape& adapter,
                                 bool on_gpu = false);

// What batches are made of.
struct PlanPrompts {
  int64_t tokens = 128;   // of a typical prompt
  int64_t longest = 192;  // tokens; the least that a batch must hold
  int64_t answers = 1;    // of each prompt: the tokens of a price where the head is over tokens
};

struct MemoryPlanRequest {
  WeightsPlan weights;
  PeftConfig adapter;
  int64_t bins = 128;  // 0 = the head over tokens
  PlanPrompts prompts;
  // Of micro-batches, and of a server's batches.
  std::vector<int64_t> tokens;
  std::optional<int64_t> budget_bytes;
  int64_t data_bytes = 0;  // that the process keeps of its training items, where it is known
};

struct MemoryPlan {
  ResidentWeights weights;
  LoadMemory load;
  TunedTensors tuned;
  int64_t served_adapter_bytes = 0;
  int64_t judged_adapter_bytes = 0;  // as a validation computes with it
  // Of cuBLAS, on a GPU.
  int64_t workspace_bytes = 0;

  struct Batch {
    int64_t tokens = 0;
    StepMemory step;
    int64_t forward_bytes = 0;  // of a forward pass without gradients
    // The most at one time: of a tuning run with such micro-batches, validations included, and of a
    // server with such batches while one adapter is swapped for its next version.
    int64_t tuning_bytes = 0;
    int64_t serving_bytes = 0;
  };
  std::vector<Batch> batches;  // as requested

  struct Budget {
    int64_t bytes = 0;
    int64_t usable_bytes = 0;  // UsableBytes
    // The most tokens of a batch that fit, up to kMostPlannedTokens; absent where not even one
    // longest prompt does. Tuning: with all activations kept, and with as many computed twice as
    // helps.
    std::optional<int64_t> tuning_tokens;
    std::optional<int64_t> recomputing_tokens;
    std::optional<int64_t> serving_tokens;
    // With batches of one longest prompt; tuning with activations computed twice.
    int64_t least_tuning_bytes = 0;
    int64_t least_serving_bytes = 0;
    // Where tuning does not fit even so: other options and what they need at least, ascending in
    // bytes; those that fit alone, unless none does.
    std::vector<std::pair<std::string, int64_t>> instead;
  };
  std::optional<Budget> budget;
};

// Beside the tensors resident memory holds what TensorMemory keeps to use again (an eighth of them
// at most), and the program, its libraries, the code that oneDNN makes, and the tokenizer: up to
// 374 MiB where SmolLM2-135M was tuned in bf16.
inline constexpr double kTensorSlack = 1.125;
inline constexpr int64_t kProgramBytes = int64_t{384} << 20;

// libtorch takes cuBLAS's workspaces, 32 MiB of them on sm_90, from the allocator of tensors: one
// for each thread that launches products, which are the caller's and autograd's.
inline constexpr int64_t kGpuWorkspaceBytes = int64_t{64} << 20;

// What a budget of main memory leaves for the tensors that are planned, and the budget, in whole
// MiB, that leaves so much. A budget of a GPU's memory is for its tensors alone: what the CUDA
// context takes and the allocator holds to use again comes on top of it.
int64_t UsableBytes(int64_t budget, int64_t data_bytes);
int64_t BudgetFor(int64_t usable, int64_t data_bytes);

inline constexpr int64_t kMostPlannedTokens = int64_t{1} << 20;

// The errors of AdapterShape::Of.
absl::StatusOr<MemoryPlan> PlanMemory(const Checkpoint& checkpoint,
                                      const MemoryPlanRequest& request);

// How a tuning run fits its budget.
struct TuningFit {
  int64_t recomputed_layers = 0;    // the fewest with which it does; see Network::Forward
  int64_t recomputable_layers = 0;  // of so many
  int64_t tuning_bytes = 0;         // predicted
  int64_t usable_bytes = 0;         // UsableBytes of the budget
  WeightsPlace place = WeightsPlace::kCpu;
};

// For micro-batches of `tokens`, or of one longest prompt where that is more. FailedPrecondition
// where no number of layers suffices: says what is needed for what, and what would fit.
// REQUIRES: request.budget_bytes.
absl::StatusOr<TuningFit> FitTuning(const Checkpoint& checkpoint, const MemoryPlanRequest& request,
                                    int64_t tokens);

}  // namespace pricer
