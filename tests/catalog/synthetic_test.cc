#include "catalog/synthetic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "catalog/item_reader.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::pricer::testing::IsOkAndHolds;
using ::pricer::testing::StatusIs;
using ::pricer::testing::TempDir;
using ::testing::HasSubstr;

constexpr const char* kFiles[] = {"train.jsonl", "validation.jsonl", "test.jsonl", "truth.json"};

SyntheticCatalogOptions Options(int64_t items, uint64_t seed, const std::string& output) {
  SyntheticCatalogOptions options;
  options.items = items;
  options.seed = seed;
  options.output = output;
  return options;
}

std::string Bytes(const std::string& path) {
  const absl::StatusOr<std::string> bytes = ReadFile(path);
  EXPECT_OK(bytes);
  return bytes.value_or("");
}

std::vector<Item> Items(const std::string& path) {
  ItemReaderOptions options;
  options.max_reject_share = 0;
  const absl::StatusOr<std::vector<Item>> items = ReadItems(path, options);
  EXPECT_OK(items);
  return items.value_or(std::vector<Item>());
}

TEST(SyntheticCatalogTest, SameSeedSameBytesOtherSeedOtherBytes) {
  const TempDir dir;
  ASSERT_OK(WriteSyntheticCatalog(Options(500, 7, dir.File("a"))));
  ASSERT_OK(WriteSyntheticCatalog(Options(500, 7, dir.File("b"))));
  ASSERT_OK(WriteSyntheticCatalog(Options(500, 8, dir.File("c"))));
  for (const std::string name : kFiles) {
    EXPECT_EQ(Bytes(dir.File("a/" + name)), Bytes(dir.File("b/" + name))) << name;
    EXPECT_NE(Bytes(dir.File("a/" + name)), Bytes(dir.File("c/" + name))) << name;
  }
}

TEST(SyntheticCatalogTest, SplitsEightyTenTen) {
  const TempDir dir;
  const struct {
    int64_t items;
    size_t train, tenth;
  } cases[] = {{10, 8, 1}, {19, 17, 1}, {1000, 800, 100}};
  for (const auto& [items, train, tenth] : cases) {
    ASSERT_OK(WriteSyntheticCatalog(Options(items, 1, dir.path())));
    EXPECT_EQ(Items(dir.File("train.jsonl")).size(), train);
    EXPECT_EQ(Items(dir.File("validation.jsonl")).size(), tenth);
    EXPECT_EQ(Items(dir.File("test.jsonl")).size(), tenth);
  }
}

