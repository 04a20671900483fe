#include "server/prometheus_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include <cstdlib>
#include <regex>
#include <set>
#include <string>

#include "base/file.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;

class PrometheusMetricsTest : public ::testing::Test {
 protected:
  // What a scrape answers.
  std::string Text() const {
    return prometheus::TextSerializer().Serialize(metrics_.registry()->Collect());
  }

  PrometheusMetrics metrics_;
};

TEST_F(PrometheusMetricsTest, CountsCallsByMethodAndCode) {
  metrics_.CallEnded("PredictPrice", absl::StatusCode::kOk, absl::Milliseconds(2));
  metrics_.CallEnded("PredictPrice", absl::StatusCode::kOk, absl::Milliseconds(20));
  metrics_.CallEnded("PredictPrice", absl::StatusCode::kResourceExhausted, absl::ZeroDuration());
  EXPECT_THAT(Text(), HasSubstr("pricer_requests_total{code=\"OK\",method=\"PredictPrice\"} 2"));
  EXPECT_THAT(
      Text(),
      HasSubstr("pricer_requests_total{code=\"RESOURCE_EXHAUSTED\",method=\"PredictPrice\"} 1"));
  EXPECT_THAT(
      Text(),
      HasSubstr(
          "pricer_request_seconds_bucket{code=\"OK\",method=\"PredictPrice\",le=\"0.005\"} 1"));
}

TEST_F(PrometheusMetricsTest, CountsItemsByVersionUntilItEnds) {
  metrics_.ItemsPriced(Lane::kOnline, {"toys", 3}, 1);
  metrics_.ItemsPriced(Lane::kBulk, {"toys", 3}, 1);
  metrics_.ItemsPriced(Lane::kOnline, {"toys", 4}, 1);
  EXPECT_THAT(Text(),
              HasSubstr("pricer_items_total{adapter=\"toys\",lane=\"online\",version=\"3\"} 1"));
  EXPECT_THAT(Text(),
              HasSubstr("pricer_items_total{adapter=\"toys\",lane=\"bulk\",version=\"3\"} 1"));
  metrics_.AdapterEnded({"toys", 3});
  EXPECT_THAT(Text(), Not(HasSubstr("version=\"3\"")));
  EXPECT_THAT(Text(), HasSubstr("version=\"4\"} 1"));
}

TEST_F(PrometheusMetricsTest, DescribesBatches) {
  metrics_.BatchComputed(5, 700, absl::Milliseconds(20));
  metrics_.BatchFollowed(absl::Microseconds(40));
  metrics_.TaskWaited(Lane::kBulk, absl::Milliseconds(2));
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("pricer_tokens_total 700"));
  EXPECT_THAT(text, HasSubstr("pricer_batch_items_bucket{le=\"8\"} 1"));
  EXPECT_THAT(text, HasSubstr("pricer_batch_items_bucket{le=\"4\"} 0"));
  EXPECT_THAT(text, HasSubstr("pricer_batch_tokens_sum 700"));
  EXPECT_THAT(text, HasSubstr("pricer_compute_seconds_bucket{le=\"0.025\"} 1"));
  EXPECT_THAT(text, HasSubstr("pricer_batch_gap_seconds_bucket{le=\"5e-05\"} 1"));
  EXPECT_THAT(text, HasSubstr("pricer_queue_seconds_bucket{lane=\"bulk\",le=\"0.0025\"} 1"));
}

