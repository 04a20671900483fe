#include "model/layers/rotary.h"

#include <ATen/ATen.h>

#include <numbers>

namespace pricer {
namespace {

// Long wavelengths are divided by the factor, short ones kept, those between blended.
at::Tensor StretchLlama3(const at::Tensor& inverse_frequency, const RopeConfig& rope) {
  const double original = static_cast<double>(rope.original_context_tokens);
  const at::Tensor wavelength = 2.0 * std::numbers::pi / inverse_frequency;
  const at::Tensor stretched = at::where(wavelength > original / rope.low_frequency_factor,
                                         inverse_frequency / rope.factor, inverse_frequency);
  const at::Tensor smooth = (original / wavelength - rope.low_frequency_factor) /
                            (rope.high_frequency_factor - rope.low_frequency_factor);
  const at::Tensor blended = (1 - smooth) * stretched / rope.factor + smooth * stretched;
  const at::Tensor between = at::logical_and(wavelength >= original / rope.high_frequency_factor,
                                             wavelength <= original / rope.low_frequency_factor);
  return at::where(between, blended, stretched);
}

}  // namespace

RotaryTable MakeRotaryTable(const ModelConfig& config) {
  const at::Tensor exponent =
      at::arange(0, config.head_dim, 2, at::kFloat) / static_cast<double>(config.head_dim);
  at::Tensor inverse_frequency = 1.0 / at::pow(config.rope.theta, exponent);  // [D / 2]
  if (config.rope.kind == RopeKind::kLlama3) {
    inverse_frequency = StretchLlama3(inverse_frequency, config.rope);
  }
  const at::Tensor positions = at::arange(config.MaxSequenceTokens(), at::kFloat);
  const at::Tensor angles = at::outer(positions, inverse_frequency);
  return {.cos = at::cos(angles), .sin = at::sin(angles)};
}

}  // namespace pricer
