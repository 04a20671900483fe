#include "model/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::pricer::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using Json = nlohmann::json;

constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

Manifest Example() {
  Manifest manifest;
  manifest.base_fingerprint = std::string(64, 'a');
  manifest.base_name = "small-base";
  manifest.weights = "nf4";
  manifest.dtype = "fp32";
  manifest.prompt = {"custom", "How much, caf\u00e9?", "Price: $", 160};
  manifest.currency = "USD";
  manifest.bins = {.bins = 4, .min_price = 1.5, .max_price = 900, .sigma = 0.75};
  manifest.temperature = 1.25;
  manifest.conformal = {{"0.8", 0.125}, {"0.5", -0.03}};
  manifest.evaluation = {{"mae", 12.5}, {"rmsle", 0.4}};
  manifest.golden = {{"Kettle\n1.7 l", 30.5, 20.25, 41}, {"Lamp", 9, 8, 10}};
  manifest.golden_tolerance = 0.002;
  manifest.files = {{"adapter_config.json", std::string(64, '1')},
                    {"adapter_model.safetensors", std::string(64, '2')}};
  manifest.trainer_version = "0.1.0";
  manifest.trainer_options = {{"rank", "8"}, {"learning-rate", "0.0002"}};
  manifest.data_digest = std::string(64, 'd');
  return manifest;
}

Json ExampleJson() { return Json::parse(Example().ToJson()); }

absl::Status ErrorOf(const Json& json) {
  return Manifest::FromJson(json.dump(), "dir/pricer.json").status();
}

// Sets the value at a path like "/head/bins".
absl::Status ErrorWith(const std::string& path, const Json& value) {
  Json json = ExampleJson();
  json[Json::json_pointer(path)] = value;
  return ErrorOf(json);
}

void ExpectCorrupt(const absl::Status& status, const std::string& field,
                   const std::string& problem = "") {
  EXPECT_THAT(status,
              StatusIs(kDataLoss, AllOf(HasSubstr("dir/pricer.json"),
                                        HasSubstr("field '" + field + "'"), HasSubstr(problem))));
}

TEST(ManifestTest, WritesTheStatedForm) {
  const std::string a(64, 'a');
  const std::string expected = R"({
  "base": {
    "fingerprint": ")" + a + R"(",
    "name": "small-base"
  },
  "calibration": {
    "conformal": {
      "0.5": -0.03,
      "0.8": 0.125
    },
    "temperature": 1.25
  },
  "data_digest": ")" + std::string(64, 'd') +
                               R"(",
  "dtype": "fp32",
  "evaluation": {
    "mae": 12.5,
    "rmsle": 0.4
  },
  "files": {
    "adapter_config.json": ")" +
                               std::string(64, '1') + R"(",
    "adapter_model.safetensors": ")" +
                               std::string(64, '2') +
                               R"("
  },
  "format_version": "1.0",
  "golden": [
    {
      "high": 41.0,
      "item": "Kettle\n1.7 l",
      "low": 20.25,
      "price": 30.5
    },
    {
      "high": 10.0,
      "item": "Lamp",
      "low": 8.0,
      "price": 9.0
    }
  ],
  "golden_tolerance": 0.002,
  "head": {
    "bins": 4,
    "kind": "bins",
    "sigma": 0.75
  },
  "price_space": {
    "currency": "USD",
    "max": 900.0,
    "min": 1.5
  },
  "prompt": {
    "max_prompt_tokens": 160,
    "prefix": "Price: $",
    "preset": "custom",
    "question": "How much, )"
                               "caf\u00e9"
                               R"(?"
  },
  "trainer": {
    "options": {
      "learning-rate": "0.0002",
      "rank": "8"
    },
    "version": "0.1.0"
  },
  "weights": "nf4"
}
)";
  EXPECT_EQ(Example().ToJson(), expected);
}

TEST(ManifestTest, ReadsWhatItWrites) {
  const std::string text = Example().ToJson();
  ASSERT_OK_AND_ASSIGN(const Manifest manifest, Manifest::FromJson(text, "x"));
  EXPECT_EQ(manifest.ToJson(), text);
  EXPECT_EQ(manifest.base_fingerprint, std::string(64, 'a'));
  EXPECT_EQ(manifest.base_name, "small-base");
  EXPECT_EQ(manifest.weights, "nf4");
  EXPECT_EQ(manifest.dtype, "fp32");
  EXPECT_EQ(manifest.prompt.question, "How much, caf\u00e9?");
  EXPECT_EQ(manifest.prompt.max_prompt_tokens, 160);
  EXPECT_EQ(manifest.bins.bins, 4);
  EXPECT_EQ(manifest.bins.min_price, 1.5);
  EXPECT_EQ(manifest.bins.max_price, 900);
  EXPECT_EQ(manifest.temperature, 1.25);
  EXPECT_THAT(manifest.conformal, ElementsAre(Pair("0.5", -0.03), Pair("0.8", 0.125)));
  ASSERT_EQ(manifest.golden.size(), 2u);
  EXPECT_EQ(manifest.golden[0].item, "Kettle\n1.7 l");
  EXPECT_EQ(manifest.golden[0].low, 20.25);
  EXPECT_EQ(manifest.golden_tolerance, 0.002);
  EXPECT_EQ(manifest.files.size(), 2u);
  EXPECT_EQ(manifest.trainer_options.at("rank"), "8");
  EXPECT_EQ(manifest.data_digest, std::string(64, 'd'));
}

