#include "base/interrupt.h"

#include <gtest/gtest.h>

#include <csignal>

namespace pricer {
namespace {

// In a process of its own, because the request stays.
TEST(InterruptDeathTest, RemembersTheFirstSignalAndLetsTheSecondEndTheProcess) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        CatchInterrupts();
        const bool before = InterruptRequested();
        raise(SIGINT);
        std::_Exit(!before && InterruptRequested() ? 7 : 1);
      },
      ::testing::ExitedWithCode(7), "");
  EXPECT_EXIT(
      {
        CatchInterrupts();
        raise(SIGTERM);
        raise(SIGTERM);
      },
      ::testing::KilledBySignal(SIGTERM), "");
}

TEST(InterruptDeathTest, ASecondSignalOfTheOtherKindEndsTheProcessToo) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        CatchInterrupts();
        raise(SIGINT);
        raise(SIGTERM);
      },
      ::testing::KilledBySignal(SIGTERM), "");
}

}  // namespace
}  // namespace pricer
