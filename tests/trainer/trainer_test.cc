#include "trainer/trainer.h"

#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <cmath>
#include <iostream>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/ops/cross_entropy.h"
#include "tests/testing/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"

namespace pricer {
namespace {

using testing::StatusIs;
using testing::TempDir;

// Name and tensor of everything that is tuned.
std::vector<std::pair<std::string, at::Tensor>> Tensors(const AdapterWeights& weights) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  if (weights.score.defined()) tensors.emplace_back("score", weights.score);
  for (size_t layer = 0; layer < weights.layers.size(); ++layer) {
    for (int p = 0; p < kProjectionCount; ++p) {
      const LoraWeights& linear = weights.layers[layer][p];
      if (!linear.defined()) continue;
      const std::string name =
          absl::StrCat(ModulePath(static_cast<int64_t>(layer), static_cast<Projection>(p)));
      tensors.emplace_back(name + ".lora_A", linear.a);
      tensors.emplace_back(name + ".lora_B", linear.b);
    }
  }
  return tensors;
}

double MaxDifference(const AdapterWeights& a, const AdapterWeights& b) {
  const auto left = Tensors(a);
  const auto right = Tensors(b);
  EXPECT_EQ(left.size(), right.size());
  double largest = 0;
  for (size_t i = 0; i < left.size(); ++i) {
    const double difference =
        testing::MaxAbsDifference(left[i].second.detach(), right[i].second.detach());
    EXPECT_TRUE(std::isfinite(difference)) << left[i].first;
    largest = std::max(largest, difference);
  }
  return largest;
}

// A tiny random base with a byte for each token, and rows whose price follows from one of their
// ids.
class TrainerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(testing::WriteTinyCheckpoint(dir_.File("base")));
    ASSERT_OK_AND_ASSIGN(checkpoint_, Checkpoint::Open(dir_.File("base")));
    network_ = testing::LoadNetwork(*checkpoint_, WeightsKind::kFp32);
    for (int32_t i = 0; i < 64; ++i) {
      Example& example = examples_.emplace_back();
      for (int32_t t = 0; t < 5 + i % 7; ++t) example.ids.push_back(10 + (i * 31 + t * 17) % 200);
      example.ids.push_back(20 + i % 8);
      example.price = 10.0 * std::pow(1.5, i % 8);
    }
  }

  PeftAdapter NewAdapter() const {
    PeftConfig config;
    config.r = 4;
    config.alpha = 8;
    config.target_modules = {"all-linear"};
    auto adapter = MakeAdapter(config, checkpoint_->config(), bins_.bins, /*seed=*/3);
    EXPECT_OK(adapter);
    return *std::move(adapter);
  }

  std::unique_ptr<Trainer> NewTrainer(const Trainer::Options& options = {}) const {
    return NewTrainer(network_.get(), options);
  }
  std::unique_ptr<Trainer> NewTrainer(const Network* network,
                                      const Trainer::Options& options) const {
    auto trainer = Trainer::Create(network, NewAdapter(), options);
    EXPECT_OK(trainer);
    (*trainer)->set_schedule({.total_steps = 1000, .warmup_steps = 0});
    return *std::move(trainer);
  }

  // Rows first .. first + count - 1 in micro-batches of `size`.
  std::vector<MicroBatch> MicroBatches(int64_t first, int64_t count, int64_t size) const {
    std::vector<MicroBatch> micro_batches;
    for (int64_t begin = first; begin < first + count; begin += size) {
      std::vector<int64_t> indices;
      for (int64_t i = begin; i < begin + size; ++i) indices.push_back(i);
      micro_batches.push_back(MakeBinsMicroBatch(examples_, indices, bins_));
    }
    return micro_batches;
  }

  TempDir dir_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<Network> network_;
  std::vector<Example> examples_;
  BinsSpec bins_ = {.bins = 32, .min_price = 5, .max_price = 400, .sigma = 0.75};
};

TEST_F(TrainerTest, TheFirstLossIsThatOfAUniformHead) {
  ASSERT_OK_AND_ASSIGN(const StepResult result, NewTrainer()->TrainStep(MicroBatches(0, 16, 16)));
  EXPECT_NEAR(result.loss, std::log(32.0), 1e-5);
  EXPECT_EQ(result.rows, 16);
  EXPECT_EQ(result.step, 0);
}

