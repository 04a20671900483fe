#include "client/retry.h"

#include <gmock/gmock.h>

#include <vector>

#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::pricer::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Time that passes only by sleeping.
class RetryTest : public ::testing::Test, public Clock {
 protected:
  absl::Time Now() const override { return now_; }

  RetryEnvironment Environment() {
    return {.clock = this,
            .sleep =
                [this](absl::Duration duration) {
                  slept_.push_back(duration);
                  now_ += duration;
                },
            .uniform = [] { return 1.0; }};
  }

  absl::Time now_ = absl::UnixEpoch();
  std::vector<absl::Duration> slept_;
};

TEST_F(RetryTest, UnavailableIsTriedAgainWithDoublingWaits) {
  int attempts = 0;
  EXPECT_OK(CallWithRetry({}, Environment(), [&](absl::Time) {
    return ++attempts < 4 ? absl::UnavailableError("starting") : absl::OkStatus();
  }));
  EXPECT_EQ(attempts, 4);
  EXPECT_THAT(slept_, ElementsAre(absl::Milliseconds(100), absl::Milliseconds(200),
                                  absl::Milliseconds(400)));
}

TEST_F(RetryTest, OtherErrorsAreReturnedAtOnce) {
  int attempts = 0;
  EXPECT_THAT(CallWithRetry({}, Environment(),
                            [&](absl::Time) {
                              ++attempts;
                              return absl::NotFoundError("no such adapter");
                            }),
              StatusIs(absl::StatusCode::kNotFound));
  EXPECT_EQ(attempts, 1);
}

TEST_F(RetryTest, StopsBeforeAWaitThatWouldPassTheDeadline) {
  RetryOptions options;
  options.timeout = absl::Milliseconds(250);
  int attempts = 0;
  EXPECT_THAT(CallWithRetry(options, Environment(),
                            [&](absl::Time deadline) {
                              ++attempts;
                              EXPECT_EQ(deadline, absl::UnixEpoch() + absl::Milliseconds(250));
                              return absl::UnavailableError("down");
                            }),
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(attempts, 2);
  EXPECT_LT(now_, absl::UnixEpoch() + absl::Milliseconds(250));
}

TEST_F(RetryTest, ADeadlineThatPassesInAnAttemptSaysWhyTheOneBeforeFailed) {
  int attempts = 0;
  EXPECT_THAT(CallWithRetry({}, Environment(),
                            [&](absl::Time) {
                              if (++attempts < 3) return absl::UnavailableError("refused");
                              return absl::DeadlineExceededError("shop:8500: too late");
                            }),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       "shop:8500: too late; the attempt before: refused"));
  EXPECT_THAT(CallWithRetry({}, Environment(),
                            [&](absl::Time) { return absl::DeadlineExceededError("too late"); }),
              StatusIs(absl::StatusCode::kDeadlineExceeded, "too late"));
}

TEST_F(RetryTest, OnlyTheDeadlineEndsRetriesByDefault) {
  RetryOptions options;
  options.timeout = absl::Minutes(5);
  EXPECT_OK(CallWithRetry(options, Environment(), [&](absl::Time) {
    return now_ < absl::UnixEpoch() + absl::Minutes(4) ? absl::UnavailableError("restarting")
                                                       : absl::OkStatus();
  }));
}

TEST_F(RetryTest, StopsWhenAskedTo) {
  RetryEnvironment environment = Environment();
  int attempts = 0;
  environment.stop = [&] { return attempts == 3; };
  EXPECT_THAT(CallWithRetry({}, environment,
                            [&](absl::Time) {
                              ++attempts;
                              return absl::UnavailableError("down");
                            }),
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(attempts, 3);
  EXPECT_EQ(slept_.size(), 2u);
}

TEST_F(RetryTest, StopsAfterTheLastAttempt) {
  RetryOptions options;
  options.max_attempts = 3;
  int attempts = 0;
  EXPECT_THAT(CallWithRetry(options, Environment(),
                            [&](absl::Time) {
                              ++attempts;
                              return absl::UnavailableError("down");
                            }),
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(attempts, 3);
}

TEST(RetryOptionsTest, WrongOptionsAreNamed) {
  RetryOptions options;
  options.max_attempts = 0;
  EXPECT_THAT(options.Validate(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("max_attempts")));
  options = {};
  options.timeout = absl::ZeroDuration();
  EXPECT_THAT(options.Validate(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("timeout")));
  options = {};
  options.max_backoff = absl::Milliseconds(1);
  EXPECT_THAT(options.Validate(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("backoff")));
}

}  // namespace
}  // namespace pricer
