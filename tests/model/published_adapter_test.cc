#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/sha256.h"
#include "model/adapter.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

using ::pricer::testing::StatusIs;
using ::pricer::testing::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Key;
using Json = nlohmann::json;

constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr auto kNotFound = absl::StatusCode::kNotFound;

class PublishedAdapterTest : public ::testing::Test {
 protected:
  PublishedAdapterTest() {
    model_.vocabulary_size = 32;
    model_.hidden_size = 16;
    model_.layer_count = 2;
    model_.head_count = 2;
    model_.kv_head_count = 1;
    model_.head_dim = 8;
    model_.ffn_size = 24;
    model_.context_tokens = 64;
    PeftConfig config;
    config.target_modules = {"q_proj"};
    adapter_ = *MakeAdapter(config, model_, 6, 1);
    manifest_.base_fingerprint = fingerprint_;
    manifest_.base_name = "small-base";
    manifest_.weights = "nf4";
    manifest_.dtype = "fp32";
    manifest_.prompt = {"custom", "How much?", "Price: $", 64};
    manifest_.currency = "USD";
    manifest_.bins = {.bins = 6, .min_price = 1, .max_price = 100, .sigma = 0.75};
    manifest_.golden = {{"Kettle", 30, 20, 40}};
    manifest_.trainer_version = "0.1.0";
    manifest_.data_digest = "digest";
  }

  std::string Publish() {
    const absl::StatusOr<PublishedVersion> version =
        PublishAdapter(adapter_, manifest_, root_, "shop");
    EXPECT_OK(version);
    return version.ok() ? version->directory : "";
  }

  absl::StatusOr<PublishedAdapter> Load(const std::string& directory) {
    return LoadPublishedAdapter(directory, model_, fingerprint_);
  }

  // Changes pricer.json and signs it again.
  void ChangeManifest(const std::string& directory, const std::string& pointer, const Json& value) {
    ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(directory + "/pricer.json"));
    Json json = Json::parse(text);
    json[Json::json_pointer(pointer)] = value;
    ASSERT_OK(WriteFile(directory + "/pricer.json", json.dump()));
    ASSERT_OK(WriteFile(directory + "/_READY", Sha256Hex(json.dump())));
  }

  const TempDir dir_;
  const std::string root_ = dir_.File("adapters");
  const std::string fingerprint_ = std::string(64, 'a');
  ModelConfig model_;
  PeftAdapter adapter_;
  Manifest manifest_;
};

TEST_F(PublishedAdapterTest, LoadsWhatIsPublished) {
  const std::string directory = Publish();
  EXPECT_EQ(directory, root_ + "/shop/1");
  ASSERT_OK_AND_ASSIGN(const PublishedAdapter loaded, Load(directory));
  EXPECT_EQ(loaded.name, "shop");
  EXPECT_EQ(loaded.version, 1);
  EXPECT_EQ(loaded.directory, directory);
  EXPECT_TRUE(at::equal(loaded.adapter.weights.lora(1, Projection::kQ).a,
                        adapter_.weights.lora(1, Projection::kQ).a));
  EXPECT_EQ(loaded.adapter.weights.score.size(0), 6);
  EXPECT_THAT(loaded.manifest.files,
              ElementsAre(Key("adapter_config.json"), Key("adapter_model.safetensors")));
  ASSERT_OK_AND_ASSIGN(const std::string digest, Sha256HexOfFile(directory + "/pricer.json"));
  EXPECT_EQ(loaded.digest, digest);
  ASSERT_OK_AND_ASSIGN(const std::string marker, ReadFile(directory + "/_READY"));
  EXPECT_EQ(marker, digest);
}

TEST_F(PublishedAdapterTest, PublishesTheSameBytesAgain) {
  const std::string first = Publish();
  const std::string second = Publish();
  EXPECT_EQ(second, root_ + "/shop/2");
  for (const char* name :
       {"adapter_config.json", "adapter_model.safetensors", "pricer.json", "_READY"}) {
    ASSERT_OK_AND_ASSIGN(const std::string a, ReadFile(absl::StrCat(first, "/", name)));
    ASSERT_OK_AND_ASSIGN(const std::string b, ReadFile(absl::StrCat(second, "/", name)));
    EXPECT_EQ(a, b) << name;
  }
}

