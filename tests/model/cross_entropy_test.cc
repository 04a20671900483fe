#include "model/ops/cross_entropy.h"

#include <gmock/gmock.h>

#include <cmath>

namespace pricer {
namespace {

TEST(CrossEntropySumTest, EqualsHandComputedNumbers) {
  const at::Tensor logits = at::tensor({0.0f, std::log(3.0f), 1.0f, 1.0f}).view({2, 2});
  const at::Tensor targets = at::tensor({0.25f, 0.75f, 1.0f, 0.0f}).view({2, 2});
  // Softmax of the rows: [1/4, 3/4] and [1/2, 1/2].
  const double expected = -(0.25 * std::log(0.25) + 0.75 * std::log(0.75)) - std::log(0.5);
  EXPECT_NEAR(CrossEntropySum(logits, targets).item<double>(), expected, 1e-6);
}

TEST(CrossEntropySumTest, ItsGradientIsSoftmaxMinusTarget) {
  at::Tensor logits = at::tensor({0.0f, std::log(3.0f)}).view({1, 2});
  logits.set_requires_grad(true);
  CrossEntropySum(logits, at::tensor({1.0f, 0.0f}).view({1, 2})).backward();
  EXPECT_NEAR(logits.grad()[0][0].item<double>(), 0.25 - 1.0, 1e-6);
  EXPECT_NEAR(logits.grad()[0][1].item<double>(), 0.75, 1e-6);
}

TEST(CrossEntropySumTest, OfClassesIsThatOfTheirIndicators) {
  at::manual_seed(1);
  const at::Tensor logits = at::randn({5, 9});
  const at::Tensor classes = at::tensor({3, 0, 8, 8, 1}, at::kLong);
  EXPECT_NEAR(CrossEntropySum(logits, classes).item<double>(),
              CrossEntropySum(logits, at::one_hot(classes, 9).to(at::kFloat)).item<double>(), 1e-5);
}

}  // namespace
}  // namespace pricer
