#include "catalog/synthetic_item.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/utf8.h"

namespace pricer {
namespace {

using ::testing::HasSubstr;

// Words with single spaces around, so that "pro" is not found in "product".
std::string Words(const std::string& text) {
  std::string words = " ";
  for (const char c : absl::AsciiStrToLower(text)) {
    const bool is_break = absl::ascii_isspace(c) || c == ',' || c == ';' || c == ':';
    if (!is_break) {
      words.push_back(c);
    } else if (words.back() != ' ') {
      words.push_back(' ');
    }
  }
  return words + " ";
}

bool Says(const std::string& words, const std::string& name) {
  const std::string wanted = Words(name);
  return absl::StrContains(words, wanted) ||
         absl::StrContains(words, absl::StrCat(wanted.substr(0, wanted.size() - 1), ". "));
}

TEST(SyntheticItemTest, WhateverMovesThePriceCanBeReadInTheText) {
  Random random(11);
  for (int i = 0; i < 20'000; ++i) {
    const SyntheticProduct product = DrawSyntheticProduct(&random);
    const Item item = DescribeSyntheticProduct(product, &random);
    const std::string text = ItemText(item);
    const std::string words = Words(text);
    ASSERT_TRUE(Says(words, product.type->name)) << text;
    ASSERT_TRUE(Says(words, product.brand->name)) << text;
    ASSERT_TRUE(product.model->name.empty() || Says(words, product.model->name)) << text;
    ASSERT_TRUE(product.size == 0 || Says(words, SyntheticSizeText(product))) << text;
    ASSERT_TRUE(product.material == nullptr || Says(words, product.material->name)) << text;
    const std::string pack = absl::StrCat(product.pack);
    ASSERT_TRUE(product.pack == 1 || Says(words, absl::StrCat("pack ", pack)) ||
                Says(words, absl::StrCat("pack of ", pack)) ||
                Says(words, absl::StrCat("set of ", pack)) ||
                Says(words, absl::StrCat(pack, "-pack")) ||
                Says(words, absl::StrCat("get ", pack, " in one pack")))
        << text;
    ASSERT_EQ(Says(words, "used"), product.condition->name == "used") << text;
    ASSERT_EQ(Says(words, "refurbished"), product.condition->name == "refurbished") << text;
  }
}

TEST(SyntheticItemTest, NeverSaysAPriceOrPutsInABrandOrModelThatIsNotItsOwn) {
  Random random(12);
  for (int i = 0; i < 5000; ++i) {
    const SyntheticProduct product = DrawSyntheticProduct(&random);
    const std::string text = ItemText(DescribeSyntheticProduct(product, &random));
    ASSERT_FALSE(absl::StrContains(text, "$") || absl::StrContains(text, "USD")) << text;
    const std::string words = Words(text);
    for (const PricedWord& model : product.category->models) {
      if (model.name.empty() || model.name == product.model->name) continue;
      ASSERT_FALSE(Says(words, model.name)) << text;
    }
    for (const PricedWord& brand : product.category->brands) {
      ASSERT_EQ(Says(words, brand.name), brand.name == product.brand->name) << text;
    }
  }
}

TEST(SyntheticItemTest, TextIsCleanAndFieldsAreSometimesMissing) {
  Random random(13);
  int no_brand = 0, no_category = 0, no_description = 0, no_details = 0;
  constexpr int kItems = 5000;
  for (int i = 0; i < kItems; ++i) {
    const Item item = DescribeSyntheticProduct(DrawSyntheticProduct(&random), &random);
    ASSERT_FALSE(item.title.empty());
    const std::string text = ItemText(item);
    ASSERT_TRUE(IsValidUtf8(text));
    for (const char* wrong : {"  ", " ,", " .", "~", "{}", ",,", "..", " \n", "\n "}) {
      ASSERT_FALSE(absl::StrContains(text, wrong)) << text;
    }
    no_brand += item.brand.empty() ? 1 : 0;
    no_category += item.category.empty() ? 1 : 0;
    no_description += item.description.empty() ? 1 : 0;
    no_details += item.details.empty() ? 1 : 0;
  }
  EXPECT_NEAR(no_brand, 0.15 * kItems, 100);
  EXPECT_NEAR(no_category, 0.10 * kItems, 100);
  EXPECT_NEAR(no_description, 0.15 * kItems, 100);
  EXPECT_NEAR(no_details, 0.25 * kItems, 100);
}

TEST(SyntheticItemTest, PriceFollowsTheFormula) {
  const PricedWord brand{"B", 0.3}, model{"Pro", 0.2}, material{"oak", 0.1};
  const Condition condition{"used", -0.4, {}, "", {}};
  ProductType type;
  type.base = 50;
  type.size = {"{} inch", {5, 10, 20}, 10, 0.5};
  type.pack_exponent = 0.8;
  SyntheticProduct product;
  product.type = &type;
  product.brand = &brand;
  product.model = &model;
  product.material = &material;
  product.condition = &condition;
  product.size = 20;
  product.pack = 4;
  EXPECT_NEAR(std::exp(SyntheticLogPrice(product)),
              50 * std::exp(0.3 + 0.2 + 0.1 - 0.4) * std::sqrt(2.0) * std::pow(4, 0.8), 1e-9);
  product.material = nullptr;
  product.size = 0;
  product.pack = 1;
  EXPECT_NEAR(std::exp(SyntheticLogPrice(product)), 50 * std::exp(0.3 + 0.2 - 0.4), 1e-9);
}

TEST(SyntheticItemTest, SizesReadAsAShopWritesThem) {
  ProductType type;
  type.size = {"{} GB", {}, 1, 1};
  SyntheticProduct product;
  product.type = &type;
  EXPECT_EQ(SyntheticSizeText(product), "");
  product.size = 256;
  EXPECT_EQ(SyntheticSizeText(product), "256 GB");
  product.size = 2000;
  EXPECT_EQ(SyntheticSizeText(product), "2 TB");
  type.size.format = "{} ft";
  product.size = 7.5;
  EXPECT_EQ(SyntheticSizeText(product), "7.5 ft");
}

TEST(SyntheticItemTest, DrawsEveryTypeBrandModelAndCondition) {
  Random random(14);
  std::set<const void*> seen;
  for (int i = 0; i < 20'000; ++i) {
    const SyntheticProduct product = DrawSyntheticProduct(&random);
    seen.insert({product.type, product.brand, product.model, product.condition});
    ASSERT_TRUE(product.category->second_hand || product.condition->effect == 0);
  }
  size_t expected = SyntheticConditions().size();
  for (const Category& category : SyntheticCategories()) {
    expected += category.types.size() + category.brands.size() + category.models.size();
  }
  EXPECT_EQ(seen.size(), expected);
}

}  // namespace
}  // namespace pricer
