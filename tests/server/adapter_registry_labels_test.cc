#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/adapter_registry.h"
#include "tests/server/fakes.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::FakeClock;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::MakeLoadedAdapter;
using ::testing::Pair;
using testing::RecordingMetrics;
using testing::StatusIs;

class AdapterRegistryLabelsTest : public ::testing::Test {
 protected:
  void Load(int64_t version) {
    registry_.Discover({"toys", version});
    registry_.BeginLoad({"toys", version});
    registry_.Publish(MakeLoadedAdapter("toys", version), absl::ZeroDuration());
  }
  void Label(const std::map<std::string, LabelTarget>& targets) {
    registry_.SetLabels("toys", {.generation = ++generation_, .labels = targets, .history = {}});
  }
  // Version that a label leads to; 0 = error.
  int64_t Version(absl::string_view label = "") {
    const absl::StatusOr<AdapterRoute> route = registry_.Route("toys", std::nullopt, label);
    return route.ok() ? route->adapter->key.version : 0;
  }
  absl::Status Error(absl::string_view label) {
    return registry_.Route("toys", std::nullopt, label).status();
  }
  std::map<std::string, int64_t> Live() { return registry_.Labels("toys")->live; }

  FakeClock clock_;
  RecordingMetrics metrics_;
  AdapterRegistry registry_{"", &metrics_, &clock_};
  int64_t generation_ = 0;
};

TEST_F(AdapterRegistryLabelsTest, ALabelLeadsToItsVersionAsSoonAsThatIsAvailable) {
  Label({{"stable", {1}}});
  Load(2);
  // The newest is not what was asked for.
  EXPECT_EQ(Version(), 0);
  Load(1);
  EXPECT_EQ(Version(), 1);
  Label({{"stable", {3}}});
  EXPECT_EQ(Version(), 1);
  EXPECT_THAT(Live(), ElementsAre(Pair("stable", 1)));
  Load(3);
  EXPECT_EQ(Version(), 3);
  EXPECT_THAT(metrics_.values().label_moves, ElementsAre("stable", "stable"));
}

TEST_F(AdapterRegistryLabelsTest, ALabelStaysWhereItsNewVersionIsRefused) {
  Load(1);
  Label({{"stable", {1}}});
  Label({{"stable", {2}}});
  registry_.Discover({"toys", 2});
  registry_.BeginLoad({"toys", 2});
  registry_.Refuse({"toys", 2}, absl::DataLossError("bad hash"));
  EXPECT_EQ(Version(), 1);
}

TEST_F(AdapterRegistryLabelsTest, SaysWhyALabelLeadsNowhere) {
  Load(1);
  Label({{"stable", {2}}, {"canary", {3}}});
  EXPECT_THAT(Error("stable"), StatusIs(absl::StatusCode::kNotFound,
                                        AllOf(HasSubstr("stable"), HasSubstr("version 2"))));
  registry_.Discover({"toys", 2});
  registry_.BeginLoad({"toys", 2});
  EXPECT_THAT(Error(""), StatusIs(absl::StatusCode::kNotFound, HasSubstr("loading")));
  registry_.Refuse({"toys", 2}, absl::FailedPreconditionError("another base"));
  EXPECT_THAT(Error(""),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("another base")));
  EXPECT_THAT(Error("mine"), StatusIs(absl::StatusCode::kNotFound,
                                      HasSubstr("no label \"mine\"; there is: stable, canary")));
}

TEST_F(AdapterRegistryLabelsTest, ALabelOfAnUnloadedVersionLeadsNowhere) {
  Load(1);
  Load(2);
  Label({{"stable", {1}}});
  registry_.Unload({"toys", 1}, "removed from the adapter folder");
  EXPECT_EQ(Version(), 0);
  EXPECT_THAT(Live(), IsEmpty());
  Label({{"stable", {2}}});
  EXPECT_EQ(Version(), 2);
}

TEST_F(AdapterRegistryLabelsTest, AFileWithoutStableLeavesItToTheNewest) {
  Load(1);
  Load(2);
  Label({{"mine", {1}}});
  EXPECT_EQ(Version(), 2);
  EXPECT_EQ(Version("mine"), 1);
}

TEST_F(AdapterRegistryLabelsTest, TheCanaryHasItsShareAndTheShadowNone) {
  Load(1);
  Load(2);
  Label({{"stable", {1}}, {"canary", {2, 12.5}}, {"shadow", {2}}});
  ASSERT_OK_AND_ASSIGN(const AdapterRoute route, registry_.Route("toys", std::nullopt, ""));
  EXPECT_EQ(route.adapter->key.version, 1);
  EXPECT_EQ(route.label, "stable");
  EXPECT_EQ(route.canary->key.version, 2);
  EXPECT_EQ(route.canary_buckets, 1250);
  EXPECT_EQ(route.shadow->key.version, 2);
  ASSERT_OK_AND_ASSIGN(const AdapterRoute by_label,
                       registry_.Route("toys", std::nullopt, "stable"));
  EXPECT_EQ(by_label.canary, nullptr);
  EXPECT_NE(by_label.shadow, nullptr);
  ASSERT_OK_AND_ASSIGN(const AdapterRoute by_number, registry_.Route("toys", 1, ""));
  EXPECT_EQ(by_number.canary, nullptr);
  EXPECT_EQ(by_number.shadow, nullptr);
  EXPECT_EQ(by_number.label, "");
}

TEST_F(AdapterRegistryLabelsTest, AVersionIsNoCanaryOrShadowOfItself) {
  Load(1);
  Label({{"stable", {1}}, {"canary", {1, 50}}, {"shadow", {1}}});
  ASSERT_OK_AND_ASSIGN(const AdapterRoute route, registry_.Route("toys", std::nullopt, ""));
  EXPECT_EQ(route.canary, nullptr);
  EXPECT_EQ(route.shadow, nullptr);
}

TEST_F(AdapterRegistryLabelsTest, AreListedWithTheirVersions) {
  Load(1);
  Load(2);
  Label({{"stable", {1}}, {"shadow", {2}}, {"canary", {2}}});
  const std::vector<AdapterStatus> listed = registry_.List("toys");
  ASSERT_EQ(listed.size(), 2u);
  EXPECT_THAT(listed[0].labels, ElementsAre("stable"));
  EXPECT_TRUE(listed[0].serves_by_default);
  EXPECT_THAT(listed[1].labels, ElementsAre("canary", "shadow"));
  EXPECT_FALSE(listed[1].serves_by_default);
  EXPECT_THAT(registry_.Labels("wine"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("wine")));
  EXPECT_THAT(registry_.Labels("base"), StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace pricer