TEST(ManifestTest, ReadsPricesBackToTheLastBit) {
  Manifest manifest = Example();
  manifest.golden[0].price = 0.1 + 0.2;
  manifest.bins.min_price = std::nextafter(1.0, 2.0);
  ASSERT_OK_AND_ASSIGN(const Manifest again, Manifest::FromJson(manifest.ToJson(), "x"));
  EXPECT_EQ(again.golden[0].price, 0.1 + 0.2);
  EXPECT_EQ(again.bins.min_price, manifest.bins.min_price);
}

TEST(ManifestTest, LeavesOutMeasuresThatCouldNotBeTaken) {
  Manifest manifest = Example();
  manifest.evaluation["coverage"] = std::nan("");
  ASSERT_OK_AND_ASSIGN(const Manifest again, Manifest::FromJson(manifest.ToJson(), "x"));
  EXPECT_EQ(again.evaluation.count("coverage"), 0u);
}

TEST(ManifestTest, AcceptsLaterMinorVersionsWithMoreFields) {
  Json json = ExampleJson();
  json["format_version"] = "1.7";
  json["something_new"] = {1, 2, 3};
  EXPECT_OK(ErrorOf(json));
}

TEST(ManifestTest, RefusesAnotherMajorVersionByName) {
  for (const char* version : {"2.0", "0.9", "10.0", "", "x"}) {
    EXPECT_THAT(
        ErrorWith("/format_version", version),
        StatusIs(kUnimplemented, AllOf(HasSubstr("dir/pricer.json"), HasSubstr("format_version"),
                                       HasSubstr(std::string("'") + version + "'"))));
  }
}

TEST(ManifestTest, RefusesAnotherHeadByName) {
  EXPECT_THAT(ErrorWith("/head/kind", "regression"),
              StatusIs(kUnimplemented, AllOf(HasSubstr("head.kind"), HasSubstr("'regression'"),
                                             HasSubstr("expected bins or token"))));
}

TEST(ManifestTest, ATokenHeadHasNoBinsAndAFixedRange) {
  Manifest manifest = Example();
  manifest.head = HeadKind::kToken;
  const Json json = Json::parse(manifest.ToJson());
  EXPECT_EQ(json.at("head"), Json({{"kind", "token"}}));
  EXPECT_EQ(json.at("price_space"), Json({{"currency", "USD"}, {"min", 0.5}, {"max", 999}}));
  ASSERT_OK_AND_ASSIGN(const Manifest read, Manifest::FromJson(manifest.ToJson(), "source"));
  EXPECT_EQ(read.head, HeadKind::kToken);
  EXPECT_EQ(read.ToJson(), manifest.ToJson());
}

TEST(ManifestTest, ItsHeadSaysWhatScoresMean) {
  Manifest manifest = Example();
  const std::vector<float> logits = {0, 1, 0, 0};
  ASSERT_OK_AND_ASSIGN(const PriceDistribution bins, manifest.Distribution(logits));
  EXPECT_EQ(bins.bin_count(), 4);
  EXPECT_NEAR(bins.probabilities()[1] / bins.probabilities()[0], std::exp(1 / 1.25), 1e-6);
  manifest.head = HeadKind::kToken;
  std::vector<float> masses(1000);
  masses[149] = 0.75;
  masses[20] = 0.25;
  ASSERT_OK_AND_ASSIGN(const PriceDistribution whole, manifest.Distribution(masses));
  EXPECT_EQ(whole.Quantile(0.5), 149);
  EXPECT_THAT(manifest.Distribution(logits),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("expected 1000")));
  masses[20] = NAN;
  EXPECT_THAT(manifest.Distribution(masses),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("sum nan")));
  EXPECT_THAT(manifest.Distribution(std::vector<float>(1000)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("sum 0")));
}

TEST(ManifestTest, NamesAnyMissingField) {
  for (const char* path : {"/base",
                           "/base/fingerprint",
                           "/base/name",
                           "/weights",
                           "/prompt",
                           "/prompt/preset",
                           "/prompt/question",
                           "/prompt/prefix",
                           "/prompt/max_prompt_tokens",
                           "/price_space",
                           "/price_space/currency",
                           "/price_space/min",
                           "/price_space/max",
                           "/head",
                           "/head/kind",
                           "/head/bins",
                           "/head/sigma",
                           "/calibration",
                           "/calibration/temperature",
                           "/calibration/conformal",
                           "/evaluation",
                           "/golden",
                           "/golden/1/item",
                           "/golden/1/price",
                           "/golden/0/low",
                           "/golden/0/high",
                           "/golden_tolerance",
                           "/files",
                           "/trainer",
                           "/trainer/version",
                           "/trainer/options",
                           "/data_digest",
                           "/format_version"}) {
    Json json = ExampleJson();
    const Json::json_pointer pointer(path);
    json[pointer.parent_pointer()].erase(pointer.back());
    const absl::Status status = ErrorOf(json);
    EXPECT_THAT(status,
                StatusIs(kDataLoss, AllOf(HasSubstr("dir/pricer.json"), HasSubstr(pointer.back()))))
        << path;
  }
}

