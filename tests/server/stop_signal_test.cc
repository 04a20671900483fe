#include "server/stop_signal.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

namespace pricer {
namespace {

using ::testing::ExitedWithCode;

TEST(StopSignalDeathTest, EndsAServerThatIsStillStartingAtOnceWith0) {
  for (const int signal : {SIGTERM, SIGINT}) {
    EXPECT_EXIT(
        {
          InstallStopSignal();
          raise(signal);
          _exit(9);
        },
        ExitedWithCode(0), "");
  }
}

TEST(StopSignalDeathTest, IsWaitedForByAServerThatServes) {
  EXPECT_EXIT(
      {
        InstallStopSignal();
        StopSignalServing();
        raise(SIGTERM);
        WaitForStopSignal();
        _exit(7);
      },
      ExitedWithCode(7), "");
}

TEST(StopSignalDeathTest, ASecondOneEndsTheProcessAtOnceWith130) {
  EXPECT_EXIT(
      {
        InstallStopSignal();
        StopSignalServing();
        raise(SIGTERM);
        raise(SIGTERM);
        _exit(9);
      },
      ExitedWithCode(130), "");
}

}  // namespace
}  // namespace pricer
