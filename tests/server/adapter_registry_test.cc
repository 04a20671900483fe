#include "server/adapter_registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

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
using ::testing::Not;
using testing::RecordingMetrics;
using ::testing::SizeIs;
using testing::StatusIs;

class AdapterRegistryTest : public ::testing::Test {
 protected:
  void Load(const std::string& name, int64_t version) {
    registry_.Discover({name, version});
    registry_.BeginLoad({name, version});
    registry_.Publish(MakeLoadedAdapter(name, version), absl::Seconds(1));
  }
  // Version that a request gets; 0 = error.
  int64_t Version(absl::string_view name, std::optional<int64_t> version = std::nullopt) {
    const absl::StatusOr<AdapterHandle> found = registry_.Find(name, version);
    return found.ok() ? (*found)->key.version : 0;
  }
  AdapterState StateOf(const std::string& name, int64_t version) {
    for (const AdapterStatus& status : registry_.List(name)) {
      if (status.key.version == version) return status.state;
    }
    ADD_FAILURE() << name << " " << version << " is not listed";
    return AdapterState::kStart;
  }

  FakeClock clock_;
  RecordingMetrics metrics_;
  AdapterRegistry registry_{"", &metrics_, &clock_};
};

TEST_F(AdapterRegistryTest, GivesTheNewestAvailableVersion) {
  Load("toys", 2);
  Load("toys", 10);
  Load("toys", 9);
  registry_.Discover({"toys", 11});
  Load("toys-uk", 20);
  EXPECT_EQ(Version("toys"), 10);
  EXPECT_EQ(Version("toys", 9), 9);
}

TEST_F(AdapterRegistryTest, PublishingSwapsWhatRequestsGetAndNotWhatTheyHold) {
  Load("toys", 1);
  const AdapterHandle held = *registry_.Find("toys", std::nullopt);
  Load("toys", 2);
  EXPECT_EQ(Version("toys"), 2);
  EXPECT_EQ(held->key.version, 1);
}

TEST_F(AdapterRegistryTest, AnEmptyNameMeansTheOnlyAdapter) {
  EXPECT_THAT(registry_.Find("", std::nullopt),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no adapter is available")));
  Load("toys", 1);
  Load("toys", 2);
  EXPECT_EQ(Version(""), 2);
  EXPECT_EQ(Version("", 1), 1);
}

TEST_F(AdapterRegistryTest, TheBaseAnswersUnderItsNameAndNoOther) {
  registry_.SetBase(MakeLoadedAdapter("base", 0));
  ASSERT_OK_AND_ASSIGN(const AdapterHandle base, registry_.Find("base", std::nullopt));
  EXPECT_EQ(base->key, BaseKey());
  EXPECT_OK(registry_.Find("base", 0));
  EXPECT_THAT(registry_.Find("base", 1),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("version 1")));
  EXPECT_THAT(registry_.Find("", std::nullopt),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("no adapter is available"), HasSubstr("\"base\""))));
  // The only adapter is meant where none is named, the base beside it or not.
  Load("toys", 1);
  EXPECT_EQ(Version(""), 1);
  EXPECT_THAT(registry_.Find("wine", std::nullopt),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("available: base, toys/1")));
}

TEST_F(AdapterRegistryTest, TheBaseIsListedAndCountsAmongNoVersionsOfTheFolder) {
  registry_.SetBase(MakeLoadedAdapter("base", 0));
  const std::vector<AdapterStatus> listed = registry_.List();
  ASSERT_EQ(listed.size(), 1u);
  EXPECT_EQ(listed[0].key, BaseKey());
  EXPECT_EQ(listed[0].state, AdapterState::kAvailable);
  EXPECT_EQ(listed[0].digest, "base-digest-0");
  EXPECT_FALSE(listed[0].serves_by_default);
  EXPECT_EQ(metrics_.values().adapters[static_cast<int>(AdapterState::kAvailable)], 0);
  EXPECT_EQ(metrics_.values().loaded, 0);
}

