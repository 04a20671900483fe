#include "client/load_target.h"

#include <gmock/gmock.h>

#include <memory>
#include <utility>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::pricer::testing::StatusIs;
using ::testing::HasSubstr;

// A channel that a call is the last to let go would wait for the call's thread on that thread.
TEST(LoadTargetTest, MayEndAsSoonAsItsCallsHave) {
  ClientOptions options;
  options.server = "127.0.0.1:1";
  for (int i = 0; i < 50; ++i) {
    ASSERT_OK_AND_ASSIGN(std::unique_ptr<LoadTarget> target, LoadTarget::Open(options, 1));
    LoadCall call;
    call.texts = {"pan"};
    call.deadline = absl::Now() + absl::Minutes(1);
    absl::Notification ended;
    target->Start(std::move(call), [&](const LoadAnswer& answer) {
      EXPECT_THAT(answer.status,
                  StatusIs(absl::StatusCode::kUnavailable, HasSubstr("127.0.0.1:1")));
      ended.Notify();
    });
    ended.WaitForNotification();
    target.reset();
  }
}

}  // namespace
}  // namespace pricer
