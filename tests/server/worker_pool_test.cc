#include "server/worker_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>

#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using testing::StatusIs;

// Holds threads up until it is opened.
class Gate {
 public:
  void Open() {
    MutexLock lock(&mutex_);
    open_ = true;
    changed_.SignalAll();
  }
  void Pass() {
    MutexLock lock(&mutex_);
    ++arrived_;
    changed_.SignalAll();
    while (!open_) changed_.Wait(&mutex_);
  }
  void WaitForArrivals(int count) {
    MutexLock lock(&mutex_);
    while (arrived_ < count) changed_.Wait(&mutex_);
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool open_ ABSL_GUARDED_BY(mutex_) = false;
  int arrived_ ABSL_GUARDED_BY(mutex_) = 0;
};

TEST(WorkerPoolTest, RunsWorkOnSeveralThreadsAtOnce) {
  Gate gate;
  WorkerPool pool(2, 10);
  ASSERT_OK(pool.Submit([&gate] { gate.Pass(); }));
  ASSERT_OK(pool.Submit([&gate] { gate.Pass(); }));
  gate.WaitForArrivals(2);
  gate.Open();
}

TEST(WorkerPoolTest, RefusesWorkWhenTooMuchWaits) {
  Gate gate;
  WorkerPool pool(1, 2);
  ASSERT_OK(pool.Submit([&gate] { gate.Pass(); }));
  gate.WaitForArrivals(1);
  EXPECT_OK(pool.Submit([] {}));
  EXPECT_OK(pool.Submit([] {}));
  EXPECT_THAT(pool.Submit([] { FAIL(); }), StatusIs(absl::StatusCode::kResourceExhausted));
  gate.Open();
}

TEST(WorkerPoolTest, WhatEndsACallRunsBeforeAllThatWaitsAndTakesNoRoom) {
  Gate gate;
  std::string order;
  {
    WorkerPool pool(1, 2);
    ASSERT_OK(pool.Submit([&gate] { gate.Pass(); }));
    gate.WaitForArrivals(1);
    EXPECT_OK(pool.SubmitFirst([&order] { order += "a"; }));
    EXPECT_OK(pool.SubmitFirst([&order] { order += "b"; }));
    EXPECT_OK(pool.Submit([&order] { order += "c"; }));
    EXPECT_OK(pool.Submit([&order] { order += "d"; }));
    EXPECT_OK(pool.SubmitFirst([&order] { order += "e"; }));
    EXPECT_THAT(pool.Submit([] { FAIL(); }), StatusIs(absl::StatusCode::kResourceExhausted));
    gate.Open();
    pool.Stop();
    EXPECT_THAT(pool.SubmitFirst([] {}), StatusIs(absl::StatusCode::kUnavailable));
  }
  EXPECT_EQ(order, "abecd");
}

TEST(WorkerPoolTest, StopRunsWhatWaitsAndRefusesMore) {
  Gate gate;
  std::atomic<int> runs{0};
  WorkerPool pool(1, 10);
  ASSERT_OK(pool.Submit([&gate] { gate.Pass(); }));
  for (int i = 0; i < 5; ++i) ASSERT_OK(pool.Submit([&runs] { ++runs; }));
  gate.Open();
  pool.Stop();
  EXPECT_EQ(runs, 5);
  EXPECT_THAT(pool.Submit([] {}), StatusIs(absl::StatusCode::kUnavailable));
}

}  // namespace
}  // namespace pricer
