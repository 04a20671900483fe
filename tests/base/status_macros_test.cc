#include "base/status_macros.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::pricer::testing::IsOkAndHolds;
using ::pricer::testing::StatusIs;

absl::StatusOr<std::unique_ptr<int>> MakeInt(bool ok) {
  if (!ok) return absl::NotFoundError("no int");
  return std::make_unique<int>(7);
}

absl::StatusOr<int> AddTwoInts(bool first_ok, bool second_ok) {
  ASSIGN_OR_RETURN(const std::unique_ptr<int> first, MakeInt(first_ok));
  std::unique_ptr<int> second;
  ASSIGN_OR_RETURN(second, MakeInt(second_ok));
  return *first + *second;
}

absl::Status CountThenReturn(absl::Status status, int* count) {
  RETURN_IF_ERROR((++*count, status));
  ++*count;
  return absl::OkStatus();
}

TEST(StatusMacrosTest, AssignMovesTheValueOut) {
  EXPECT_THAT(AddTwoInts(true, true), IsOkAndHolds(14));
}

TEST(StatusMacrosTest, AssignReturnsTheFirstError) {
  EXPECT_THAT(AddTwoInts(false, true), StatusIs(absl::StatusCode::kNotFound, "no int"));
  EXPECT_THAT(AddTwoInts(true, false), StatusIs(absl::StatusCode::kNotFound, "no int"));
}

TEST(StatusMacrosTest, ReturnIfErrorEvaluatesOnceAndGoesOnWhenOk) {
  int count = 0;
  EXPECT_OK(CountThenReturn(absl::OkStatus(), &count));
  EXPECT_EQ(count, 2);
}

TEST(StatusMacrosTest, ReturnIfErrorReturnsTheError) {
  int count = 0;
  EXPECT_THAT(CountThenReturn(absl::DataLossError("broken"), &count),
              StatusIs(absl::StatusCode::kDataLoss, "broken"));
  EXPECT_EQ(count, 1);
}

}  // namespace
}  // namespace pricer
