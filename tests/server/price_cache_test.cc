#include "server/price_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/fakes.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using testing::FakeClock;
using testing::FakePredictor;
using testing::MakeLoadedAdapter;
using testing::RecordingMetrics;
using testing::StatusIs;

class PriceCacheTest : public ::testing::Test {
 protected:
  ~PriceCacheTest() override { Stop(); }

  void Make(int64_t max_bytes, int64_t max_queue_tokens = 100) {
    scheduler_ = std::make_unique<BatchScheduler>(
        BatchSchedulerOptions{.max_batch_tokens = 50, .max_queue_tokens = max_queue_tokens},
        &predictor_, &metrics_, &clock_);
    cache_ = std::make_unique<PriceCache>(max_bytes, scheduler_.get(), &metrics_, &clock_);
  }
  void Stop() {
    predictor_.Release();
    if (scheduler_ != nullptr) scheduler_->Stop(absl::InfiniteFuture());
  }

  // Of one who asks.
  struct Reply {
    Mutex mutex;
    CondVar changed;
    std::optional<PriceCache::Outcome> outcome ABSL_GUARDED_BY(mutex);

    PriceCache::Outcome Wait() {
      MutexLock lock(&mutex);
      while (!outcome.has_value()) changed.Wait(&mutex);
      return *outcome;
    }
  };
  static PriceCache::Asker AskerOf(const std::shared_ptr<Reply>& reply) {
    PriceCache::Asker asker;
    asker.done = [reply](PriceCache::Outcome outcome) {
      MutexLock lock(&reply->mutex);
      reply->outcome = std::move(outcome);
      reply->changed.SignalAll();
    };
    return asker;
  }
  PriceTask Task(int tokens = 10) const {
    PriceTask task;
    task.ids.assign(tokens, 1);
    task.adapter = adapter_;
    return task;
  }
  absl::Status Ask(const std::string& text, PriceCache::Asker asker, int tokens = 10) {
    return cache_->ScheduleOrJoin(PriceCache::KeyOf(*adapter_, text), Task(tokens),
                                  {.tokens = tokens, .truncated = true}, std::move(asker));
  }
  std::shared_ptr<Reply> Ask(const std::string& text) {
    auto reply = std::make_shared<Reply>();
    EXPECT_OK(Ask(text, AskerOf(reply)));
    return reply;
  }
  std::optional<PriceCache::Priced> Find(const std::string& text) {
    PriceCache::Asker asker;
    return cache_->FindOrJoin(PriceCache::KeyOf(*adapter_, text), /*may_be_kept=*/true, &asker)
        .priced;
  }
  bool Join(const std::string& text, PriceCache::Asker* asker) {
    return cache_->FindOrJoin(PriceCache::KeyOf(*adapter_, text), /*may_be_kept=*/false, asker)
        .joined;
  }
  // Makes the predictor busy until Release.
  void OccupyPredictor() {
    predictor_.Block();
    Ask("first");
    predictor_.WaitForBatches(1);
  }
  size_t Computed() const {
    size_t count = 0;
    for (const auto& batch : predictor_.batches()) count += batch.size();
    return count;
  }

  FakeClock clock_;
  FakePredictor predictor_;
  RecordingMetrics metrics_;
  const AdapterHandle adapter_ = MakeLoadedAdapter("toys", 3);
  std::unique_ptr<PriceCache> cache_;
  std::unique_ptr<BatchScheduler> scheduler_;
};

TEST_F(PriceCacheTest, WhatWasComputedIsFound) {
  Make(1 << 20);
  EXPECT_FALSE(Find("lamp").has_value());
  ASSERT_OK(Ask("lamp")->Wait().result.distribution);
  const auto found = Find("lamp");
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->distribution.min_price(), 300);
  EXPECT_EQ(found->prompt.tokens, 10);
  EXPECT_TRUE(found->prompt.truncated);
  EXPECT_FALSE(Find("lamps").has_value());
  EXPECT_EQ(metrics_.values().cache_hits, 1);
  EXPECT_EQ(metrics_.values().cache_bytes, cache_->bytes());
}