TEST_F(TrainerTest, AStepSaysWhatItWorkedOnAndHowMuchThatWas) {
  ASSERT_OK_AND_ASSIGN(const StepResult result, NewTrainer()->TrainStep(MicroBatches(5, 6, 2)));
  EXPECT_THAT(result.row_numbers, ::testing::ElementsAre(5, 6, 7, 8, 9, 10));
  BatchWork work;
  for (int64_t row = 5; row < 11; ++row) {
    work.Add(static_cast<int64_t>(examples_[row].ids.size()), 1);
  }
  LoraRanks ranks(2);
  for (auto& layer : ranks) layer.fill(4);
  const HeadWork head{.rows = bins_.bins, .trained = true};
  EXPECT_EQ(result.flops, ForwardFlops(network_->config(), ranks, head, work) +
                              BackwardFlops(network_->config(), ranks, head, work));
}

TEST_F(TrainerTest, TheLossFalls) {
  const std::unique_ptr<Trainer> trainer =
      NewTrainer({.learning_rate = 3e-3, .head_learning_rate = 3e-3});
  double last = 0;
  for (int step = 0; step < 40; ++step) {
    ASSERT_OK_AND_ASSIGN(const StepResult result,
                         trainer->TrainStep(MicroBatches(16 * (step % 4), 16, 16)));
    last = result.loss;
  }
  // The price is a function of the last id, so little but the target's own entropy remains.
  EXPECT_LT(last, 0.6 * std::log(32.0));
}

TEST_F(TrainerTest, OneBatchOf16EqualsFourOf4) {
  const std::unique_ptr<Trainer> whole = NewTrainer();
  const std::unique_ptr<Trainer> cut = NewTrainer();
  for (int step = 0; step < 4; ++step) {
    ASSERT_OK_AND_ASSIGN(const StepResult a, whole->TrainStep(MicroBatches(16 * step, 16, 16)));
    ASSERT_OK_AND_ASSIGN(const StepResult b, cut->TrainStep(MicroBatches(16 * step, 16, 4)));
    EXPECT_NEAR(a.loss, b.loss, 1e-5 * a.loss) << step;
    EXPECT_NEAR(a.gradient_norm, b.gradient_norm, 1e-4 * a.gradient_norm) << step;
    EXPECT_EQ(a.tokens, b.tokens);
  }
  EXPECT_LT(MaxDifference(whole->adapter().weights, cut->adapter().weights), 2e-5);
}

TEST_F(TrainerTest, DropoutIsTheSameHoweverAStepIsCut) {
  const auto train = [&](int64_t size, uint64_t seed) {
    PeftAdapter adapter = NewAdapter();
    adapter.config.dropout = 0.2;
    auto trainer =
        Trainer::Create(network_.get(), std::move(adapter),
                        {.learning_rate = 5e-3, .head_learning_rate = 5e-3, .dropout_seed = seed});
    EXPECT_OK(trainer);
    (*trainer)->set_schedule({.total_steps = 1000, .warmup_steps = 0});
    StepResult last;
    for (int step = 0; step < 4; ++step) {
      const auto result = (*trainer)->TrainStep(MicroBatches(0, 16, size));
      EXPECT_OK(result);
      last = *result;
    }
    return last;
  };
  const StepResult whole = train(16, 1);
  const StepResult cut = train(4, 1);
  EXPECT_NEAR(whole.loss, cut.loss, 1e-5 * whole.loss);
  EXPECT_NEAR(whole.gradient_norm, cut.gradient_norm, 1e-4 * whole.gradient_norm);
  EXPECT_GT(std::abs(train(16, 2).gradient_norm - whole.gradient_norm), 1e-3 * whole.gradient_norm);
}

