#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace pricer {

// Which row of the training data each row of an activation comes from, and its position there.
struct DropoutRows {
  at::Tensor row;       // [T] int64
  at::Tensor position;  // [T] int64
};

// Dropout of one linear's input in one training step: an element is kept, times 1 / (1 - p), with
// probability 1 - p, to 2^-24. Whether it is follows from seed, module, step, row, position and
// channel alone (Philox4x32-10: key (seed, module), counter (step, row, position, channel / 4)), so
// that it is the same however a batch is packed.
struct Dropout {
  double probability = 0;  // in [0, 1); 0 = none
  uint64_t seed = 0;       // its halves are folded by exclusive or
  int64_t module = 0;
  int64_t step = 0;
};

// Which of `channels` elements of every row are kept: [T, ceil(channels / 32)] int32, bit c % 32 of
// word c / 32 for channel c.
at::Tensor DropoutMask(const Dropout& dropout, const DropoutRows& rows, int64_t channels);

// The factor of what is kept: 1 / (1 - p).
inline double DropoutScale(const Dropout& dropout) { return 1.0 / (1.0 - dropout.probability); }

// What LoRA's low-rank product needs of a masked input, in blocks of rows that stay in the cache:
// the masked input as a whole is never in memory. keep(x) is x where the mask has a bit and 0
// elsewhere; the factor is the caller's. No gradient is recorded; all of one dtype, fp32 or bf16,
// but for what is said.

// h = keep(x) a^T
void DropoutProduct(const at::Tensor& x,     // [T, n], rows contiguous
                    const at::Tensor& mask,  // of DropoutMask
                    const at::Tensor& a,     // [R, n]
                    const at::Tensor& h);    // [T, R], written

// With g the gradient of h: returns that of a, g^T keep(x), [R, n] fp32; and adds keep(g a) to
// grad_x, where that is defined.
at::Tensor DropoutProductGradient(const at::Tensor& x, const at::Tensor& mask,
                                  const at::Tensor& a,        // [R, n]
                                  const at::Tensor& g,        // [T, R]
                                  const at::Tensor& grad_x);  // [T, n], rows contiguous

}  // namespace pricer