TEST_F(PrometheusMetricsTest, TellsTheStateOfQueueAndAdapters) {
  metrics_.QueueItemsChanged(3);
  metrics_.QueueChanged(Lane::kOnline, 456);
  metrics_.QueueChanged(Lane::kBulk, 789);
  metrics_.CacheHit();
  metrics_.Coalesced();
  metrics_.CacheChanged(4096);
  metrics_.AdmissionRefused(RefusalReason::kQueueFull);
  metrics_.TaskDropped(DropReason::kTooLate);
  metrics_.TasksLate(5);
  metrics_.AdapterStatesChanged({0, 1, 2, 0, 4});
  metrics_.AdapterLoaded(absl::Seconds(2));
  metrics_.AdapterLoadFailed(absl::FromUnixSeconds(1700000000));
  metrics_.AdapterRootReadable(true);
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("pricer_queue_items 3"));
  EXPECT_THAT(text, HasSubstr("pricer_queue_tokens{lane=\"online\"} 456"));
  EXPECT_THAT(text, HasSubstr("pricer_queue_tokens{lane=\"bulk\"} 789"));
  EXPECT_THAT(text, HasSubstr("pricer_cache_hits_total 1"));
  EXPECT_THAT(text, HasSubstr("pricer_coalesced_total 1"));
  EXPECT_THAT(text, HasSubstr("pricer_cache_bytes 4096"));
  EXPECT_THAT(text, HasSubstr("pricer_admission_refused_total{reason=\"queue_full\"} 1"));
  EXPECT_THAT(text, HasSubstr("pricer_admission_refused_total{reason=\"expired\"} 0"));
  EXPECT_THAT(text, HasSubstr("pricer_items_dropped_total{reason=\"too_late\"} 1"));
  EXPECT_THAT(text, HasSubstr("pricer_items_dropped_total{reason=\"cancelled\"} 0"));
  EXPECT_THAT(text, HasSubstr("pricer_items_late_total 5"));
  EXPECT_THAT(text, HasSubstr("pricer_adapters{state=\"available\"} 2"));
  EXPECT_THAT(text, HasSubstr("pricer_adapters{state=\"end\"} 4"));
  EXPECT_THAT(text, HasSubstr("pricer_adapter_load_seconds_sum 2"));
  EXPECT_THAT(text, HasSubstr("pricer_adapter_last_load_failure_timestamp_seconds 1700000000"));
  EXPECT_THAT(text, HasSubstr("pricer_adapter_root_readable 1"));
  metrics_.AdapterRootReadable(false);
  EXPECT_THAT(Text(), HasSubstr("pricer_adapter_root_readable 0"));
  // Where there is no certificate, there is no end of one.
  EXPECT_THAT(Text(), Not(HasSubstr("pricer_certificate_expiry")));
  metrics_.CertificateExpires(absl::FromUnixSeconds(1'800'000'000));
  EXPECT_THAT(Text(), HasSubstr("pricer_certificate_expiry_timestamp_seconds 1800000000"));
}

TEST_F(PrometheusMetricsTest, CountsLabelMovesOfFewLabels) {
  for (const char* const label : {"stable", "canary", "mine", "yours"}) metrics_.LabelMoved(label);
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("pricer_label_moves_total{label=\"stable\"} 1"));
  EXPECT_THAT(text, HasSubstr("pricer_label_moves_total{label=\"other\"} 2"));
}

TEST_F(PrometheusMetricsTest, ShowsHowFarAShadowIsUntilItEnds) {
  for (const double log_ratio : {-0.3, 0.0, 0.015}) metrics_.ShadowCompared({"toys", 4}, log_ratio);
  metrics_.ShadowFailed();
  const std::string text = Text();
  const std::string series = "pricer_shadow_log_ratio_bucket{adapter=\"toys\",version=\"4\",le=";
  EXPECT_THAT(text, HasSubstr(series + "\"-0.2\"} 1"));
  EXPECT_THAT(text, HasSubstr(series + "\"0.01\"} 2"));
  EXPECT_THAT(text, HasSubstr(series + "\"0.02\"} 3"));
  EXPECT_THAT(text, HasSubstr("pricer_shadow_failures_total 1"));
  metrics_.AdapterEnded({"toys", 4});
  EXPECT_THAT(Text(), Not(HasSubstr("version=\"4\"")));
}

TEST_F(PrometheusMetricsTest, ShowsErrorAndCoverageOfAVersionUntilItEnds) {
  metrics_.OutcomeReported({"toys", 4}, -0.3);
  metrics_.OutcomeReported({"toys", 4}, 0.1);
  metrics_.IntervalReported({"toys", 4}, true);
  metrics_.IntervalReported({"toys", 4}, false);
  metrics_.IntervalReported({"toys", 4}, true);
  const std::string text = Text();
  const std::string version = "{adapter=\"toys\",version=\"4\"}";
  EXPECT_THAT(text, HasSubstr("pricer_outcome_log_error_count" + version + " 2"));
  EXPECT_THAT(text, HasSubstr("pricer_outcome_absolute_log_error_total" + version + " 0.4"));
  EXPECT_THAT(text, HasSubstr("pricer_outcome_intervals_total{adapter=\"toys\",covered=\"true\","
                              "version=\"4\"} 2"));
  metrics_.AdapterEnded({"toys", 4});
  EXPECT_THAT(Text(), Not(HasSubstr("version=\"4\"")));
}