TEST_F(PriceCacheTest, KeysAreOfContentsAndNotOfNames) {
  const auto other = MakeLoadedAdapter("toys", 3);
  EXPECT_EQ(PriceCache::KeyOf(*adapter_, "lamp"), PriceCache::KeyOf(*other, "lamp"));
  other->digest = "of other tensors";
  EXPECT_NE(PriceCache::KeyOf(*adapter_, "lamp"), PriceCache::KeyOf(*other, "lamp"));
}

TEST_F(PriceCacheTest, KeepsWhatWasUsedLastWithinItsBytes) {
  Make(1 << 20);
  ASSERT_OK(Ask("a")->Wait().result.distribution);
  const int64_t one = cache_->bytes();
  Stop();
  cache_.reset();
  Make(2 * one);
  ASSERT_OK(Ask("a")->Wait().result.distribution);
  ASSERT_OK(Ask("b")->Wait().result.distribution);
  EXPECT_TRUE(Find("a").has_value());
  ASSERT_OK(Ask("c")->Wait().result.distribution);
  EXPECT_TRUE(Find("a").has_value());
  EXPECT_FALSE(Find("b").has_value());
  EXPECT_TRUE(Find("c").has_value());
  EXPECT_LE(cache_->bytes(), 2 * one);
}

TEST_F(PriceCacheTest, WithoutBytesNothingIsKept) {
  Make(0);
  ASSERT_OK(Ask("lamp")->Wait().result.distribution);
  EXPECT_FALSE(Find("lamp").has_value());
  EXPECT_EQ(cache_->bytes(), 0);
}

TEST_F(PriceCacheTest, TheSameItemIsComputedOnceForAllWhoAsk) {
  Make(0);
  OccupyPredictor();
  const auto one = Ask("lamp");
  clock_.Advance(absl::Seconds(2));
  const auto other = Ask("lamp");
  const auto third = std::make_shared<Reply>();
  PriceCache::Asker asker = AskerOf(third);
  EXPECT_TRUE(Join("lamp", &asker));
  predictor_.Release();
  EXPECT_EQ(one->Wait().result.queue_time, absl::Seconds(2));
  EXPECT_EQ(other->Wait().result.queue_time, absl::ZeroDuration());
  EXPECT_OK(third->Wait().result.distribution);
  EXPECT_EQ(Computed(), 2u);
  EXPECT_EQ(metrics_.values().coalesced, 2);
}

TEST_F(PriceCacheTest, WhatIsKeptIsNotFoundWhereItMayNotBe) {
  Make(1 << 20);
  Ask("lamp")->Wait();
  PriceCache::Asker asker = AskerOf(std::make_shared<Reply>());
  const PriceCache::Key key = PriceCache::KeyOf(*adapter_, "lamp");
  const PriceCache::Found found = cache_->FindOrJoin(key, /*may_be_kept=*/false, &asker);
  EXPECT_FALSE(found.priced.has_value());
  EXPECT_FALSE(found.joined);
  EXPECT_TRUE(cache_->FindOrJoin(key, /*may_be_kept=*/true, &asker).priced.has_value());
  // Computed anew, it is kept once.
  const int64_t bytes = cache_->bytes();
  Ask("lamp")->Wait();
  EXPECT_EQ(cache_->bytes(), bytes);
  EXPECT_TRUE(Find("lamp").has_value());
}

TEST_F(PriceCacheTest, NobodyJoinsWhatIsDone) {
  Make(0);
  Ask("lamp")->Wait();
  PriceCache::Asker asker = AskerOf(std::make_shared<Reply>());
  EXPECT_FALSE(Join("lamp", &asker));
  EXPECT_NE(asker.done, nullptr);
}

TEST_F(PriceCacheTest, AnItemIsDroppedWhenAllWhoAskHaveGone) {
  Make(0);
  OccupyPredictor();
  const auto ask = [&](const std::string& text, bool gone) {
    const auto reply = std::make_shared<Reply>();
    PriceCache::Asker asker = AskerOf(reply);
    asker.cancelled = std::make_shared<std::atomic<bool>>(gone);
    EXPECT_OK(Ask(text, std::move(asker)));
    return reply;
  };
  const auto kept_gone = ask("kept", true);
  const auto kept = ask("kept", false);
  const auto dropped = ask("dropped", true);
  const auto dropped_too = ask("dropped", true);
  predictor_.Release();
  EXPECT_OK(kept->Wait().result.distribution);
  EXPECT_OK(kept_gone->Wait().result.distribution);
  EXPECT_THAT(dropped->Wait().result.distribution, StatusIs(absl::StatusCode::kCancelled));
  EXPECT_THAT(dropped_too->Wait().result.distribution, StatusIs(absl::StatusCode::kCancelled));
}

