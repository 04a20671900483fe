#include "catalog/item_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>

#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::pricer::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Optional;

using Columns = std::map<std::string, std::string>;

class ItemParserTest : public ::testing::Test {
 protected:
  // "" if the line is an item, else "field: reason".
  std::string Parse(const std::string& line, bool price_required = true,
                    const Columns& columns = {}) {
    absl::StatusOr<ItemParser> parser = ItemParser::Create(columns, "USD", price_required);
    EXPECT_OK(parser);
    const std::optional<Reject> reject = parser->Parse(line, 17, &item_);
    return reject.has_value() ? reject->field + ": " + reject->reason : "";
  }

  // Of an item whose price is the given JSON.
  std::string ParsePrice(const std::string& price, bool required = true) {
    return Parse(R"({"title": "t", "price": )" + price + "}", required);
  }

  Item item_;
};

TEST_F(ItemParserTest, ReadsAllFields) {
  EXPECT_EQ(Parse(R"({"id": "x1", "title": "t", "brand": "b", "category": "c", "description": "d",)"
                  R"( "details": "e", "price": 12.5, "currency": "USD", "other": [1, {"a": 2}]})"),
            "");
  EXPECT_EQ(item_.id, "x1");
  EXPECT_EQ(item_.title, "t");
  EXPECT_EQ(item_.brand, "b");
  EXPECT_EQ(item_.category, "c");
  EXPECT_EQ(item_.description, "d");
  EXPECT_EQ(item_.details, "e");
  EXPECT_EQ(item_.text, "");
  EXPECT_THAT(item_.price, Optional(12.5));
  EXPECT_EQ(item_.currency, "USD");
}

TEST_F(ItemParserTest, NothingOfAnEarlierRowStays) {
  EXPECT_EQ(Parse(R"({"id": "1", "title": "a", "brand": "b", "details": "c", "price": 1})"), "");
  EXPECT_EQ(Parse(R"({"text": "free"})", /*price_required=*/false), "");
  EXPECT_EQ(item_.title + item_.brand + item_.details, "");
  EXPECT_EQ(item_.text, "free");
  EXPECT_EQ(item_.id, "17");
  EXPECT_FALSE(item_.price.has_value());
}

TEST_F(ItemParserTest, NullIsTheSameAsAbsent) {
  EXPECT_EQ(Parse(R"({"id": null, "title": "t", "brand": null, "price": 1, "currency": null})"),
            "");
  EXPECT_EQ(item_.id, "17");
  EXPECT_EQ(item_.brand, "");
  EXPECT_EQ(item_.currency, "USD");
}

TEST_F(ItemParserTest, IdMayBeANumberOrComesFromTheRow) {
  EXPECT_EQ(Parse(R"({"id": 00, "title": "t", "price": 1})"),
            ": not JSON: expected ',' or '}' at byte 9");
  EXPECT_EQ(Parse(R"({"id": 123456789012345678901, "title": "t", "price": 1})"), "");
  EXPECT_EQ(item_.id, "123456789012345678901");
  EXPECT_EQ(Parse(R"({"id": "", "title": "t", "price": 1})"), "");
  EXPECT_EQ(item_.id, "17");
  EXPECT_EQ(Parse(R"({"id": ["a"], "title": "t", "price": 1})"),
            "id: expected a string, got an array");
}

TEST_F(ItemParserTest, TextMustBeUtf8) {
  EXPECT_EQ(Parse("{\"title\": \"\xC3\xA9\", \"price\": 1}"), "");
  EXPECT_EQ(item_.title, "\xC3\xA9");
  EXPECT_EQ(Parse("{\"title\": \"\xE9\", \"price\": 1}"), ": not UTF-8 at byte 12");
  EXPECT_EQ(Parse("\xFF"), ": not UTF-8 at byte 1");
}

TEST_F(ItemParserTest, ALineIsOneJsonObject) {
  EXPECT_EQ(Parse("title,price"), ": not JSON: expected '{' at byte 1");
  EXPECT_EQ(Parse(R"({"title": "t", "price": 1)"), ": not JSON: expected ',' or '}' at byte 26");
  EXPECT_EQ(Parse(R"({"title": "t", "price": NaN})"), ": not JSON: expected a value at byte 25");
  EXPECT_EQ(Parse(R"([{"title": "t", "price": 1}])"), ": not a JSON object");
  EXPECT_EQ(Parse("12"), ": not a JSON object");
}

