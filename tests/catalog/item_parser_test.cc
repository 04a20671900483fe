#include "catalog/item_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/utf8.h"
#include "catalog/json_row.h"
#include "catalog/random.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::pricer::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Optional;
using ::testing::Pair;
using ::testing::StartsWith;

using Columns = std::map<std::string, std::string>;
using Json = nlohmann::json;

// As row 17 of a file of JSON lines.
std::optional<Reject> ParseLine(const ItemParser& parser, absl::string_view line,
                                JsonRowScanner* scanner, Item* item) {
  item->id.clear();
  FieldValues values;
  if (auto reject = scanner->Scan(line, &values)) return reject;
  return parser.Parse(values, 17, item);
}

class ItemParserTest : public ::testing::Test {
 protected:
  // "" if the line is an item, else "field: reason".
  std::string Parse(absl::string_view line, bool price_required = true,
                    const Columns& columns = {}) {
    return Parse(line, ItemRules{.price_required = price_required}, columns);
  }

  std::string Parse(absl::string_view line, const ItemRules& rules, const Columns& columns = {}) {
    const absl::StatusOr<ItemParser> parser = ItemParser::Create(columns, rules);
    EXPECT_OK(parser);
    JsonRowScanner scanner(parser->columns());
    const std::optional<Reject> reject = ParseLine(*parser, line, &scanner, &item_);
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

TEST_F(ItemParserTest, ARejectedRowKeepsItsIdAndNoOther) {
  EXPECT_NE(Parse(R"({"title": 5, "price": "x", "id": "a"})"), "");
  EXPECT_EQ(item_.id, "a");
  EXPECT_NE(Parse(R"({"title": "t"})"), "");
  EXPECT_EQ(item_.id, "17");
  for (const char* line : {R"({"id": "b", "title": )", R"({"id": true, "title": "t"})", "\xFF"}) {
    EXPECT_NE(Parse(line), "");
    EXPECT_EQ(item_.id, "");
    item_.id = "of an earlier row";
  }
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
            ": not JSON: Missing a comma or '}' after an object member at byte 9");
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
  EXPECT_EQ(Parse(" {\t\"title\" : \"t\" ,\"price\":1\r}\n "), "");
  for (const char* line : {R"([{"title": "t", "price": 1}])", "[]", "12", " \"a\" ", "-3.5", "true",
                           "null", R"([["title"], "t"])"}) {
    EXPECT_EQ(Parse(line), ": not a JSON object") << line;
  }
}

TEST_F(ItemParserTest, SaysWhatIsNotJsonAndWhere) {
  const auto expect = [this](absl::string_view line, absl::string_view reason) {
    EXPECT_EQ(Parse(line), absl::StrCat(": not JSON: ", reason)) << line;
  };
  expect("", "Expected an object at byte 1");
  expect(",title", "Expected an object at byte 1");
  expect("title,price", "Invalid value at byte 2");
  expect("{", "Missing a name for object member at byte 2");
  expect(R"({"a": 1,})", "Missing a name for object member at byte 9");
  expect(R"({"a" 1})", "Missing a colon after a name of object member at byte 6");
  expect(R"({"a": 1; "b": 2})", "Missing a comma or '}' after an object member at byte 8");
  expect(R"({"a": [1; 2]})", "Missing a comma or ']' after an array element at byte 9");
  expect(R"({"a": NaN})", "Invalid value at byte 7");
  expect(R"({"a": "x)", "Missing a closing quotation mark in string at byte 9");
  expect(R"({"a": "\x41"})", "Invalid escape or control character in string at byte 8");
  expect("{\"a\": \"tab\t\"}", "Invalid escape or control character in string at byte 11");
  expect(R"({"a": 1} {})", "The document root must not be followed by other values at byte 10");
  // The reader of files skips the mark at their head; elsewhere it is no JSON.
  expect("\xEF\xBB\xBF{}", "Invalid value at byte 1");
}

TEST_F(ItemParserTest, TakesJsonByTheLetter) {
  for (const char* value :
       {"01",          "1.",         ".5",       "-",         "+1",     "1e",
        "1e+",         "0x1",        "Infinity", "-Infinity", "nan",    "tru",
        "nulL",        "'a'",        "[1,]",     "[1",        "[}",     "{\"b\"}",
        "{\"b\":1]",   "{\"b\":1,}", "1 // a",   "/**/ 1",    "\"\\\"", "\"\\a\"",
        "\"\\u12G4\"", "\"\\u123\"", ""}) {
    EXPECT_THAT(Parse(absl::StrCat(R"({"title": "t", "price": 1, "other": )", value, "}")),
                StartsWith(": not JSON: "))
        << value;
  }
  for (const char* line :
       {"{,}", "{'title': 1}", "{title: 1}", "{\"title\"}", "{}}", "{} x", "}"}) {
    EXPECT_THAT(Parse(line), StartsWith(": not JSON: ")) << line;
  }
}

TEST_F(ItemParserTest, DecodesEscapes) {
  EXPECT_EQ(Parse(R"({"tit\u006ce": "\"\\\/\b\f\n\r\t \u0041\u00e9\u20AC\ud83d\ude00 end",)"
                  R"( "brand": "a\u0000b", "price": "\u0035"})"),
            "");
  EXPECT_EQ(item_.title, "\"\\/\b\f\n\r\t A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80 end");
  EXPECT_EQ(item_.brand, std::string("a\0b", 3));
  EXPECT_THAT(item_.price, Optional(5.0));
}

