#include "trainer/labelled_versions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOkAndHolds;
using ::testing::Pair;
using testing::StatusIs;
using testing::TempDir;
using ::testing::UnorderedElementsAre;

class LabelledVersionsTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::map<int64_t, std::string>> Read(const std::string& text) {
    EXPECT_OK(WriteFile(dir_.File("labels.json"), text));
    return LabelledVersions(dir_.path());
  }

  const TempDir dir_;
};

TEST_F(LabelledVersionsTest, AreNoneWithoutTheFile) {
  EXPECT_THAT(LabelledVersions(dir_.path()), IsOkAndHolds(IsEmpty()));
}

TEST_F(LabelledVersionsTest, AreThoseOfLabelsAndHistory) {
  EXPECT_THAT(Read(R"({"format_version": "1.0", "generation": 12,
                       "labels": {"stable": 7, "canary": {"version": 8, "percent": 5},
                                  "shadow": null},
                       "history": [{"label": "stable", "from": 3, "to": 7}, {"moved": [4]}, 2]})"),
              IsOkAndHolds(UnorderedElementsAre(Pair(7, "label stable"), Pair(8, "label canary"),
                                                Pair(3, "labels.json"), Pair(4, "labels.json"),
                                                Pair(2, "labels.json"))));
}

TEST_F(LabelledVersionsTest, CountNumbersOfFieldsThatAreNotKnown) {
  EXPECT_THAT(Read(R"({"format_version": 1, "labels": {}, "pinned": {"versions": [5, 6.5, "9"]}})"),
              IsOkAndHolds(UnorderedElementsAre(Pair(5, "labels.json"))));
}

TEST_F(LabelledVersionsTest, AreNotGuessed) {
  const auto expect = [&](const std::string& text, absl::StatusCode code,
                          const std::string& field) {
    EXPECT_THAT(Read(text),
                StatusIs(code, AllOf(HasSubstr(dir_.File("labels.json")), HasSubstr(field))))
        << text;
  };
  constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
  constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;
  expect("", kDataLoss, "");
  expect("[]", kDataLoss, "object");
  expect(R"({"labels": {}})", kDataLoss, "format_version");
  for (const char* version : {"2", "\"2.0\"", "\"11\"", "true", "{}"}) {
    expect(std::string(R"({"labels": {}, "format_version": )") + version + "}", kUnimplemented,
           "format_version");
  }
  expect(R"({"format_version": "1.0"})", kDataLoss, "labels");
  expect(R"({"format_version": "1.0", "labels": [7]})", kDataLoss, "labels");
  expect(R"({"format_version": "1.0", "labels": {"stable": "7"}})", kDataLoss, "labels.stable");
  expect(R"({"format_version": "1.0", "labels": {"canary": {"percent": 5}}})", kDataLoss,
         "version");
  expect(R"({"format_version": "1.0", "labels": {}, "history": {"from": 7}})", kDataLoss,
         "history");
}

}  // namespace
}  // namespace pricer
