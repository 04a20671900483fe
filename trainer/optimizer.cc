#include "trainer/optimizer.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "model/cuda/device.h"

namespace pricer {

absl::Status AdamW::Options::Validate() const {
  const auto is_beta = [](double beta) { return beta >= 0.0 && beta < 1.0; };
  if (!is_beta(beta1) || !is_beta(beta2)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--betas are ", beta1, " and ", beta2, "; each must be in [0, 1)"));
  }
  if (!(epsilon > 0.0) || !std::isfinite(epsilon)) {
    return absl::InvalidArgumentError(absl::StrCat("--eps is ", epsilon, "; it must be > 0"));
  }
  if (!(weight_decay >= 0.0) || !std::isfinite(weight_decay)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--weight-decay is ", weight_decay, "; it must be >= 0"));
  }
  return absl::OkStatus();
}

AdamW::AdamW(std::vector<Group> groups, const Options& options) : options_(options) {
  for (Group& group : groups) {
    State& state = groups_.emplace_back();
    for (at::Tensor& parameter : group) {
      parameter.set_requires_grad(true);
      parameter.mutable_grad() = at::zeros_like(parameter.detach());
      state.gradients.push_back(parameter.grad());
      state.first_moments.push_back(at::zeros_like(parameter.detach()));
      state.second_moments.push_back(at::zeros_like(parameter.detach()));
      state.steps.push_back(at::zeros({}, at::kFloat));
      all_gradients_.push_back(parameter.grad());
    }
    state.parameters = std::move(group);
  }
  if (!all_gradients_.empty() && cuda::Handles(all_gradients_.front())) {
    fused_ = cuda::FusedAdamW::Create(FusedTensors());
  }
}

std::vector<cuda::FusedAdamW::Tensors> AdamW::FusedTensors() const {
  std::vector<cuda::FusedAdamW::Tensors> tensors;
  for (size_t g = 0; g < groups_.size(); ++g) {
    const State& state = groups_[g];
    for (size_t i = 0; i < state.parameters.size(); ++i) {
      tensors.push_back({.parameter = state.parameters[i].detach(),
                         .gradient = state.gradients[i],
                         .first_moment = state.first_moments[i],
                         .second_moment = state.second_moments[i],
                         .group = static_cast<int>(g)});
    }
  }
  return tensors;
}

void AdamW::ZeroGradients() { at::_foreach_zero_(all_gradients_); }

at::Tensor AdamW::ClipGradients(double max_norm) {
  if (fused_ != nullptr) return fused_->GradientNorm(max_norm);
  const at::Tensor norm =
      at::linalg_vector_norm(at::stack(at::_foreach_norm(all_gradients_, 2)), 2);
  if (max_norm <= 0.0) return norm;
  const double scale = max_norm / (norm.item<double>() + 1e-6);
  if (scale < 1.0) at::_foreach_mul_(all_gradients_, scale);
  return norm;
}

std::vector<AdamW::Moments> AdamW::moments() const {
  std::vector<Moments> moments;
  for (const State& state : groups_) {
    for (size_t i = 0; i < state.parameters.size(); ++i) {
      moments.push_back({state.first_moments[i], state.second_moments[i]});
    }
  }
  return moments;
}

void AdamW::set_steps(int64_t steps) {
  fused_steps_ = steps;
  for (const State& state : groups_) {
    for (const at::Tensor& made : state.steps) made.fill_(static_cast<double>(steps));
  }
}

void AdamW::Step(absl::Span<const double> learning_rates) {
  PRICER_CHECK(learning_rates.size() == groups_.size());
  const at::NoGradGuard no_grad;
  if (fused_ != nullptr) {
    fused_->Step({.learning_rates = learning_rates,
                  .beta1 = options_.beta1,
                  .beta2 = options_.beta2,
                  .epsilon = options_.epsilon,
                  .weight_decay = options_.weight_decay,
                  .step = ++fused_steps_});
    return;
  }
  for (size_t i = 0; i < groups_.size(); ++i) {
    State& state = groups_[i];
    if (state.parameters.empty()) continue;
    at::_foreach_add_(state.steps, 1);
    at::_fused_adamw_(state.parameters, state.gradients, state.first_moments, state.second_moments,
                      /*max_exp_avg_sqs=*/{}, state.steps, learning_rates[i], options_.beta1,
                      options_.beta2, options_.weight_decay, options_.epsilon, /*amsgrad=*/false,
                      /*maximize=*/false);
  }
}

}  // namespace pricer
