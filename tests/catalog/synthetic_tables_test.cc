#include "catalog/synthetic_tables.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"

namespace pricer {
namespace {

void ExpectSpread(const std::vector<PricedWord>& words, size_t at_least, const std::string& where) {
  EXPECT_GE(words.size(), at_least) << where;
  std::set<std::string> names;
  std::set<double> effects;
  for (const PricedWord& word : words) {
    names.insert(word.name);
    effects.insert(word.effect);
  }
  EXPECT_EQ(names.size(), words.size()) << where;
  EXPECT_EQ(effects.size(), words.size()) << where << ": two words of the same effect";
}

TEST(SyntheticTablesTest, HasTwelveCategoriesOrMoreWithSeveralTypesAndBrands) {
  EXPECT_GE(SyntheticCategories().size(), 12);
  std::set<std::string> types;
  size_t count = 0;
  for (const Category& category : SyntheticCategories()) {
    EXPECT_GE(category.types.size(), 4) << category.name;
    ExpectSpread(category.brands, 6, category.name);
    ExpectSpread(category.models, 4, category.name);
    EXPECT_EQ(category.models[0].name, "");
    EXPECT_EQ(category.models[0].effect, 0);
    for (const ProductType& type : category.types) types.insert(type.name);
    count += category.types.size();
  }
  EXPECT_EQ(types.size(), count) << "two types of one name";
}

TEST(SyntheticTablesTest, EveryTypeIsComplete) {
  for (const Category& category : SyntheticCategories()) {
    EXPECT_FALSE(category.benefits.empty() || category.closings.empty()) << category.name;
    for (const ProductType& type : category.types) {
      EXPECT_GT(type.base, 0) << type.name;
      EXPECT_EQ(type.size.format.empty(), type.size.values.empty()) << type.name;
      if (!type.size.values.empty()) {
        EXPECT_TRUE(absl::StrContains(type.size.format, "{}")) << type.name;
        EXPECT_GT(type.size.exponent, 0) << type.name;
        EXPECT_TRUE(std::is_sorted(type.size.values.begin(), type.size.values.end())) << type.name;
      }
      if (!type.materials.empty()) ExpectSpread(type.materials, 2, type.name);
      EXPECT_EQ(type.packs[0], 1) << type.name;
      EXPECT_EQ(type.packs.size() > 1, type.pack_exponent > 0) << type.name;
      EXPECT_FALSE(type.variants.empty() && category.variants.empty()) << type.name;
    }
  }
}

TEST(SyntheticTablesTest, NoiselessPricesLieBetweenADollarAndFourThousand) {
  for (const Category& category : SyntheticCategories()) {
    for (const ProductType& type : category.types) {
      double low = std::log(type.base) - 0.5 - 0.25 + (category.second_hand ? -0.6 : 0);
      double high =
          std::log(type.base) + 0.7 + 0.55 + type.pack_exponent * std::log(type.packs.back());
      if (!type.size.values.empty()) {
        low += type.size.exponent * std::log(type.size.values.front() / type.size.reference);
        high += type.size.exponent * std::log(type.size.values.back() / type.size.reference);
      }
      if (!type.materials.empty()) {
        low += type.materials.front().effect;
        high += type.materials.back().effect;
      }
      EXPECT_GT(low, std::log(0.9)) << type.name;
      EXPECT_LT(high, std::log(4000)) << type.name;
    }
  }
}

}  // namespace
}  // namespace pricer
