#pragma once

#include <gmock/gmock.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Abseil's status matchers, under their own names; Abseil 20220623 has none.

namespace pricer::testing {

inline const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& status_or) {
  return status_or.status();
}

MATCHER(IsOk, "is OK") {
  *result_listener << StatusOf(arg);
  return StatusOf(arg).ok();
}

MATCHER_P(StatusIs, code, "") {
  *result_listener << StatusOf(arg);
  return StatusOf(arg).code() == code;
}

MATCHER_P2(StatusIs, code, message_matcher, "") {
  *result_listener << StatusOf(arg);
  return StatusOf(arg).code() == code &&
         ::testing::ExplainMatchResult(message_matcher, std::string(StatusOf(arg).message()),
                                       result_listener);
}

MATCHER_P(IsOkAndHolds, value_matcher, "") {
  if (!arg.ok()) {
    *result_listener << arg.status();
    return false;
  }
  return ::testing::ExplainMatchResult(value_matcher, *arg, result_listener);
}

}  // namespace pricer::testing

#define ASSERT_OK(expression) ASSERT_THAT((expression), ::pricer::testing::IsOk())
#define EXPECT_OK(expression) EXPECT_THAT((expression), ::pricer::testing::IsOk())

#define ASSERT_OK_AND_ASSIGN(target, expression) \
  PRICER_ASSERT_OK_AND_ASSIGN_IMPL(PRICER_TEST_CONCAT(status_or_, __LINE__), target, expression)
#define PRICER_TEST_CONCAT_IMPL(a, b) a##b
#define PRICER_TEST_CONCAT(a, b) PRICER_TEST_CONCAT_IMPL(a, b)
#define PRICER_ASSERT_OK_AND_ASSIGN_IMPL(name, target, expression) \
  auto name = (expression);                                        \
  ASSERT_OK(name);                                                 \
  target = *std::move(name)
