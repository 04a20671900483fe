#include "model/cuda/flash_attention.h"

#include <tuple>

namespace pricer::cuda {

FlashOutput FlashForward(const FlashInputs& x, const FlashSequences& sequences) {
  const auto made =
      at::_flash_attention_forward(x.q, x.k, x.v, sequences.query_offsets, sequences.key_offsets,
                                   sequences.max_queries, sequences.max_keys, /*dropout_p=*/0.0,
                                   sequences.causal, /*return_debug_mask=*/false, x.scale);
  FlashOutput out{std::get<0>(made), std::get<1>(made)};
  TORCH_CHECK(out.log_sum_exp.dim() == 2 && out.log_sum_exp.size(0) == x.q.size(1),
              "flash attention's log-sum-exp has shape ", out.log_sum_exp.sizes(), ", expected [",
              x.q.size(1), ", ", x.q.size(0), "]");
  return out;
}

FlashGradients FlashBackward(const at::Tensor& grad_out, const FlashInputs& x,
                             const FlashOutput& made, const FlashSequences& sequences) {
  // Read with dropout alone.
  const at::Tensor no_seed = at::empty({2}, x.q.options().dtype(at::kUInt64));
  const at::Tensor no_offset = at::empty({}, x.q.options().dtype(at::kUInt64));
  const auto grads = at::_flash_attention_backward(
      grad_out, x.q, x.k, x.v, made.out, made.log_sum_exp, sequences.query_offsets,
      sequences.key_offsets, sequences.max_queries, sequences.max_keys, /*dropout_p=*/0.0,
      sequences.causal, no_seed, no_offset, x.scale);
  return {std::get<0>(grads), std::get<1>(grads), std::get<2>(grads)};
}

}  // namespace pricer::cuda