TEST_F(AdapterRegistryTest, ABaseThatGivesNoPricesSaysWhy) {
  registry_.SetBase(absl::FailedPreconditionError("no token for 7"));
  for (const std::optional<int64_t> version :
       {std::optional<int64_t>(), std::optional(int64_t{0})}) {
    EXPECT_THAT(registry_.Find("base", version),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         AllOf(HasSubstr("adapter \"base\""), HasSubstr("no token for 7"))));
  }
  EXPECT_EQ(StateOf("base", 0), AdapterState::kEnd);
  EXPECT_EQ(metrics_.values().load_failures, 0);
  EXPECT_THAT(registry_.Find("", std::nullopt),
              StatusIs(absl::StatusCode::kNotFound, Not(HasSubstr("base"))));
}

TEST_F(AdapterRegistryTest, AnEmptyNameAmongSeveralAdaptersIsAnErrorThatListsThem) {
  Load("toys", 1);
  Load("wine", 4);
  EXPECT_THAT(registry_.Find("", std::nullopt),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("toys/1, wine/4")));
}

TEST_F(AdapterRegistryTest, AnEmptyNameMeansTheDefaultAdapterWhereThereIsOne) {
  AdapterRegistry registry("wine", &metrics_, &clock_);
  for (const char* const name : {"toys", "wine"}) {
    registry.Discover({name, 1});
    registry.Publish(MakeLoadedAdapter(name, 1), absl::ZeroDuration());
  }
  EXPECT_EQ((*registry.Find("", std::nullopt))->key.name, "wine");
}

TEST_F(AdapterRegistryTest, NotFoundNamesWhatWasAskedForAndListsWhatThereIs) {
  Load("toys", 1);
  EXPECT_THAT(
      registry_.Find("wine", std::nullopt),
      StatusIs(absl::StatusCode::kNotFound, AllOf(HasSubstr("\"wine\""), HasSubstr("toys/1"))));
  EXPECT_THAT(
      registry_.Find("toys", 7),
      StatusIs(absl::StatusCode::kNotFound, AllOf(HasSubstr("version 7"), HasSubstr("toys/1"))));
}

TEST_F(AdapterRegistryTest, NotFoundListsOnlySoMany) {
  for (int i = 1; i <= 15; ++i) Load("toys", i);
  EXPECT_THAT(registry_.Find("wine", std::nullopt),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("and 5 more"), Not(HasSubstr("toys/15")))));
}

TEST_F(AdapterRegistryTest, ARefusedVersionSaysWhyAndLeavesTheOthersAlone) {
  Load("toys", 1);
  registry_.Discover({"toys", 2});
  registry_.BeginLoad({"toys", 2});
  registry_.Refuse({"toys", 2}, absl::DataLossError("no tensor score.weight"));
  EXPECT_EQ(Version("toys"), 1);
  EXPECT_EQ(StateOf("toys", 2), AdapterState::kEnd);
  EXPECT_THAT(registry_.Find("toys", 2),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no tensor score.weight")));
  EXPECT_EQ(metrics_.values().load_failures, 1);
}

TEST_F(AdapterRegistryTest, AVersionForAnotherBaseIsAFailedPrecondition) {
  registry_.Discover({"toys", 2});
  registry_.Refuse({"toys", 2}, absl::FailedPreconditionError("made for base 1234"));
  EXPECT_THAT(registry_.Find("toys", 2),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("base 1234")));
}

