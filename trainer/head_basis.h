#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <optional>

namespace pricer {

// The coordinates in which the rows of the price head are trained. What is published is the rows,
// whatever the coordinates; they decide how fast an optimizer of small equal steps (AdamW) gets
// anywhere.
//
// Rows: the rows themselves, as transformers' Trainer has them. Two things make that slow where
// there are only thousands of items: each of K bins learns from the few items that fall into it,
// and the answer states of different items share nearly all of their direction, so that every step
// moves mostly what all items have in common.
//
// Cosine: score = B C P. The columns of B [K, K - 1] are cosines over the bins, cos(pi j (k + 1/2)
// / K) / j, so that what is learned from one price first shifts the whole distribution smoothly and
// finer shapes come later; P takes the length out of the states' mean direction u: P = I - (1 - 1 /
// |m|) u u^T. B and P are invertible on what a softmax sees, so every head can still be reached.
//
// Value type; thread-compatible.
class HeadBasis {
 public:
  static HeadBasis Rows() { return HeadBasis(); }
  // `mean_state` [H] fp32: the mean of answer states, not zero.
  static HeadBasis Cosine(int64_t bins, const at::Tensor& mean_state);

  // The same for coefficients that lie on `device`.
  HeadBasis To(at::Device device) const;

  // What is trained, at the start: [C, H] fp32. REQUIRES: in cosine coordinates `score` [K, H] is
  // zero.
  at::Tensor Coefficients(const at::Tensor& score) const;
  // The rows [K, H]; differentiable. In the coordinates Rows the coefficients themselves.
  at::Tensor Score(const at::Tensor& coefficients) const;

 private:
  HeadBasis() = default;

  // Undefined: Rows.
  at::Tensor cosines_;    // [K, K - 1] fp32
  at::Tensor direction_;  // [H] fp32, of length 1
  double mean_length_ = 1;
};

}  // namespace pricer