TEST_F(ItemParserTest, SomethingMustBeSaid) {
  EXPECT_EQ(Parse(R"({"price": 1})"), ": empty text");
  EXPECT_EQ(Parse(R"({"title": "", "brand": " \t", "text": "\n", "price": 1})"), ": empty text");
  EXPECT_EQ(Parse(R"({"id": "x", "currency": "USD", "price": 1})"), ": empty text");
  for (const char* field : {"title", "brand", "category", "description", "details", "text"}) {
    EXPECT_EQ(Parse(std::string("{\"") + field + R"(": "x", "price": 1})"), "") << field;
  }
}

TEST_F(ItemParserTest, FieldsAreStrings) {
  for (const char* field : {"title", "brand", "category", "description", "details", "text"}) {
    const std::string start = std::string("{\"") + field + "\": ";
    const std::string expected = std::string(field) + ": expected a string, got ";
    EXPECT_EQ(Parse(start + "1, \"price\": 1}"), expected + "a number");
    EXPECT_EQ(Parse(start + "[\"x\"], \"price\": 1}"), expected + "an array");
    EXPECT_EQ(Parse(start + "{}, \"price\": 1}"), expected + "an object");
    EXPECT_EQ(Parse(start + "false, \"price\": 1}"), expected + "a boolean");
  }
}

TEST_F(ItemParserTest, TextStandsAlone) {
  for (const char* field : {"title", "brand", "category", "description", "details"}) {
    EXPECT_EQ(Parse(std::string(R"({"text": "x", "price": 1, ")") + field + R"(": "y"})"),
              std::string("text: given together with ") + field);
  }
  EXPECT_EQ(Parse(R"({"text": "x", "title": "", "brand": " ", "price": 1})"), "");
  EXPECT_EQ(item_.text + item_.brand, "x");
  EXPECT_EQ(Parse(R"({"text": " ", "title": "t", "price": 1})"), "");
  EXPECT_EQ(item_.text + item_.title, "t");
}

TEST_F(ItemParserTest, PriceIsANumberOrAWhollyNumericString) {
  EXPECT_EQ(ParsePrice("0.01"), "");
  EXPECT_THAT(item_.price, Optional(0.01));
  EXPECT_EQ(ParsePrice("1.5e3"), "");
  EXPECT_THAT(item_.price, Optional(1500.0));
  EXPECT_EQ(ParsePrice(R"("19.99")"), "");
  EXPECT_THAT(item_.price, Optional(19.99));
  EXPECT_EQ(ParsePrice(R"("7")"), "");
  EXPECT_THAT(item_.price, Optional(7.0));
  for (const char* text : {"$5", "5 USD", " 5", "5 ", "1,299.00", "12,5", "0x10", "+5", "five",
                           "5-6", ".", "-", "1e", "5\\u0000"}) {
    EXPECT_THAT(ParsePrice(std::string("\"") + text + "\""),
                AllOf(HasSubstr("price: not a number: \""), HasSubstr(text)));
  }
  EXPECT_EQ(ParsePrice("true"), "price: not a number: a boolean");
  EXPECT_EQ(ParsePrice("[5]"), "price: not a number: an array");
  EXPECT_EQ(ParsePrice(R"({"amount": 5})"), "price: not a number: an object");
}

TEST_F(ItemParserTest, PriceIsAboveZeroAndFinite) {
  for (const char* price : {"0", "0.0", "-0.0", "-3", "-1e3", "\"0\"", "\"-3\"", "1e-999"}) {
    EXPECT_THAT(ParsePrice(price), HasSubstr("price: not above zero: \"")) << price;
  }
  for (const char* price : {"1e999", "-1e999", "\"inf\"", "\"-inf\"", "\"Infinity\"", "\"nan\"",
                            "\"NaN\"", "\"1e999\""}) {
    EXPECT_THAT(ParsePrice(price), HasSubstr("price: not finite: \"")) << price;
  }
}

TEST_F(ItemParserTest, LongValuesAreCutInReasons) {
  const std::string reason = ParsePrice("\"" + std::string(500, 'x') + "\"");
  EXPECT_THAT(reason, HasSubstr("xxx...\""));
  EXPECT_LT(reason.size(), 80);
}

TEST_F(ItemParserTest, PriceMayBeMissingOnlyWhereItIsNotRequired) {
  for (const char* line : {R"({"title": "t"})", R"({"title": "t", "price": null})",
                           R"({"title": "t", "price": ""})"}) {
    EXPECT_EQ(Parse(line), "price: missing");
    EXPECT_EQ(Parse(line, /*price_required=*/false), "");
    EXPECT_FALSE(item_.price.has_value());
  }
  EXPECT_EQ(ParsePrice("-1", /*required=*/false), "price: not above zero: \"-1\"");
}

TEST_F(ItemParserTest, CurrencyIsThatOfTheRun) {
  EXPECT_EQ(Parse(R"({"title": "t", "price": 1, "currency": "usd"})"), "");
  EXPECT_EQ(item_.currency, "USD");
  EXPECT_EQ(Parse(R"({"title": "t", "price": 1, "currency": ""})"), "");
  EXPECT_EQ(item_.currency, "USD");
  EXPECT_EQ(Parse(R"({"title": "t", "price": 1, "currency": "EUR"})"),
            "currency: expected USD, got \"EUR\"");
  EXPECT_EQ(Parse(R"({"title": "t", "price": 1, "currency": 840})"),
            "currency: expected a string, got a number");
}

TEST_F(ItemParserTest, TheLastOfRepeatedKeysCounts) {
  EXPECT_EQ(Parse(R"({"title": 5, "title": "t", "price": -1, "price": 2})"), "");
  EXPECT_EQ(item_.title, "t");
  EXPECT_THAT(item_.price, Optional(2.0));
}

TEST_F(ItemParserTest, ReadsMappedColumns) {
  const Columns columns = {{"title", "name"}, {"price", "cost"}, {"id", "s\"ku"}};
  EXPECT_EQ(
      Parse(R"({"name": "n", "title": "ignored", "c\u006fst": 3, "s\"ku": "k"})", true, columns),
      "");
  EXPECT_EQ(item_.title, "n");
  EXPECT_EQ(item_.id, "k");
  EXPECT_THAT(item_.price, Optional(3.0));
  EXPECT_EQ(Parse(R"({"name": "n", "price": 3})", true, columns), "cost: missing");
}

