#include "trainer/head_basis.h"

#include <numbers>

namespace pricer {
namespace {

// Brings the coefficients to the size that the head's usual learning rates suit.
constexpr double kScale = 4.0;

}  // namespace

HeadBasis HeadBasis::Cosine(int64_t bins, const at::Tensor& mean_state) {
  HeadBasis basis;
  const at::Tensor place = (at::arange(bins, at::kDouble) + 0.5) / static_cast<double>(bins);
  const at::Tensor frequency = at::arange(1, bins, at::kDouble);
  basis.cosines_ =
      (at::cos(at::outer(place, frequency) * std::numbers::pi) / frequency * kScale).to(at::kFloat);
  basis.mean_length_ = mean_state.norm().item<double>();
  TORCH_CHECK(basis.mean_length_ > 0, "the mean of the answer states is zero");
  basis.direction_ = mean_state / basis.mean_length_;
  return basis;
}

HeadBasis HeadBasis::To(at::Device device) const {
  HeadBasis basis = *this;
  if (!cosines_.defined()) return basis;
  basis.cosines_ = cosines_.to(device);
  basis.direction_ = direction_.to(device);
  return basis;
}

at::Tensor HeadBasis::Coefficients(const at::Tensor& score) const {
  if (!cosines_.defined()) return score;
  TORCH_CHECK(score.count_nonzero().item<int64_t>() == 0, "expected a head of zeros");
  return at::zeros({cosines_.size(1), score.size(1)}, score.options());
}

at::Tensor HeadBasis::Score(const at::Tensor& coefficients) const {
  if (!cosines_.defined()) return coefficients;
  const at::Tensor along = at::mv(coefficients, direction_) * (1 - 1 / mean_length_);
  return at::mm(cosines_, coefficients - at::outer(along, direction_));
}

}  // namespace pricer
