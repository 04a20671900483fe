#include "base/mutex.h"

#include <gtest/gtest.h>

#include <deque>
#include <thread>
#include <vector>

namespace pricer {
namespace {

TEST(MutexTest, OneThreadAtATime) {
  Mutex mutex;
  int count = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&mutex, &count] {
      for (int i = 0; i < 10'000; ++i) {
        const MutexLock lock(&mutex);
        ++count;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(count, 40'000);
}

TEST(CondVarTest, HandsValuesFromOneThreadToAnother) {
  Mutex mutex;
  CondVar changed;
  std::deque<int> queue;
  std::vector<int> received;
  std::thread consumer([&] {
    while (received.size() < 100) {
      const MutexLock lock(&mutex);
      while (queue.empty()) changed.Wait(&mutex);
      received.push_back(queue.front());
      queue.pop_front();
    }
  });
  for (int i = 0; i < 100; ++i) {
    {
      const MutexLock lock(&mutex);
      queue.push_back(i);
    }
    changed.Signal();
  }
  consumer.join();
  for (int i = 0; i < 100; ++i) EXPECT_EQ(received[i], i);
}

TEST(CondVarTest, SignalAllWakesEveryWaiter) {
  Mutex mutex;
  CondVar changed;
  CondVar arrived;
  bool open = false;
  int waiting = 0;
  int woken = 0;
  std::vector<std::thread> waiters;
  for (int t = 0; t < 3; ++t) {
    waiters.emplace_back([&] {
      const MutexLock lock(&mutex);
      ++waiting;
      arrived.Signal();
      while (!open) changed.Wait(&mutex);
      ++woken;
    });
  }
  {
    const MutexLock lock(&mutex);
    // All three wait: each has given the mutex back.
    while (waiting < 3) arrived.Wait(&mutex);
    EXPECT_EQ(woken, 0);
    open = true;
  }
  changed.SignalAll();
  for (std::thread& waiter : waiters) waiter.join();
  EXPECT_EQ(woken, 3);
}

TEST(CondVarTest, WaitWithTimeoutSaysThatTheTimeRanOutAndHoldsTheMutexAgain) {
  Mutex mutex;
  CondVar changed;
  int guarded = 0;
  {
    const MutexLock lock(&mutex);
    while (!changed.WaitWithTimeout(&mutex, absl::Milliseconds(1))) {
    }
    guarded = 1;
  }
  const MutexLock lock(&mutex);
  EXPECT_EQ(guarded, 1);
}

TEST(CondVarTest, WaitWithTimeoutReturnsFalseWhenSignalled) {
  Mutex mutex;
  CondVar changed;
  bool done = false;
  bool timed_out = false;
  std::thread signaller;
  {
    const MutexLock lock(&mutex);
    // Gets the mutex, and so can signal, only while the wait has released it.
    signaller = std::thread([&] {
      const MutexLock inner(&mutex);
      done = true;
      changed.SignalAll();
    });
    while (!done) timed_out = changed.WaitWithTimeout(&mutex, absl::Minutes(5));
  }
  signaller.join();
  EXPECT_FALSE(timed_out);
}

}  // namespace
}  // namespace pricer