TEST_F(ItemParserTest, AMappingTakesTheColumnFromTheFieldOfThatName) {
  EXPECT_EQ(Parse(R"({"description": "d", "price": 1})", true, {{"text", "description"}}), "");
  EXPECT_EQ(item_.text, "d");
  EXPECT_EQ(item_.description, "");
  EXPECT_EQ(Parse(R"({"title": "a", "brand": "b", "price": 1})", true,
                  {{"title", "brand"}, {"brand", "title"}}),
            "");
  EXPECT_EQ(item_.title, "b");
  EXPECT_EQ(item_.brand, "a");
}

TEST_F(ItemParserTest, AnEmptyMappingLeavesTheFieldOut) {
  EXPECT_EQ(Parse(R"({"title": "t", "brand": 5, "": 6, "price": 1})", true, {{"brand", ""}}), "");
  EXPECT_EQ(item_.brand, "");
}

TEST(ItemParserCreateTest, RefusesWrongMappingsAndCurrencies) {
  EXPECT_THAT(ItemParser::Create({{"name", "title"}}, "USD", true),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("no field \"name\""), HasSubstr("id, title, brand"))));
  EXPECT_THAT(ItemParser::Create({{"title", "x"}, {"brand", "x"}}, "USD", true),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("column \"x\" is given to both brand and title")));
  EXPECT_THAT(ItemParser::Create({{"price", ""}}, "USD", true),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("price is required")));
  EXPECT_OK(ItemParser::Create({{"price", ""}}, "USD", false));
  for (const char* currency : {"", "US", "usd", "USDX", "U$D"}) {
    EXPECT_THAT(ItemParser::Create({}, currency, true),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("ISO 4217")));
  }
}

}  // namespace
}  // namespace pricer
