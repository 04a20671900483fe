#include "base/check.h"

#include <gtest/gtest.h>

namespace pricer {
namespace {

TEST(CheckDeathTest, EndsTheProcessAndNamesTheCondition) {
  const int answer = 41;
  EXPECT_DEATH(PRICER_CHECK(answer == 42), "check_test.cc:[0-9]+: check failed: answer == 42");
}

TEST(CheckTest, PassesAndEvaluatesOnce) {
  int calls = 0;
  PRICER_CHECK(++calls == 1);
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace pricer
