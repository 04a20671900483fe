#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "client/batch_job.h"
#include "tests/testing/status_matchers.h"

namespace pricer::testing {

// A server that prices an item by the number in its title.
class BatchJobTest : public ::testing::Test {
 protected:
  BatchJobTest() {
    directory_ = std::filesystem::path(::testing::TempDir()) /
                 ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
    options_.input = directory_ / "in.jsonl";
    options_.output = directory_ / "out.jsonl";
    options_.items_per_call = 3;
    options_.retry.max_attempts = 32;
  }

  absl::StatusOr<v1::BatchPredictPricesResponse> Answer(
      const v1::BatchPredictPricesRequest& request, absl::Time deadline) {
    const std::lock_guard<std::mutex> lock(mutex_);
    deadlines_.insert(deadline);
    asked_versions_.push_back(request.adapter().version());
    largest_call_bytes_ = std::max(largest_call_bytes_, request.ByteSizeLong());
    asked_items_.push_back(request.items_size());
    if (refused_calls_ > 0) {
      --refused_calls_;
      return absl::ResourceExhaustedError("queue full");
    }
    v1::BatchPredictPricesResponse response;
    const v1::AdapterSpec& adapter = request.adapter();
    const int64_t version = adapter.has_version() ? adapter.version() : newest_version_++;
    for (const v1::Item& item : request.items()) {
      v1::ItemResult* result = response.add_results();
      const auto busy = busy_.find(item.title());
      if (busy != busy_.end() && busy->second.times-- > 0) {
        result->mutable_error()->set_code(static_cast<int>(busy->second.code));
        result->mutable_error()->set_message("queue full");
        continue;
      }
      v1::Prediction* prediction = result->mutable_prediction();
      prediction->set_price(std::stod(item.title()));
      prediction->set_currency_code("USD");
      prediction->mutable_served_by()->set_adapter("shop");
      prediction->mutable_served_by()->set_version(version);
      prediction->mutable_served_by()->set_digest(digest_);
      prediction->add_intervals()->set_low(0.5 * prediction->price());
      prediction->mutable_intervals(0)->set_high(2 * prediction->price());
    }
    return response;
  }

  BatchJobOutcome RunJob() {
    return RunBatchJob(
        options_,
        [this](const v1::BatchPredictPricesRequest& request, absl::Time deadline) {
          return Answer(request, deadline);
        },
        {}, environment_);
  }
  absl::StatusOr<BatchJobResult> Run() {
    const BatchJobOutcome outcome = RunJob();
    if (!outcome.status.ok()) return outcome.status;
    return outcome.result;
  }

  // Titles 1 to `rows`.
  void WriteInput(int rows) const {
    std::string input;
    for (int i = 1; i <= rows; ++i) absl::StrAppend(&input, R"({"title":")", i, "\"}\n");
    EXPECT_OK(WriteFile(options_.input, input));
  }

  std::vector<nlohmann::json> Output() {
    std::vector<nlohmann::json> rows;
    for (absl::string_view line : absl::StrSplit(*ReadFile(options_.output), '\n')) {
      if (!line.empty()) rows.push_back(nlohmann::json::parse(line));
    }
    return rows;
  }

  int Files() {
    int files = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(directory_)) {
      ++files;
    }
    return files;
  }

  // How often, and how, an item is refused before it is priced.
  struct Busy {
    int times = 0;
    absl::StatusCode code = absl::StatusCode::kResourceExhausted;
  };

  std::filesystem::path directory_;
  BatchJobOptions options_;
  size_t largest_call_bytes_ = 0;
  std::mutex mutex_;
  std::map<std::string, Busy> busy_ = {{"refuse", {.times = 1000}}};
  int refused_calls_ = 0;
  std::set<absl::Time> deadlines_;
  std::vector<int64_t> asked_versions_;
  std::vector<int> asked_items_;
  std::atomic<int> waits_ = 0;
  RetryEnvironment environment_ = {.clock = Clock::System(),
                                   .sleep = [this](absl::Duration) { ++waits_; },
                                   .uniform = [] { return 0.5; }};
  int64_t newest_version_ = 7;
  std::string digest_ = "d7";
};

}  // namespace pricer::testing