TEST_F(TrainerTest, TheTokenHeadLearnsCompletions) {
  for (size_t i = 0; i < examples_.size(); ++i) {
    // One to three tokens that follow from the prompt's last id.
    const int32_t last = examples_[i].ids.back();
    for (int32_t t = 0; t <= last % 3; ++t) examples_[i].ids.push_back(100 + last + t);
    examples_[i].completion_tokens = last % 3 + 1;
  }
  PeftConfig config;
  config.task = PeftTask::kCausalLm;
  config.r = 8;
  config.alpha = 16;
  config.target_modules = {"all-linear"};
  ASSERT_OK_AND_ASSIGN(PeftAdapter adapter, MakeAdapter(config, checkpoint_->config(), 0, 3));
  ASSERT_OK_AND_ASSIGN(
      const std::unique_ptr<Trainer> trainer,
      Trainer::Create(network_.get(), std::move(adapter), {.learning_rate = 1e-2}));
  trainer->set_schedule({.total_steps = 1000, .warmup_steps = 0});
  std::vector<int64_t> indices(64);
  std::iota(indices.begin(), indices.end(), 0);
  const MicroBatch batch = MakeTokenMicroBatch(examples_, indices);
  double first = 0;
  double last = 0;
  for (int step = 0; step < 40; ++step) {
    ASSERT_OK_AND_ASSIGN(const StepResult result, trainer->TrainStep({&batch, 1}));
    EXPECT_EQ(result.targets, batch.target_count());
    // The base's own head takes part, and only its states have a gradient.
    EXPECT_GT(result.flops, 4.0 * 64 * 260 * static_cast<double>(batch.target_count()));
    if (step == 0) first = result.loss;
    last = result.loss;
  }
  EXPECT_LT(last, 0.2 * first);
  EXPECT_EQ(trainer->State().count("head"), 0u);
  EXPECT_FALSE(trainer->CopyWeights().score.defined());
}

TEST_F(TrainerTest, EveryTensorHasAGradientByTheThirdStep) {
  // Zero score rows give LoRA no gradient in the first step, zero B gives A none in the second.
  const std::unique_ptr<Trainer> trainer = NewTrainer();
  for (int step = 0; step < 3; ++step) ASSERT_OK(trainer->TrainStep(MicroBatches(0, 16, 16)));
  for (const auto& [name, tensor] : Tensors(trainer->adapter().weights)) {
    EXPECT_GT(tensor.grad().abs().max().item<double>(), 0.0) << name;
  }
}

TEST_F(TrainerTest, CosineCoordinatesLearnInFewerStepsAndGiveTheRows) {
  const std::vector<MicroBatch> batch = MicroBatches(0, 16, 16);
  const PeftAdapter fresh = NewAdapter();
  const AdapterWeights* const untrained = &fresh.weights;
  const at::Tensor states = network_->Forward(batch[0].batch, {&untrained, 1}).detach();
  const auto train = [&](const HeadBasis& basis, AdapterWeights* weights) {
    auto trainer = Trainer::Create(network_.get(), NewAdapter(), {}, basis);
    EXPECT_OK(trainer);
    (*trainer)->set_schedule({.total_steps = 1000, .warmup_steps = 0});
    double loss = 0;
    for (int step = 0; step < 20; ++step) {
      *weights = (*trainer)->CopyWeights();
      const auto result = (*trainer)->TrainStep(batch);
      EXPECT_OK(result);
      loss = result->loss;
    }
    return loss;
  };
  AdapterWeights rows;
  AdapterWeights cosine;
  const double loss_of_rows = train(HeadBasis::Rows(), &rows);
  const double loss_of_cosine = train(HeadBasis::Cosine(bins_.bins, states.mean(0)), &cosine);
  EXPECT_LT(loss_of_cosine, loss_of_rows - 0.1);

  // The rows that a copy has are those that the loss was computed with.
  const AdapterWeights* const weights = &cosine;
  const at::NoGradGuard no_grad;
  const at::Tensor hidden = network_->Forward(batch[0].batch, {&weights, 1});
  const at::Tensor loss =
      CrossEntropySum(Network::BinLogits(hidden, cosine.score), batch[0].targets) / 16.0;
  EXPECT_NEAR(loss.item<double>(), loss_of_cosine, 1e-5);
}

TEST_F(TrainerTest, TrainsOnAnNf4BaseToo) {
  const std::unique_ptr<Network> nf4 = testing::LoadNetwork(*checkpoint_, WeightsKind::kNf4);
  const std::unique_ptr<Trainer> trainer =
      NewTrainer(nf4.get(), {.learning_rate = 3e-3, .head_learning_rate = 3e-3});
  double first = 0;
  double last = 0;
  for (int step = 0; step < 12; ++step) {
    ASSERT_OK_AND_ASSIGN(const StepResult result, trainer->TrainStep(MicroBatches(0, 16, 16)));
    if (step == 0) first = result.loss;
    last = result.loss;
  }
  EXPECT_LT(last, 0.9 * first);
}

TEST_F(TrainerTest, StepsAreTheSameEveryTime) {
  const std::unique_ptr<Trainer> one = NewTrainer();
  const std::unique_ptr<Trainer> two = NewTrainer();
  for (int step = 0; step < 3; ++step) {
    ASSERT_OK(one->TrainStep(MicroBatches(0, 16, 8)));
    ASSERT_OK(two->TrainStep(MicroBatches(0, 16, 8)));
  }
  EXPECT_EQ(MaxDifference(one->adapter().weights, two->adapter().weights), 0.0);
}