TEST_F(PriceCacheTest, TheLastDeadlineDecides) {
  Make(0);
  OccupyPredictor();
  const auto ask = [&](absl::Duration deadline) {
    const auto reply = std::make_shared<Reply>();
    PriceCache::Asker asker = AskerOf(reply);
    asker.deadline = clock_.Now() + deadline;
    EXPECT_OK(Ask("lamp", std::move(asker)));
    return reply;
  };
  ask(absl::Seconds(1));
  const auto patient = ask(absl::Seconds(9));
  clock_.Advance(absl::Seconds(5));
  predictor_.Release();
  EXPECT_OK(patient->Wait().result.distribution);
  EXPECT_EQ(Computed(), 2u);
}

TEST_F(PriceCacheTest, WhoIsInMoreOfAHurryDoesNotWaitForOthers) {
  Make(0);
  OccupyPredictor();
  const auto patient = Ask("lamp");
  const auto urgent = std::make_shared<Reply>();
  PriceCache::Asker asker = AskerOf(urgent);
  asker.deadline = clock_.Now() + absl::Seconds(1);
  ASSERT_OK(Ask("lamp", std::move(asker)));
  predictor_.Release();
  EXPECT_OK(patient->Wait().result.distribution);
  EXPECT_OK(urgent->Wait().result.distribution);
  EXPECT_EQ(metrics_.values().coalesced, 0);
}

TEST_F(PriceCacheTest, AnOnlineItemDoesNotWaitForABulkOne) {
  Make(0);
  OccupyPredictor();
  const auto bulk = std::make_shared<Reply>();
  PriceCache::Asker asker = AskerOf(bulk);
  asker.lane = Lane::kBulk;
  ASSERT_OK(Ask("lamp", std::move(asker)));
  Ask("lamp");
  EXPECT_EQ(metrics_.values().coalesced, 0);
  // From now on there is an online one, which bulk may wait for.
  const auto later = std::make_shared<Reply>();
  PriceCache::Asker bulk_again = AskerOf(later);
  bulk_again.lane = Lane::kBulk;
  ASSERT_OK(Ask("lamp", std::move(bulk_again)));
  EXPECT_EQ(metrics_.values().coalesced, 1);
  predictor_.Release();
  EXPECT_OK(bulk->Wait().result.distribution);
  EXPECT_OK(later->Wait().result.distribution);
}

TEST_F(PriceCacheTest, WhatIsRefusedIsAsItWas) {
  Make(0, /*max_queue_tokens=*/50);
  OccupyPredictor();
  const auto lamp = Ask("lamp");
  PriceTask task = Task(45);
  const auto reply = std::make_shared<Reply>();
  PriceCache::Asker asker = AskerOf(reply);
  const PriceCache::Key key = PriceCache::KeyOf(*adapter_, "chair");
  EXPECT_THAT(cache_->ScheduleOrJoin(key, std::move(task), {}, std::move(asker)),
              StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(task.tokens(), 45);    // NOLINT(bugprone-use-after-move)
  EXPECT_NE(asker.done, nullptr);  // NOLINT(bugprone-use-after-move)
  PriceCache::Asker other = AskerOf(std::make_shared<Reply>());
  EXPECT_FALSE(Join("chair", &other));
  predictor_.Release();
  lamp->Wait();
  ASSERT_OK(cache_->ScheduleOrJoin(key, std::move(task), {}, std::move(asker)));
  EXPECT_OK(reply->Wait().result.distribution);
}

TEST_F(PriceCacheTest, FailuresAreNotKept) {
  Make(1 << 20);
  predictor_.FailOn(1, absl::InternalError("not finite"));
  EXPECT_THAT(Ask("lamp")->Wait().result.distribution, StatusIs(absl::StatusCode::kInternal));
  EXPECT_FALSE(Find("lamp").has_value());
}

}  // namespace
}  // namespace pricer