TEST(SyntheticCatalogTest, NoTwoItemsHaveTheSameTextOrId) {
  const TempDir dir;
  ASSERT_OK(WriteSyntheticCatalog(Options(20'000, 3, dir.path())));
  std::set<std::string> texts, ids;
  for (const char* name : {"train.jsonl", "validation.jsonl", "test.jsonl"}) {
    for (const Item& item : Items(dir.File(name))) {
      texts.insert(ItemText(item));
      ids.insert(item.id);
    }
  }
  EXPECT_EQ(texts.size(), 20'000);
  EXPECT_EQ(ids.size(), 20'000);
}

TEST(SyntheticCatalogTest, PricesAreInCentsSpreadWideAndNeverInTheText) {
  const TempDir dir;
  ASSERT_OK_AND_ASSIGN(const SyntheticCatalogSummary summary,
                       WriteSyntheticCatalog(Options(20'000, 4, dir.path())));
  EXPECT_GT(summary.min_price, 0.8);
  EXPECT_LT(summary.min_price, 3);
  EXPECT_GT(summary.max_price, 1500);
  EXPECT_LT(summary.max_price, 5000);
  EXPECT_GT(summary.median_price, 30);
  EXPECT_LT(summary.median_price, 80);
  for (const Item& item : Items(dir.File("train.jsonl"))) {
    ASSERT_NEAR(100 * *item.price, std::round(100 * *item.price), 1e-6);
    ASSERT_FALSE(absl::StrContains(ItemText(item), absl::StrFormat("%.2f", *item.price)));
    ASSERT_EQ(item.currency, "USD");
  }
}

TEST(SyntheticCatalogTest, StatesTheBestReachableErrors) {
  const TempDir dir;
  ASSERT_OK_AND_ASSIGN(const SyntheticCatalogSummary summary,
                       WriteSyntheticCatalog(Options(50'000, 5, dir.path())));
  const PriceErrors& best = summary.truth.best_reachable;
  const NoiseLimits limits = LimitsOfNoise(kSyntheticNoiseSigma);
  EXPECT_NEAR(best.median_absolute_percentage_error, limits.median_absolute_percentage_error,
              0.004);
  EXPECT_NEAR(best.within_20_percent, limits.within_20_percent, 0.015);
  EXPECT_LT(best.mae, 0.2 * summary.truth.constant_median.mae);
  EXPECT_LT(best.rmsle, 0.2 * summary.truth.constant_median.rmsle);
  const auto json = nlohmann::json::parse(Bytes(dir.File("truth.json")));
  EXPECT_EQ(json["seed"], 5);
  EXPECT_EQ(json["items"]["test"], 5000);
  EXPECT_NEAR(json["best_reachable"]["mae"], best.mae, 1e-4 * best.mae);
  EXPECT_THAT(json["formula"].get<std::string>(), HasSubstr("ln(price) = "));
}

TEST(SyntheticCatalogTest, ReplacesTheFilesOfAnEarlierRunAndLeavesNothingElse) {
  const TempDir dir;
  ASSERT_OK(WriteFile(dir.File("train.jsonl"), "old"));
  ASSERT_OK(WriteFile(dir.File("mine.txt"), "kept"));
  ASSERT_OK(WriteSyntheticCatalog(Options(100, 1, dir.path())));
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(dir.path())) {
    names.insert(entry.path().filename());
  }
  std::set<std::string> expected(std::begin(kFiles), std::end(kFiles));
  expected.insert("mine.txt");
  EXPECT_EQ(names, expected);
  EXPECT_THAT(ReadFile(dir.File("mine.txt")), IsOkAndHolds("kept"));
  EXPECT_EQ(Items(dir.File("train.jsonl")).size(), 80);
}

TEST(SyntheticCatalogTest, StopsOnRequestAndChangesNothing) {
  const TempDir dir;
  ASSERT_OK(WriteFile(dir.File("train.jsonl"), "old"));
  int asked = 0;
  EXPECT_THAT(
      WriteSyntheticCatalog(Options(100, 1, dir.path()), [&asked] { return ++asked == 95; }),
      StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(asked, 95);
  EXPECT_THAT(ReadFile(dir.File("train.jsonl")), IsOkAndHolds("old"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1);
}

TEST(SyntheticCatalogTest, AnOutputThatIsAFileIsAnErrorThatNamesIt) {
  const TempDir dir;
  ASSERT_OK(WriteFile(dir.File("file"), "kept"));
  const auto summary = WriteSyntheticCatalog(Options(100, 1, dir.File("file")));
  ASSERT_FALSE(summary.ok());
  EXPECT_THAT(std::string(summary.status().message()), HasSubstr(dir.File("file")));
  EXPECT_THAT(ReadFile(dir.File("file")), IsOkAndHolds("kept"));
}

TEST(SyntheticCatalogTest, RefusesTooFewItemsAndNoOutput) {
  for (const int64_t items : {int64_t{-1}, int64_t{0}, int64_t{9}, int64_t{10'000'001}}) {
    EXPECT_THAT(WriteSyntheticCatalog(Options(items, 1, "/no/where")),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("items: expected 10 to")));
  }
  EXPECT_THAT(WriteSyntheticCatalog(Options(10, 1, "")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("output")));
}

}  // namespace
}  // namespace pricer
