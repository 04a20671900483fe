#include "server/adapter_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/server/fakes.h"
#include "tests/server/golden_adapter.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using testing::FakeClock;
using testing::FakeEngine;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::MakeGoldenAdapter;
using ::testing::Not;
using testing::RecordingMetrics;
using testing::StatusIs;

constexpr char kDirectory[] = "/adapters/toys/1";

class AdapterLoaderTest : public ::testing::Test {
 protected:
  // Has `count` golden items whose prices are what the fake predictor says, times `factor`.
  std::shared_ptr<LoadedAdapter> AdapterWithGolden(int count, double factor = 1.0) {
    return MakeGoldenAdapter("toys", 1, count, factor);
  }
  absl::StatusOr<AdapterHandle> Load(std::shared_ptr<LoadedAdapter> adapter) {
    engine_.AddAdapter("toys/1", std::move(adapter));
    return loader_.Load(kDirectory);
  }

  FakeClock clock_;
  RecordingMetrics metrics_;
  FakeEngine engine_;
  BatchScheduler scheduler_{{.max_batch_tokens = 1000, .max_queue_tokens = 1000},
                            engine_.predictor(),
                            &metrics_,
                            &clock_};
  AdapterMemory memory_{{.host_bytes = 1 << 20}, {}, &metrics_, &clock_};
  AdapterLoader loader_{&engine_, &scheduler_, &memory_};
};

TEST_F(AdapterLoaderTest, PricesTheGoldenItemsThroughTheBatchLoopOneAtATime) {
  ASSERT_OK_AND_ASSIGN(const AdapterHandle adapter, Load(AdapterWithGolden(3)));
  EXPECT_EQ(adapter->key, (AdapterKey{"toys", 1}));
  EXPECT_THAT(adapter->warning, IsEmpty());
  ASSERT_EQ(engine_.fake_predictor().batches().size(), 3u);
  for (const auto& batch : engine_.fake_predictor().batches()) {
    ASSERT_EQ(batch.size(), 1u);
    EXPECT_EQ(batch[0].adapter, adapter->key);
  }
  EXPECT_THAT(metrics_.values().items, IsEmpty());
}

TEST_F(AdapterLoaderTest, RefusesAnAdapterThatPricesAGoldenItemOtherwise) {
  auto adapter = AdapterWithGolden(3);
  adapter->manifest.golden[2].price *= 1.002;
  EXPECT_THAT(Load(std::move(adapter)),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("golden item 2"), HasSubstr("expected price 200.4"),
                             HasSubstr("got 200"), HasSubstr("0.1 %"))));
}

TEST_F(AdapterLoaderTest, ChecksTheBoundsOfTheIntervalToo) {
  auto low = AdapterWithGolden(1);
  low->manifest.golden[0].low *= 0.99;
  EXPECT_THAT(Load(std::move(low)),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("low")));
  auto high = AdapterWithGolden(1);
  high->manifest.golden[0].high *= 1.01;
  EXPECT_THAT(Load(std::move(high)),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("high")));
}

TEST_F(AdapterLoaderTest, ToleratesADifferenceWithinTheManifestsTolerance) {
  EXPECT_OK(Load(AdapterWithGolden(1, 1.0009)));
}

TEST_F(AdapterLoaderTest, ToleratesMoreAndWarnsOnOtherWeightsThanTunedOn) {
  auto adapter = AdapterWithGolden(1, 1.029);
  adapter->manifest.weights = "nf4";
  ASSERT_OK_AND_ASSIGN(const AdapterHandle loaded, Load(std::move(adapter)));
  EXPECT_EQ(loaded->warning, "tuned on nf4 weights in fp32, served on fp32 weights in fp32");
  auto far = AdapterWithGolden(1, 1.04);
  far->manifest.dtype = "bf16";
  EXPECT_THAT(Load(std::move(far)),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("3 %")));
}

// All mass at 99 and 149, next to half of it at each.
class WholePricePredictor final : public BatchPredictor {
 public:
  explicit WholePricePredictor(double share_of_99) : masses_(1000, 0.0) {
    masses_[99] = share_of_99;
    masses_[149] = 1 - share_of_99;
  }
  Results PredictBatch(absl::Span<const PredictorSequence> sequences) override {
    return Results(sequences.size(), PriceDistribution::OfWholePrices(masses_));
  }

 private:
  std::vector<double> masses_;
};

