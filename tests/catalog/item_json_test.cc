#include "catalog/item_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "base/utf8.h"
#include "catalog/item_parser.h"
#include "catalog/json_row.h"
#include "catalog/random.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

Item FullItem() {
  Item item;
  item.id = "item-7";
  item.title = "title";
  item.brand = "brand";
  item.category = "category";
  item.description = "description";
  item.details = "details";
  item.price = 12.5;
  item.currency = "USD";
  return item;
}

TEST(ItemJsonTest, WritesTheKeysInAFixedOrder) {
  EXPECT_EQ(ItemToJson(FullItem()),
            R"({"id": "item-7", "title": "title", "brand": "brand", "category": "category", )"
            R"("description": "description", "details": "details", "price": 12.5, )"
            R"("currency": "USD"})");
}

TEST(ItemJsonTest, LeavesOutAnAbsentPriceAndWritesFreeTextAlone) {
  Item item;
  item.id = "item-8";
  item.text = "free";
  EXPECT_EQ(ItemToJson(item), R"({"id": "item-8", "text": "free", "currency": ""})");
}

TEST(ItemJsonTest, PricesReadBackAsTheSameDouble) {
  Random random(3);
  Item item = FullItem();
  for (int i = 0; i < 2000; ++i) {
    item.price = std::exp(20 * random.Normal());
    const auto json = nlohmann::json::parse(ItemToJson(item));
    ASSERT_EQ(json["price"].get<double>(), *item.price);
  }
  item.price = std::numeric_limits<double>::max();
  EXPECT_EQ(nlohmann::json::parse(ItemToJson(item))["price"].get<double>(), *item.price);
}

TEST(ItemJsonTest, EscapesSoThatEveryTextReadsBack) {
  std::string all;
  for (int c = 0; c < 0x80; ++c) all.push_back(static_cast<char>(c));
  all += "\xC3\xA9\xF0\x9F\x98\x80";
  Item item = FullItem();
  item.title = all;
  const std::string line = ItemToJson(item);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_EQ(nlohmann::json::parse(line)["title"].get<std::string>(), all);
  ASSERT_OK_AND_ASSIGN(const ItemParser parser, ItemParser::Create({}, {}));
  JsonRowScanner scanner(parser.columns());
  FieldValues values;
  ASSERT_FALSE(scanner.Scan(line, &values).has_value());
  Item read;
  EXPECT_FALSE(parser.Parse(values, 1, &read).has_value());
  EXPECT_EQ(read.title, all);
}

TEST(ItemJsonTest, BytesThatAreNotUtf8BecomeReplacementCharacters) {
  std::string json;
  AppendJsonString("a\xFF\xC3(\xE2\x82", &json);
  EXPECT_TRUE(IsValidUtf8(json));
  EXPECT_EQ(json, "\"a\xEF\xBF\xBD\xEF\xBF\xBD(\xEF\xBF\xBD\xEF\xBF\xBD\"");
}

}  // namespace
}  // namespace pricer
