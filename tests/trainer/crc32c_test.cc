#include "trainer/crc32c.h"

#include <gtest/gtest.h>

#include <string>

namespace pricer {
namespace {

TEST(Crc32cTest, EqualsTheExamplesOfRfc3720) {
  // Appendix B.4.
  std::string up;
  for (int i = 0; i < 32; ++i) up.push_back(static_cast<char>(i));
  const std::string down(up.rbegin(), up.rend());
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62A8AB43u);
  EXPECT_EQ(Crc32c(up), 0x46DD794Eu);
  EXPECT_EQ(Crc32c(down), 0x113FDB5Cu);
}

TEST(Crc32cTest, EqualsTheCheckValueOfTheCatalogueOfCrcs) {
  EXPECT_EQ(Crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(Crc32c(""), 0u);
}

}  // namespace
}  // namespace pricer
