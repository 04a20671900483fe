#include "trainer/head_basis.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace pricer {
namespace {

constexpr int64_t kBins = 16;
constexpr int64_t kHidden = 6;

at::Tensor MeanState() { return at::tensor({3.0f, 0.0f, -4.0f, 0.0f, 0.0f, 0.0f}); }

// The logits that a state gets, without what a softmax does not see.
at::Tensor Centered(const at::Tensor& score, const at::Tensor& state) {
  const at::Tensor logits = at::mv(score, state);
  return logits - logits.mean();
}

TEST(HeadBasisTest, RowsAreTheirOwnCoefficients) {
  const at::Tensor score = at::randn({kBins, kHidden});
  const HeadBasis basis = HeadBasis::Rows();
  EXPECT_TRUE(basis.Coefficients(score).is_same(score));
  EXPECT_TRUE(basis.Score(score).is_same(score));
}

TEST(HeadBasisTest, CosineStartsFromZeroRows) {
  const HeadBasis basis = HeadBasis::Cosine(kBins, MeanState());
  const at::Tensor coefficients = basis.Coefficients(at::zeros({kBins, kHidden}));
  EXPECT_EQ(coefficients.sizes(), at::IntArrayRef({kBins - 1, kHidden}));
  EXPECT_TRUE(at::equal(basis.Score(coefficients), at::zeros({kBins, kHidden})));
  EXPECT_ANY_THROW(basis.Coefficients(at::ones({kBins, kHidden})));
}

TEST(HeadBasisTest, CosineFollowsItsFormula) {
  const HeadBasis basis = HeadBasis::Cosine(kBins, MeanState());
  at::Tensor coefficients = at::zeros({kBins - 1, kHidden});
  coefficients[2][1] = 1.0f;  // the third cosine, at right angles to the mean
  const at::Tensor score = basis.Score(coefficients);
  for (int64_t k = 0; k < kBins; ++k) {
    const double expected = 4.0 * std::cos(std::numbers::pi * 3 * (k + 0.5) / kBins) / 3;
    EXPECT_NEAR(score[k][1].item<double>(), expected, 1e-6);
    EXPECT_EQ(score[k][0].item<double>(), 0.0);
  }
}

TEST(HeadBasisTest, CosineTakesTheLengthOutOfTheMeanDirection) {
  const HeadBasis basis = HeadBasis::Cosine(kBins, MeanState());
  const at::Tensor coefficients = at::randn({kBins - 1, kHidden});
  const at::Tensor unit = MeanState() / MeanState().norm();
  EXPECT_TRUE(at::allclose(at::mv(basis.Score(coefficients), MeanState()),
                           at::mv(basis.Score(coefficients), unit) * 5.0, 1e-4, 1e-5));
  // The mean state gives the logits that a state of length 1 gives where nothing is taken out.
  const HeadBasis unscaled = HeadBasis::Cosine(kBins, unit);
  EXPECT_TRUE(at::allclose(at::mv(basis.Score(coefficients), MeanState()),
                           at::mv(unscaled.Score(coefficients), unit), 1e-4, 1e-5));
}

TEST(HeadBasisTest, CosineReachesEveryHead) {
  const HeadBasis basis = HeadBasis::Cosine(kBins, MeanState());
  // Score is linear: its matrix, from the coefficients to the rows, column by column.
  const int64_t inputs = (kBins - 1) * kHidden;
  const at::Tensor units = at::eye(inputs).view({inputs, kBins - 1, kHidden});
  at::Tensor matrix = at::empty({kBins * kHidden, inputs});
  for (int64_t i = 0; i < inputs; ++i) matrix.select(1, i).copy_(basis.Score(units[i]).flatten());
  const at::Tensor wanted = at::randn({kBins, kHidden});
  const at::Tensor centered = wanted - wanted.mean(0, /*keepdim=*/true);
  const at::Tensor normal = at::mm(matrix.t(), matrix).to(at::kDouble);
  const at::Tensor right = at::mv(matrix.t(), centered.flatten()).to(at::kDouble);
  const at::Tensor solution = at::linalg_solve(normal, right).to(at::kFloat);
  const at::Tensor reached = basis.Score(solution.view({kBins - 1, kHidden}));
  const at::Tensor state = at::randn({kHidden});
  EXPECT_TRUE(at::allclose(Centered(reached, state), Centered(wanted, state), 1e-3, 1e-3));
}

// What makes it learn from few items: one observed price also raises its neighbours.
TEST(HeadBasisTest, AGradientStepInCosineCoordinatesRaisesNeighboursToo) {
  const HeadBasis basis = HeadBasis::Cosine(kBins, MeanState());
  const at::Tensor state = MeanState() + at::tensor({0.0f, 1.0f, 0.0f, -1.0f, 0.0f, 0.0f});
  at::Tensor coefficients = basis.Coefficients(at::zeros({kBins, kHidden})).set_requires_grad(true);
  constexpr int64_t kObserved = 10;
  at::log_softmax(at::mv(basis.Score(coefficients), state), 0)[kObserved].backward();
  const at::Tensor logits =
      at::mv(basis.Score(coefficients.detach() + 0.01 * coefficients.grad()), state);
  for (int64_t k = 1; k <= kObserved; ++k) {
    EXPECT_GT(logits[k].item<float>(), logits[k - 1].item<float>()) << k;
  }
  for (int64_t k = kObserved + 1; k < kBins; ++k) {
    EXPECT_LT(logits[k].item<float>(), logits[k - 1].item<float>()) << k;
  }
}

}  // namespace
}  // namespace pricer
