#include "model/safetensors_header.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::pricer::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

void ExpectRefused(const std::string& json, const std::string& problem) {
  EXPECT_THAT(ParseSafetensorsHeader(json, "f.safetensors"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("f.safetensors: " + problem)))
      << json.substr(0, 200);
}

std::string WithTensor(const std::string& fields) { return "{\"t\":{" + fields + "}}"; }

TEST(SafetensorsHeaderTest, ReadsFieldsInAnyOrder) {
  ASSERT_OK_AND_ASSIGN(const SafetensorsHeader header,
                       ParseSafetensorsHeader(
                           R"({"t": {"data_offsets": [4, 12], "shape": [2, 1], "dtype": "F32"},
                               "__metadata__": {"a": "", "b": "x"}, "u": {"dtype": "I8", "shape": [],
                               "data_offsets": [0, 1]}})",
                           "f"));
  ASSERT_EQ(header.entries.size(), 2u);
  EXPECT_EQ(header.entries[0].name, "t");
  EXPECT_EQ(header.entries[0].dtype, Dtype::kF32);
  EXPECT_THAT(header.entries[0].shape, ElementsAre(2, 1));
  EXPECT_EQ(header.entries[0].begin, 4);
  EXPECT_EQ(header.entries[0].end, 12);
  EXPECT_THAT(header.entries[1].shape, ElementsAre());
  EXPECT_THAT(header.metadata, ElementsAre(Pair("a", ""), Pair("b", "x")));
}

TEST(SafetensorsHeaderTest, RefusesWhatIsNotJson) {
  for (const char* json : {"", "{", "{\"t\"}", "{} {}", "{\"\xff\":1}", "{,}"}) {
    ExpectRefused(json, "header is not valid JSON at byte");
  }
}

TEST(SafetensorsHeaderTest, RefusesOtherKindsOfValues) {
  ExpectRefused("[]", "header is not an object but a list");
  ExpectRefused("3", "header is not an object but the number 3");
  ExpectRefused("null", "header is not an object but null");
  ExpectRefused(R"({"t": 3})", "tensor 't': expected an object, got the number 3");
  ExpectRefused(R"({"t": "x"})", "tensor 't': expected an object, got the string 'x'");
  ExpectRefused(R"({"t": []})", "tensor 't': expected an object, got a list");
  ExpectRefused(R"({"t": true})", "tensor 't': expected an object, got true or false");
}

TEST(SafetensorsHeaderTest, RefusesFieldsOfTheWrongType) {
  ExpectRefused(WithTensor(R"("dtype": 3)"), "tensor 't': field 'dtype': unexpected the number 3");
  ExpectRefused(WithTensor(R"("dtype": ["F32"])"), "tensor 't': field 'dtype': unexpected a list");
  ExpectRefused(WithTensor(R"("shape": "2")"),
                "tensor 't': field 'shape': unexpected the string '2'");
  ExpectRefused(WithTensor(R"("shape": 2)"), "tensor 't': field 'shape': unexpected the number 2");
  ExpectRefused(WithTensor(R"("shape": [2.0])"),
                "tensor 't': field 'shape': unexpected the number '2.0'");
  ExpectRefused(WithTensor(R"("shape": [-2])"),
                "tensor 't': field 'shape': unexpected the negative number -2");
  ExpectRefused(WithTensor(R"("shape": [null])"), "tensor 't': field 'shape': unexpected null");
  ExpectRefused(WithTensor(R"("shape": [[2]])"), "tensor 't': field 'shape': unexpected a list");
  ExpectRefused(WithTensor(R"("shape": [{}])"), "tensor 't': field 'shape': unexpected an object");
  ExpectRefused(WithTensor(R"("shape": ["2"])"),
                "tensor 't': field 'shape': unexpected the string");
  ExpectRefused(WithTensor(R"("shape": {})"), "tensor 't': field 'shape': unexpected an object");
}

TEST(SafetensorsHeaderTest, RefusesOffsetsThatAreNotTwo) {
  ExpectRefused(WithTensor(R"("data_offsets": [])"), "tensor 't': expected 2 data_offsets, got 0");
  ExpectRefused(WithTensor(R"("data_offsets": [1])"), "tensor 't': expected 2 data_offsets, got 1");
  ExpectRefused(WithTensor(R"("data_offsets": [1,2,3])"),
                "tensor 't': expected 2 data_offsets, got 3");
  ExpectRefused(WithTensor(R"("data_offsets": [-1,2])"),
                "tensor 't': field 'data_offsets': unexpected");
}

TEST(SafetensorsHeaderTest, RefusesMissingUnknownAndDoubledFields) {
  ExpectRefused(WithTensor(R"("shape": [], "data_offsets": [0, 4])"),
                "tensor 't': no field 'dtype'");
  ExpectRefused(WithTensor(R"("dtype": "F32", "data_offsets": [0, 4])"),
                "tensor 't': no field 'shape'");
  ExpectRefused(WithTensor(R"("dtype": "F32", "shape": [])"),
                "tensor 't': no field 'data_offsets'");
  ExpectRefused(WithTensor(R"("color": "red")"), "tensor 't': unknown field 'color'");
  ExpectRefused(WithTensor(R"("dtype": "F32", "dtype": "F32")"),
                "tensor 't': field 'dtype' comes twice");
}

TEST(SafetensorsHeaderTest, RefusesMetadataThatIsNotStrings) {
  ExpectRefused(R"({"__metadata__": {"k": 1}})",
                "__metadata__: field 'k': unexpected the number 1");
  ExpectRefused(R"({"__metadata__": {"k": []}})", "__metadata__: field 'k': unexpected a list");
  ExpectRefused(R"({"__metadata__": {"k": {}}})", "__metadata__: field 'k': unexpected an object");
  ExpectRefused(R"({"__metadata__": {"k": "1", "k": "2"}})", "__metadata__: field 'k' comes twice");
  ExpectRefused(R"({"__metadata__": {}, "__metadata__": {}})", "__metadata__: comes twice");
  ExpectRefused(R"({"__metadata__": "x"})", "__metadata__: expected an object, got the string 'x'");
}

TEST(SafetensorsHeaderTest, StaysSmallOnHostileInput) {
  ExpectRefused(std::string(1'000'000, '['), "header is not an object but a list");
  ExpectRefused("{\"t\":" + std::string(1'000'000, '{'), "header is not valid JSON");
  std::string ones = "1";
  for (int i = 0; i < 100'000; ++i) ones += ",1";
  ExpectRefused(WithTensor("\"shape\":[" + ones + "]"),
                "tensor 't': 'shape' has more than 64 numbers");
}

TEST(SafetensorsHeaderTest, KeepsForeignNamesReadableInMessages) {
  ExpectRefused("{\"a\\u0000\\nb\": 3}", "tensor 'a\\x00\\nb': expected an object");
  const std::string name(1000, 'n');
  EXPECT_THAT(ParseSafetensorsHeader("{\"" + name + "\": 3}", "f"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("nnn...'")));
}

}  // namespace
}  // namespace pricer
