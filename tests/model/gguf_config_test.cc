#include "model/gguf_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_gguf.h"

namespace pricer {
namespace {

using ::pricer::testing::StatusIs;
using ::pricer::testing::TinyGguf;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kNotFound = absl::StatusCode::kNotFound;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

class GgufConfigTest : public ::testing::Test {
 protected:
  absl::StatusOr<ModelConfig> Read(const TinyGguf& gguf) {
    RETURN_IF_ERROR(WriteFile(path_, gguf.Build()));
    ASSIGN_OR_RETURN(file_, GgufFile::Open(path_));
    RETURN_IF_ERROR(CheckGgufIsLlama(*file_));
    return ReadGgufConfig(*file_, tokenizer_);
  }
  void ExpectError(const TinyGguf& gguf, absl::StatusCode code, const std::string& words) {
    EXPECT_THAT(Read(gguf), StatusIs(code, AllOf(HasSubstr(path_), HasSubstr(words))));
  }
  template <typename Change>
  void ExpectErrorAfter(Change change, absl::StatusCode code, const std::string& words) {
    TinyGguf gguf;
    change(gguf);
    ExpectError(gguf, code, words);
  }

  testing::TempDir directory_;
  const std::string path_ = directory_.File("model.gguf");
  GgufTokenizer tokenizer_{"", "", TinyGguf::kVocabulary, 257, 258, 258};
  std::unique_ptr<GgufFile> file_;
};

TEST_F(GgufConfigTest, ReadsTheArchitecture) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Read(TinyGguf()));
  EXPECT_EQ(config.vocabulary_size, 260);
  EXPECT_EQ(config.hidden_size, 12);
  EXPECT_EQ(config.layer_count, 2);
  EXPECT_EQ(config.head_count, 2);
  EXPECT_EQ(config.kv_head_count, 1);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_EQ(config.ffn_size, 20);
  EXPECT_EQ(config.context_tokens, 131072);
  EXPECT_EQ(config.rope.kind, RopeKind::kDefault);
  EXPECT_EQ(config.rope.theta, 500000.0);
  EXPECT_TRUE(config.tied_embeddings);
  EXPECT_FALSE(config.attention_bias);
  EXPECT_EQ(config.bos_token_id, 257);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(258));
  EXPECT_EQ(config.pad_token_id, 258);
}

TEST_F(GgufConfigTest, RealsAreTheDecimalsThatTheirAuthorsWrote) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Read(TinyGguf()));
  EXPECT_EQ(config.rms_norm_epsilon, 1e-5);
  TinyGguf gguf;
  gguf.values["llama.rope.freq_base"] = {12, testing::Raw<double>(10000.1)};
  ASSERT_OK_AND_ASSIGN(const ModelConfig wide, Read(gguf));
  EXPECT_EQ(wide.rope.theta, 10000.1);
}

TEST_F(GgufConfigTest, MissingKeysHaveLlamaCppsDefaults) {
  TinyGguf gguf;
  for (const char* key : {"llama.rope.freq_base", "llama.attention.key_length",
                          "llama.attention.value_length", "llama.rope.dimension_count"}) {
    gguf.values.erase(key);
  }
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Read(gguf));
  EXPECT_EQ(config.rope.theta, 10000.0);
  EXPECT_EQ(config.head_dim, 6);
  gguf.values.erase("llama.attention.head_count_kv");
  ASSERT_OK_AND_ASSIGN(const ModelConfig full, Read(gguf));
  EXPECT_EQ(full.kv_head_count, 2);
}

TEST_F(GgufConfigTest, KeysThatHaveNoDefaultAreNamedWhereTheyAreMissing) {
  for (const char* key : {"general.architecture", "llama.block_count", "llama.context_length",
                          "llama.embedding_length", "llama.feed_forward_length",
                          "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon"}) {
    ExpectErrorAfter([&](TinyGguf& gguf) { gguf.values.erase(key); }, kNotFound, key);
    ExpectErrorAfter([&](TinyGguf& gguf) { gguf.Bool(key, true); }, kInvalid, key);
  }
}

TEST_F(GgufConfigTest, RefusesWhatIsNoLlamaByName) {
  ExpectErrorAfter([](TinyGguf& gguf) { gguf.String("general.architecture", "gemma3"); },
                   kUnimplemented, "architecture 'gemma3'");
  ExpectErrorAfter([](TinyGguf& gguf) { gguf.String("general.type", "adapter"); }, kUnimplemented,
                   "'adapter'");
  ExpectErrorAfter([](TinyGguf& gguf) { gguf.Integer("llama.expert_count", 8); }, kUnimplemented,
                   "8 experts");
  ExpectErrorAfter([](TinyGguf& gguf) { gguf.Integer("split.count", 3); }, kUnimplemented,
                   "3 files");
  ExpectErrorAfter([](TinyGguf& gguf) { gguf.Integer("llama.rope.dimension_count", 4); },
                   kUnimplemented, "llama.rope.dimension_count");
  ExpectErrorAfter([](TinyGguf& gguf) { gguf.Integer("llama.attention.value_length", 4); },
                   kUnimplemented, "llama.attention.value_length");
}