TEST_F(PublishedAdapterTest, ReplacesTheFilesOfTheManifest) {
  manifest_.files = {{"stale", std::string(64, '0')}};
  EXPECT_OK(Load(Publish()));
}

TEST_F(PublishedAdapterTest, DoesNotPublishWhatItWouldRefuseToLoad) {
  manifest_.golden[0].price = -1;
  EXPECT_THAT(PublishAdapter(adapter_, manifest_, root_, "shop"),
              StatusIs(kDataLoss, HasSubstr("golden[0].price")));
  manifest_.golden[0].price = 30;
  manifest_.bins.bins = 7;
  EXPECT_THAT(PublishAdapter(adapter_, manifest_, root_, "shop"),
              StatusIs(kDataLoss, HasSubstr("head.bins")));
  manifest_.bins.bins = 6;
  adapter_.weights.score[0][0] = std::nanf("");
  EXPECT_THAT(PublishAdapter(adapter_, manifest_, root_, "shop"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("score")));
  EXPECT_TRUE(fs::is_empty(root_ + "/shop"));
}

TEST_F(PublishedAdapterTest, TakesNameAndVersionFromThePathWhereItHasThem) {
  const std::string directory = Publish();
  ASSERT_OK_AND_ASSIGN(const PublishedAdapter slash, Load(directory + "/"));
  EXPECT_EQ(slash.version, 1);
  fs::copy(directory, dir_.File("Copied"));
  ASSERT_OK_AND_ASSIGN(const PublishedAdapter copied, Load(dir_.File("Copied")));
  EXPECT_EQ(copied.name, "");
  EXPECT_EQ(copied.version, 0);
}

TEST_F(PublishedAdapterTest, DoesNotExistWithoutItsMarkerOrManifest) {
  const std::string directory = Publish();
  fs::remove(directory + "/_READY");
  EXPECT_THAT(Load(directory), StatusIs(kNotFound, HasSubstr("_READY")));
  const std::string second = Publish();
  fs::remove(second + "/pricer.json");
  EXPECT_THAT(Load(second), StatusIs(kNotFound, HasSubstr("pricer.json")));
  EXPECT_THAT(Load(root_ + "/shop/99"), StatusIs(kNotFound, HasSubstr("shop/99")));
}

TEST_F(PublishedAdapterTest, RefusesLongerPromptsThanTheBasesContext) {
  const std::string directory = Publish();
  EXPECT_OK(Load(directory));
  model_.context_tokens = 63;
  EXPECT_THAT(Load(directory),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("up to 64 tokens"), HasSubstr("a context of 63"))));
}

TEST_F(PublishedAdapterTest, LeavesRoomForThePriceBehindAPromptOfTheTokenHead) {
  adapter_.config.task = PeftTask::kCausalLm;
  adapter_.weights.score = at::Tensor();
  manifest_.head = HeadKind::kToken;
  const std::string directory = Publish();
  model_.context_tokens = 67;
  EXPECT_OK(Load(directory));
  model_.context_tokens = 66;
  EXPECT_THAT(Load(directory),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("up to 64 tokens and 3 of a price"), HasSubstr("66"))));
}

class PlainAdapterTest : public PublishedAdapterTest {
 protected:
  PlainAdapterTest() {
    model_.context_tokens = 256;
    fs::create_directories(directory_);
    EXPECT_OK(WriteFile(directory_ + "/_READY", "\n"));
  }

  void SaveCausalLm() {
    adapter_.config.task = PeftTask::kCausalLm;
    adapter_.config.base_model_name = "meta/base";
    adapter_.weights.score = at::Tensor();
    ASSERT_OK(SavePeftAdapter(adapter_, directory_));
  }

  const std::string directory_ = root_ + "/plain/1";
};

