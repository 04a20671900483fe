#include "model/json_fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::pricer::testing::StatusIs;
using ::pricer::testing::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::json;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kDataLoss = absl::StatusCode::kDataLoss;

std::string Nested(int levels) { return std::string(levels, '[') + std::string(levels, ']'); }

TEST(ParseJsonTest, ReadsADocument) {
  ASSERT_OK_AND_ASSIGN(const Json json, ParseJson(R"({"a": [1, 2.5, "x", null, true]})", "f"));
  EXPECT_EQ(json["a"][1], 2.5);
}

TEST(ParseJsonTest, RefusesAKeyThatComesTwice) {
  EXPECT_THAT(ParseJson(R"({"a": {"b": 1, "c": 2, "b": 3}})", "file.json"),
              StatusIs(kInvalid, AllOf(HasSubstr("file.json"), HasSubstr("'b' comes twice"))));
}

TEST(ParseJsonTest, AllowsTheSameKeyInDifferentObjects) {
  EXPECT_OK(ParseJson(R"({"a": {"a": 1}, "b": {"a": [{"a": 1}, {"a": 2}]}})", "f"));
}

TEST(ParseJsonTest, RefusesWhatIsNestedTooDeep) {
  EXPECT_OK(ParseJson(Nested(64), "f"));
  EXPECT_THAT(ParseJson(Nested(65), "f"), StatusIs(kInvalid, HasSubstr("64 levels")));
  EXPECT_THAT(ParseJson(Nested(1'000'000), "f"), StatusIs(kInvalid, HasSubstr("64 levels")));
}

TEST(ParseJsonTest, NamesThePlaceOfASyntaxError) {
  for (const char* text :
       {"", "{", "{\"a\":}", "[1,]", "{} x", "nan", "1e999", "\"\\ud800\"", "\"\xff\""}) {
    EXPECT_THAT(
        ParseJson(text, "file.json", kDataLoss),
        StatusIs(kDataLoss, AllOf(HasSubstr("file.json: not valid JSON"), HasSubstr("byte"))))
        << text;
  }
}

TEST(ParseJsonTest, RefusesMoreThanTheLimit) {
  EXPECT_THAT(ParseJson(std::string(kMaxJsonBytes + 1, ' '), "f"),
              StatusIs(kInvalid, HasSubstr("at most 16777216 bytes")));
}

TEST(ReadJsonFileTest, SaysWhatIsWrongWithTheFile) {
  const TempDir dir;
  EXPECT_THAT(ReadJsonFile(dir.File("none")),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
  EXPECT_THAT(ReadJsonFile(dir.path()), StatusIs(kInvalid, HasSubstr("regular file")));
  ASSERT_OK(WriteFile(dir.File("big"), ""));
  std::filesystem::resize_file(dir.File("big"), kMaxJsonBytes + 1);
  EXPECT_THAT(ReadJsonFile(dir.File("big")), StatusIs(kInvalid, HasSubstr("at most")));
  ASSERT_OK(WriteFile(dir.File("good"), "[7]"));
  ASSERT_OK_AND_ASSIGN(const Json json, ReadJsonFile(dir.File("good")));
  EXPECT_EQ(json, Json::array({7}));
}

TEST(QuotedTest, EscapesAndShortensForeignText) {
  EXPECT_EQ(Quoted("caf\u00e9"), "'caf\u00e9'");
  EXPECT_EQ(Quoted("a\nb\x01"), "'a\\nb\\x01'");
  EXPECT_EQ(Quoted("\xff"), "'\\xff'");
  EXPECT_EQ(Quoted(std::string(500, 'x')), absl::StrCat("'", std::string(120, 'x'), "...'"));
}

TEST(FileNameTest, IsPlainWithoutADirectory) {
  EXPECT_TRUE(IsPlainFileName("model-00001-of-00002.safetensors"));
  for (const char* name : {"", ".", "..", "a/b", "/etc/passwd", "../x"}) {
    EXPECT_FALSE(IsPlainFileName(name)) << name;
  }
  EXPECT_FALSE(IsPlainFileName(std::string("a\0b", 3)));
}

TEST(Sha256HexTest, IsSixtyFourLowerCaseDigits) {
  EXPECT_TRUE(IsSha256Hex(std::string(32, 'a') + std::string(32, '9')));
  EXPECT_FALSE(IsSha256Hex(std::string(63, 'a')));
  EXPECT_FALSE(IsSha256Hex(std::string(64, 'A')));
  EXPECT_FALSE(IsSha256Hex(std::string(64, 'g')));
}

class JsonFieldsTest : public ::testing::Test {
 protected:
  JsonFields Fields(const char* text) {
    json_ = Json::parse(text);
    return *JsonFields::Create(json_, "config.json", "", kDataLoss);
  }

  Json json_;
};

TEST_F(JsonFieldsTest, ReadsEveryType) {
  const JsonFields fields = Fields(
      R"({"b": true, "i": -3, "d": 2, "s": "x", "li": [1, 2], "ls": ["a"], "mi": {"k": 1},
          "md": {"k": 0.5}, "ms": {"k": "v"}})");
  bool b = false;
  int64_t i = 0;
  double d = 0;
  std::string s;
  std::vector<int64_t> li;
  std::vector<std::string> ls;
  std::map<std::string, int64_t> mi;
  std::map<std::string, double> md;
  std::map<std::string, std::string> ms;
  ASSERT_OK(fields.Require("b", &b));
  ASSERT_OK(fields.Require("i", &i));
  ASSERT_OK(fields.Require("d", &d));
  ASSERT_OK(fields.Require("s", &s));
  ASSERT_OK(fields.Require("li", &li));
  ASSERT_OK(fields.Require("ls", &ls));
  ASSERT_OK(fields.Require("mi", &mi));
  ASSERT_OK(fields.Require("md", &md));
  ASSERT_OK(fields.Require("ms", &ms));
  EXPECT_TRUE(b);
  EXPECT_EQ(i, -3);
  EXPECT_EQ(d, 2.0);
  EXPECT_EQ(s, "x");
  EXPECT_THAT(li, ElementsAre(1, 2));
  EXPECT_THAT(ls, ElementsAre("a"));
  EXPECT_EQ(mi["k"], 1);
  EXPECT_EQ(md["k"], 0.5);
  EXPECT_EQ(ms["k"], "v");
}