TEST_F(ItemParserTest, RefusesHalfOfASurrogatePair) {
  for (const char* text : {R"(\ud800)", R"(\ud800x)", R"(\ud800\n)", R"(\ud800\u0041)",
                           R"(\ud800\ud800)", R"(\udc00)", R"(x\uDFFF)", R"(\udc00\ud800)"}) {
    for (const auto& [before, after] : {std::pair("{\"title\": \"", "\", \"price\": 1}"),
                                        std::pair("{\"other\": [{\"a\": \"", "\"}]}"),
                                        std::pair("{\"", "\": 1}"), std::pair("\"", "\"")}) {
      const std::string line = absl::StrCat(before, text, after);
      EXPECT_THAT(Parse(line), AllOf(StartsWith(": not JSON: "), HasSubstr("surrogate"))) << line;
    }
  }
}

TEST_F(ItemParserTest, RefusesControlCharactersAtEveryOffset) {
  for (char control = 0; control < 0x20; ++control) {
    for (size_t before = 0; before < 40; ++before) {
      std::string text(40, 'x');
      text[before] = control;
      ASSERT_THAT(Parse(absl::StrCat(R"({"title": ")", text, R"(", "price": 1})")),
                  StartsWith(": not JSON: "))
          << int{control} << " at " << before;
    }
  }
}

TEST_F(ItemParserTest, AZeroByteDoesNotEndTheLine) {
  const std::string good = R"({"title": "t", "price": 1})";
  const std::string zero(1, '\0');
  EXPECT_EQ(Parse(good + zero), ": not JSON: Zero byte at byte 27");
  EXPECT_EQ(Parse(good + zero + "{"), ": not JSON: Zero byte at byte 27");
  EXPECT_THAT(Parse(zero + good), StartsWith(": not JSON: "));
  for (size_t at = 0; at <= good.size(); ++at) {
    EXPECT_THAT(Parse(good.substr(0, at) + zero + good.substr(at)), StartsWith(": not JSON: "))
        << at;
  }
}

TEST_F(ItemParserTest, ReadsNothingBeyondTheLine) {
  const std::string text = R"({"title": "t", "price": 12})";
  EXPECT_THAT(Parse(absl::string_view(text).substr(0, text.size() - 1)),
              StartsWith(": not JSON: Missing a comma"));
  const std::string two = text + "}";
  EXPECT_EQ(Parse(absl::string_view(two).substr(0, text.size())), "");
}

TEST_F(ItemParserTest, DeepNestingDoesNotOverflowTheStack) {
  const auto nested = [](int depth) {
    return R"({"title": "t", "price": 1, "other": )" + std::string(depth, '[') +
           std::string(depth, ']') + "}";
  };
  EXPECT_EQ(Parse(nested(1'000'000)), "");
  EXPECT_THAT(Parse(std::string(1'000'000, '[')), StartsWith(": not JSON: "));
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"title\":";
  EXPECT_THAT(Parse(objects), StartsWith(": not JSON: "));
}

TEST_F(ItemParserTest, NestedMembersAreNotTheRows) {
  EXPECT_EQ(Parse(R"({"title": "t", "a": {"title": "no", "price": 5}, "price": 1,)"
                  R"( "b": [{"title": 3}, "x"], "": "y"})"),
            "");
  EXPECT_EQ(item_.title, "t");
  EXPECT_THAT(item_.price, Optional(1.0));
  EXPECT_EQ(Parse(R"({"title": "t", "price": [{"price": 2}]})"), "price: not a number: an array");
}

