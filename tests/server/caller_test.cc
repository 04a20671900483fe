#include "server/caller.h"

#include <gtest/gtest.h>

namespace pricer {
namespace {

TEST(CallerTest, IsTheAddressWithoutThePort) {
  EXPECT_EQ(CallerOf("ipv4:192.0.2.7:4711"), "ipv4:192.0.2.7");
  EXPECT_EQ(CallerOf("ipv6:%5B2001:db8::1%5D:4711"), "ipv6:%5B2001:db8::1%5D");
  EXPECT_EQ(CallerOf("unix:/run/pricer.sock"), "unix:/run/pricer.sock");
  EXPECT_EQ(CallerOf("unix:"), "unix:");
  EXPECT_EQ(CallerOf(""), "");
}

}  // namespace
}  // namespace pricer
