#include "model/import_gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "model/checkpoint.h"
#include "model/safetensors.h"
#include "model/tokenizer.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_data.h"
#include "tests/testing/tiny_gguf.h"
#include "tests/testing/tokenizer_lines.h"

namespace pricer {
namespace {

using ::pricer::testing::DataPath;
using ::pricer::testing::GoldenIds;
using ::pricer::testing::IsOkAndHolds;
using ::pricer::testing::StatusIs;
using ::pricer::testing::TempDir;
using ::pricer::testing::TinyGguf;
using ::pricer::testing::TokenizerLines;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;
using Json = nlohmann::json;

constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

std::vector<float> Floats(const TensorView& view) {
  std::vector<float> values(view.element_count());
  if (view.dtype == Dtype::kF32) {
    std::memcpy(values.data(), view.data.data(), view.data.size());
    return values;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    char bytes[4] = {0, 0, view.data[2 * i], view.data[2 * i + 1]};
    std::memcpy(&values[i], bytes, 4);
  }
  return values;
}

std::vector<std::string> Entries(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    names.push_back(entry.path().filename().string());
  }
  return names;
}

class ImportGgufTest : public ::testing::Test {
 protected:
  absl::Status Import(const TinyGguf& gguf, Dtype dtype = Dtype::kF32) {
    EXPECT_OK(WriteFile(gguf_, gguf.Build()));
    return ImportGguf(gguf_, output_, dtype);
  }
  // The error names file and words, and nothing is left beside the GGUF file.
  void ExpectError(const TinyGguf& gguf, absl::StatusCode code, const std::string& words) {
    EXPECT_THAT(Import(gguf), StatusIs(code, AllOf(HasSubstr(gguf_), HasSubstr(words))));
    EXPECT_THAT(Entries(directory_.path()), UnorderedElementsAre("model.gguf"));
  }
  std::map<std::string, std::vector<float>> Weights() {
    std::map<std::string, std::vector<float>> weights;
    const auto file = SafetensorsFile::Open(output_ + "/model.safetensors");
    EXPECT_OK(file);
    if (!file.ok()) return weights;
    for (const auto& [name, view] : (*file)->tensors()) weights[name] = Floats(view);
    return weights;
  }

  TempDir directory_;
  const std::string gguf_ = directory_.File("model.gguf");
  const std::string output_ = directory_.File("out");
};

class GoldenImportTest : public ImportGgufTest, public ::testing::WithParamInterface<const char*> {
 protected:
  std::string Golden(const std::string& ending) {
    return DataPath(std::string("gguf/") + GetParam() + ending);
  }
};

TEST_P(GoldenImportTest, WeightsAreThoseThatTransformersReads) {
  ASSERT_OK(ImportGguf(Golden(".gguf"), output_, Dtype::kF32));
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(output_));
  ASSERT_OK_AND_ASSIGN(const auto golden, SafetensorsFile::Open(Golden(".golden.safetensors")));
  int compared = 0;
  for (const auto& [name, view] : golden->tensors()) {
    if (name == "last_logits") continue;
    // A tied head is not written.
    if (name == "lm_head.weight" && checkpoint->config().tied_embeddings) continue;
    ASSERT_TRUE(checkpoint->has_tensor(name)) << name;
    EXPECT_EQ(checkpoint->tensor(name).shape, view.shape) << name;
    EXPECT_EQ(Floats(checkpoint->tensor(name)), Floats(view)) << name;
    ++compared;
  }
  EXPECT_EQ(compared, static_cast<int>(checkpoint->tensors().size()));
  EXPECT_EQ(checkpoint->config().dtype, "float32");
}

