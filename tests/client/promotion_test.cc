#include "client/promotion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "client/folder_labels.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::StatusIs;

// Moves on only when somebody sleeps.
class FakeClock final : public Clock {
 public:
  absl::Time Now() const override { return now_; }
  void Advance(absl::Duration duration) { now_ += duration; }

 private:
  absl::Time now_ = absl::Now();
};

// Two replicas of a folder; each follows it when it looks, as often as somebody sleeps.
class PromotionTest : public ::testing::Test {
 protected:
  PromotionTest() {
    Publish(1);
    Publish(2);
    EXPECT_OK(SetFolderLabel(directory_.path(), "shop", "stable", {.version = 1}).status());
    options_.adapters = directory_.path();
    options_.adapter = "shop";
    servers_.versions_of_label = [this](const std::string& label) { return Ask(label); };
    servers_.compare = [this](int64_t before, int64_t after) {
      compared_.emplace_back(before, after);
      CompareReport report;
      report.both = 10;
      report.far = far_;
      return report;
    };
    servers_.passes = [](const CompareReport& report) {
      return report.passes({.max_far_share = 0.1});
    };
  }

  void Publish(int64_t version) const {
    const std::string path = directory_.File(absl::StrCat("shop/", version));
    std::filesystem::create_directories(path);
    EXPECT_OK(WriteFile(path + "/_READY", ""));
  }
  AdapterLabels Labels() const { return *GetFolderLabels(directory_.path(), "shop"); }
  int64_t VersionOf(const std::string& label) const {
    const AdapterLabels labels = Labels();
    const auto found = labels.labels.find(label);
    return found == labels.labels.end() ? 0 : found->second.version;
  }

  absl::StatusOr<std::vector<absl::StatusOr<int64_t>>> Ask(const std::string& label) {
    asked_.push_back(label);
    std::vector<absl::StatusOr<int64_t>> versions;
    for (const AdapterLabels& seen : seen_) {
      const auto found = seen.labels.find(label);
      versions.push_back(found == seen.labels.end()
                             ? absl::StatusOr<int64_t>(absl::NotFoundError("no such label"))
                             : found->second.version);
    }
    return versions;
  }

  absl::StatusOr<PromotionEnd> Run() {
    const RetryEnvironment environment = {.clock = &clock_,
                                          .sleep =
                                              [this](absl::Duration duration) {
                                                clock_.Advance(duration);
                                                ++sleeps_;
                                                seen_[0] = Labels();
                                                if (follows_) seen_[1] = Labels();
                                                if (on_sleep_) on_sleep_();
                                              },
                                          .uniform = [] { return 0.5; },
                                          .stop = stop_};
    return Promote(options_, servers_, environment,
                   [this](const std::string& line) { said_.push_back(line); });
  }

  testing::TempDir directory_;
  FakeClock clock_;
  PromotionOptions options_;
  PromotionServers servers_;
  std::vector<AdapterLabels> seen_ = std::vector<AdapterLabels>(2);
  bool follows_ = true;  // the second replica
  int64_t far_ = 0;      // of ten prices
  std::function<void()> on_sleep_;
  std::function<bool()> stop_;
  int sleeps_ = 0;
  std::vector<std::string> asked_;
  std::vector<std::pair<int64_t, int64_t>> compared_;
  std::vector<std::string> said_;
};

TEST_F(PromotionTest, ACanaryIsHeldAndThenStable) {
  const absl::Time start = clock_.Now();
  on_sleep_ = [&] {
    if (clock_.Now() > start + absl::Seconds(2) && clock_.Now() < start + options_.hold) {
      EXPECT_EQ(VersionOf("canary"), 2);
      EXPECT_EQ(VersionOf("stable"), 1);
    }
  };
  ASSERT_OK_AND_ASSIGN(const PromotionEnd end, Run());
  EXPECT_EQ(end, PromotionEnd::kPromoted);
  EXPECT_EQ(VersionOf("stable"), 2);
  EXPECT_EQ(VersionOf("canary"), 0);
  EXPECT_THAT(compared_, ElementsAre(std::pair<int64_t, int64_t>(1, 2)));
  EXPECT_GE(clock_.Now(), start + options_.hold);
  EXPECT_THAT(said_, ElementsAre("canary is version 2, for 5 % of the items",
                                 HasSubstr("held until"), "stable is version 2"));
  // Once more: nothing is to do.
  said_.clear();
  asked_.clear();
  ASSERT_OK(Run().status());
  EXPECT_THAT(asked_, ElementsAre("stable"));
  EXPECT_EQ(compared_.size(), 1u);
}

TEST_F(PromotionTest, PricesThatMoveFarKeepItFromCalls) {
  far_ = 2;
  ASSERT_OK_AND_ASSIGN(const PromotionEnd end, Run());
  EXPECT_EQ(end, PromotionEnd::kRefused);
  EXPECT_EQ(VersionOf("stable"), 1);
  EXPECT_EQ(VersionOf("canary"), 0);
}

TEST_F(PromotionTest, AReplicaThatDoesNotFollowIsNamed) {
  follows_ = false;
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kDeadlineExceeded,
                              AllOf(HasSubstr("canary to version 2"),
                                    HasSubstr("1 of the replicas: no such label"))));
  EXPECT_EQ(VersionOf("stable"), 1);
  EXPECT_EQ(VersionOf("canary"), 2);
  // It is there again, and the same call goes on.
  follows_ = true;
  ASSERT_OK(Run().status());
  EXPECT_EQ(VersionOf("stable"), 2);
}

