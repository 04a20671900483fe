#include "server/model_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "server/adapter_loader.h"
#include "tests/server/fakes.h"
#include "tests/server/tiny_adapter.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::PlacePlainAdapter;
using testing::PublishTinyAdapter;
using testing::PublishTinyTokenAdapter;
using testing::RecordingMetrics;
using testing::StatusIs;
using testing::TempDir;

class ModelEngineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(testing::WriteTinyCheckpoint(options_.base, {.tied_embeddings = false}));
    ASSERT_OK_AND_ASSIGN(engine_, LoadModelEngine(options_));
  }

  static ServerOptions Options(const std::string& base, const std::string& weights) {
    ServerOptions options;
    options.base = base;
    options.weights = weights;
    options.dtype = "fp32";
    options.threads = 1;
    return options;
  }
  // Loads through the golden items, as the server does.
  absl::StatusOr<AdapterHandle> LoadChecked(Engine* engine, const std::string& directory) {
    BatchScheduler scheduler({}, engine->predictor(), &metrics_, Clock::System());
    AdapterMemory memory({}, {}, &metrics_, Clock::System());
    return AdapterLoader(engine, &scheduler, &memory).Load(directory);
  }

  TempDir base_;
  TempDir adapters_;
  RecordingMetrics metrics_;
  const ServerOptions options_ = Options(base_.path(), "fp32");
  std::unique_ptr<Engine> engine_;
};

TEST_F(ModelEngineTest, SaysWhatItComputesWith) {
  EXPECT_EQ(engine_->info().weights, "fp32");
  EXPECT_EQ(engine_->info().dtype, "fp32");
  EXPECT_EQ(engine_->info().device, "cpu");
  EXPECT_EQ(engine_->info().model_fingerprint.size(), 64u);
}

TEST_F(ModelEngineTest, LoadsAPublishedAdapterWhoseGoldenItemsComeOutRight) {
  ASSERT_OK_AND_ASSIGN(
      const PublishedVersion published,
      PublishTinyAdapter(base_.path(), engine_.get(), adapters_.path(), "toys", 1));
  ASSERT_OK_AND_ASSIGN(const AdapterHandle adapter,
                       LoadChecked(engine_.get(), published.directory));
  EXPECT_EQ(adapter->key, (AdapterKey{"toys", 1}));
  EXPECT_EQ(adapter->digest.size(), 64u);
  EXPECT_GT(adapter->memory_bytes, 0);
  EXPECT_EQ(adapter->manifest.currency, "USD");
  EXPECT_THAT(adapter->warning, IsEmpty());
}

TEST_F(ModelEngineTest, RefusesAnAdapterWhoseGoldenItemsComeOutWrong) {
  ASSERT_OK_AND_ASSIGN(
      const PublishedVersion published,
      PublishTinyAdapter(base_.path(), engine_.get(), adapters_.path(), "toys", 1, 1.01));
  EXPECT_THAT(LoadChecked(engine_.get(), published.directory),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("golden item 0")));
}

TEST_F(ModelEngineTest, ServesAnAdapterOnOtherWeightsThanTunedOnWithAWarning) {
  ASSERT_OK_AND_ASSIGN(
      const PublishedVersion published,
      PublishTinyAdapter(base_.path(), engine_.get(), adapters_.path(), "toys", 1));
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Engine> bf16,
                       LoadModelEngine(Options(base_.path(), "bf16")));
  ASSERT_OK_AND_ASSIGN(const AdapterHandle adapter, LoadChecked(bf16.get(), published.directory));
  EXPECT_THAT(adapter->warning, HasSubstr("tuned on fp32 weights"));
}

TEST_F(ModelEngineTest, RefusesAnAdapterForAnotherBase) {
  TempDir other_base;
  ASSERT_OK(testing::WriteTinyCheckpoint(other_base.path(), {.seed = 2}));
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Engine> other,
                       LoadModelEngine(Options(other_base.path(), "fp32")));
  ASSERT_OK_AND_ASSIGN(
      const PublishedVersion published,
      PublishTinyAdapter(other_base.path(), other.get(), adapters_.path(), "toys", 1));
  EXPECT_THAT(LoadChecked(engine_.get(), published.directory),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("fingerprint")));
}

TEST_F(ModelEngineTest, RefusesAnAdapterWithAPipeForAFile) {
  for (const char* const name : {"_READY", "adapter_model.safetensors"}) {
    ASSERT_OK_AND_ASSIGN(
        const PublishedVersion published,
        PublishTinyAdapter(base_.path(), engine_.get(), adapters_.path(), "toys", 1));
    const std::string path = published.directory + "/" + name;
    std::filesystem::remove(path);
    ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
    EXPECT_THAT(LoadChecked(engine_.get(), published.directory).status().message(),
                HasSubstr(std::string(name) + ": expected a regular file"));
  }
}

TEST_F(ModelEngineTest, LoadsAPublishedTokenAdapterWhoseGoldenItemsComeOutRight) {
  ASSERT_OK_AND_ASSIGN(
      const PublishedVersion published,
      PublishTinyTokenAdapter(base_.path(), engine_.get(), adapters_.path(), "toys", 1));
  ASSERT_OK_AND_ASSIGN(const AdapterHandle adapter,
                       LoadChecked(engine_.get(), published.directory));
  EXPECT_EQ(adapter->manifest.head, HeadKind::kToken);
  EXPECT_THAT(adapter->warning, IsEmpty());
  // Learnt from the golden items.
  EXPECT_GT(adapter->extra_rows(), 0);
  EXPECT_LT(adapter->extra_rows(), kWholePriceCount);
  ASSERT_OK_AND_ASSIGN(
      const PublishedVersion wrong,
      PublishTinyTokenAdapter(base_.path(), engine_.get(), adapters_.path(), "toys", 1, 1.5));
  EXPECT_THAT(LoadChecked(engine_.get(), wrong.directory),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("golden item 0")));
}