TEST_P(GoldenImportTest, Bfloat16IsTheNearestToFp32WithTiesToEven) {
  ASSERT_OK(ImportGguf(Golden(".gguf"), output_, Dtype::kF32));
  const auto exact = Weights();
  const std::string narrow_directory = directory_.File("narrow");
  ASSERT_OK(ImportGguf(Golden(".gguf"), narrow_directory, Dtype::kBF16));
  ASSERT_OK_AND_ASSIGN(const auto narrow, Checkpoint::Open(narrow_directory));
  EXPECT_EQ(narrow->config().dtype, "bfloat16");
  ASSERT_EQ(narrow->tensors().size(), exact.size());
  for (const auto& [name, view] : narrow->tensors()) {
    ASSERT_EQ(view.dtype, Dtype::kBF16);
    const std::vector<float> rounded = Floats(view);
    const std::vector<float>& values = exact.at(name);
    for (size_t i = 0; i < values.size(); ++i) {
      const double gap = std::abs(static_cast<double>(values[i]) - rounded[i]);
      const int exponent = std::max(std::ilogb(values[i] == 0 ? 1 : values[i]), -126);
      const double half_step = std::ldexp(0.5, exponent - 7);
      ASSERT_LE(gap, half_step) << name << " " << values[i];
      const bool even = (view.data[2 * i] & 1) == 0;
      ASSERT_TRUE(gap < half_step || even) << name << " " << values[i];
    }
  }
}

TEST_P(GoldenImportTest, TheTokenizerIsThatOfTheOriginalDirectory) {
  ASSERT_OK(ImportGguf(Golden(".gguf"), output_, Dtype::kBF16));
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, Tokenizer::FromDirectory(output_));
  ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(Golden(".golden.json")));
  const std::string directory = Json::parse(text)["tokenizer"];
  const auto expected = GoldenIds(directory.substr(directory.find('/') + 1));
  const auto lines = TokenizerLines();
  ASSERT_EQ(lines.size(), expected.size());
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_THAT(tokenizer->Encode(lines[i], true), IsOkAndHolds(expected[i])) << "line " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Files, GoldenImportTest, ::testing::Values("mixed", "smollm"),
                         [](const auto& info) { return std::string(info.param); });

TEST_F(ImportGgufTest, RefusesTheGoldenFilesThatAreToBeRefused) {
  ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(DataPath("gguf/refused/refused.json")));
  const Json refused = Json::parse(text);
  ASSERT_FALSE(refused.empty());
  for (const auto& [name, words] : refused.items()) {
    const std::string path = DataPath("gguf/refused/" + name + ".gguf");
    const absl::Status status = ImportGguf(path, output_, Dtype::kF32);
    EXPECT_FALSE(status.ok()) << name;
    for (const std::string word : words) {
      EXPECT_THAT(std::string(status.message()), HasSubstr(word)) << name;
    }
    EXPECT_FALSE(std::filesystem::exists(output_));
  }
}

TEST_F(ImportGgufTest, WritesADirectoryThatOpens) {
  ASSERT_OK(Import(TinyGguf()));
  EXPECT_THAT(Entries(output_), UnorderedElementsAre("config.json", "tokenizer.json",
                                                     "tokenizer_config.json", "model.safetensors"));
  EXPECT_OK(Checkpoint::Open(output_));
  EXPECT_OK(Tokenizer::FromDirectory(output_));
  EXPECT_THAT(Entries(directory_.path()), UnorderedElementsAre("model.gguf", "out"));
}