TEST_F(TrainerTest, ARestoredTrainerGoesOnToTheBit) {
  for (const bool cosine : {false, true}) {
    const HeadBasis basis =
        cosine ? HeadBasis::Cosine(bins_.bins, at::ones({64}, at::kFloat)) : HeadBasis::Rows();
    const auto make = [&] {
      auto trainer = Trainer::Create(network_.get(), NewAdapter(), {}, basis);
      EXPECT_OK(trainer);
      (*trainer)->PlanSteps(6);
      return *std::move(trainer);
    };
    const std::unique_ptr<Trainer> whole = make();
    for (int step = 0; step < 3; ++step) ASSERT_OK(whole->TrainStep(MicroBatches(0, 16, 8)));
    TempDir dir;
    TrainingState saved;
    saved.trainer = whole->State();
    ASSERT_OK(WriteTrainingState(saved, dir.path()));
    ASSERT_OK_AND_ASSIGN(const TrainingState state, ReadTrainingState(dir.path()));
    const std::unique_ptr<Trainer> restored = make();
    ASSERT_OK(restored->Restore(state.trainer, 3));
    EXPECT_EQ(restored->step(), 3);
    EXPECT_EQ(MaxDifference(whole->adapter().weights, restored->adapter().weights), 0.0);
    for (int step = 3; step < 6; ++step) {
      ASSERT_OK_AND_ASSIGN(const StepResult one, whole->TrainStep(MicroBatches(16, 16, 8)));
      ASSERT_OK_AND_ASSIGN(const StepResult two, restored->TrainStep(MicroBatches(16, 16, 8)));
      EXPECT_EQ(one.loss, two.loss);
      EXPECT_EQ(one.learning_rate, two.learning_rate);
    }
    EXPECT_EQ(MaxDifference(whole->adapter().weights, restored->adapter().weights), 0.0);
  }
}

TEST_F(TrainerTest, AStateThatDoesNotFitIsRefusedByName) {
  const std::unique_ptr<Trainer> trainer = NewTrainer();
  StateTensors state = trainer->State();
  state["head"] = at::zeros({2, 2});
  EXPECT_THAT(trainer->Restore(state, 3),
              StatusIs(absl::StatusCode::kDataLoss, ::testing::HasSubstr("'head'")));
  EXPECT_EQ(trainer->step(), 0);
}

TEST_F(TrainerTest, AStepThatIsNotFiniteChangesNothing) {
  const std::unique_ptr<Trainer> trainer = NewTrainer();
  ASSERT_OK(trainer->TrainStep(MicroBatches(0, 16, 16)));
  const AdapterWeights before = trainer->CopyWeights();
  std::vector<MicroBatch> bad = MicroBatches(0, 16, 16);
  bad[0].targets[3][4] = std::nanf("");
  EXPECT_THAT(trainer->TrainStep(bad),
              StatusIs(absl::StatusCode::kInternal, ::testing::HasSubstr("training step 1")));
  EXPECT_EQ(MaxDifference(before, trainer->adapter().weights), 0.0);
  EXPECT_EQ(trainer->step(), 1);
  EXPECT_OK(trainer->TrainStep(MicroBatches(0, 16, 16)));
}

TEST_F(TrainerTest, AStepThatIsStoppedChangesNothing) {
  const std::unique_ptr<Trainer> trainer = NewTrainer();
  const AdapterWeights before = trainer->CopyWeights();
  int asked = 0;
  EXPECT_THAT(trainer->TrainStep(MicroBatches(0, 16, 4), [&] { return ++asked == 3; }),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(asked, 3);
  EXPECT_EQ(MaxDifference(before, trainer->adapter().weights), 0.0);
  EXPECT_EQ(trainer->step(), 0);
  const std::unique_ptr<Trainer> other = NewTrainer();
  ASSERT_OK(trainer->TrainStep(MicroBatches(0, 16, 4)));
  ASSERT_OK(other->TrainStep(MicroBatches(0, 16, 4)));
  EXPECT_EQ(MaxDifference(other->adapter().weights, trainer->adapter().weights), 0.0);
}

TEST_F(TrainerTest, RefusesWrongOptionsByName) {
  EXPECT_THAT(Trainer::Create(network_.get(), NewAdapter(), {.learning_rate = -1}),
              StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("--lr is -1")));
  EXPECT_THAT(
      Trainer::Create(network_.get(), NewAdapter(), {.warmup_ratio = 1}),
      StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("--warmup-ratio is 1")));
  PeftAdapter headless = NewAdapter();
  headless.weights.score = at::Tensor();
  EXPECT_THAT(Trainer::Create(network_.get(), std::move(headless), {}),
              StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("bins head")));
}

