#include "client/replicas.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::StatusIs;

TEST(ReplicasTest, AddressesAreTakenAsTheyAre) {
  for (const char* const target : {"127.0.0.2:8500", "dns:///127.0.0.2:8500"}) {
    ASSERT_OK_AND_ASSIGN(const std::vector<std::string> replicas, ResolveReplicas(target));
    EXPECT_THAT(replicas, ElementsAre("ipv4:127.0.0.2:8500")) << target;
  }
  ASSERT_OK_AND_ASSIGN(const std::vector<std::string> v6, ResolveReplicas("[::1]:85"));
  EXPECT_THAT(v6, ElementsAre("ipv6:[::1]:85"));
  ASSERT_OK_AND_ASSIGN(const std::vector<std::string> listed,
                       ResolveReplicas("ipv4:127.0.0.2:85,127.0.0.3:86"));
  EXPECT_THAT(listed, ElementsAre("ipv4:127.0.0.2:85", "ipv4:127.0.0.3:86"));
  ASSERT_OK_AND_ASSIGN(const std::vector<std::string> socket, ResolveReplicas("unix:/run/x"));
  EXPECT_THAT(socket, ElementsAre("unix:/run/x"));
}

TEST(ReplicasTest, NamesAreLookedUp) {
  ASSERT_OK_AND_ASSIGN(const std::vector<std::string> replicas, ResolveReplicas("localhost:8500"));
  EXPECT_THAT(replicas, ::testing::Contains("ipv4:127.0.0.1:8500"));
  EXPECT_THAT(ResolveReplicas("no-such-host.invalid:8500"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no-such-host.invalid")));
}

TEST(ReplicasTest, OtherTargetsAreRefused) {
  for (const char* const target : {"", "host", "host:", ":8500", "xds:///prices", "[::1:85"}) {
    EXPECT_THAT(ResolveReplicas(target),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("HOST:PORT")))
        << target;
  }
}

TEST(ReplicasTest, ACertificateIsOfTheHost) {
  EXPECT_EQ(HostOfTarget("dns:///prices.shop.svc:8500"), "prices.shop.svc");
  EXPECT_EQ(HostOfTarget("prices:8500"), "prices");
  EXPECT_EQ(HostOfTarget("ipv4:127.0.0.2:85,127.0.0.3:86"), "");
}

}  // namespace
}  // namespace pricer
