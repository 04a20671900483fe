#include "trainer/memory_plan.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>

#include "tests/testing/counting_allocator.h"
#include "tests/testing/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"
#include "trainer/trainer.h"

namespace pricer {
namespace {

using testing::CountingAllocator;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::StatusIs;
using testing::TempDir;

// Of what the allocator counts.
constexpr double kTolerance = 0.05;

class MemoryPlanTest : public ::testing::Test {
 protected:
  void SetUp() override { Open({.hidden_size = 128, .ffn_size = 320, .layer_count = 4}); }

  void Open(const testing::TinyModelOptions& model) {
    ASSERT_OK(testing::WriteTinyCheckpoint(dir_.File("base"), model));
    ASSERT_OK_AND_ASSIGN(checkpoint_, Checkpoint::Open(dir_.File("base")));
  }

  static MemoryPlanRequest Request() {
    MemoryPlanRequest request;
    request.adapter.r = 16;
    request.adapter.target_modules = {"all-linear"};
    request.bins = 32;
    request.prompts = {.tokens = 64, .longest = 100, .answers = 1};
    return request;
  }

  MemoryPlan Plan(const MemoryPlanRequest& request) const {
    auto plan = PlanMemory(*checkpoint_, request);
    EXPECT_OK(plan);
    return *std::move(plan);
  }