TEST_F(ImportGgufTest, PutsInterleavedRowsOfQueriesAndKeysBackInHalves) {
  TinyGguf gguf;
  // A row's values are its number.
  for (auto& [name, tensor] : gguf.tensors) {
    if (tensor.shape.size() < 2) continue;
    for (size_t i = 0; i < tensor.values.size(); ++i) {
      const size_t row = i / tensor.shape[1];
      tensor.values[i] = static_cast<float>(row);
    }
  }
  for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_output"}) {
    for (const char* layer : {"blk.0.", "blk.1."}) {
      const std::string weight = std::string(layer) + name;
      const int64_t rows = gguf.tensors[weight + ".weight"].shape[0];
      gguf.AddTensor(weight + ".bias", {rows});
      for (int64_t i = 0; i < rows; ++i) {
        gguf.tensors[weight + ".bias"].values[i] = static_cast<float>(i);
      }
    }
  }
  ASSERT_OK(Import(gguf));
  const auto weights = Weights();
  const std::string attention = "model.layers.1.self_attn.";
  const auto rows = [&](const std::string& name) {
    const auto& values = weights.at(attention + name + ".weight");
    std::vector<float> first;
    for (size_t i = 0; i < values.size(); i += TinyGguf::kHidden) first.push_back(values[i]);
    EXPECT_EQ(weights.at(attention + name + ".bias"), first);
    return first;
  };
  EXPECT_THAT(rows("q_proj"),
              ::testing::ElementsAre(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
  EXPECT_THAT(rows("k_proj"), ::testing::ElementsAre(0, 2, 4, 6, 1, 3, 5, 7));
  EXPECT_THAT(rows("v_proj"), ::testing::ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
}

TEST_F(ImportGgufTest, AHeadOfItsOwnIsWrittenAndSaidInTheConfiguration) {
  TinyGguf gguf;
  gguf.AddTensor("output.weight", {TinyGguf::kVocabulary, TinyGguf::kHidden});
  ASSERT_OK(Import(gguf));
  EXPECT_EQ(Weights().at("lm_head.weight"), gguf.tensors["output.weight"].values);
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(output_));
  EXPECT_FALSE(checkpoint->config().tied_embeddings);
}

TEST_F(ImportGgufTest, TensorsMustBeThoseOfTheArchitecture) {
  TinyGguf missing;
  missing.tensors.erase("blk.1.ffn_up.weight");
  ExpectError(missing, kDataLoss, "tensor 'blk.1.ffn_up.weight': is missing; expected [20, 12]");
  TinyGguf extra;
  extra.AddTensor("blk.0.attn_q_norm.weight", {8});
  ExpectError(extra, kUnimplemented, "tensor 'blk.0.attn_q_norm.weight'");
  TinyGguf turned;
  turned.AddTensor("blk.0.ffn_up.weight", {12, 20});
  ExpectError(turned, kDataLoss,
              "tensor 'blk.0.ffn_up.weight': expected shape [20, 12], got [12, 20]");
}

TEST_F(ImportGgufTest, RefusesMergesThatLeadToNoToken) {
  TinyGguf gguf;
  gguf.Strings("tokenizer.ggml.merges", {"a c"});
  ExpectError(gguf, kDataLoss, "tokenizer");
  gguf.Strings("tokenizer.ggml.merges", {"ab"});
  ExpectError(gguf, kDataLoss, "tokenizer");
}

TEST_F(ImportGgufTest, NeverWritesIntoADirectoryThatHasSomething) {
  ASSERT_OK(MakeDirectories(output_));
  ASSERT_OK(WriteFile(output_ + "/mine.txt", "x"));
  EXPECT_THAT(Import(TinyGguf()), StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr(output_)));
  EXPECT_THAT(Entries(output_), UnorderedElementsAre("mine.txt"));
}

TEST_F(ImportGgufTest, AnEmptyDirectoryANewOneAndASlashAtTheEndAreFine) {
  ASSERT_OK(MakeDirectories(output_));
  EXPECT_OK(Import(TinyGguf()));
  EXPECT_OK(ImportGguf(gguf_, directory_.File("a/b/c/"), Dtype::kF32));
  EXPECT_OK(Checkpoint::Open(directory_.File("a/b/c")));
}

TEST_F(ImportGgufTest, RefusesAFileInThePlaceOfTheDirectory) {
  ASSERT_OK(WriteFile(output_, "x"));
  EXPECT_THAT(Import(TinyGguf()), StatusIs(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(ReadFile(output_), IsOkAndHolds("x"));
}

TEST_F(ImportGgufTest, CanBeCancelledInTheMiddleOfATensor) {
  ASSERT_OK(WriteFile(gguf_, TinyGguf().Build()));
  int asked = 0;
  const auto cancelled = [&] { return ++asked == TinyGguf::kVocabulary / 2; };
  EXPECT_THAT(ImportGguf(gguf_, output_, Dtype::kBF16, cancelled),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(asked, TinyGguf::kVocabulary / 2);
}

TEST_F(ImportGgufTest, CancellingLeavesNothing) {
  ASSERT_OK(WriteFile(gguf_, TinyGguf().Build()));
  int asked = 0;
  EXPECT_THAT(ImportGguf(gguf_, output_, Dtype::kF32, [&] { return ++asked > 5; }),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(asked, 6);
  EXPECT_THAT(Entries(directory_.path()), UnorderedElementsAre("model.gguf"));
}

TEST_F(ImportGgufTest, RefusesOtherDtypesAndFilesThatAreNotThere) {
  EXPECT_THAT(ImportGguf(gguf_, output_, Dtype::kF16),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("F16")));
  EXPECT_THAT(ImportGguf(gguf_, output_, Dtype::kF32),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(gguf_)));
}

}  // namespace
}  // namespace pricer