TEST_F(PrometheusMetricsTest, ShowsWhatMemoryHoldsAndWhatComesAndGoes) {
  metrics_.AdapterMemoryChanged(MemoryTier::kHost, 3, 5000);
  metrics_.AdapterMemoryChanged(MemoryTier::kDevice, 1, 700);
  metrics_.AdapterFetched(MemoryTier::kDisk, absl::Milliseconds(20), /*ok=*/true);
  metrics_.AdapterFetched(MemoryTier::kHost, absl::Milliseconds(2), /*ok=*/true);
  metrics_.AdapterFetched(MemoryTier::kDisk, absl::Milliseconds(2), /*ok=*/false);
  metrics_.AdapterEvicted(MemoryTier::kHost, 300);
  metrics_.AdapterEvicted(MemoryTier::kHost, 100);
  metrics_.AdapterUnloaded(absl::Seconds(2));
  metrics_.AdmissionRefused(RefusalReason::kAdapter);
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("pricer_adapter_memory_adapters{tier=\"host\"} 3"));
  EXPECT_THAT(text, HasSubstr("pricer_adapter_memory_bytes{tier=\"host\"} 5000"));
  EXPECT_THAT(text, HasSubstr("pricer_adapter_memory_bytes{tier=\"device\"} 700"));
  EXPECT_THAT(text, HasSubstr("pricer_adapter_fetch_seconds_count{from=\"disk\"} 1"));
  EXPECT_THAT(text, HasSubstr("pricer_adapter_fetch_seconds_count{from=\"host\"} 1"));
  EXPECT_THAT(text, HasSubstr("pricer_adapter_fetch_failures_total 1"));
  EXPECT_THAT(text, HasSubstr("pricer_adapter_evictions_total{tier=\"host\"} 2"));
  EXPECT_THAT(text, HasSubstr("pricer_adapter_evicted_bytes_total{tier=\"host\"} 400"));
  EXPECT_THAT(text, HasSubstr("pricer_adapter_unload_seconds_sum 2"));
  EXPECT_THAT(text, HasSubstr("pricer_admission_refused_total{reason=\"adapter\"} 1"));
  EXPECT_THAT(text, Not(HasSubstr("tier=\"disk\"")));
}

TEST_F(PrometheusMetricsTest, ManyVersionsShareOneSeriesBesideTheBusiest) {
  PrometheusMetrics metrics(2);
  const auto text = [&metrics] {
    return prometheus::TextSerializer().Serialize(metrics.registry()->Collect());
  };
  const auto price = [&metrics](const std::string& name, int items) {
    for (int i = 0; i < items; ++i) metrics.ItemsPriced(Lane::kOnline, {name, 1}, 1);
  };
  price("toys", 10);
  price("wine", 1000);
  price("tools", 3);
  price("books", 4);
  metrics.OutcomeReported({"books", 1}, 0.5);
  EXPECT_THAT(text(), HasSubstr("{adapter=\"toys\",lane=\"online\",version=\"1\"} 10"));
  EXPECT_THAT(text(), HasSubstr("{adapter=\"other\",lane=\"online\",version=\"\"} 7"));
  EXPECT_THAT(text(), HasSubstr("log_error_count{adapter=\"other\",version=\"\"} 1"));
  EXPECT_THAT(text(), Not(HasSubstr("books")));
  price("books", 200);
  EXPECT_THAT(text(), HasSubstr("{adapter=\"books\",lane=\"online\""));
  EXPECT_THAT(text(), Not(HasSubstr("toys")));
  metrics.AdapterEnded({"wine", 1});
  EXPECT_THAT(text(), Not(HasSubstr("wine")));
}

TEST_F(PrometheusMetricsTest, AlertsAndDashboardNameNothingElse) {
  metrics_.CallEnded("PredictPrice", absl::StatusCode::kOk, absl::ZeroDuration());
  metrics_.ItemsPriced(Lane::kOnline, {"toys", 3}, 1);
  metrics_.LabelMoved("stable");
  metrics_.ShadowCompared({"toys", 4}, 0.1);
  metrics_.OutcomeReported({"toys", 4}, 0.1);
  metrics_.IntervalReported({"toys", 4}, true);
  metrics_.DescribeBuild("cpu");
  metrics_.CertificateExpires(absl::FromUnixSeconds(1'800'000'000));
  const std::string text = Text();
  // For promtool, which .ci/run has.
  if (const char* const file = std::getenv("PRICER_METRICS_FILE")) {
    ASSERT_OK(WriteFile(file, text));
  }
  for (const char* const path :
       {"deploy/monitoring/rules.yaml", "deploy/monitoring/dashboard.json"}) {
    ASSERT_OK_AND_ASSIGN(const std::string file, ReadFile(path));
    const std::regex name("pricer_[a-z_]+");
    std::set<std::string> names(std::sregex_token_iterator(file.begin(), file.end(), name), {});
    EXPECT_GE(names.size(), 8u) << path;
    for (const std::string& used : names) {
      // A series stands at the beginning of a line, followed by its labels or its value.
      EXPECT_THAT(text, AnyOf(HasSubstr("\n" + used + "{"), HasSubstr("\n" + used + " "))) << path;
    }
  }
}

TEST_F(PrometheusMetricsTest, SaysWhatRuns) {
  EXPECT_THAT(Text(), Not(HasSubstr("pricer_build_info")));
  metrics_.DescribeBuild("cuda:0");
  EXPECT_THAT(Text(), HasSubstr("pricer_build_info{commit=\""));
  EXPECT_THAT(Text(), HasSubstr("device=\"cuda:0\""));
}

}  // namespace
}  // namespace pricer