TEST_F(ItemParserTest, NumbersAreWithinTheRangeOfADouble) {
  EXPECT_EQ(Parse(R"({"title": "t", "price": 1, "other": [1e308, -1e-999, 1e-99999999999]})"), "");
  for (const std::string& number : {std::string("1e400"), std::string(400, '1')}) {
    EXPECT_THAT(Parse(absl::StrCat(R"({"title": "t", "price": 1, "other": )", number, "}")),
                StartsWith(": not JSON: Number too big"))
        << number;
    EXPECT_THAT(Parse(absl::StrCat(R"({"title": "t", "price": [)", number, "]}")),
                StartsWith(": not JSON: Number too big"))
        << number;
    EXPECT_THAT(ParsePrice(number), StartsWith("price: not finite: \"1")) << number;
  }
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
                           "5-6", ".", "-", "1e"}) {
    EXPECT_THAT(ParsePrice(std::string("\"") + text + "\""),
                AllOf(HasSubstr("price: not a number: \""), HasSubstr(text)));
  }
  EXPECT_THAT(ParsePrice(R"("5\u0000")"), HasSubstr("price: not a number: \"5"));
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

TEST_F(ItemParserTest, ReasonsArePrintable) {
  EXPECT_EQ(ParsePrice(R"("5 \u20ac\u001b[2J\n")"),
            "price: not a number: \"5 \xE2\x82\xAC\\033[2J\\n\"");
  EXPECT_EQ(Parse(R"({"title": "t", "price": 1, "currency": "\u0000\""})"),
            R"(currency: expected USD, got "\000\"")");
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

class ItemPairTest : public ItemParserTest {
 protected:
  std::string ParsePair(absl::string_view line, bool price_required = true) {
    return Parse(line, ItemRules{.price_required = price_required, .pairs = true});
  }
};

TEST_F(ItemPairTest, APairNeedsNoOtherField) {
  EXPECT_EQ(ParsePair(R"({"prompt": " Price?\n", "completion": " 12"})"), "");
  EXPECT_EQ(item_.prompt, " Price?\n");
  EXPECT_EQ(item_.completion, " 12");
  EXPECT_EQ(item_.id, "17");
  EXPECT_FALSE(item_.price.has_value());
  EXPECT_EQ(item_.currency, "USD");
}

TEST_F(ItemPairTest, WhatElseARowHasMustBeRight) {
  EXPECT_EQ(ParsePair(R"({"prompt": "p", "completion": "c", "title": "t", "price": 3, "id": 5})"),
            "");
  EXPECT_THAT(item_.price, Optional(3.0));
  EXPECT_EQ(item_.title, "t");
  EXPECT_EQ(item_.id, "5");
  EXPECT_EQ(ParsePair(R"({"prompt": "p", "completion": "c", "price": -3})"),
            "price: not above zero: \"-3\"");
  EXPECT_EQ(ParsePair(R"({"prompt": "p", "completion": "c", "title": 3})"),
            "title: expected a string, got a number");
}

TEST_F(ItemPairTest, OneOfAPairAloneIsRejected) {
  EXPECT_EQ(ParsePair(R"({"prompt": "p", "title": "t", "price": 1})"),
            "completion: missing beside prompt");
  EXPECT_EQ(ParsePair(R"({"prompt": "p", "completion": null})"),
            "completion: missing beside prompt");
  EXPECT_EQ(ParsePair(R"({"prompt": "p", "completion": ""})"), "completion: missing beside prompt");
  EXPECT_EQ(ParsePair(R"({"prompt": " \n", "completion": "c"})"),
            "prompt: missing beside completion");
  EXPECT_EQ(ParsePair(R"({"prompt": "p", "completion": 12})"),
            "completion: expected a string, got a number");
}

TEST_F(ItemPairTest, ARowWithoutAPairIsAnItem) {
  EXPECT_EQ(ParsePair(R"({"prompt": "p", "completion": "c"})"), "");
  EXPECT_EQ(ParsePair(R"({"title": "t", "price": 1, "prompt": "", "completion": " "})"), "");
  EXPECT_EQ(item_.prompt + item_.completion, "");
  EXPECT_EQ(ParsePair(R"({"title": "t"})"), "price: missing");
  EXPECT_EQ(ParsePair(R"({"price": 1})"), ": empty text");
}

TEST_F(ItemPairTest, PairsAreReadOnlyWhereTheyAreAskedFor) {
  EXPECT_EQ(Parse(R"({"prompt": "p", "completion": "c"})"), ": empty text");
  EXPECT_EQ(Parse(R"({"prompt": "p", "completion": 5, "title": "t", "price": 1})"), "");
  EXPECT_EQ(item_.prompt + item_.completion, "");
}

// Another parser must agree on what is an object and on all that is in it.
void ExpectSameAsReference(const std::string& line, const ItemParser& parser,
                           JsonRowScanner* scanner) {
  const Json reference = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  Item item;
  const std::optional<Reject> reject = ParseLine(parser, line, scanner, &item);
  const std::string reason = reject.has_value() ? reject->reason : "";
  ASSERT_EQ(reference.is_discarded(), absl::StartsWith(reason, "not JSON")) << line << reason;
  ASSERT_EQ(!reference.is_discarded() && !reference.is_object(), reason == "not a JSON object")
      << line;
  if (reject.has_value()) return;
  for (const auto& [key, text] : {std::pair("title", item.title), std::pair("brand", item.brand),
                                  std::pair("details", item.details)}) {
    ASSERT_TRUE(IsValidUtf8(text)) << line;
    const Json value = reference.value(key, Json());
    if (!value.is_null() && !text.empty()) {
      ASSERT_EQ(text, value.get<std::string>()) << line;
    }
  }
  const Json price = reference.value("price", Json());
  ASSERT_EQ(item.price.has_value(), price.is_number() || (price.is_string() && price != ""))
      << line;
  if (price.is_number()) {
    ASSERT_EQ(*item.price, price.get<double>()) << line;
  }
}

TEST(ItemParserFuzzTest, AgreesWithAnotherParserOnDamagedText) {
  const std::string seeds[] = {
      R"({"id": "a-1", "title": "Caf\u00e9 \ud83d\ude00 \"x\" \\ \n", "price": 12.50, "n": null})",
      R"({"a": [1, -0.5e-3, [], {}, {"b": [true, false, "\t"]}], "brand": "c", "": 0, "price": 7})",
      R"([{"a": 1}, "b"])", R"({"details": "d", "details": "\u20ac", "text": null, "price": "3"})"};
  constexpr char kBytes[] = "{}[]\",:\\u0d8e19.-+nultrefas bE\t\x01";
  ASSERT_OK_AND_ASSIGN(const ItemParser parser, ItemParser::Create({}, {.price_required = false}));
  JsonRowScanner scanner(parser.columns());
  Random random(7);
  for (int i = 0; i < 60'000; ++i) {
    std::string line = seeds[random.Index(std::size(seeds))];
    for (size_t edits = 1 + random.Index(3); edits > 0 && !line.empty(); --edits) {
      const size_t at = random.Index(line.size());
      const char byte = kBytes[random.Index(sizeof(kBytes) - 1)];
      switch (random.Index(3)) {
        case 0:
          line[at] = byte;
          break;
        case 1:
          line.insert(at, 1, byte);
          break;
        default:
          line.erase(at, 1 + random.Index(3));
      }
    }
    ExpectSameAsReference(line, parser, &scanner);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

TEST(ItemParserColumnsTest, AreEntriesOfFieldAndColumn) {
  ASSERT_OK_AND_ASSIGN(const auto columns,
                       ItemParser::ParseColumns({"price=cost", "title=a=b", "brand="}));
  EXPECT_THAT(columns, ElementsAre(Pair("brand", ""), Pair("price", "cost"), Pair("title", "a=b")));
  for (const std::string wrong : {"price", "=cost", ""}) {
    EXPECT_THAT(ItemParser::ParseColumns({wrong}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("\"" + wrong + "\"")));
  }
  EXPECT_THAT(ItemParser::ParseColumns({"price=a", "price=b"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("\"price\" is given twice")));
}

TEST(ItemParserCreateTest, RefusesWrongMappingsAndCurrencies) {
  EXPECT_THAT(ItemParser::Create({{"name", "title"}}, {}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("no field \"name\""), HasSubstr("id, title, brand"))));
  EXPECT_THAT(ItemParser::Create({{"title", "x"}, {"brand", "x"}}, {}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("column \"x\" is given to both brand and title")));
  EXPECT_THAT(ItemParser::Create({{"price", ""}}, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("price is required")));
  EXPECT_OK(ItemParser::Create({{"price", ""}}, {.price_required = false}));
  for (const char* currency : {"", "US", "usd", "USDX", "U$D"}) {
    EXPECT_THAT(ItemParser::Create({}, {.currency = currency}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("ISO 4217")));
  }
}

}  // namespace
}  // namespace pricer
