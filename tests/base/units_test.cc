#include "base/units.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::pricer::testing::IsOkAndHolds;
using ::pricer::testing::StatusIs;
using ::testing::HasSubstr;

TEST(UnitsTest, ParsesDurations) {
  EXPECT_THAT(ParseDuration("250ms"), IsOkAndHolds(absl::Milliseconds(250)));
  EXPECT_THAT(ParseDuration("30s"), IsOkAndHolds(absl::Seconds(30)));
  EXPECT_THAT(ParseDuration("5m"), IsOkAndHolds(absl::Minutes(5)));
  EXPECT_THAT(ParseDuration("1m30s"), IsOkAndHolds(absl::Seconds(90)));
  EXPECT_THAT(ParseDuration("0"), IsOkAndHolds(absl::ZeroDuration()));
}

TEST(UnitsTest, RefusesWhatIsNoDurationAndNamesIt) {
  for (const char* text :
       {"", "30", "-1s", "ten seconds", "5d", "inf", "-inf", "9000h", "1e300s"}) {
    EXPECT_THAT(ParseDuration(text), StatusIs(absl::StatusCode::kInvalidArgument,
                                              HasSubstr(std::string("got \"") + text + "\"")));
  }
}

TEST(UnitsTest, ParsesBytes) {
  EXPECT_THAT(ParseBytes("64KiB"), IsOkAndHolds(64 << 10));
  EXPECT_THAT(ParseBytes("512MiB"), IsOkAndHolds(512 << 20));
  EXPECT_THAT(ParseBytes("1.5GiB"), IsOkAndHolds(int64_t{3} << 29));
}

TEST(UnitsTest, RefusesWhatAreNoBytesAndNamesIt) {
  for (const char* text :
       {"", "5", "5GB", "GiB", "-1MiB", "0KiB", "nanGiB", "1e300GiB", "5 GiB "}) {
    EXPECT_THAT(ParseBytes(text), StatusIs(absl::StatusCode::kInvalidArgument,
                                           HasSubstr(std::string("got \"") + text + "\"")));
  }
}

TEST(UnitsTest, WritesBytesToRead) {
  EXPECT_EQ(BytesText(0), "0 bytes");
  EXPECT_EQ(BytesText(1023), "1023 bytes");
  EXPECT_EQ(BytesText(1536), "1.5 KiB");
  EXPECT_EQ(BytesText(int64_t{5} << 30), "5.0 GiB");
}

}  // namespace
}  // namespace pricer
