#include "trainer/base_files.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <string>

#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_data.h"
#include "tests/testing/tiny_model.h"

namespace pricer {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

class BaseFilesTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_OK(testing::WriteTinyCheckpoint(dir_.File("base"))); }

  void Write(const std::string& name, const std::string& text) const {
    ASSERT_OK(WriteFile(dir_.File("base/" + name), text));
  }

  BaseFiles Describe() const {
    const auto checkpoint = Checkpoint::Open(dir_.File("base"));
    EXPECT_OK(checkpoint);
    auto files = DescribeFiles(**checkpoint);
    EXPECT_OK(files);
    return *std::move(files);
  }

  std::string License() const {
    const auto license = Describe().license;
    return license.has_value() ? license->text + " in " + license->file : "";
  }

  testing::TempDir dir_;
};

TEST_F(BaseFilesTest, ListsFilesAndStoredTensors) {
  Write("config.json.bak", "12345");
  const BaseFiles files = Describe();
  ASSERT_EQ(files.files.size(), 4u);
  EXPECT_EQ(files.files[0].name, "config.json");
  EXPECT_EQ(files.files[1].bytes, 5);
  ASSERT_EQ(files.stored.size(), 1u);
  // Embedding, last norm, and of two layers seven linears and two norms.
  EXPECT_EQ(files.stored.at("F32").tensors, 2 + 2 * 9);
  const auto config = ModelConfig::FromFile(dir_.File("base/config.json"));
  EXPECT_EQ(files.stored.at("F32").bytes, 4 * config->ParameterCount());
  EXPECT_FALSE(files.license.has_value());
  EXPECT_FALSE(files.chat_template.has_value());
}

TEST_F(BaseFilesTest, AWeightInNf4IsOneTensorWithItsParts) {
  const auto checkpoint = Checkpoint::Open(testing::DataPath("nf4/checkpoint"));
  ASSERT_OK(checkpoint);
  ASSERT_OK_AND_ASSIGN(const BaseFiles files, DescribeFiles(**checkpoint));
  const ModelConfig& config = (*checkpoint)->config();
  EXPECT_EQ(files.stored.at("NF4").tensors, config.layer_count * kProjectionCount);
  int64_t bytes = 0;
  for (const auto& [dtype, stored] : files.stored) bytes += stored.bytes;
  int64_t expected = 0;
  for (const auto& [name, view] : (*checkpoint)->tensors()) {
    expected += static_cast<int64_t>(view.data.size());
  }
  EXPECT_EQ(bytes, expected);
}

TEST_F(BaseFilesTest, TheLicenceIsWhatConfigOrReadmeOrALicenceFileSays) {
  Write("LICENSE.txt", "\n   Apache License\n  Version 2.0\n");
  EXPECT_EQ(License(), "Apache License in LICENSE.txt");
  Write("README.md", "# A model\nlicense: none of the front matter\n");
  EXPECT_EQ(License(), "Apache License in LICENSE.txt");
  Write("README.md", "---\ntags:\n  - license: no\nlicense: other\nlicense_name: llama3\n---\n");
  EXPECT_EQ(License(), "llama3 in README.md");
  Write("README.md", "---\r\nlicense: mit\r\n---\r\n");
  EXPECT_EQ(License(), "mit in README.md");
  nlohmann::json config = nlohmann::json::parse(*ReadFile(dir_.File("base/config.json")));
  config["license"] = "apache-2.0";
  Write("config.json", config.dump());
  EXPECT_EQ(License(), "apache-2.0 in config.json");
}

TEST_F(BaseFilesTest, TheChatTemplateIsFoundWhereverItIs) {
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "tool", "template": "a\nb"},
                                    {"name": "default", "template": "\n{{ first }}\nsecond"}]})");
  EXPECT_EQ(Describe().chat_template->text, "{{ first }}");
  Write("tokenizer_config.json", R"({"chat_template": "{{ only }}\nmore"})");
  EXPECT_EQ(Describe().chat_template->text, "{{ only }}");
  EXPECT_EQ(Describe().chat_template->file, "tokenizer_config.json");
  Write("chat_template.jinja", "{# a file #}\n");
  EXPECT_EQ(Describe().chat_template->text, "{# a file #}");
  EXPECT_EQ(Describe().chat_template->file, "chat_template.jinja");
}

TEST_F(BaseFilesTest, NamesAFileThatIsNoJson) {
  Write("tokenizer_config.json", "{");
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(dir_.File("base")));
  EXPECT_THAT(DescribeFiles(*checkpoint),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("tokenizer_config.json")));
}

TEST(CountParametersTest, PartsAddUp) {
  const testing::TempDir dir;
  for (const bool tied : {true, false}) {
    ASSERT_OK(testing::WriteTinyCheckpoint(dir.File("base"), {.tied_embeddings = tied}));
    ASSERT_OK_AND_ASSIGN(const auto config, ModelConfig::FromFile(dir.File("base/config.json")));
    const ParameterCounts counts = CountParameters(config);
    EXPECT_EQ(counts.embedding, 260 * 64);
    EXPECT_EQ(counts.head, tied ? 0 : 260 * 64);
    EXPECT_EQ(counts.norms, 5 * 64);
    EXPECT_EQ(counts.linears + counts.embedding + counts.head + counts.norms, counts.total);
  }
}

}  // namespace
}  // namespace pricer