TEST_F(AdapterLoaderTest, ToleratesThatAWholePriceJumpsWithLittleMass) {
  auto adapter = AdapterWithGolden(0);
  adapter->manifest.head = HeadKind::kToken;
  adapter->manifest.golden = {{"item", 149, 99, 149}};
  const auto load = [&](double share_of_99) {
    engine_.AddAdapter("toys/1", adapter);
    WholePricePredictor predictor(share_of_99);
    BatchScheduler scheduler({.max_batch_tokens = 1000, .max_queue_tokens = 1000}, &predictor,
                             &metrics_, &clock_);
    return AdapterLoader(&engine_, &scheduler, &memory_).Load(kDirectory).status();
  };
  EXPECT_OK(load(0.499));
  EXPECT_OK(load(0.5005));
  EXPECT_THAT(load(0.502), StatusIs(absl::StatusCode::kFailedPrecondition,
                                    AllOf(HasSubstr("expected price 149"), HasSubstr("got 99"))));
  adapter->manifest.weights = "nf4";
  EXPECT_OK(load(0.502));
  EXPECT_THAT(load(0.54), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("got 99")));
}

TEST_F(AdapterLoaderTest, AGoldenItemIsScheduledAtItsWholeCost) {
  auto adapter = AdapterWithGolden(1);
  adapter->tree_rows = std::make_shared<RowEstimate>(30);
  EXPECT_OK(Load(std::move(adapter)));
  // "a toys" and the rows.
  EXPECT_EQ(metrics_.values().tokens, 6 + 30);
}

TEST_F(AdapterLoaderTest, WarnsThatAPlainAdapterIsUnchecked) {
  auto adapter = AdapterWithGolden(0);
  adapter->manifest.base_fingerprint = "";
  adapter->manifest.weights = "";
  adapter->manifest.prompt.preset = "reference";
  ASSERT_OK_AND_ASSIGN(const AdapterHandle loaded, Load(std::move(adapter)));
  EXPECT_THAT(loaded->warning, AllOf(HasSubstr("no pricer.json"), HasSubstr("preset reference"),
                                     HasSubstr("USD"), Not(HasSubstr("tuned on"))));
}

TEST_F(AdapterLoaderTest, WarnsWhereThereAreNoGoldenItems) {
  ASSERT_OK_AND_ASSIGN(const AdapterHandle loaded, Load(AdapterWithGolden(0)));
  EXPECT_THAT(loaded->warning, HasSubstr("no golden items"));
}

TEST_F(AdapterLoaderTest, PassesTheEnginesErrorsOn) {
  engine_.AddAdapter("toys/1", absl::DataLossError("short file"));
  EXPECT_THAT(loader_.Load(kDirectory),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("short file")));

  auto unencodable = AdapterWithGolden(2);
  unencodable->manifest.golden[1].item = "unencodable";
  EXPECT_THAT(Load(std::move(unencodable)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("golden item 1"), HasSubstr("two BOS"))));

  engine_.fake_predictor().FailOn('x', absl::InvalidArgumentError("not finite"));
  auto failing = AdapterWithGolden(1);
  failing->manifest.golden[0].item = "x";
  EXPECT_THAT(Load(std::move(failing)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("golden item 0"), HasSubstr("not finite"))));
}

TEST_F(AdapterLoaderTest, ARefusedAdapterIsHeldByNobody) {
  auto adapter = AdapterWithGolden(1, 1.5);
  const std::weak_ptr<LoadedAdapter> watched = adapter;
  EXPECT_THAT(Load(std::move(adapter)), StatusIs(absl::StatusCode::kFailedPrecondition));
  engine_.AddAdapter("toys/1", absl::NotFoundError("gone"));
  EXPECT_TRUE(watched.expired());
}

TEST_F(AdapterLoaderTest, CancelEndsALoadThatWaits) {
  engine_.fake_predictor().Block();
  std::thread canceller([this] {
    engine_.fake_predictor().WaitForBatches(1);
    loader_.Cancel();
  });
  EXPECT_THAT(Load(AdapterWithGolden(2)), StatusIs(absl::StatusCode::kCancelled));
  canceller.join();
  engine_.fake_predictor().Release();
}

TEST_F(AdapterLoaderTest, ASchedulerThatStopsCancelsTheLoad) {
  scheduler_.Stop(absl::InfinitePast());
  EXPECT_THAT(Load(AdapterWithGolden(1)), StatusIs(absl::StatusCode::kCancelled));
}

}  // namespace
}  // namespace pricer
