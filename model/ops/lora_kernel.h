#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "model/ops/lora_sizes.h"

// Launchers of LoraLinear's low-rank products on a GPU; what they make is model/ops/lora_linear.h.
// Each launch computes all parts of a packed batch: all adapters and all linears that share their
// input. Products take bf16 and sum in fp32. Nothing is padded to the largest rank: a part's
// states have its own rank, rounded up to kLoraRankTile. The order of additions does not depend on
// the other rows of the batch. All pointers are to device memory but `parts` itself.

namespace pricer::cuda {

// The low-rank weights of one linear for the rows of one segment.
struct LoraKernelPart {
  int64_t row_begin = 0;  // of x and y
  int32_t rows = 0;
  int32_t rank = 0;
  int32_t segment = 0;  // ascending; parts of one segment have the same rows
  int32_t out_size = 0;
  int64_t out_begin = 0;             // the linear's columns of y
  int64_t state_begin = 0;           // its states in the buffer of all: [rows, padded_rank()]
  float scale = 1.0f;                // LoRA's by dropout's
  const __nv_bfloat16* a = nullptr;  // [rank, in]
  const __nv_bfloat16* b = nullptr;  // [out_size, rank]
  const uint32_t* mask = nullptr;    // [rows, ceil(in / 32)] of DropoutMask, or null
  float* grad_a = nullptr;           // [rank, in], overwritten; gradients alone
  float* grad_b = nullptr;           // [out_size, rank], likewise

  int32_t padded_rank() const { return (rank + kLoraRankTile - 1) / kLoraRankTile * kLoraRankTile; }
  int64_t state_size() const { return int64_t{rows} * padded_rank(); }
};

// The parts of one packed batch, ordered by segment.
struct LoraBatch {
  const LoraKernelPart* parts = nullptr;
  int count = 0;
  int64_t in = 0;
  int64_t out = 0;  // of all linears
  // Of all states: the parts' state_size() added up.
  int64_t state_size = 0;
};

// Elements of fp32 workspace that one of the launches below needs.
int64_t LoraWorkspaceSize(const LoraBatch& batch);

// states = keep(x) A^T, bf16.
cudaError_t LaunchLoraStates(const LoraBatch& batch, const __nv_bfloat16* x,  // [T, in]
                             float* workspace, __nv_bfloat16* states, cudaStream_t stream);

// y[rows, columns] += scale * states B^T.
cudaError_t LaunchLoraOutput(const LoraBatch& batch, const __nv_bfloat16* states,
                             __nv_bfloat16* y,  // [T, out]
                             cudaStream_t stream);

// grad_states = scale * grad B, bf16, in the layout of the states.
cudaError_t LaunchLoraStateGradient(const LoraBatch& batch,
                                    const __nv_bfloat16* grad,  // of y: [T, out]
                                    float* workspace, __nv_bfloat16* grad_states,
                                    cudaStream_t stream);

// grad_x[rows] += keep(grad_states A), of all linears.
cudaError_t LaunchLoraInputGradient(const LoraBatch& batch, const __nv_bfloat16* grad_states,
                                    __nv_bfloat16* grad_x,  // [T, in]
                                    cudaStream_t stream);

// grad_a = grad_states^T keep(x) and grad_b = scale * grad^T states, of every part.
cudaError_t LaunchLoraWeightGradients(const LoraBatch& batch, const __nv_bfloat16* x,
                                      const __nv_bfloat16* grad, const __nv_bfloat16* states,
                                      const __nv_bfloat16* grad_states, float* workspace,
                                      cudaStream_t stream);

}  // namespace pricer::cuda
