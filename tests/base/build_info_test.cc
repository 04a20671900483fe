#include "base/build_info.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace pricer {
namespace {

using ::testing::AnyOf;
using ::testing::MatchesRegex;

TEST(BuildInfoTest, VersionHasThreeNumbers) {
  EXPECT_THAT(std::string(BuildVersion()), MatchesRegex("[0-9]+[.][0-9]+[.][0-9]+"));
}

TEST(BuildInfoTest, CommitIsAHexadecimalPrefixOrUnknown) {
  EXPECT_THAT(std::string(BuildCommit()), AnyOf("unknown", MatchesRegex("[0-9a-f]{12,40}")));
}

TEST(BuildInfoTest, VersionTextNamesTheProgram) {
  EXPECT_EQ(VersionText("pricer"),
            "pricer " + std::string(BuildVersion()) + " (" + std::string(BuildCommit()) + ")");
}

}  // namespace
}  // namespace pricer
