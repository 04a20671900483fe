#include "client/load_test.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "base/utf8.h"
#include "client/load_report.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::pricer::testing::StatusIs;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;

// A server in time that passes by sleeping and by what tests do in `answer`.
class LoadTestTest : public ::testing::Test, public Clock {
 protected:
  LoadTestTest() {
    options_.arrivals = {.pattern = ArrivalPattern::kConstant,
                         .rate = 10,
                         .duration = absl::Seconds(1) + absl::Milliseconds(1)};
    options_.warm_up = absl::ZeroDuration();
  }
  absl::Time Now() const override { return now_; }

  RetryEnvironment Environment() {
    return {.clock = this,
            .sleep = [this](absl::Duration duration) { now_ += duration; },
            .uniform = [] { return 1.0; },
            .stop = stop_};
  }
  absl::StatusOr<LoadTestResult> Run() {
    return RunLoadTest(
        options_,
        [this](LoadCall call, const std::function<void(const LoadAnswer&)>& done) {
          calls_.push_back(std::move(call));
          done(answer_(calls_.back()));
        },
        Environment());
  }
  LoadAnswer Priced(const LoadCall& call) const {
    LoadAnswer answer;
    answer.queue_times.assign(call.texts.size(), absl::Milliseconds(3));
    answer.compute_times.assign(call.texts.size(), absl::Milliseconds(4));
    return answer;
  }

  LoadTestOptions options_;
  absl::Time now_ = absl::UnixEpoch();
  std::function<LoadAnswer(const LoadCall&)> answer_ = [this](const LoadCall& call) {
    return Priced(call);
  };
  std::function<bool()> stop_;
  std::vector<LoadCall> calls_;
};

TEST_F(LoadTestTest, CallsWhenTheyAreDueAndCountsWhatTheServerSays) {
  ASSERT_OK_AND_ASSIGN(const LoadTestResult result, Run());
  ASSERT_EQ(result.stages.size(), 1);
  const LoadTestStage& stage = result.stages[0];
  EXPECT_EQ(stage.due, 10);
  EXPECT_EQ(stage.ok_calls(), 10);
  EXPECT_EQ(stage.items, 10);
  EXPECT_EQ(stage.not_sent, 0);
  EXPECT_EQ(stage.rate, 10);
  EXPECT_EQ(stage.latency.max(), absl::ZeroDuration());
  EXPECT_EQ(stage.queue.max(), absl::Milliseconds(3));
  EXPECT_EQ(stage.compute.max(), absl::Milliseconds(4));
  EXPECT_EQ(calls_.front().deadline, absl::UnixEpoch() + absl::Milliseconds(1100));
  EXPECT_EQ(calls_.back().deadline, absl::UnixEpoch() + absl::Seconds(2));
}

// What a loop that waits for the answer before it looks at the clock would leave out.
TEST_F(LoadTestTest, AStallShowsInTheCallsThatItKeptFromStarting) {
  answer_ = [this](const LoadCall& call) {
    if (calls_.size() == 1) now_ += absl::Milliseconds(500);
    return Priced(call);
  };
  ASSERT_OK_AND_ASSIGN(const LoadTestResult result, Run());
  const LatencyHistogram& latency = result.stages[0].latency;
  EXPECT_EQ(latency.count(), 10);
  // The first call took 500 ms, those due meanwhile 400, 300, 200 and 100.
  EXPECT_EQ(latency.max(), absl::Milliseconds(500));
  EXPECT_NEAR(absl::ToDoubleMilliseconds(latency.Quantile(0.9)), 400, 0.5);
  EXPECT_NEAR(absl::ToDoubleMilliseconds(latency.Quantile(0.6)), 100, 0.5);
  EXPECT_EQ(latency.Quantile(0.5), absl::ZeroDuration());
}

TEST_F(LoadTestTest, FailuresAreCountedByCodeAndKeepOneMessage) {
  answer_ = [this](const LoadCall& call) {
    if (calls_.size() > 2) return Priced(call);
    LoadAnswer answer;
    answer.status = absl::ResourceExhaustedError(absl::StrCat("full ", calls_.size()));
    return answer;
  };
  ASSERT_OK_AND_ASSIGN(const LoadTestResult result, Run());
  EXPECT_EQ(result.stages[0].calls.at(absl::StatusCode::kResourceExhausted), 2);
  EXPECT_EQ(result.stages[0].ok_calls(), 8);
  EXPECT_EQ(result.stages[0].failure_latency.count(), 2);
  EXPECT_EQ(result.messages.at(absl::StatusCode::kResourceExhausted), "full 1");
  EXPECT_THAT(LoadReportText(result), HasSubstr("2 calls RESOURCE_EXHAUSTED, such as: full 1"));
}

TEST_F(LoadTestTest, CallsBeyondThoseInFlightAreNotSent) {
  options_.max_in_flight = 2;
  // No call is answered before the last one is due.
  const absl::Time last = now_ + absl::Seconds(1);
  std::vector<std::function<void(const LoadAnswer&)>> waiting;
  RetryEnvironment environment = Environment();
  environment.sleep = [&](absl::Duration duration) {
    now_ += duration;
    if (now_ < last) return;
    for (const auto& done : std::exchange(waiting, {})) done(LoadAnswer());
  };
  ASSERT_OK_AND_ASSIGN(
      const LoadTestResult result,
      RunLoadTest(
          options_,
          [&](const LoadCall& /*call*/, const std::function<void(const LoadAnswer&)>& done) {
            if (now_ < last) {
              waiting.push_back(done);
            } else {
              done(LoadAnswer());
            }
          },
          environment));
  EXPECT_EQ(result.stages[0].due, 10);
  EXPECT_EQ(result.stages[0].not_sent, 7);
  EXPECT_EQ(result.stages[0].ok_calls(), 3);
  EXPECT_THAT(LoadReportText(result), HasSubstr("7 calls not sent"));
}

