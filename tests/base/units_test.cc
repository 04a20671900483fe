#include "base/units.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::pricer::testing::IsOkAndHolds;
using ::pricer::testing::StatusIs;
using ::testing::HasSubstr;

TEST(UnitsTest, ParsesSizes) {
  EXPECT_THAT(ParseBytes("0"), IsOkAndHolds(0));
  EXPECT_THAT(ParseBytes("512"), IsOkAndHolds(512));
  EXPECT_THAT(ParseBytes("64KiB"), IsOkAndHolds(64 << 10));
  EXPECT_THAT(ParseBytes("16MiB"), IsOkAndHolds(16 << 20));
  EXPECT_THAT(ParseBytes("20GiB"), IsOkAndHolds(int64_t{20} << 30));
  EXPECT_THAT(ParseBytes("8589934591GiB"), IsOkAndHolds(int64_t{8589934591} << 30));
}

TEST(UnitsTest, RefusesWhatIsNoSizeAndNamesIt) {
  for (const char* text : {"", "KiB", "-1", "1.5GiB", "12 kB", "5MB", "8589934592GiB",
                           "99999999999999999999", "0x10"}) {
    EXPECT_THAT(ParseBytes(text), StatusIs(absl::StatusCode::kInvalidArgument,
                                           HasSubstr(std::string("got \"") + text + "\"")));
  }
}

TEST(UnitsTest, ParsesDurations) {
  EXPECT_THAT(ParseDuration("250ms"), IsOkAndHolds(absl::Milliseconds(250)));
  EXPECT_THAT(ParseDuration("30s"), IsOkAndHolds(absl::Seconds(30)));
  EXPECT_THAT(ParseDuration("5m"), IsOkAndHolds(absl::Minutes(5)));
  EXPECT_THAT(ParseDuration("1m30s"), IsOkAndHolds(absl::Seconds(90)));
  EXPECT_THAT(ParseDuration("0"), IsOkAndHolds(absl::ZeroDuration()));
}

TEST(UnitsTest, RefusesWhatIsNoDurationAndNamesIt) {
  for (const char* text : {"", "30", "-1s", "ten seconds", "5d"}) {
    EXPECT_THAT(ParseDuration(text), StatusIs(absl::StatusCode::kInvalidArgument,
                                              HasSubstr(std::string("got \"") + text + "\"")));
  }
}

}  // namespace
}  // namespace pricer
