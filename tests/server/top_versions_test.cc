#include "server/top_versions.h"

#include <gtest/gtest.h>

namespace pricer {
namespace {

AdapterKey Version(int64_t version) { return {"toys", version}; }

AdapterKey CountMany(TopVersions* top, const AdapterKey& version, int items,
                     std::optional<AdapterKey>* displaced) {
  AdapterKey name;
  for (int i = 0; i < items; ++i) name = top->Count(version, 1, displaced);
  return name;
}

TEST(TopVersionsTest, TheFirstHaveNamesWhileThereIsRoom) {
  TopVersions top(2);
  std::optional<AdapterKey> displaced;
  EXPECT_EQ(top.Count(Version(1), 1, &displaced), Version(1));
  EXPECT_EQ(top.NameOf(Version(2)), Version(2));
  EXPECT_EQ(top.Count(Version(3), 1, &displaced), TopVersions::Other());
  EXPECT_EQ(top.NameOf(Version(3)), TopVersions::Other());
  EXPECT_FALSE(displaced.has_value());
  top.Remove(Version(1));
  EXPECT_EQ(top.NameOf(Version(3)), Version(3));
}

TEST(TopVersionsTest, AMuchBusierOneTakesThePlaceOfTheLeastBusy) {
  TopVersions top(2);
  std::optional<AdapterKey> displaced;
  CountMany(&top, Version(1), 100, &displaced);
  CountMany(&top, Version(2), 500, &displaced);
  EXPECT_EQ(CountMany(&top, Version(3), 190, &displaced), TopVersions::Other());
  EXPECT_FALSE(displaced.has_value());
  EXPECT_EQ(CountMany(&top, Version(3), 100, &displaced), Version(3));
  ASSERT_TRUE(displaced.has_value());
  EXPECT_EQ(*displaced, Version(1));
  EXPECT_EQ(top.NameOf(Version(1)), TopVersions::Other());
}

TEST(TopVersionsTest, WhatWasBusyLongAgoCountsForLittle) {
  TopVersions top(1);
  std::optional<AdapterKey> displaced;
  CountMany(&top, Version(1), 400'000, &displaced);
  EXPECT_EQ(CountMany(&top, Version(2), 400'000, &displaced), Version(2));
}

TEST(TopVersionsTest, NoPlacesNoNames) {
  TopVersions top(0);
  std::optional<AdapterKey> displaced;
  EXPECT_EQ(CountMany(&top, Version(1), 1000, &displaced), TopVersions::Other());
  EXPECT_FALSE(displaced.has_value());
}

}  // namespace
}  // namespace pricer
