#include "server/call_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "base/logging.h"
#include "tests/server/fakes.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::FakeClock;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::RecordingMetrics;

TEST(IsTraceParentTest, IsWhatTheStandardSays) {
  const std::string good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  EXPECT_TRUE(IsTraceParent(good));
  EXPECT_FALSE(IsTraceParent(""));
  EXPECT_FALSE(IsTraceParent(good.substr(1)));
  EXPECT_FALSE(IsTraceParent(good + "-00"));
  EXPECT_TRUE(IsTraceParent("01" + good.substr(2) + "-more"));
  EXPECT_FALSE(IsTraceParent("01" + good.substr(2) + "more"));
  EXPECT_FALSE(IsTraceParent("ff" + good.substr(2)));
  EXPECT_FALSE(IsTraceParent("00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
  EXPECT_FALSE(IsTraceParent("00-00000000000000000000000000000000-b7ad6b7169203331-01"));
  EXPECT_FALSE(IsTraceParent("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"));
  EXPECT_FALSE(IsTraceParent("00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
}

TEST(IsRequestIdTest, IsShortAndPrintable) {
  EXPECT_TRUE(IsRequestId("a-1"));
  EXPECT_TRUE(IsRequestId(std::string(128, 'x')));
  EXPECT_FALSE(IsRequestId(""));
  EXPECT_FALSE(IsRequestId(std::string(129, 'x')));
  EXPECT_FALSE(IsRequestId("a b"));
  EXPECT_FALSE(IsRequestId("a\nb"));
  EXPECT_FALSE(IsRequestId("\xc3\xa4"));
}

class CallLogTest : public ::testing::Test {
 protected:
  ~CallLogTest() override { SetLogLevel(LogLevel::kInfo); }

  // What is logged of so many equal calls.
  std::string LogOf(int calls, const absl::Status& status) {
    ::testing::internal::CaptureStderr();
    for (int i = 0; i < calls; ++i) log_.Ended("PredictPrice", status, tags_);
    return ::testing::internal::GetCapturedStderr();
  }
  static size_t Lines(const std::string& text) {
    return std::count(text.begin(), text.end(), '\n');
  }

  FakeClock clock_;
  RecordingMetrics metrics_;
  CallLog log_{&metrics_, &clock_};
  CallTags tags_ = {"token:shop", "r-1", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                    absl::UnixEpoch()};
};

TEST_F(CallLogTest, AFailedCallIsALineWithAllThatItIsKnownBy) {
  EXPECT_THAT(LogOf(1, absl::InternalError("not finite")),
              AllOf(HasSubstr("\"level\":\"error\""), HasSubstr("\"method\":\"PredictPrice\""),
                    HasSubstr("\"code\":\"INTERNAL\""), HasSubstr("\"caller\":\"token:shop\""),
                    HasSubstr("\"request_id\":\"r-1\""), HasSubstr("0af7651916cd43dd"),
                    HasSubstr("not finite"), Not(HasSubstr("not_logged"))));
  EXPECT_THAT(LogOf(1, absl::NotFoundError("no such adapter")), HasSubstr("\"level\":\"info\""));
  EXPECT_EQ(metrics_.values().calls.at("PredictPrice INTERNAL"), 1);
}

TEST_F(CallLogTest, CallsAreTimedFromTheStartOfTheirHandlers) {
  tags_.started = clock_.Now();
  clock_.Advance(absl::Milliseconds(7));
  LogOf(1, absl::OkStatus());
  // What was refused before a handler had it took no time.
  tags_.started = absl::InfiniteFuture();
  LogOf(1, absl::OkStatus());
  EXPECT_THAT(metrics_.values().call_times,
              ElementsAre(absl::Milliseconds(7), absl::ZeroDuration()));
}

TEST_F(CallLogTest, GoodCallsAreLinesWhereThatIsAskedFor) {
  EXPECT_EQ(LogOf(1, absl::OkStatus()), "");
  SetLogLevel(LogLevel::kDebug);
  EXPECT_THAT(LogOf(1, absl::OkStatus()), HasSubstr("call answered"));
  EXPECT_EQ(metrics_.values().calls.at("PredictPrice OK"), 2);
}

TEST_F(CallLogTest, OfAFloodFewLinesAreWrittenAndTheNextSaysHowManyWereNot) {
  const absl::Status full = absl::ResourceExhaustedError("the queue is full");
  EXPECT_EQ(Lines(LogOf(1000, full)), 5u);
  // Another code has lines of its own.
  EXPECT_EQ(Lines(LogOf(1, absl::InternalError("not finite"))), 1u);
  clock_.Advance(absl::Milliseconds(999));
  EXPECT_EQ(LogOf(5, full), "");
  clock_.Advance(absl::Milliseconds(1));
  const std::string next = LogOf(1, full);
  EXPECT_THAT(next, HasSubstr("\"not_logged\":\"1000\""));
  EXPECT_THAT(LogOf(1, full), Not(HasSubstr("not_logged")));
  EXPECT_EQ(metrics_.values().calls.at("PredictPrice RESOURCE_EXHAUSTED"), 1007);
  // A clock that is set back does not silence the log.
  clock_.Advance(-absl::Hours(1));
  EXPECT_EQ(Lines(LogOf(10, full)), 5u);
}

}  // namespace
}  // namespace pricer