// Replicas of this one see the labels as they were brought.
TEST_F(PromotionTest, EachMoveIsBroughtToTheServers) {
  AdapterLabels brought = Labels();
  int failures = 2;
  servers_.bring = [&] {
    if (failures-- > 0) return absl::UnavailableError("the store does not answer");
    brought = Labels();
    return absl::OkStatus();
  };
  servers_.versions_of_label =
      [&brought](const std::string& label) -> absl::StatusOr<std::vector<absl::StatusOr<int64_t>>> {
    const auto target = brought.Target(label);
    return std::vector<absl::StatusOr<int64_t>>(
        {target.has_value() ? absl::StatusOr<int64_t>(target->version)
                            : absl::NotFoundError("there is no such label")});
  };
  far_ = 2;
  EXPECT_THAT(Run(), testing::IsOkAndHolds(PromotionEnd::kRefused));
  EXPECT_FALSE(brought.Target("canary").has_value());
  EXPECT_LT(failures, 0);
  far_ = 0;
  EXPECT_THAT(Run(), testing::IsOkAndHolds(PromotionEnd::kPromoted));
  EXPECT_EQ(brought.Target("stable")->version, 2);
  EXPECT_FALSE(brought.Target("canary").has_value());
}

TEST_F(PromotionTest, WhatCannotBeBroughtIsNamed) {
  servers_.bring = [] { return absl::PermissionDeniedError("s3://shop/adapters: no"); };
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kDeadlineExceeded,
                              HasSubstr("labels could not be taken to the servers within 5m: "
                                        "s3://shop/adapters: no")));
}

TEST_F(PromotionTest, WhereTheServersAreNotFoundNothingIsMoved) {
  servers_.versions_of_label = [](const std::string&) {
    return absl::UnavailableError("expected 2 servers, got 0");
  };
  const int64_t generation = Labels().generation;
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("got 0")));
  EXPECT_EQ(Labels().generation, generation);
}

TEST_F(PromotionTest, OneThatWasInterruptedGoesOn) {
  stop_ = [this] { return sleeps_ >= 20; };
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kCancelled, HasSubstr("interrupted")));
  EXPECT_EQ(VersionOf("canary"), 2);
  const int64_t generation = Labels().generation;
  const absl::Time interrupted = clock_.Now();
  stop_ = nullptr;
  ASSERT_OK(Run().status());
  // The canary was not moved again, and what it was held for counts.
  EXPECT_EQ(Labels().generation, generation + 2);
  EXPECT_LT(clock_.Now(), interrupted + options_.hold - absl::Minutes(1));
}

TEST_F(PromotionTest, WhoeverElseMovesALabelIsNotOverruled) {
  on_sleep_ = [this] {
    if (sleeps_ != 10) return;
    EXPECT_OK(
        SetFolderLabel(directory_.path(), "shop", "canary", {.version = 1, .percent = 5}).status());
  };
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kAborted, HasSubstr("canary: expected version 2")));
  EXPECT_OK(SetFolderLabel(directory_.path(), "shop", "stable", {.version = 1}).status());
  sleeps_ = 0;
  on_sleep_ = [this] {
    if (sleeps_ != 10) return;
    Publish(3);
    EXPECT_OK(SetFolderLabel(directory_.path(), "shop", "stable", {.version = 3}).status());
  };
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kAborted, HasSubstr("stable: expected version 1")));
  EXPECT_EQ(VersionOf("stable"), 3);
}

TEST_F(PromotionTest, ACanaryThatIsTakenAwayMeanwhileIsNotPromoted) {
  options_.hold = absl::ZeroDuration();
  servers_.compare = [this](int64_t, int64_t) {
    EXPECT_OK(RemoveFolderLabel(directory_.path(), "shop", "canary").status());
    CompareReport report;
    report.both = 10;
    return report;
  };
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kAborted, HasSubstr("canary: expected version 2")));
  EXPECT_EQ(VersionOf("stable"), 1);
}

TEST_F(PromotionTest, WithoutAStableLabelTheNewestAnswersAlready) {
  EXPECT_OK(RemoveFolderLabel(directory_.path(), "shop", "stable").status());
  ASSERT_OK(Run().status());
  EXPECT_EQ(VersionOf("stable"), 2);
  EXPECT_TRUE(compared_.empty());
  // An older one is a change, and is tried as one.
  EXPECT_OK(RemoveFolderLabel(directory_.path(), "shop", "stable").status());
  options_.version = 1;
  ASSERT_OK(Run().status());
  EXPECT_THAT(compared_, ElementsAre(std::pair<int64_t, int64_t>(2, 1)));
  EXPECT_EQ(VersionOf("stable"), 1);
}

TEST_F(PromotionTest, WhatIsWrongIsNamed) {
  options_.version = 9;
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("shop/9/_READY")));
  options_.adapter = "none";
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
  options_.percent = 0;
  options_.adapter = "shop";
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--percent")));
  EXPECT_EQ(VersionOf("stable"), 1);
}

}  // namespace
}  // namespace pricer