TEST_F(LoadTestTest, AClosedLoopCallsAsSoonAsAnAnswerIsThere) {
  options_.concurrency = 1;
  answer_ = [this](const LoadCall& call) {
    now_ += absl::Milliseconds(20);
    return Priced(call);
  };
  options_.arrivals.duration = absl::Seconds(1);
  ASSERT_OK_AND_ASSIGN(const LoadTestResult result, Run());
  EXPECT_EQ(result.stages[0].ok_calls(), 50);
  EXPECT_EQ(result.stages[0].latency.Quantile(0.01), result.stages[0].latency.max());
  EXPECT_EQ(result.stages[0].latency.max(), absl::Milliseconds(20));
  EXPECT_EQ(result.stages[0].rate, 0);
}

TEST_F(LoadTestTest, TheWarmUpIsNotCounted) {
  options_.warm_up = absl::Milliseconds(501);
  ASSERT_OK_AND_ASSIGN(const LoadTestResult result, Run());
  EXPECT_EQ(calls_.size(), 15);
  EXPECT_EQ(result.stages[0].ok_calls(), 10);
}

TEST_F(LoadTestTest, StepsAreCountedApart) {
  options_.arrivals = {
      .pattern = ArrivalPattern::kStep, .rate = 100, .steps = 2, .duration = absl::Seconds(20)};
  ASSERT_OK_AND_ASSIGN(const LoadTestResult result, Run());
  ASSERT_EQ(result.stages.size(), 2);
  EXPECT_EQ(result.stages[0].rate, 50);
  EXPECT_EQ(result.stages[1].rate, 100);
  EXPECT_EQ(result.stages[0].due + result.stages[1].due, static_cast<int64_t>(calls_.size()));
  EXPECT_EQ(result.Total().ok_calls(), static_cast<int64_t>(calls_.size()));
  EXPECT_LT(result.stages[1].time, absl::Seconds(10.1));
}

TEST_F(LoadTestTest, TextsHaveTheirLengthsAndNoTwoAreAlike) {
  options_.items_per_call = 20;
  options_.text_bytes = {40, 300};
  ASSERT_OK(Run().status());
  std::map<size_t, int> lengths;
  std::set<std::string> texts;
  for (const LoadCall& call : calls_) {
    for (const std::string& text : call.texts) {
      ++lengths[text.size()];
      texts.insert(text);
      EXPECT_TRUE(IsValidUtf8(text));
    }
  }
  EXPECT_EQ(texts.size(), 200);
  ASSERT_EQ(lengths.size(), 2);
  EXPECT_GT(lengths[40], 60);
  EXPECT_GT(lengths[300], 60);
}

TEST_F(LoadTestTest, PopularAdaptersAreAskedMore) {
  options_.adapters = {"a", "b", "c"};
  options_.arrivals.rate = 11'000;
  options_.zipf = 1;
  ASSERT_OK(Run().status());
  std::map<std::string, double> asked;
  for (const LoadCall& call : calls_) ++asked[call.adapter.name()];
  // 1 : 1/2 : 1/3 = 6 : 3 : 2.
  EXPECT_NEAR(asked["a"], 6000, 240);
  EXPECT_NEAR(asked["b"], 3000, 200);
  EXPECT_NEAR(asked["c"], 2000, 180);
}

TEST_F(LoadTestTest, StopsWhenItIsTold) {
  stop_ = [this] { return calls_.size() >= 3; };
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(calls_.size(), 3);
}

TEST_F(LoadTestTest, WrongOptionsNameTheFlag) {
  const auto message = [](const std::function<void(LoadTestOptions*)>& spoil) {
    LoadTestOptions options;
    spoil(&options);
    return std::string(options.Validate().message());
  };
  EXPECT_THAT(message([](auto* o) { o->items_per_call = 1025; }), HasSubstr("--items-per-call"));
  EXPECT_THAT(message([](auto* o) { o->text_bytes = {}; }), HasSubstr("--text-bytes"));
  EXPECT_THAT(message([](auto* o) { o->text_bytes = {0}; }), HasSubstr("--text-bytes"));
  EXPECT_THAT(message([](auto* o) { o->zipf = -1; }), HasSubstr("--zipf"));
  EXPECT_THAT(message([](auto* o) { o->deadline = absl::ZeroDuration(); }),
              HasSubstr("--deadline"));
  EXPECT_THAT(message([](auto* o) { o->max_in_flight = 0; }), HasSubstr("--max-in-flight"));
  EXPECT_THAT(message([](auto* o) { o->concurrency = -1; }), HasSubstr("--concurrency"));
}

TEST_F(LoadTestTest, ReportsSayTheSameInTextAndJson) {
  ASSERT_OK_AND_ASSIGN(const LoadTestResult result, Run());
  const nlohmann::json json = nlohmann::json::parse(LoadReportJson(result));
  const nlohmann::json& stage = json.at("stages").at(0);
  EXPECT_EQ(stage.at("calls").at("OK"), 10);
  EXPECT_EQ(stage.at("items"), 10);
  EXPECT_EQ(stage.at("due_per_second"), 10);
  EXPECT_EQ(stage.at("queue_ms").at("p99.99"), 3.0);
  EXPECT_EQ(stage.at("compute_ms").at("max"), 4.0);
  EXPECT_THAT(LoadReportText(result),
              AllOf(HasSubstr("10.0 calls/s due: 10.0 calls/s and 10.0 items/s well, in 1.0 s"),
                    HasSubstr("p99.99"), HasSubstr("10 calls OK\n")));
}

}  // namespace
}  // namespace pricer