// Train with hooks that note what happens.
class TrainLoopTest : public TrainerTest {
 protected:
  absl::StatusOr<TrainOutcome> RunTrain(const TrainPlan& plan, int64_t epochs) {
    trainer_ = NewTrainer();
    Dataset dataset;
    dataset.examples = examples_;
    Sampler sampler(dataset.Lengths(), {.seed = 1, .epochs = epochs, .batch_tokens = 60});
    TrainHooks hooks;
    hooks.validate = [this](const AdapterWeights&) -> absl::StatusOr<Validation> {
      if (static_cast<int64_t>(validations_.size()) == fail_after_) {
        return absl::InternalError("diverged");
      }
      Validation validation;
      validation.metrics.mae = maes_.empty() ? 1.0 : maes_[validations_.size()];
      validation.scores = {{static_cast<float>(validation.metrics.mae)}};
      return validation;
    };
    hooks.on_step = [this](const StepResult& result, int64_t total) {
      steps_.push_back(result);
      totals_.push_back(total);
      return absl::OkStatus();
    };
    hooks.on_validation = [this](int64_t step, const Metrics&) {
      validations_.push_back(step);
      weights_.push_back(trainer_->CopyWeights());
      return absl::OkStatus();
    };
    hooks.make_micro_batch = [this](absl::Span<const int64_t> indices) {
      MicroBatch micro_batch = MakeBinsMicroBatch(examples_, indices, bins_);
      if (static_cast<int64_t>(steps_.size()) == spoil_after_) micro_batch.targets[0][0] = NAN;
      return micro_batch;
    };
    hooks.name_row = [](int64_t index) { return absl::StrCat("example ", index); };
    hooks.stop = [this] { return static_cast<int64_t>(steps_.size()) == stop_after_; };
    outcome_ = {};
    RETURN_IF_ERROR(Train(trainer_.get(), &sampler, plan, hooks, &outcome_));
    return outcome_;
  }

  class FakeClock : public Clock {
   public:
    // Every step asks twice: before and after.
    absl::Time Now() const override { return now += absl::Seconds(1); }
    mutable absl::Time now = absl::FromUnixSeconds(0);
  };

  std::unique_ptr<Trainer> trainer_;
  FakeClock clock_;
  std::vector<double> maes_;
  int64_t stop_after_ = -1;
  int64_t fail_after_ = -1;
  int64_t spoil_after_ = -1;
  TrainOutcome outcome_;
  std::vector<StepResult> steps_;
  std::vector<int64_t> totals_;
  std::vector<int64_t> validations_;
  std::vector<AdapterWeights> weights_;
};

TEST_F(TrainLoopTest, TrainsOnEveryExampleOncePerEpoch) {
  ASSERT_OK_AND_ASSIGN(const TrainOutcome outcome, RunTrain({.max_steps = 1000}, 2));
  int64_t rows = 0;
  for (const StepResult& step : steps_) rows += step.rows;
  EXPECT_EQ(rows, 128);
  EXPECT_EQ(outcome.steps, static_cast<int64_t>(steps_.size()));
  EXPECT_EQ(totals_.front(), outcome.steps);
  EXPECT_GT(steps_.front().time, absl::ZeroDuration());
  EXPECT_FALSE(outcome.stopped);
}

TEST_F(TrainLoopTest, EndsAfterMaxStepsWithTheWholeScheduleInThem) {
  ASSERT_OK_AND_ASSIGN(const TrainOutcome outcome, RunTrain({.max_steps = 5}, 2));
  EXPECT_EQ(outcome.steps, 5);
  // 0.03 of 5 steps is one step of warm-up, then a cosine over four.
  EXPECT_EQ(steps_[0].learning_rate, 0.0);
  EXPECT_DOUBLE_EQ(steps_[1].learning_rate, 2e-4);
  EXPECT_DOUBLE_EQ(steps_[3].learning_rate, 1e-4);
  EXPECT_DOUBLE_EQ(steps_[3].head_learning_rate, 2.5e-4);
}