TEST_F(PlainAdapterTest, IsReadAsThePublishedRecipeHasIt) {
  SaveCausalLm();
  ASSERT_OK_AND_ASSIGN(const PublishedAdapter loaded, Load(directory_));
  EXPECT_EQ(loaded.name, "plain");
  EXPECT_EQ(loaded.version, 1);
  EXPECT_TRUE(at::equal(loaded.adapter.weights.lora(1, Projection::kQ).a,
                        adapter_.weights.lora(1, Projection::kQ).a));
  EXPECT_EQ(loaded.manifest.head, HeadKind::kToken);
  EXPECT_EQ(loaded.manifest.currency, "USD");
  ASSERT_OK_AND_ASSIGN(const PromptTemplate reference, PromptTemplate::Preset("reference", "USD"));
  EXPECT_EQ(loaded.manifest.prompt.preset, "reference");
  EXPECT_EQ(loaded.manifest.prompt.Render("Kettle"), reference.Render("Kettle"));
  EXPECT_EQ(loaded.manifest.base_name, "meta/base");
  EXPECT_EQ(loaded.manifest.base_fingerprint, "");
  EXPECT_EQ(loaded.manifest.weights, "");
  EXPECT_TRUE(loaded.manifest.golden.empty());
}

TEST_F(PlainAdapterTest, HasADigestOfItsFiles) {
  SaveCausalLm();
  ASSERT_OK_AND_ASSIGN(const PublishedAdapter first, Load(directory_));
  ASSERT_OK_AND_ASSIGN(const PublishedAdapter again, Load(directory_));
  EXPECT_EQ(first.digest.size(), 64u);
  EXPECT_EQ(again.digest, first.digest);
  adapter_.weights.layers[0][static_cast<int>(Projection::kQ)].b.fill_(1);
  SaveCausalLm();
  ASSERT_OK_AND_ASSIGN(const PublishedAdapter changed, Load(directory_));
  EXPECT_NE(changed.digest, first.digest);
}

TEST_F(PlainAdapterTest, IsRefusedWhereNothingTellsTheRangeOfItsBins) {
  EXPECT_THAT(Load(directory_), StatusIs(kNotFound, HasSubstr("adapter_config.json")));
  ASSERT_OK(SavePeftAdapter(adapter_, directory_));
  EXPECT_THAT(Load(directory_), StatusIs(absl::StatusCode::kFailedPrecondition,
                                         AllOf(HasSubstr(directory_), HasSubstr("price range"))));
}

TEST_F(PlainAdapterTest, IsRefusedWithoutTensorsOrInATooShortContext) {
  SaveCausalLm();
  model_.context_tokens = kDefaultMaxPromptTokens + 2;
  EXPECT_THAT(Load(directory_), StatusIs(absl::StatusCode::kFailedPrecondition,
                                         AllOf(HasSubstr(directory_), HasSubstr("context"))));
  model_.context_tokens = 256;
  fs::remove(directory_ + "/adapter_model.safetensors");
  EXPECT_THAT(Load(directory_), StatusIs(kNotFound, HasSubstr("adapter_model.safetensors")));
  ASSERT_EQ(mkfifo((directory_ + "/adapter_model.safetensors").c_str(), 0600), 0);
  EXPECT_THAT(Load(directory_), StatusIs(kDataLoss, HasSubstr("expected a regular file")));
}

TEST_F(PublishedAdapterTest, RefusesAMarkerOfAnotherManifest) {
  const std::string directory = Publish();
  ASSERT_OK(WriteFile(directory + "/_READY", ""));
  EXPECT_THAT(Load(directory),
              StatusIs(kDataLoss, AllOf(HasSubstr(directory + "/_READY"), HasSubstr("got ''"))));
  ASSERT_OK(WriteFile(directory + "/_READY", std::string(64, '0')));
  EXPECT_THAT(Load(directory),
              StatusIs(kDataLoss, HasSubstr("expected the SHA-256 of pricer.json")));
  ASSERT_OK_AND_ASSIGN(const std::string digest, Sha256HexOfFile(directory + "/pricer.json"));
  ASSERT_OK(WriteFile(directory + "/_READY", digest + "\n"));
  EXPECT_OK(Load(directory));
}

TEST_F(PublishedAdapterTest, RefusesAFileOfAnotherDigest) {
  for (const char* name : {"adapter_config.json", "adapter_model.safetensors"}) {
    const std::string directory = Publish();
    ASSERT_OK_AND_ASSIGN(std::string bytes, ReadFile(absl::StrCat(directory, "/", name)));
    bytes.back() ^= 1;
    ASSERT_OK(WriteFile(absl::StrCat(directory, "/", name), bytes));
    EXPECT_THAT(Load(directory),
                StatusIs(kDataLoss, AllOf(HasSubstr(absl::StrCat(directory, "/", name)),
                                          HasSubstr("expected SHA-256"))));
  }
}