TEST_F(ModelEngineTest, LoadsAPlainDirectoryWithAWarning) {
  ASSERT_OK(PlacePlainAdapter(base_.path(), adapters_.path(), "recipe", 1));
  ASSERT_OK_AND_ASSIGN(const AdapterHandle adapter,
                       LoadChecked(engine_.get(), adapters_.File("recipe/1")));
  EXPECT_EQ(adapter->key, (AdapterKey{"recipe", 1}));
  EXPECT_EQ(adapter->manifest.prompt.preset, "reference");
  EXPECT_EQ(adapter->digest.size(), 64u);
  EXPECT_THAT(adapter->warning, HasSubstr("no pricer.json"));
  EXPECT_EQ(adapter->extra_rows(), kWholePriceCount);
}

TEST_F(ModelEngineTest, ProbesTheTokenizerOnceForOnePrompt) {
  ASSERT_OK(PlacePlainAdapter(base_.path(), adapters_.path(), "one", 1));
  ASSERT_OK(PlacePlainAdapter(base_.path(), adapters_.path(), "two", 2));
  const auto tokens_of = [](const AdapterHandle& adapter) {
    return static_cast<const ModelAdapter&>(*adapter).tokens;
  };
  ASSERT_OK_AND_ASSIGN(const auto one, engine_->LoadAdapter(adapters_.File("one/1")));
  ASSERT_OK_AND_ASSIGN(const auto two, engine_->LoadAdapter(adapters_.File("two/1")));
  ASSERT_OK_AND_ASSIGN(const auto base, engine_->LoadBase());
  EXPECT_NE(tokens_of(one.adapter), nullptr);
  EXPECT_EQ(tokens_of(one.adapter), tokens_of(two.adapter));
  EXPECT_NE(tokens_of(one.adapter), tokens_of(base));
}

TEST_F(ModelEngineTest, TheBasePricesAsItWasAskedTo) {
  ASSERT_OK_AND_ASSIGN(const auto base, engine_->LoadBase());
  EXPECT_EQ(base->key, BaseKey());
  EXPECT_EQ(base->manifest.currency, "USD");
  EXPECT_EQ(base->manifest.prompt.preset, "default");
  EXPECT_EQ(base->memory_bytes, 0);
  EXPECT_EQ(base->digest.size(), 64u);
  ASSERT_OK_AND_ASSIGN(const EncodedPrompt prompt, engine_->Encode(base->manifest.prompt, "lamp"));
  const PredictorSequence sequence{prompt.ids, base.get()};
  EXPECT_OK(engine_->predictor()->PredictBatch({&sequence, 1})[0]);

  ServerOptions options = options_;
  options.base_currency = "EUR";
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Engine> euro, LoadModelEngine(options));
  ASSERT_OK_AND_ASSIGN(const auto euro_base, euro->LoadBase());
  EXPECT_EQ(euro_base->manifest.currency, "EUR");
  EXPECT_THAT(euro_base->manifest.prompt.prefix, HasSubstr("EUR"));
  EXPECT_NE(euro_base->digest, base->digest);
}

TEST_F(ModelEngineTest, WithoutTokensForPricesNeitherBaseNorTokenAdapterLoads) {
  TempDir small;
  // The digits have rows, the comma has none.
  ASSERT_OK(testing::WriteTinyCheckpoint(small.path(), {.vocabulary_size = 47}));
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Engine> engine,
                       LoadModelEngine(Options(small.path(), "fp32")));
  EXPECT_THAT(engine->LoadBase(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                           AllOf(HasSubstr("no prices"), HasSubstr("below 47"))));
  ASSERT_OK(PlacePlainAdapter(base_.path(), adapters_.path(), "recipe", 1));
  const std::string directory = adapters_.File("recipe/1");
  EXPECT_THAT(LoadChecked(engine.get(), directory),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr(directory), HasSubstr("no prices"))));
}

TEST_F(ModelEngineTest, EncodesThePromptWithTheItemInIt) {
  ASSERT_OK_AND_ASSIGN(const PromptTemplate prompt, PromptTemplate::Preset("default", "USD"));
  ASSERT_OK_AND_ASSIGN(const EncodedPrompt lamp, engine_->Encode(prompt, "lamp"));
  // One token a byte.
  EXPECT_EQ(lamp.ids.size(), prompt.Render("lamp").size());
  EXPECT_FALSE(lamp.truncated);
}

TEST_F(ModelEngineTest, RefusesAnItemWithATokenThatTheModelDoesNotKnow) {
  TempDir small;
  // Bytes beyond ASCII have no row.
  ASSERT_OK(testing::WriteTinyCheckpoint(small.path(), {.vocabulary_size = 131}));
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Engine> engine,
                       LoadModelEngine(Options(small.path(), "fp32")));
  ASSERT_OK_AND_ASSIGN(const PromptTemplate prompt, PromptTemplate::Preset("default", "USD"));
  EXPECT_OK(engine->Encode(prompt, "lamp"));
  EXPECT_THAT(engine->Encode(prompt, "l\u00e4mp"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("below 131")));
}

TEST_F(ModelEngineTest, ABaseThatIsNotThereIsAnErrorThatNamesIt) {
  EXPECT_THAT(LoadModelEngine(Options(base_.File("gone"), "fp32")),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("gone")));
}

}  // namespace
}  // namespace pricer
