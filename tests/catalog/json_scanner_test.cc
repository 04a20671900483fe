#include "catalog/json_scanner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "absl/strings/numbers.h"
#include "catalog/random.h"

namespace pricer {
namespace {

using Kind = JsonValue::Kind;
using Json = nlohmann::json;

std::string Decoded(const JsonValue& value) {
  std::string text = "left over";
  DecodeJsonString(value, &text);
  return text;
}

// The members by key, the last of equal keys; none if the text is no JSON object. They point into
// `text`.
std::optional<std::map<std::string, JsonValue>> Members(const std::string& text) {
  JsonObjectScanner scanner(text);
  std::map<std::string, JsonValue> members;
  while (scanner.Next()) members[Decoded(scanner.key())] = scanner.value();
  if (scanner.error() != nullptr) return std::nullopt;
  return members;
}

TEST(JsonScannerTest, GivesEveryKindOfValue) {
  const std::string text =
      R"( { "a" : "x", "b":-1.5e+3 ,"c":true,"d":null,"e":[1,{"f":[]}],"g":{"h":{}}, "":"" } )";
  auto members = Members(text);
  ASSERT_TRUE(members.has_value());
  EXPECT_EQ(members->size(), 7);
  EXPECT_EQ((*members)["a"].kind, Kind::kString);
  EXPECT_EQ((*members)["a"].text, "x");
  EXPECT_EQ((*members)["b"].kind, Kind::kNumber);
  EXPECT_EQ((*members)["b"].text, "-1.5e+3");
  EXPECT_EQ((*members)["c"].kind, Kind::kBoolean);
  EXPECT_EQ((*members)["d"].kind, Kind::kNull);
  EXPECT_EQ((*members)["e"].kind, Kind::kArray);
  EXPECT_EQ((*members)["e"].text, R"([1,{"f":[]}])");
  EXPECT_EQ((*members)["g"].kind, Kind::kObject);
  EXPECT_EQ((*members)[""].text, "");
}

TEST(JsonScannerTest, AcceptsAnEmptyObject) {
  EXPECT_TRUE(Members("{}").has_value());
  EXPECT_TRUE(Members(" {\t} \r").has_value());
}

TEST(JsonScannerTest, DecodesEscapes) {
  const std::string text =
      R"({"k\u0065y": "\"\\\/\b\f\n\r\t \u0041\u00e9\u20AC\ud83d\ude00 end", "nul": "a\u0000b"})";
  const auto members = Members(text);
  ASSERT_TRUE(members.has_value());
  EXPECT_EQ(Decoded(members->at("key")),
            "\"\\/\b\f\n\r\t A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80 end");
  EXPECT_EQ(Decoded(members->at("nul")), std::string("a\0b", 3));
}

TEST(JsonScannerTest, RefusesWhatIsNoJson) {
  for (const char* text : {"",
                           " ",
                           "{",
                           "}",
                           "{\"a\"}",
                           "{\"a\":}",
                           "{\"a\":1,}",
                           "{,}",
                           "{\"a\":1 \"b\":2}",
                           "{'a':1}",
                           "{a:1}",
                           "{\"a\":1}}",
                           "{\"a\":1} x",
                           "{\"a\":01}",
                           "{\"a\":1.}",
                           "{\"a\":.5}",
                           "{\"a\":-}",
                           "{\"a\":+1}",
                           "{\"a\":1e}",
                           "{\"a\":NaN}",
                           "{\"a\":Infinity}",
                           "{\"a\":tru}",
                           "{\"a\":nulL}",
                           "{\"a\":\"x}",
                           "{\"a\":\"\\\"}",
                           "{\"a\":\"\\x41\"}",
                           "{\"a\":\"\\u12G4\"}",
                           "{\"a\":\"\\u123\"}",
                           "{\"a\":\"\\ud800\"}",
                           "{\"a\":\"\\ud800x\"}",
                           "{\"a\":\"\\ud800\\n\"}",
                           "{\"a\":\"\\ud800\\u0041\"}",
                           "{\"a\":\"\\udc00\"}",
                           "{\"a\":\"tab\there\"}",
                           "{\"a\":[1,]}",
                           "{\"a\":[1}",
                           "{\"a\":{\"b\"}}",
                           "{\"a\":[}",
                           "{\"a\":{\"b\":1]}",
                           "[1]",
                           "1",
                           "\"a\""}) {
    EXPECT_FALSE(Members(text).has_value()) << text;
  }
}

