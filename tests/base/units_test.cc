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

}  // namespace
}  // namespace pricer
