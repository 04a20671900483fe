#include "model/ops/matrix_product.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <vector>

#include "model/ops/frozen_linear.h"
#include "model/ops/rows.h"

namespace pricer {
namespace {

struct Shape {
  int64_t rows, columns;
};

const Shape kShapes[] = {{1, 1}, {2, 16}, {3, 17}, {64, 64}, {65, 130}, {300, 40}};

class MatrixProductTest : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override { at::manual_seed(11); }
  at::Tensor Random(int64_t rows, int64_t columns) const {
    return at::randn({rows, columns}).to(GetParam());
  }
};

TEST_P(MatrixProductTest, UnpackingGivesWhatWasPacked) {
  for (const Shape& shape : kShapes) {
    const at::Tensor matrix = Random(shape.rows, shape.columns);
    EXPECT_TRUE(at::equal(PackedMatrix(matrix).Unpack(), matrix));
    EXPECT_TRUE(at::equal(PackedMatrix(matrix.t()).Unpack(), matrix.t()));
    const at::Tensor wider = Random(2 * shape.rows, 2 * shape.columns);
    const at::Tensor slice = wider.slice(0, 0, at::nullopt, 2).slice(1, 0, at::nullopt, 2);
    EXPECT_TRUE(at::equal(PackedMatrix(slice).Unpack(), slice));
  }
}

// left [m, k] with columns of zeros up to what a sum has.
at::Tensor Padded(const at::Tensor& left, int64_t k) {
  return at::constant_pad_nd(left, {0, k - left.size(1)}).contiguous();
}

template <typename T>
at::Tensor Multiply(const at::Tensor& left, const PackedMatrix& right, const at::Tensor& sum,
                    bool add) {
  const ProductScope products;
  const at::Tensor padded = Padded(left, right.packed_rows());
  for (int64_t p = 0; p < right.panels(); ++p) {
    MultiplyPanel(padded.const_data_ptr<T>(), padded.size(1), padded.size(0), padded.size(1),
                  right.panel<T>(p), right.panel_width(p),
                  sum.mutable_data_ptr<float>() + p * kPanelColumns, sum.size(1), add);
  }
  return sum.narrow(1, 0, right.columns());
}

TEST_P(MatrixProductTest, IsTheSumOfProducts) {
  DispatchComputeType(GetParam(), [&]<typename T>() {
    for (const Shape& shape : kShapes) {
      const at::Tensor left = Random(32, shape.rows);
      const at::Tensor right = Random(shape.rows, shape.columns);
      const at::Tensor sum = at::full({32, RoundUp(kProductTile, shape.columns)}, 1000.0f);
      const at::Tensor expected = at::mm(left.to(at::kFloat), right.to(at::kFloat));
      const PackedMatrix packed(right);
      EXPECT_TRUE(at::allclose(Multiply<T>(left, packed, sum, false), expected, 1e-4, 1e-4));
      EXPECT_TRUE(at::allclose(Multiply<T>(left, packed, sum, true), 2 * expected, 1e-4, 1e-4));
    }
  });
}

TEST_P(MatrixProductTest, LongSumsAreCutAndStillWhole) {
  DispatchComputeType(GetParam(), [&]<typename T>() {
    const at::Tensor left = Random(16, 5000);
    const at::Tensor right = Random(5000, 20);
    const at::Tensor sum = at::zeros({16, 32});
    const at::Tensor expected = at::mm(left.to(at::kFloat), right.to(at::kFloat));
    EXPECT_TRUE(
        at::allclose(Multiply<T>(left, PackedMatrix(right), sum, false), expected, 1e-3, 1e-2));
  });
}

TEST_P(MatrixProductTest, FrozenLinearHasBothLayouts) {
  const at::Tensor weight = Random(70, 33);
  const FrozenLinear linear(weight);
  EXPECT_EQ(linear.in(), 33);
  EXPECT_EQ(linear.out(), 70);
  const int64_t bytes = linear.bytes();
  EXPECT_TRUE(at::equal(linear.transposed().Unpack(), weight.t()));
  EXPECT_TRUE(at::equal(linear.straight().Unpack(), weight));
  EXPECT_EQ(linear.bytes(), bytes);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, MatrixProductTest, ::testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& info) {
                           return info.param == at::kFloat ? "Fp32" : "Bf16";
                         });

TEST(MatrixProductTest, InFp32TheSameBf16ValuesGiveTheSame) {
  at::manual_seed(12);
  const ProductScope products;
  const at::Tensor left = at::randn({48, 90}).to(at::kBFloat16);
  const PackedMatrix right(at::randn({90, 60}).to(at::kBFloat16));
  const at::Tensor native = at::ones({48, 64});
  const at::Tensor in_float = at::ones({48, 64});
  const auto* const data = left.const_data_ptr<at::BFloat16>();
  const auto* const panel = right.panel<at::BFloat16>(0);
  MultiplyPanel(data, 90, 48, 90, panel, 64, native.mutable_data_ptr<float>(), 64, /*add=*/true);
  MultiplyPanelInFloat(data, 90, 48, 90, panel, 64, in_float.mutable_data_ptr<float>(), 64,
                       /*add=*/true);
  EXPECT_TRUE(at::allclose(native, in_float, 1e-4, 1e-4));
}

}  // namespace
}  // namespace pricer