TEST_F(PublishedAdapterTest, ChecksEveryFileThatTheManifestLists) {
  const std::string directory = Publish();
  ChangeManifest(directory, "/files/README.md", Sha256Hex("hello"));
  EXPECT_THAT(Load(directory), StatusIs(kNotFound, HasSubstr("README.md")));
  ASSERT_OK(WriteFile(directory + "/README.md", "hullo"));
  EXPECT_THAT(Load(directory), StatusIs(kDataLoss, HasSubstr("README.md: expected SHA-256")));
  ASSERT_OK(WriteFile(directory + "/README.md", "hello"));
  EXPECT_OK(Load(directory));
  fs::remove(directory + "/README.md");
  // Opening a pipe would wait for a writer for ever.
  ASSERT_EQ(mkfifo((directory + "/README.md").c_str(), 0600), 0);
  EXPECT_THAT(Load(directory),
              StatusIs(kDataLoss, HasSubstr("README.md: expected a regular file")));
}

TEST_F(PublishedAdapterTest, RefusesAManifestThatDoesNotListTheTensors) {
  const std::string directory = Publish();
  ChangeManifest(directory, "/files", Json::object());
  EXPECT_THAT(Load(directory), StatusIs(kDataLoss, AllOf(HasSubstr("field 'files'"),
                                                         HasSubstr("adapter_config.json"))));
}

TEST_F(PublishedAdapterTest, RefusesAnotherFormatVersion) {
  const std::string directory = Publish();
  ChangeManifest(directory, "/format_version", "2.0");
  EXPECT_THAT(Load(directory),
              StatusIs(absl::StatusCode::kUnimplemented,
                       AllOf(HasSubstr(directory + "/pricer.json"), HasSubstr("'2.0'"))));
}

TEST_F(PublishedAdapterTest, RefusesAnAdapterOfAnotherBaseNamingBoth) {
  const std::string directory = Publish();
  const std::string other(64, 'b');
  EXPECT_THAT(LoadPublishedAdapter(directory, model_, other),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr(directory), HasSubstr(fingerprint_), HasSubstr("small-base"),
                             HasSubstr(other))));
}

TEST_F(PublishedAdapterTest, RefusesAHeadThatDiffersFromItsTensor) {
  const std::string directory = Publish();
  ChangeManifest(directory, "/head/bins", 8);
  EXPECT_THAT(Load(directory),
              StatusIs(kDataLoss,
                       AllOf(HasSubstr("head.bins"), HasSubstr("expected 6"), HasSubstr("got 8"))));
}

TEST_F(PublishedAdapterTest, RefusesAnAdapterWithoutAHead) {
  PeftConfig config;
  config.task = PeftTask::kCausalLm;
  config.target_modules = {"q_proj"};
  adapter_ = *MakeAdapter(config, model_, 0, 1);
  EXPECT_THAT(PublishAdapter(adapter_, manifest_, root_, "shop"),
              StatusIs(kDataLoss, AllOf(HasSubstr("head.kind"), HasSubstr("SEQ_CLS"))));
}

TEST_F(PublishedAdapterTest, RefusesAVersionThatIsALinkOutOfTheFolder) {
  const std::string directory = Publish();
  fs::rename(directory, dir_.File("elsewhere"));
  fs::create_directory_symlink(dir_.File("elsewhere"), directory);
  EXPECT_THAT(Load(directory),
              StatusIs(kDataLoss, AllOf(HasSubstr(directory), HasSubstr("leads out of"))));
  const std::string second = Publish();
  fs::create_directory_symlink("2", root_ + "/shop/3");
  EXPECT_OK(Load(root_ + "/shop/3"));
}

TEST_F(PublishedAdapterTest, RefusesAFileThatIsALinkOutOfTheFolder) {
  const std::string directory = Publish();
  fs::rename(directory + "/pricer.json", dir_.File("pricer.json"));
  fs::create_symlink(dir_.File("pricer.json"), directory + "/pricer.json");
  EXPECT_THAT(Load(directory),
              StatusIs(kDataLoss, AllOf(HasSubstr("pricer.json"), HasSubstr("leads out of"))));
}

}  // namespace
}  // namespace pricer