TEST_F(GgufConfigTest, RefusesSizesThatCannotBe) {
  ExpectErrorAfter([](TinyGguf& gguf) { gguf.Integer("llama.attention.head_count", 0); }, kDataLoss,
                   "llama.attention.head_count");
  ExpectErrorAfter([](TinyGguf& gguf) { gguf.Integer("llama.attention.head_count_kv", 3); },
                   kDataLoss, "");
  ExpectErrorAfter([](TinyGguf& gguf) { gguf.Integer("llama.block_count", 0); }, kDataLoss, "");
  ExpectErrorAfter([](TinyGguf& gguf) { gguf.Integer("llama.vocab_size", 300); }, kDataLoss,
                   "a row for each of 300 tokens, got 260");
  ExpectErrorAfter([](TinyGguf& gguf) { gguf.tensors.erase("token_embd.weight"); }, kDataLoss,
                   "token_embd.weight");
  tokenizer_.token_count = 261;
  ExpectError(TinyGguf(), kDataLoss, "a row for each of 261 tokens, got 260");
}

// Factors as llama.cpp's converter computes them from the published configuration.
std::vector<float> Llama3Factors(double theta, double factor, double low, double high,
                                 double original) {
  std::vector<float> factors;
  for (int i = 0; i < TinyGguf::kHeadDim / 2; ++i) {
    const double frequency = 1.0 / std::pow(theta, 2.0 * i / TinyGguf::kHeadDim);
    const double wavelength = 2 * M_PI / frequency;
    const double smooth = (original / wavelength - low) / (high - low);
    const double middle = 1 / ((1 - smooth) / factor + smooth);
    factors.push_back(static_cast<float>(wavelength < original / high  ? 1
                                         : wavelength > original / low ? factor
                                                                       : middle));
  }
  return factors;
}

TinyGguf WithFactors(float theta, const std::vector<float>& factors) {
  TinyGguf gguf;
  gguf.Real("llama.rope.freq_base", theta);
  gguf.tensors["rope_freqs.weight"] = {{static_cast<int64_t>(factors.size())}, factors};
  return gguf;
}

TEST_F(GgufConfigTest, RecoversLlama3ScalingFromItsFactors) {
  struct Case {
    double theta, factor;
    int64_t original;
  };
  // Among the four wavelengths are short, middle and long ones.
  for (const Case& c : {Case{500000, 8, 8192}, Case{10000, 32, 1024}, Case{500000, 32, 8192}}) {
    const auto factors = Llama3Factors(c.theta, c.factor, 1, 4, static_cast<double>(c.original));
    ASSERT_OK_AND_ASSIGN(const ModelConfig config,
                         Read(WithFactors(static_cast<float>(c.theta), factors)));
    EXPECT_EQ(config.rope.kind, RopeKind::kLlama3);
    EXPECT_EQ(config.rope.factor, c.factor);
    EXPECT_EQ(config.rope.low_frequency_factor, 1);
    EXPECT_EQ(config.rope.high_frequency_factor, 4);
    const RopeConfig& rope = config.rope;
    EXPECT_EQ(Llama3Factors(rope.theta, rope.factor, 1, 4,
                            static_cast<double>(rope.original_context_tokens)),
              factors);
  }
  const auto factors = Llama3Factors(10000, 8, 1, 4, 1024);
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Read(WithFactors(10000, factors)));
  EXPECT_EQ(config.rope.original_context_tokens, 1024);
}

TEST_F(GgufConfigTest, RecoversAnyLlama3Scaling) {
  const auto expect_recovered = [&](double factor, double low, double high, double original) {
    SCOPED_TRACE(absl::StrCat(factor, " ", low, " ", high, " ", original));
    const auto factors = Llama3Factors(10000, factor, low, high, original);
    TinyGguf gguf = WithFactors(10000, factors);
    gguf.Integer("llama.context_length", 256);
    ASSERT_OK_AND_ASSIGN(const ModelConfig config, Read(gguf));
    if (factors == std::vector<float>{1, 1, 1, 1}) return;
    ASSERT_EQ(config.rope.kind, RopeKind::kLlama3);
    const RopeConfig& rope = config.rope;
    const auto recovered =
        Llama3Factors(10000, rope.factor, rope.low_frequency_factor, rope.high_frequency_factor,
                      static_cast<double>(rope.original_context_tokens));
    for (size_t i = 0; i < factors.size(); ++i) EXPECT_NEAR(recovered[i] / factors[i], 1, 1e-5);
  };
  expect_recovered(8, 1, 2, 64);
  expect_recovered(8, 1, 4, 100);
  expect_recovered(8, 1, 4, 16384);
  for (const double factor : {1.5, 8.0, 32.0}) {
    for (const double low : {0.3, 1.0, 7.0}) {
      for (const double ratio : {1.01, 2.0, 4.0, 1000.0}) {
        for (double original = 5; original < 1e6; original *= 3) {
          expect_recovered(factor, low, low * ratio, original);
        }
      }
    }
  }
}

