#include "trainer/optimizer.h"

#include <gmock/gmock.h>

#include <cmath>

#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using testing::StatusIs;

double At(const at::Tensor& tensor, int64_t i) { return tensor.view(-1)[i].item<double>(); }

TEST(AdamWTest, FirstTwoUpdatesEqualHandComputedNumbers) {
  const at::Tensor w = at::tensor({1.0f, -2.0f});
  AdamW optimizer({{w}}, {.beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-8, .weight_decay = 0.1});
  w.grad().copy_(at::tensor({0.5f, -3.0f}));
  optimizer.Step({0.01});
  // The first update is lr * sign(g) after the decay by lr * 0.1 * w.
  EXPECT_NEAR(At(w, 0), 1.0 * (1 - 0.001) - 0.01, 1e-6);
  EXPECT_NEAR(At(w, 1), -2.0 * (1 - 0.001) + 0.01, 1e-6);

  const double before = At(w, 0);
  w.grad().copy_(at::tensor({-1.0f, -3.0f}));
  optimizer.Step({0.02});
  // m = 0.9 * 0.05 - 0.1 = -0.055, v = 0.99 * 0.0025 + 0.01 = 0.012475; corrections 0.19 and
  // 0.0199.
  const double update = (-0.055 / 0.19) / std::sqrt(0.012475 / 0.0199);
  EXPECT_NEAR(At(w, 0), before * (1 - 0.002) - 0.02 * update, 1e-6);
}

TEST(AdamWTest, GroupsHaveTheirOwnLearningRates) {
  const at::Tensor a = at::ones({3});
  const at::Tensor b = at::ones({2, 2});
  AdamW optimizer({{a}, {b}}, {});
  a.grad().fill_(1.0);
  b.grad().fill_(1.0);
  optimizer.Step({0.5, 0.0});
  EXPECT_NEAR(At(a, 0), 0.5, 1e-6);
  EXPECT_EQ(At(b, 0), 1.0);
  optimizer.Step({0.0, 0.25});
  EXPECT_NEAR(At(a, 0), 0.5, 1e-6);
  EXPECT_NEAR(At(b, 0), 0.75, 1e-6);
}

TEST(AdamWTest, AcceptsAnEmptyGroup) {
  const at::Tensor a = at::ones({3});
  AdamW optimizer({{}, {a}}, {});
  a.grad().fill_(1.0);
  optimizer.Step({0.5, 0.5});
  EXPECT_NEAR(At(a, 0), 0.5, 1e-6);
}

TEST(AdamWTest, ClipsByTheNormOverAllGroupsAndReturnsTheOneBefore) {
  const at::Tensor a = at::zeros({2});
  const at::Tensor b = at::zeros({1});
  AdamW optimizer({{a}, {b}}, {});
  a.grad().copy_(at::tensor({2.0f, 3.0f}));
  b.grad().copy_(at::tensor({6.0f}));
  EXPECT_NEAR(optimizer.ClipGradients(3.5).item<double>(), 7.0, 1e-6);
  EXPECT_NEAR(At(a.grad(), 0), 1.0, 1e-6);
  EXPECT_NEAR(At(a.grad(), 1), 1.5, 1e-6);
  EXPECT_NEAR(At(b.grad(), 0), 3.0, 1e-6);
  EXPECT_NEAR(optimizer.ClipGradients(0.0).item<double>(), 3.5, 1e-6);
  EXPECT_NEAR(optimizer.ClipGradients(100.0).item<double>(), 3.5, 1e-6);
  EXPECT_NEAR(At(b.grad(), 0), 3.0, 1e-6);
}

TEST(AdamWTest, ReportsAGradientThatIsNotFinite) {
  const at::Tensor a = at::zeros({2});
  AdamW optimizer({{a}}, {});
  a.grad().copy_(at::tensor({1.0f, std::nanf("")}));
  EXPECT_TRUE(std::isnan(optimizer.ClipGradients(0.0).item<double>()));
}

TEST(AdamWTest, AccumulatesWhatBackwardGivesUntilItIsZeroed) {
  const at::Tensor a = at::ones({2});
  AdamW optimizer({{a}}, {});
  (a * 3).sum().backward();
  (a * 4).sum().backward();
  EXPECT_EQ(At(a.grad(), 0), 7.0);
  optimizer.ZeroGradients();
  EXPECT_EQ(At(a.grad(), 0), 0.0);
}

TEST(AdamWOptionsTest, NamesTheOptionThatIsOutOfBounds) {
  EXPECT_OK(AdamW::Options{}.Validate());
  EXPECT_THAT(AdamW::Options{.beta1 = 1.0}.Validate(),
              StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("--betas")));
  EXPECT_THAT(AdamW::Options{.epsilon = 0.0}.Validate(),
              StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("--eps")));
  EXPECT_THAT(AdamW::Options{.weight_decay = -1.0}.Validate(),
              StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("--weight-decay")));
}

}  // namespace
}  // namespace pricer