TEST_F(JsonFieldsTest, LeavesTheDefaultWhereAFieldIsAbsentOrNull) {
  const JsonFields fields = Fields(R"({"n": null})");
  int64_t value = 42;
  EXPECT_OK(fields.Get("n", &value));
  EXPECT_OK(fields.Get("absent", &value));
  EXPECT_EQ(value, 42);
  EXPECT_FALSE(fields.Has("n"));
  EXPECT_THAT(fields.Require("n", &value), StatusIs(kDataLoss, HasSubstr("field 'n'")));
  EXPECT_THAT(fields.Require("absent", &value), StatusIs(kDataLoss, HasSubstr("got none")));
}

TEST_F(JsonFieldsTest, NamesFieldExpectationAndValueWhereTheTypeIsWrong) {
  const JsonFields fields = Fields(
      R"({"i": 1.5, "big": 18446744073709551615, "b": 1, "s": ["x"], "l": [1, "x"], "m": {"k": []}})");
  int64_t i = 7;
  bool b = false;
  std::string s;
  std::vector<int64_t> l;
  std::map<std::string, double> m;
  EXPECT_THAT(fields.Get("i", &i),
              StatusIs(kDataLoss, "config.json: field 'i': expected an integer, got 1.5"));
  EXPECT_THAT(fields.Get("big", &i), StatusIs(kDataLoss, HasSubstr("an integer, got 184467")));
  EXPECT_THAT(fields.Get("b", &b), StatusIs(kDataLoss, HasSubstr("true or false, got 1")));
  EXPECT_THAT(fields.Get("s", &s), StatusIs(kDataLoss, HasSubstr("a string, got [\"x\"]")));
  EXPECT_THAT(fields.Get("l", &l), StatusIs(kDataLoss, HasSubstr("a list of integers")));
  EXPECT_THAT(fields.Get("m", &m), StatusIs(kDataLoss, HasSubstr("an object of finite numbers")));
  EXPECT_EQ(i, 7);
  EXPECT_THAT(l, IsEmpty());
}

TEST_F(JsonFieldsTest, NamesNestedFieldsInFull) {
  const JsonFields fields = Fields(R"({"outer": {"inner": {"x": "text"}}, "flat": 3})");
  ASSERT_OK_AND_ASSIGN(const JsonFields outer, fields.Object("outer"));
  ASSERT_OK_AND_ASSIGN(const JsonFields inner, outer.Object("inner"));
  int64_t x = 0;
  EXPECT_THAT(inner.Get("x", &x), StatusIs(kDataLoss, HasSubstr("field 'outer.inner.x'")));
  EXPECT_THAT(fields.Object("flat"), StatusIs(kDataLoss, HasSubstr("expected an object, got 3")));
  EXPECT_THAT(fields.Object("none"), StatusIs(kDataLoss, HasSubstr("field 'none'")));
}

TEST_F(JsonFieldsTest, RefusesAnythingButAnObject) {
  EXPECT_THAT(JsonFields::Create(Json::array(), "f", "", kDataLoss),
              StatusIs(kDataLoss, "f: expected a JSON object, got []"));
  EXPECT_THAT(JsonFields::Create(Json(1), "f", "golden[2].", kDataLoss),
              StatusIs(kDataLoss, HasSubstr("golden[2]")));
}

}  // namespace
}  // namespace pricer
