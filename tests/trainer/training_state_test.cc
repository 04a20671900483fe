#include "trainer/training_state.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <filesystem>
#include <map>

#include "base/file.h"
#include "model/safetensors.h"
#include "model/weights.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::StatusIs;
using testing::TempDir;

TrainingState Example() {
  TrainingState state;
  state.step = 12;
  state.total_steps = 40;
  state.step_time = absl::Nanoseconds(1234567890123);
  state.stale_validations = 2;
  state.validated = true;
  state.trainer["lora.0.1.a"] = at::arange(6, at::kFloat).view({2, 3}) + 0.1;
  state.trainer["head"] = at::arange(8, at::kFloat).view({4, 2}).t();  // not contiguous
  state.best["score"] = at::full({2, 2}, -0.0f);
  state.best_scores = at::rand({3, 5});
  state.best_step = 8;
  state.watch = {.losses = {3.1, 1.0 / 3, 2.9}, .gradient_norms = {0.1}};
  state.identity = {{"lr", "0.0002"}, {"question", "How much, caf\u00e9?\n"}};
  return state;
}

TEST(TrainingStateTest, ReadsWhatItWrites) {
  const TempDir dir;
  const TrainingState state = Example();
  ASSERT_OK(WriteTrainingState(state, dir.path()));
  ASSERT_OK_AND_ASSIGN(const TrainingState read, ReadTrainingState(dir.path()));
  EXPECT_EQ(read.step, 12);
  EXPECT_EQ(read.total_steps, 40);
  EXPECT_EQ(read.step_time, state.step_time);
  EXPECT_EQ(read.stale_validations, 2);
  EXPECT_TRUE(read.validated);
  EXPECT_EQ(read.best_step, 8);
  EXPECT_EQ(read.identity, state.identity);
  EXPECT_EQ(read.watch.losses, state.watch.losses);
  EXPECT_EQ(read.watch.gradient_norms, state.watch.gradient_norms);
  ASSERT_EQ(read.trainer.size(), 2u);
  EXPECT_TRUE(at::equal(read.trainer.at("lora.0.1.a"), state.trainer.at("lora.0.1.a")));
  EXPECT_TRUE(at::equal(read.trainer.at("head"), state.trainer.at("head")));
  EXPECT_TRUE(at::signbit(read.best.at("score")).all().item<bool>());
  EXPECT_TRUE(at::equal(read.best_scores, state.best_scores));
}

TEST(TrainingStateTest, BeforeTheFirstValidationThereIsNoBest) {
  const TempDir dir;
  TrainingState state = Example();
  state.best.clear();
  state.best_scores = at::Tensor();
  state.best_step = 0;
  state.watch = {};
  ASSERT_OK(WriteTrainingState(state, dir.path()));
  ASSERT_OK_AND_ASSIGN(const TrainingState read, ReadTrainingState(dir.path()));
  EXPECT_TRUE(read.best.empty());
  EXPECT_FALSE(read.best_scores.defined());
  EXPECT_TRUE(read.watch.losses.empty());
}

TEST(TrainingStateTest, NamesAWindowThatIsNone) {
  const TempDir dir;
  const auto window_error = [&](const at::Tensor& losses) {
    EXPECT_OK(WriteTrainingState(Example(), dir.path()));
    const auto file = SafetensorsFile::Parse(*ReadFile(dir.File("state.safetensors")), "state");
    EXPECT_OK(file);
    std::vector<NamedTensor> tensors;
    for (const auto& [name, view] : (*file)->tensors()) {
      if (name != "watch/losses") tensors.push_back({name, view});
    }
    if (losses.defined()) tensors.push_back({"watch/losses", ToView(losses)});
    const std::map<std::string, std::string> metadata((*file)->metadata().begin(),
                                                      (*file)->metadata().end());
    EXPECT_OK(WriteSafetensors(dir.File("state.safetensors"), tensors, metadata));
    return ReadTrainingState(dir.path()).status();
  };
  constexpr auto kCode = absl::StatusCode::kDataLoss;
  EXPECT_THAT(window_error(at::Tensor()),
              StatusIs(kCode, HasSubstr("tensor 'watch/losses': expected F64 [values], got none")));
  EXPECT_THAT(window_error(at::zeros({2})), StatusIs(kCode, HasSubstr("got F32 [2]")));
  EXPECT_OK(window_error(at::zeros({2}, at::kDouble)));
}

TEST(TrainingStateTest, ATruncatedFileIsNamed) {
  const TempDir dir;
  ASSERT_OK(WriteTrainingState(Example(), dir.path()));
  std::filesystem::resize_file(dir.File("state.safetensors"), 700);
  EXPECT_THAT(ReadTrainingState(dir.path()),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("state.safetensors")));
}

TEST(TrainingStateTest, FillsTensorsInPlaceOrNotAtAll) {
  const StateTensors from = {{"a", at::ones({2})}, {"b", at::ones({3})}};
  StateTensors into = {{"a", at::zeros({2})}, {"b", at::zeros({3})}};
  const at::Tensor a = into.at("a");
  ASSERT_OK(FillTensors(from, into));
  EXPECT_TRUE(at::equal(a, at::ones({2})));

  const auto refuses = [](const StateTensors& saved, const char* name, const char* problem) {
    const StateTensors zeros = {{"a", at::zeros({2})}, {"b", at::zeros({3})}};
    EXPECT_THAT(FillTensors(saved, zeros),
                StatusIs(absl::StatusCode::kDataLoss, AllOf(HasSubstr(name), HasSubstr(problem))));
    EXPECT_TRUE(at::equal(zeros.at("a"), at::zeros({2})));
  };
  refuses({{"a", at::ones({2})}}, "'b'", "missing");
  refuses({{"a", at::ones({2})}, {"b", at::ones({4})}}, "'b'", "expected Float [3], got Float [4]");
  refuses({{"a", at::ones({2})}, {"b", at::ones({3}, at::kDouble)}}, "'b'", "got Double");
  refuses({{"a", at::ones({2})}, {"b", at::ones({3})}, {"c", at::ones({1})}}, "'c'", "extra");
}

TEST(TrainingStateTest, NamesWhatIsNoLongerTheSame) {
  EXPECT_OK(CheckSameIdentity({{"lr", "1"}, {"data", "x"}}, {{"lr", "1"}}));
  EXPECT_THAT(CheckSameIdentity({{"lr", "1"}, {"data", "x"}}, {{"lr", "2"}}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("lr was '1'")));
}

}  // namespace
}  // namespace pricer