TEST_F(AdapterRegistryTest, AnUnloadedVersionIsFreedOnlyByFreeUnusedAndOnlyWhenNobodyHoldsIt) {
  Load("toys", 1);
  AdapterHandle held = *registry_.Find("toys", std::nullopt);
  const std::weak_ptr<const LoadedAdapter> watched = held;
  registry_.Unload({"toys", 1}, "removed from the adapter folder");
  EXPECT_THAT(registry_.Find("toys", 1), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(registry_.FreeUnused(), SizeIs(0));
  EXPECT_EQ(StateOf("toys", 1), AdapterState::kUnloading);

  held.reset();
  EXPECT_FALSE(watched.expired());
  EXPECT_THAT(registry_.FreeUnused(), SizeIs(1));
  EXPECT_TRUE(watched.expired());
  EXPECT_EQ(StateOf("toys", 1), AdapterState::kEnd);
  EXPECT_EQ(registry_.List()[0].memory_bytes, 0);
  EXPECT_THAT(metrics_.values().ended, ElementsAre(AdapterKey{"toys", 1}));
}

TEST_F(AdapterRegistryTest, AVersionFoundAgainWhileTheOldOneIsHeldServesAnew) {
  Load("toys", 1);
  AdapterHandle held = *registry_.Find("toys", std::nullopt);
  registry_.Unload({"toys", 1}, "removed from the adapter folder");
  Load("toys", 1);
  EXPECT_EQ(Version("toys"), 1);
  held.reset();
  EXPECT_THAT(registry_.FreeUnused(), SizeIs(1));
  EXPECT_EQ(StateOf("toys", 1), AdapterState::kAvailable);
  EXPECT_THAT(metrics_.values().ended, IsEmpty());
}

TEST_F(AdapterRegistryTest, AVersionRefusedAndForgottenWhileTheOldOneIsHeldEndsInTheMetricsToo) {
  Load("toys", 1);
  AdapterHandle held = *registry_.Find("toys", std::nullopt);
  registry_.Unload({"toys", 1}, "removed from the adapter folder");
  registry_.Discover({"toys", 1});
  registry_.Refuse({"toys", 1}, absl::DataLossError("short file"));
  registry_.Forget({"toys", 1});
  EXPECT_THAT(registry_.FreeUnused(), SizeIs(0));
  held.reset();
  EXPECT_THAT(registry_.FreeUnused(), SizeIs(1));
  EXPECT_THAT(metrics_.values().ended, ElementsAre(AdapterKey{"toys", 1}));
  EXPECT_THAT(registry_.List(), IsEmpty());
}

TEST_F(AdapterRegistryTest, ListsEveryVersionWithItsStateAndWhatServesByDefault) {
  Load("wine", 1);
  Load("toys", 1);
  Load("toys", 2);
  registry_.Discover({"toys", 3});
  const std::vector<AdapterStatus> all = registry_.List();
  ASSERT_EQ(all.size(), 4u);
  EXPECT_EQ(all[0].key, (AdapterKey{"toys", 1}));
  EXPECT_FALSE(all[0].serves_by_default);
  EXPECT_TRUE(all[1].serves_by_default);
  EXPECT_EQ(all[1].state, AdapterState::kAvailable);
  EXPECT_EQ(all[1].digest, "toys-digest-2");
  EXPECT_EQ(all[1].memory_bytes, 2000);
  EXPECT_EQ(all[1].load_time, absl::Seconds(1));
  EXPECT_EQ(all[1].changed_at, clock_.Now());
  EXPECT_EQ(all[2].state, AdapterState::kStart);
  EXPECT_EQ(all[3].key.name, "wine");
  EXPECT_EQ(registry_.List("wine").size(), 1u);
  EXPECT_THAT(registry_.List("shoes"), IsEmpty());
}

TEST_F(AdapterRegistryTest, CountsVersionsByState) {
  Load("toys", 1);
  Load("toys", 2);
  registry_.Discover({"toys", 3});
  registry_.Discover({"toys", 4});
  registry_.BeginLoad({"toys", 4});
  registry_.Unload({"toys", 1}, "removed from the adapter folder");
  EXPECT_THAT(metrics_.values().adapters, ElementsAre(1, 1, 1, 1, 0));
  registry_.Refuse({"toys", 4}, absl::DataLossError("short file"));
  registry_.FreeUnused();
  EXPECT_THAT(metrics_.values().adapters, ElementsAre(1, 0, 1, 0, 2));
  registry_.Forget({"toys", 4});
  EXPECT_THAT(metrics_.values().adapters, ElementsAre(1, 0, 1, 0, 1));
}

TEST_F(AdapterRegistryTest, RemembersOnlyTheLatestUnloadedVersions) {
  for (int i = 1; i <= 150; ++i) {
    clock_.Advance(absl::Seconds(1));
    Load("toys", i);
    registry_.Unload({"toys", i}, "removed from the adapter folder");
    registry_.FreeUnused();
  }
  const std::vector<AdapterStatus> statuses = registry_.List();
  EXPECT_EQ(statuses.size(), 100u);
  EXPECT_EQ(statuses.front().key.version, 51);
}

TEST_F(AdapterRegistryTest, AWarningIsTheReasonOfAnAvailableVersion) {
  registry_.Discover({"toys", 1});
  auto adapter = MakeLoadedAdapter("toys", 1);
  adapter->warning = "tuned in bf16";
  registry_.Publish(adapter, absl::ZeroDuration());
  EXPECT_EQ(registry_.List()[0].reason, "tuned in bf16");
  EXPECT_EQ(registry_.List()[0].state, AdapterState::kAvailable);
}

}  // namespace
}  // namespace pricer