TEST_F(TrainLoopTest, ValidatesEverySoManyStepsAndAtTheEnd) {
  ASSERT_OK(RunTrain({.max_steps = 7, .validation_every = 3}, 2));
  EXPECT_THAT(validations_, ::testing::ElementsAre(3, 6, 7));
}

TEST_F(TrainLoopTest, ValidatesFourTimesUnlessToldOtherwise) {
  ASSERT_OK(RunTrain({.max_steps = 8}, 2));
  EXPECT_THAT(validations_, ::testing::ElementsAre(2, 4, 6, 8));
}

TEST_F(TrainLoopTest, KeepsTheTensorsWithTheLowestError) {
  maes_ = {5.0, 3.0, 3.0, 4.0};
  ASSERT_OK_AND_ASSIGN(const TrainOutcome outcome, RunTrain({.max_steps = 8}, 2));
  EXPECT_EQ(outcome.best_step, 4);
  EXPECT_EQ(outcome.best_validation->metrics.mae, 3.0);
  EXPECT_EQ(outcome.best_validation->scores[0][0], 3.0f);
  EXPECT_EQ(MaxDifference(outcome.best, weights_[1]), 0.0);
  EXPECT_GT(MaxDifference(outcome.best, weights_[3]), 0.0);
}

TEST_F(TrainLoopTest, EndsEarlyWhereItGetsNoBetter) {
  maes_ = {5.0, 3.0, 3.0, 4.0};
  ASSERT_OK_AND_ASSIGN(const TrainOutcome outcome,
                       RunTrain({.max_steps = 20, .validation_every = 1, .patience = 2}, 8));
  EXPECT_TRUE(outcome.out_of_patience);
  EXPECT_EQ(outcome.steps, 4);
  EXPECT_EQ(outcome.best_step, 2);
}

TEST_F(TrainLoopTest, AnErrorLeavesTheBestTensorsSoFar) {
  maes_ = {5.0, 3.0, 4.0};
  fail_after_ = 3;
  EXPECT_THAT(RunTrain({.max_steps = 8}, 2), StatusIs(absl::StatusCode::kInternal, "diverged"));
  EXPECT_EQ(outcome_.steps, 8);
  EXPECT_EQ(outcome_.best_step, 4);
  EXPECT_EQ(outcome_.best_validation->metrics.mae, 3.0);
  EXPECT_EQ(MaxDifference(outcome_.best, weights_[1]), 0.0);
}

TEST_F(TrainLoopTest, AStepThatIsNotFiniteNamesItsRows) {
  spoil_after_ = 2;
  const absl::Status status = RunTrain({.max_steps = 8, .micro_batch_tokens = 20}, 2).status();
  EXPECT_THAT(status,
              StatusIs(absl::StatusCode::kInternal,
                       ::testing::AllOf(::testing::HasSubstr("training step 2: the loss is"),
                                        ::testing::HasSubstr("; of example "))));
  EXPECT_EQ(outcome_.steps, 2);
}

TEST_F(TrainLoopTest, StopsBetweenStepsWhenAsked) {
  stop_after_ = 2;
  ASSERT_OK_AND_ASSIGN(const TrainOutcome outcome, RunTrain({.max_steps = 8}, 2));
  EXPECT_TRUE(outcome.stopped);
  EXPECT_EQ(outcome.steps, 2);
}

TEST_F(TrainLoopTest, FitsTheStepsIntoATimeBudgetAfterThree) {
  // Each step takes one second by the clock, so 6.5 seconds allow six.
  TrainPlan plan{.max_steps = 20, .time_budget = absl::Seconds(6.5), .clock = &clock_};
  ASSERT_OK_AND_ASSIGN(const TrainOutcome outcome, RunTrain(plan, 8));
  EXPECT_EQ(outcome.steps, 6);
  EXPECT_EQ(totals_[1], 20);
  EXPECT_EQ(totals_[3], 6);
  EXPECT_EQ(steps_.back().learning_rate, 2e-4 * LrSchedule::WithWarmupRatio(6, 0.03).Factor(5));
}

TEST_F(TrainLoopTest, ATimeBudgetNeverAddsSteps) {
  TrainPlan plan{.max_steps = 4, .time_budget = absl::Hours(1), .clock = &clock_};
  ASSERT_OK_AND_ASSIGN(const TrainOutcome outcome, RunTrain(plan, 8));
  EXPECT_EQ(outcome.steps, 4);
}

}  // namespace
}  // namespace pricer
