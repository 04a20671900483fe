#include "trainer/generate.h"

#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include "tests/testing/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"
#include "trainer/number_text.h"

namespace pricer {
namespace {

using testing::StatusIs;
using testing::TempDir;

absl::Status Ignore(int64_t) { return absl::OkStatus(); }

class GenerateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(testing::WriteTinyCheckpoint(dir_.File("base")));
    ASSERT_OK_AND_ASSIGN(checkpoint_, Checkpoint::Open(dir_.File("base")));
    ASSERT_OK_AND_ASSIGN(tokenizer_, Tokenizer::FromDirectory(dir_.File("base")));
    network_ = testing::LoadNetwork(*checkpoint_, WeightsKind::kFp32);
    for (int32_t i = 0; i < 40; ++i) {
      std::vector<int32_t>& ids = ids_.emplace_back();
      for (int32_t t = 0; t < 3 + i % 9; ++t) ids.push_back(3 + (i * 37 + t * 11) % 250);
    }
    for (const std::vector<int32_t>& ids : ids_) prompts_.push_back(ids);
  }

  // One prompt alone, the plain way.
  GeneratedPrice Reference(std::vector<int32_t> ids) const {
    const at::NoGradGuard no_grad;
    const size_t prompt_tokens = ids.size();
    GeneratedPrice result;
    while (ids.size() < prompt_tokens + kMaxGeneratedTokens) {
      const PackedSequence sequence{.ids = ids, .adapter = -1};
      const at::Tensor logits = network_->Logits(network_->Forward(Pack({&sequence, 1}), {}));
      const auto best = logits.argmax().item<int64_t>();
      if (best == 2) break;
      ids.push_back(static_cast<int32_t>(best));
      result.text = *tokenizer_->Decode({ids.begin() + prompt_tokens, ids.end()}, true);
      if (FindFirstNumber(result.text).complete) break;
    }
    result.price = FindFirstNumber(result.text).value;
    return result;
  }

  TempDir dir_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Network> network_;
  std::vector<std::vector<int32_t>> ids_;
  std::vector<Prompt> prompts_;
};

TEST_F(GenerateTest, EqualsGreedyGenerationOneByOne) {
  for (int64_t batch_tokens : {30, 10000}) {
    ASSERT_OK_AND_ASSIGN(
        const std::vector<GeneratedPrice> generated,
        GeneratePrices(*network_, nullptr, *tokenizer_, prompts_, batch_tokens, Ignore));
    ASSERT_EQ(generated.size(), ids_.size());
    for (size_t i = 0; i < ids_.size(); ++i) {
      const GeneratedPrice expected = Reference(ids_[i]);
      EXPECT_EQ(generated[i].text, expected.text) << i;
      EXPECT_EQ(generated[i].price, expected.price) << i;
    }
  }
}

TEST_F(GenerateTest, CountsDonePrompts) {
  std::vector<int64_t> done;
  const auto observe = [&](int64_t count) {
    done.push_back(count);
    return absl::OkStatus();
  };
  ASSERT_OK(GeneratePrices(*network_, nullptr, *tokenizer_, prompts_, 200, observe));
  EXPECT_GT(done.size(), 2u);
  EXPECT_EQ(done.back(), 40);
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
}

TEST_F(GenerateTest, AnErrorOfTheObserverEndsThePass) {
  // Within the first batch, whose first prompts are not done yet.
  const auto stop = [](int64_t done) -> absl::Status {
    EXPECT_EQ(done, 0);
    return absl::CancelledError("enough");
  };
  EXPECT_THAT(GeneratePrices(*network_, nullptr, *tokenizer_, prompts_, 200, stop),
              StatusIs(absl::StatusCode::kCancelled));
}

}  // namespace
}  // namespace pricer