  CountingAllocator counter_;  // outlives all tensors
  TempDir dir_;
  std::unique_ptr<Checkpoint> checkpoint_;
};

struct Kind {
  WeightsKind weights;
  at::ScalarType dtype;
};

WeightsPlan PlanOf(const Kind& kind, int threads) {
  return {.weights = std::string(WeightsKindName(kind.weights)),
          .element_bytes = kind.dtype == at::kFloat ? 4 : 2,
          .threads = threads};
}

const Kind kKinds[] = {{WeightsKind::kNf4, at::kFloat},  {WeightsKind::kNf4, at::kBFloat16},
                       {WeightsKind::kBf16, at::kFloat}, {WeightsKind::kBf16, at::kBFloat16},
                       {WeightsKind::kFp32, at::kFloat}, {WeightsKind::kFp32, at::kBFloat16}};

TEST_F(MemoryPlanTest, ResidentWeightsAreWhatTheNetworkSays) {
  for (const bool tied : {true, false}) {
    Open({.tied_embeddings = tied});
    for (const Kind& kind : kKinds) {
      const auto network = testing::LoadNetwork(*checkpoint_, kind.weights, kind.dtype);
      EXPECT_EQ(PredictWeights(*checkpoint_, PlanOf(kind, 1)).total(), network->weight_bytes());
    }
  }
}

TEST_F(MemoryPlanTest, PeakOfLoadingIsWhatTheAllocatorCounts) {
  const int threads = at::get_num_threads();
  for (const bool tied : {true, false}) {
    Open({.hidden_size = 128, .ffn_size = 320, .layer_count = 4, .tied_embeddings = tied});
    for (const Kind& kind : kKinds) {
      for (const int used : {1, threads}) {
        at::set_num_threads(used);
        const int64_t before = counter_.live_bytes();
        counter_.ResetPeak();
        testing::LoadNetwork(*checkpoint_, kind.weights, kind.dtype);
        const auto counted = static_cast<double>(counter_.peak_bytes() - before);
        const LoadMemory load = PredictLoadMemory(*checkpoint_, PlanOf(kind, used));
        const auto predicted = static_cast<double>(load.tensor_peak_bytes);
        // Threads need not be at their peaks together.
        EXPECT_LE(counted, predicted * (1 + kTolerance));
        EXPECT_GE(counted, predicted * (used == 1 ? 1 - kTolerance : 0.7));
        EXPECT_GE(load.peak_bytes, load.tensor_peak_bytes);
      }
    }
  }
  at::set_num_threads(threads);
}

TEST_F(MemoryPlanTest, OfStoredNf4NothingIsWidenedFirst) {
  const auto checkpoint = testing::OpenCheckpoint("nf4/checkpoint");
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const int64_t before = counter_.live_bytes();
  counter_.ResetPeak();
  testing::LoadNetwork(*checkpoint, WeightsKind::kNf4);
  const auto counted = static_cast<double>(counter_.peak_bytes() - before);
  at::set_num_threads(threads);
  const LoadMemory load = PredictLoadMemory(*checkpoint, {});
  EXPECT_NEAR(static_cast<double>(load.tensor_peak_bytes), counted, kTolerance * counted);
}

// What the plan says of a whole run but for validations.
TEST_F(MemoryPlanTest, ARunNeedsWhatThePlanSays) {
  MemoryPlanRequest request = Request();
  request.weights.threads = at::get_num_threads();
  request.tokens = {640};
  const MemoryPlan plan = Plan(request);
  const int64_t before = counter_.live_bytes();
  counter_.ResetPeak();
  {
    ASSERT_OK_AND_ASSIGN(PeftAdapter adapter, MakeAdapter(request.adapter, checkpoint_->config(),
                                                          /*bins=*/32, /*seed=*/1));
    const auto network = testing::LoadNetwork(*checkpoint_, WeightsKind::kNf4);
    ASSERT_OK_AND_ASSIGN(const auto trainer,
                         Trainer::Create(network.get(), std::move(adapter), {},
                                         HeadBasis::Cosine(32, at::ones({128}))));
    trainer->PlanSteps(2);
    std::vector<Example> examples(10);
    for (Example& example : examples) example = {.ids = std::vector<int32_t>(64, 7), .price = 20};
    const std::vector<MicroBatch> step = {MakeBinsMicroBatch(
        examples, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {.bins = 32, .min_price = 5, .max_price = 400})};
    // The first one makes the weights' second layout on the way.
    ASSERT_OK(trainer->TrainStep(step));
    ASSERT_OK(trainer->TrainStep(step));
  }
  const auto counted = static_cast<double>(counter_.peak_bytes() - before);
  const auto predicted = static_cast<double>(plan.batches[0].tuning_bytes - plan.tuned.best);
  EXPECT_NEAR(predicted, counted, kTolerance * counted);
}

TEST_F(MemoryPlanTest, TheBudgetIsUsedUp) {
  MemoryPlanRequest request = Request();
  request.tokens = {3000};
  const int64_t need = Plan(request).batches[0].tuning_bytes;
  request.budget_bytes = BudgetFor(need, 0);
  const MemoryPlan plan = Plan(request);
  const int64_t bytes = plan.budget->usable_bytes;
  EXPECT_GE(bytes, need);
  EXPECT_LE(bytes, need + (1 << 20));
  ASSERT_TRUE(plan.budget->tuning_tokens.has_value());
  EXPECT_GE(*plan.budget->tuning_tokens, 3000);
  EXPECT_GT(plan.budget->serving_tokens, plan.budget->tuning_tokens);
  EXPECT_TRUE(plan.budget->instead.empty());
  request.tokens = {*plan.budget->tuning_tokens, *plan.budget->tuning_tokens + 1,
                    *plan.budget->serving_tokens, *plan.budget->serving_tokens + 1};
  const MemoryPlan around = Plan(request);
  EXPECT_LE(around.batches[0].tuning_bytes, bytes);
  EXPECT_GT(around.batches[1].tuning_bytes, bytes);
  EXPECT_LE(around.batches[2].serving_bytes, bytes);
  EXPECT_GT(around.batches[3].serving_bytes, bytes);
}

TEST_F(MemoryPlanTest, ABudgetHoldsProgramAndDataToo) {
  EXPECT_EQ(UsableBytes(kProgramBytes, 0), 0);
  EXPECT_EQ(UsableBytes(kProgramBytes / 2, 0), 0);
  EXPECT_EQ(UsableBytes(kProgramBytes + 1000 + 1125, 1000), 1000);
  EXPECT_GE(UsableBytes(BudgetFor(123456, 77), 77), 123455);
}

TEST_F(MemoryPlanTest, SaysWhatWouldFitWhereNothingDoes) {
  MemoryPlanRequest request = Request();
  request.budget_bytes = 1;
  const int64_t least = Plan(request).budget->least_tuning_bytes;
  request.budget_bytes = BudgetFor(least, 0) - (1 << 20);  // too little
  const MemoryPlan::Budget close = *Plan(request).budget;
  EXPECT_FALSE(close.tuning_tokens.has_value());
  ASSERT_EQ(close.instead.size(), 3u);
  EXPECT_EQ(close.instead[0].first, "--dtype bf16 --lora-r 8");
  for (const auto& [options, bytes] : close.instead) EXPECT_LT(bytes, least) << options;

  // The best option of all is named though it does not fit.
  request.budget_bytes = 1;
  const MemoryPlan::Budget far = *Plan(request).budget;
  EXPECT_EQ(far.instead, close.instead);
}

TEST_F(MemoryPlanTest, MoreTokensFitWhereActivationsAreComputedTwice) {
  MemoryPlanRequest request = Request();
  request.tokens = {3000};
  request.budget_bytes = BudgetFor(Plan(request).batches[0].tuning_bytes, 0);
  const MemoryPlan::Budget budget = *Plan(request).budget;
  EXPECT_GT(*budget.recomputing_tokens, *budget.tuning_tokens * 3 / 2);
  EXPECT_OK(FitTuning(*checkpoint_, request, *budget.recomputing_tokens));
  EXPECT_FALSE(FitTuning(*checkpoint_, request, *budget.recomputing_tokens + 1).ok());
}

TEST_F(MemoryPlanTest, TheFewestLayersAreComputedTwice) {
  MemoryPlanRequest request = Request();
  request.tokens = {3000};
  const MemoryPlan plan = Plan(request);
  const int64_t whole = plan.batches[0].tuning_bytes;
  int64_t before = -1;
  for (const double share : {1.0, 0.9, 0.7}) {
    request.budget_bytes = BudgetFor(static_cast<int64_t>(share * static_cast<double>(whole)), 0);
    ASSERT_OK_AND_ASSIGN(const TuningFit fit, FitTuning(*checkpoint_, request, 3000));
    EXPECT_EQ(fit.recomputable_layers, 3);
    EXPECT_LE(fit.tuning_bytes, fit.usable_bytes);
    EXPECT_GT(fit.recomputed_layers, before);
    before = fit.recomputed_layers;
  }
}

TEST_F(MemoryPlanTest, WhatDoesNotFitIsToldWhatWould) {
  MemoryPlanRequest request = Request();
  request.budget_bytes = 1;
  const int64_t least = Plan(request).budget->least_tuning_bytes;
  request.budget_bytes = BudgetFor(least, 0);
  EXPECT_THAT(FitTuning(*checkpoint_, request, 3000),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       ::testing::AllOf(HasSubstr("3000 tokens needs"), HasSubstr("weights "),
                                        HasSubstr("or --micro-batch-tokens 1"))));
  request.budget_bytes = BudgetFor(least, 0) - (1 << 20);
  EXPECT_THAT(FitTuning(*checkpoint_, request, 3000),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("or --dtype bf16 --lora-r 8 with --micro-batch-tokens 100")));
}

TEST_F(MemoryPlanTest, TheTokenHeadNeedsItsLogits) {
  Open({.hidden_size = 64, .vocabulary_size = 4000});
  MemoryPlanRequest request = Request();
  request.tokens = {2048};
  const MemoryPlan bins = Plan(request);
  request.bins = 0;
  request.adapter.task = PeftTask::kCausalLm;
  request.prompts.answers = 4;
  const MemoryPlan token = Plan(request);
  // Three matrices over the vocabulary for each of 32 prompts.
  EXPECT_GT(token.batches[0].step.head_peak_bytes - bins.batches[0].step.head_peak_bytes,
            2 * 32 * 4 * 4000 * 4);
  EXPECT_LT(token.tuned.total(), bins.tuned.total());
}

TEST_F(MemoryPlanTest, RefusesTargetsThatTheBaseDoesNotHave) {
  MemoryPlanRequest request = Request();
  request.adapter.target_modules = {"c_attn"};
  EXPECT_THAT(PlanMemory(*checkpoint_, request),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("c_attn")));
}

}  // namespace
}  // namespace pricer