TEST(ManifestTest, TheDtypeMayBeUnknown) {
  Json json = ExampleJson();
  json.erase("dtype");
  ASSERT_OK_AND_ASSIGN(const Manifest manifest, Manifest::FromJson(json.dump(), "x"));
  EXPECT_EQ(manifest.dtype, "");
  EXPECT_EQ(Json::parse(manifest.ToJson()), json);
}

TEST(ManifestTest, FindsTheConformalOffsetOfACoverageByItsValue) {
  Manifest manifest;
  manifest.conformal = {{"0.50", -0.25}, {"0.8", 0.5}};
  EXPECT_EQ(manifest.ConformalOffset(0.5), -0.25);
  EXPECT_EQ(manifest.ConformalOffset(0.8), 0.5);
  EXPECT_EQ(manifest.ConformalOffset(0.9), 0);
}

TEST(ManifestTest, NamesAWrongField) {
  ExpectCorrupt(ErrorWith("/base/fingerprint", "abc"), "base.fingerprint", "SHA-256");
  ExpectCorrupt(ErrorWith("/weights", "int8"), "weights",
                "expected one of nf4, bf16, fp32, got 'int8'");
  ExpectCorrupt(ErrorWith("/dtype", "fp16"), "dtype");
  ExpectCorrupt(ErrorWith("/prompt/preset", "other"), "prompt.preset");
  ExpectCorrupt(ErrorWith("/prompt/max_prompt_tokens", 0), "prompt");
  ExpectCorrupt(ErrorWith("/prompt/prefix", ""), "prompt");
  ExpectCorrupt(ErrorWith("/price_space/currency", "dollars"), "price_space.currency");
  ExpectCorrupt(ErrorWith("/price_space/min", 0), "price_space.min", "above 0");
  ExpectCorrupt(ErrorWith("/price_space/max", 1.0), "price_space");
  ExpectCorrupt(ErrorWith("/price_space/max", "x"), "price_space.max", "finite number");
  ExpectCorrupt(ErrorWith("/head/bins", 1), "head.bins");
  ExpectCorrupt(ErrorWith("/head/bins", int64_t{1} << 40), "head.bins");
  ExpectCorrupt(ErrorWith("/head/sigma", -1), "head.sigma");
  ExpectCorrupt(ErrorWith("/calibration/temperature", 0), "calibration.temperature");
  ExpectCorrupt(ErrorWith("/calibration/conformal", {{"0.8", "x"}}), "calibration.conformal");
  ExpectCorrupt(ErrorWith("/evaluation", {{"mae", nullptr}}), "evaluation");
  ExpectCorrupt(ErrorWith("/golden", 3), "golden", "expected a list");
  ExpectCorrupt(ErrorWith("/golden/1", 3), "golden[1]", "expected a JSON object");
  ExpectCorrupt(ErrorWith("/golden/1/price", -4), "golden[1].price", "above 0");
  ExpectCorrupt(ErrorWith("/golden/0/item", 4), "golden[0].item", "a string");
  ExpectCorrupt(ErrorWith("/golden_tolerance", 0), "golden_tolerance");
  ExpectCorrupt(ErrorWith("/files", {{"../../etc/passwd", std::string(64, '1')}}), "files",
                "plain file names");
  ExpectCorrupt(ErrorWith("/files", {{"x", "1234"}}), "files.x", "SHA-256");
  ExpectCorrupt(ErrorWith("/trainer/options", {{"rank", 8}}), "trainer.options");
}

TEST(ManifestTest, RefusesGoldenItemsWhoseIntervalIsReversed) {
  ExpectCorrupt(ErrorWith("/golden/1/low", 11), "golden[1].low", "at most high");
}

TEST(ManifestTest, RefusesWhatIsNotAnObject) {
  EXPECT_THAT(Manifest::FromJson("", "dir/pricer.json"),
              StatusIs(kDataLoss, HasSubstr("dir/pricer.json")));
  EXPECT_THAT(Manifest::FromJson("[]", "dir/pricer.json"),
              StatusIs(kDataLoss, HasSubstr("object")));
  EXPECT_THAT(Manifest::FromJson(R"({"a": 1, "a": 2})", "f"),
              StatusIs(kDataLoss, HasSubstr("twice")));
}

}  // namespace
}  // namespace pricer