TEST_F(GgufConfigTest, TheScalingIsRecoveredInRoundNumbersWhereTheFactorsTell) {
  struct Case {
    double theta, high;
    int64_t original;
  };
  // Two factors between 1 and 8, then one.
  for (const Case& c : {Case{10, 3, 33}, Case{10000, 2, 64}, Case{10000, 4, 100}}) {
    const auto factors = Llama3Factors(c.theta, 8, 1, c.high, static_cast<double>(c.original));
    ASSERT_OK_AND_ASSIGN(const ModelConfig config,
                         Read(WithFactors(static_cast<float>(c.theta), factors)));
    EXPECT_EQ(config.rope.low_frequency_factor, 1);
    EXPECT_EQ(config.rope.high_frequency_factor, c.high);
    EXPECT_EQ(config.rope.original_context_tokens, c.original);
  }
}

TEST_F(GgufConfigTest, FactorsOfOneAreNoScaling) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Read(WithFactors(10000, {1, 1, 1, 1})));
  EXPECT_EQ(config.rope.kind, RopeKind::kDefault);
}

TEST_F(GgufConfigTest, RefusesOtherRopeScaling) {
  ExpectError(WithFactors(10000, {1, 2, 3, 4}), kUnimplemented, "rope_freqs.weight");
  ExpectError(WithFactors(10000, {8, 4, 2, 1}), kUnimplemented, "rope_freqs.weight");
  ExpectError(WithFactors(10000, {NAN, NAN, NAN, NAN}), kUnimplemented, "rope_freqs.weight");
  ExpectError(WithFactors(10000, {1, 1, NAN, 8}), kUnimplemented, "rope_freqs.weight");
  ExpectError(WithFactors(10000, {1, 8}), kDataLoss, "'rope_freqs.weight': expected 4 values");
  ExpectErrorAfter([](TinyGguf& gguf) { gguf.String("llama.rope.scaling.type", "yarn"); },
                   kUnimplemented, "'yarn'");
  ExpectErrorAfter(
      [](TinyGguf& gguf) {
        gguf.String("llama.rope.scaling.type", "linear");
        gguf.Real("llama.rope.scaling.factor", 4);
      },
      kUnimplemented, "llama.rope.scaling.factor': 4");
  ExpectErrorAfter([](TinyGguf& gguf) { gguf.Real("llama.rope.scaling.factor", 4); },
                   kUnimplemented, "llama.rope.scaling.factor': 4");
  ExpectErrorAfter([](TinyGguf& gguf) { gguf.Real("llama.rope.scale_linear", 2); }, kUnimplemented,
                   "llama.rope.scale_linear");
  TinyGguf gguf;
  gguf.String("llama.rope.scaling.type", "none");
  gguf.Real("llama.rope.scaling.factor", 4);
  EXPECT_OK(Read(gguf));
  gguf.values.erase("llama.rope.scaling.type");
  gguf.Real("llama.rope.scaling.factor", 1);
  EXPECT_OK(Read(gguf));
}

TEST_F(GgufConfigTest, BiasesAreThoseOfAllNeighboursOrOfNone) {
  TinyGguf gguf;
  for (const char* name : {"attn_q", "attn_k", "attn_v"}) {
    gguf.AddTensor(std::string("blk.0.") + name + ".bias", {1});
  }
  ExpectError(gguf, kUnimplemented, "'blk.0.attn_output.bias' is missing");
  gguf.AddTensor("blk.0.attn_output.bias", {1});
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Read(gguf));
  EXPECT_TRUE(config.attention_bias);
  EXPECT_FALSE(config.mlp_bias);
  gguf.AddTensor("blk.0.ffn_up.bias", {1});
  ExpectError(gguf, kUnimplemented, "'blk.0.ffn_gate.bias' is missing");
}

TEST_F(GgufConfigTest, WritesAConfigurationThatReadsBackTheSame) {
  TinyGguf gguf = WithFactors(10000, Llama3Factors(10000, 8, 1, 4, 1024));
  gguf.AddTensor("output.weight", {260, 12});
  ASSERT_OK_AND_ASSIGN(ModelConfig config, Read(gguf));
  config.dtype = "bfloat16";
  const std::string text = HuggingFaceConfigJson(config);
  ASSERT_OK_AND_ASSIGN(const ModelConfig read, ModelConfig::FromJson(text, "config.json"));
  EXPECT_EQ(read.ArchitectureJson(), config.ArchitectureJson());
  EXPECT_FALSE(read.tied_embeddings);
  EXPECT_EQ(read.dtype, "bfloat16");
  EXPECT_EQ(read.bos_token_id, config.bos_token_id);
  EXPECT_EQ(read.eos_token_ids, config.eos_token_ids);
  EXPECT_EQ(read.pad_token_id, config.pad_token_id);
  const auto json = nlohmann::json::parse(text);
  EXPECT_EQ(json["rope_theta"], 10000.0);
  EXPECT_EQ(json["rope_scaling"]["rope_type"], "llama3");
  EXPECT_EQ(json["eos_token_id"], 258);
  config.eos_token_ids = {1, 2};
  EXPECT_EQ(nlohmann::json::parse(HuggingFaceConfigJson(config))["eos_token_id"].size(), 2);
}

}  // namespace
}  // namespace pricer
