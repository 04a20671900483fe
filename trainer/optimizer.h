#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "model/ops/fused_adamw.h"

namespace pricer {

// AdamW, arXiv 1711.05101: decoupled weight decay on every tensor, moments in fp32, bias-corrected.
// The moments belong to the optimizer; the tensors are updated in place. One thread.
class AdamW {
 public:
  struct Options {
    double beta1 = 0.9;
    double beta2 = 0.999;
    double epsilon = 1e-8;
    double weight_decay = 0.0;

    // Betas in [0, 1), epsilon > 0, decay >= 0; InvalidArgument names the option.
    absl::Status Validate() const;
  };

  // Tensors that share a learning rate: fp32 leaves, contiguous.
  using Group = std::vector<at::Tensor>;

  // From here on every tensor requires gradients and has one, of zeros.
  AdamW(std::vector<Group> groups, const Options& options);

  void ZeroGradients();
  // The optimizer's own, in the order of the groups.
  absl::Span<const at::Tensor> gradients() const { return all_gradients_; }

  // Global L2 norm of all gradients, a scalar where they lie. If `max_norm` > 0 they are scaled, on
  // a GPU by the next Step, so that the norm is at most that; the result is the norm before. As
  // torch.nn.utils.clip_grad_norm_.
  at::Tensor ClipGradients(double max_norm);

  struct Moments {
    at::Tensor first, second;
  };
  // The optimizer's own, of the parameters in the order of the groups: to save, or to fill in place
  // together with set_steps.
  std::vector<Moments> moments() const;
  // Updates made so far, which the bias correction counts.
  void set_steps(int64_t steps);

  // One update with one learning rate for each group. REQUIRES: as many rates as groups.
  void Step(absl::Span<const double> learning_rates);

 private:
  std::vector<cuda::FusedAdamW::Tensors> FusedTensors() const;

  struct State {
    std::vector<at::Tensor> parameters;
    std::vector<at::Tensor> gradients;  // the tensors' own .grad
    std::vector<at::Tensor> first_moments;
    std::vector<at::Tensor> second_moments;
    std::vector<at::Tensor> steps;  // scalars fp32: updates made so far
  };

  std::vector<State> groups_;
  std::unique_ptr<cuda::FusedAdamW> fused_;  // on a GPU alone
  int64_t fused_steps_ = 0;
  std::vector<at::Tensor> all_gradients_;
  Options options_;
};

}  // namespace pricer
