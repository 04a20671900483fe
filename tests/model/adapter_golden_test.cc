// What PEFT wrote, and what is refused of it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "model/adapter.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

using ::pricer::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Json = nlohmann::json;

std::string DataRoot() {
  const char* root = std::getenv("PRICER_TEST_DATA");
  return root == nullptr ? PRICER_TEST_DATA : root;
}

TEST(GoldenAdapterTest, LoadsWhatPeftWrites) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator(DataRoot() + "/adapters")) {
    const std::string folder = entry.path().string();
    ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(folder + "/golden.json"));
    const Json golden = Json::parse(text);
    const std::string base = absl::StrCat(DataRoot(), "/", golden["base"].get<std::string>());
    ASSERT_OK_AND_ASSIGN(const ModelConfig model, ModelConfig::FromFile(base + "/config.json"));
    ASSERT_OK_AND_ASSIGN(const PeftAdapter adapter, LoadPeftAdapter(folder, model));
    size_t modules = 0;
    for (const std::vector<LoraWeights>& layer : adapter.weights.layers) {
      for (const LoraWeights& lora : layer) modules += lora.defined();
    }
    EXPECT_EQ(modules, golden["targets"].size()) << folder;
    EXPECT_EQ(adapter.weights.score.defined(), golden["task"] == "SEQ_CLS") << folder;
    ++count;
  }
  EXPECT_GE(count, 16);
}

TEST(GoldenAdapterTest, RewritesTheTensorsOfPeftByteForByte) {
  const std::string folder = DataRoot() + "/adapters/seqcls-all-linear";
  ASSERT_OK_AND_ASSIGN(const ModelConfig model,
                       ModelConfig::FromFile(DataRoot() + "/models/gqa/config.json"));
  ASSERT_OK_AND_ASSIGN(const PeftAdapter adapter, LoadPeftAdapter(folder, model));
  const TempDir dir;
  ASSERT_OK(SavePeftAdapter(adapter, dir.path()));
  ASSERT_OK_AND_ASSIGN(const std::string ours, ReadFile(dir.File("adapter_model.safetensors")));
  ASSERT_OK_AND_ASSIGN(const std::string theirs, ReadFile(folder + "/adapter_model.safetensors"));
  EXPECT_TRUE(ours == theirs);
}

TEST(GoldenAdapterTest, RefusesWhatIsNotSupportedWithItsReason) {
  for (const auto& entry : fs::directory_iterator(DataRoot() + "/adapters-refused")) {
    const std::string folder = entry.path().string();
    ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(folder + "/refused.json"));
    const Json refused = Json::parse(text);
    const std::string base = absl::StrCat(DataRoot(), "/", refused["base"].get<std::string>());
    ASSERT_OK_AND_ASSIGN(const ModelConfig model, ModelConfig::FromFile(base + "/config.json"));
    const absl::Status status = LoadPeftAdapter(folder, model).status();
    EXPECT_FALSE(status.ok()) << folder;
    std::vector<::testing::Matcher<std::string>> words;
    for (const Json& word : refused["reason_names"])
      words.push_back(HasSubstr(word.get<std::string>()));
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr(folder), ::testing::AnyOfArray(words)));
  }
}

}  // namespace
}  // namespace pricer