TEST(JsonScannerTest, SaysWhatWasExpectedAndWhere) {
  JsonObjectScanner scanner(R"({"a": 1; "b": 2})");
  EXPECT_TRUE(scanner.Next());
  EXPECT_FALSE(scanner.Next());
  EXPECT_STREQ(scanner.error(), "',' or '}'");
  EXPECT_EQ(scanner.error_offset(), 7);
  EXPECT_FALSE(scanner.Next());
}

TEST(JsonScannerTest, RefusesDeepNestingInsteadOfOverflowing) {
  const auto nested = [](int depth) {
    return "{\"a\":" + std::string(depth, '[') + std::string(depth, ']') + "}";
  };
  EXPECT_TRUE(Members(nested(64)).has_value());
  EXPECT_FALSE(Members(nested(65)).has_value());
  EXPECT_FALSE(Members(nested(1'000'000)).has_value());
}

TEST(JsonScannerTest, KnowsOtherJsonFromNoJson) {
  for (const char* text : {"[1, 2]", " \"a\" ", "-3.5", "true", "null"}) {
    EXPECT_TRUE(JsonObjectScanner::IsOtherJson(text)) << text;
  }
  for (const char* text : {"{}", "", "[1", "abc", "1 2", "{\"a\":}"}) {
    EXPECT_FALSE(JsonObjectScanner::IsOtherJson(text)) << text;
  }
}

TEST(JsonScannerTest, FindsQuotesAndEscapesAtEveryOffset) {
  for (size_t before = 0; before < 30; ++before) {
    for (const char* middle : {"\\n", "\\\"", "\\u00e9", ""}) {
      const std::string text = std::string(before, 'x') + middle + std::string(before % 11, 'y');
      const std::string line = "{\"a\": \"" + text + "\", \"b\": 1}";
      const auto members = Members(line);
      ASSERT_TRUE(members.has_value()) << line;
      EXPECT_EQ(Decoded(members->at("a")), Json::parse("\"" + text + "\"").get<std::string>());
    }
  }
}

// Another parser must agree on what is an object and on all that is in it.
void ExpectSameAsReference(const std::string& text) {
  const Json reference = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto members = Members(text);
  ASSERT_EQ(members.has_value(), reference.is_object()) << text;
  ASSERT_EQ(JsonObjectScanner::IsOtherJson(text),
            !reference.is_discarded() && !reference.is_object())
      << text;
  if (!members.has_value()) return;
  ASSERT_EQ(members->size(), reference.size()) << text;
  for (const auto& [key, value] : *members) {
    const Json& expected = reference[key];
    ASSERT_EQ(expected.is_string(), value.kind == Kind::kString) << text;
    ASSERT_EQ(expected.is_number(), value.kind == Kind::kNumber) << text;
    ASSERT_EQ(expected.is_structured(), value.kind == Kind::kArray || value.kind == Kind::kObject);
    if (expected.is_string()) {
      ASSERT_EQ(Decoded(value), expected.get<std::string>()) << text;
    } else {
      ASSERT_EQ(Json::parse(value.text.begin(), value.text.end()), expected) << text;
    }
  }
}

TEST(JsonScannerTest, AgreesWithAnotherParserOnDamagedText) {
  const std::string seeds[] = {
      R"({"id": "a-1", "title": "Caf\u00e9 \ud83d\ude00 \"x\" \\ \n", "price": 12.50, "n": null})",
      R"({"a": [1, -0.5e-3, [], {}, {"b": [true, false, "\t"]}], "a": {"c": "d"}, "": 0})",
      R"([{"a": 1}, "b"])"};
  constexpr char kBytes[] = "{}[]\",:\\u0d8e19.-+nultrefas bE\t\x01";
  Random random(7);
  for (int i = 0; i < 60'000; ++i) {
    std::string text = seeds[random.Index(std::size(seeds))];
    for (size_t edits = 1 + random.Index(3); edits > 0 && !text.empty(); --edits) {
      const size_t at = random.Index(text.size());
      const char byte = kBytes[random.Index(sizeof(kBytes) - 1)];
      switch (random.Index(3)) {
        case 0:
          text[at] = byte;
          break;
        case 1:
          text.insert(at, 1, byte);
          break;
        default:
          text.erase(at, 1 + random.Index(3));
      }
    }
    ExpectSameAsReference(text);
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace pricer
