#include "client/batch_job.h"

#include <sys/stat.h>
#include <unistd.h>

#include <deque>
#include <filesystem>
#include <future>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "catalog/item_reader.h"
#include "catalog/object_store.h"
#include "client/batch_output.h"
#include "client/batch_row.h"

namespace pricer {
namespace {

using Json = nlohmann::ordered_json;

// A call of many long items is sent before items_per_call are together: a quarter of the server's
// default limit, which leaves room for the longest line.
constexpr size_t kMaxBytesPerCall = 4 << 20;

struct Row {
  int64_t number = 0;
  std::string id;     // empty = unknown
  std::string error;  // why the row is no item; empty = it was sent
};

// Rows that go to the server in one call, and their answer to come.
struct Chunk {
  std::vector<Row> rows;
  v1::BatchPredictPricesRequest request;
  std::future<absl::StatusOr<v1::BatchPredictPricesResponse>> answer;
};

void FillItem(const Item& item, v1::Item* proto) {
  proto->set_id(item.id);
  proto->set_title(item.title);
  proto->set_brand(item.brand);
  proto->set_category(item.category);
  proto->set_description(item.description);
  proto->set_details(item.details);
  proto->set_text(item.text);
}

ItemReaderOptions ReaderOptions(const BatchJobOptions& options) {
  ItemReaderOptions reader;
  reader.columns = options.columns;
  reader.csv_delimiter = options.csv_delimiter;
  reader.currency = options.currency;
  reader.price_required = false;
  return reader;
}

bool MayPass(const v1::ItemResult& result) {
  const auto code = static_cast<absl::StatusCode>(result.error().code());
  return code == absl::StatusCode::kResourceExhausted || code == absl::StatusCode::kUnavailable ||
         code == absl::StatusCode::kDeadlineExceeded;
}

void UseVersionOf(const v1::Prediction& prediction, v1::AdapterSpec* adapter) {
  adapter->set_name(prediction.served_by().adapter());
  adapter->set_version(prediction.served_by().version());
}

// That has a prediction.
BatchVersion VersionOf(const v1::ItemResult& result) {
  const v1::ServedBy& served_by = result.prediction().served_by();
  return {
      .adapter = served_by.adapter(), .version = served_by.version(), .digest = served_by.digest()};
}

absl::Status CheckCount(int results, int items) {
  if (results == items) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("the server answered ", results, " results to ", items, " items"));
}

// A call, and again, of the same adapter version, those of its items that may still be priced.
// Thread-safe.
class PersistentPredict {
 public:
  PersistentPredict(const BatchPredict& predict, const RetryOptions& options,
                    const RetryEnvironment& environment)
      : predict_(predict), options_(options), environment_(environment) {}

  absl::StatusOr<v1::BatchPredictPricesResponse> Predict(
      v1::BatchPredictPricesRequest request) const {
    v1::BatchPredictPricesResponse whole;
    for (int i = 0; i < request.items_size(); ++i) whole.add_results();
    std::vector<int> places(request.items_size());
    std::iota(places.begin(), places.end(), 0);
    absl::Status failure;
    bool answered = false;
    // Unavailable, to the retry loop, is whatever is worth another call.
    CallWithRetry(options_, environment_, [&](absl::Time deadline) {
      failure = CallOnce(deadline, &request, &places, &whole);
      answered |= failure.ok();
      const bool again =
          failure.ok() ? !places.empty()
                       : absl::IsResourceExhausted(failure) || absl::IsDeadlineExceeded(failure);
      return again ? absl::UnavailableError("") : absl::OkStatus();
    }).IgnoreError();
    // What an interrupt has kept from being sent again is not refused.
    if (environment_.stop && environment_.stop() && !places.empty()) {
      return absl::CancelledError("interrupted");
    }
    // Once answered, items that were refused to the last have their errors in place.
    if (!failure.ok() && !(answered && absl::IsResourceExhausted(failure))) return failure;
    for (const int place : places) {
      // Of the call and not of the item: a later one may have the time.
      const v1::ItemResult& result = whole.results(place);
      if (result.error().code() == static_cast<int>(absl::StatusCode::kDeadlineExceeded)) {
        return absl::DeadlineExceededError(result.error().message());
      }
    }
    return whole;
  }

 private:
  // Sends the items, whose results belong at `places`; leaves those in both that may be sent again.
  absl::Status CallOnce(absl::Time deadline, v1::BatchPredictPricesRequest* request,
                        std::vector<int>* places, v1::BatchPredictPricesResponse* whole) const {
    ASSIGN_OR_RETURN(v1::BatchPredictPricesResponse response, predict_(*request, deadline));
    RETURN_IF_ERROR(CheckCount(response.results_size(), request->items_size()));
    v1::BatchPredictPricesRequest rest;
    std::vector<int> rest_places;
    *rest.mutable_adapter() = request->adapter();
    *rest.mutable_options() = request->options();
    for (int i = 0; i < response.results_size(); ++i) {
      v1::ItemResult& result = *response.mutable_results(i);
      if (MayPass(result)) {
        *rest.add_items() = std::move(*request->mutable_items(i));
        rest_places.push_back((*places)[i]);
      } else if (result.has_prediction() && !rest.adapter().has_version()) {
        UseVersionOf(result.prediction(), rest.mutable_adapter());
      }
      *whole->mutable_results((*places)[i]) = std::move(result);
    }
    *request = std::move(rest);
    *places = std::move(rest_places);
    return absl::OkStatus();
  }

  const BatchPredict& predict_;
  const RetryOptions& options_;
  const RetryEnvironment& environment_;
};

// Of a file or an object. A file that is not there fails when it is opened.
absl::StatusOr<ObjectInfo> LookAt(const std::string& input) {
  if (IsObject(input)) return GetObjectInfo(input);
  struct stat info = {};
  stat(input.c_str(), &info);
  return ObjectInfo{.bytes = info.st_size, .modified = absl::TimeFromTimespec(info.st_mtim)};
}

// What a job computes, as BatchOutput keeps it: with another input or other options it is another.
absl::StatusOr<std::string> JobOf(const BatchJobOptions& options) {
  ASSIGN_OR_RETURN(const ObjectInfo input, LookAt(options.input));
  const v1::AdapterSpec& adapter = options.adapter;
  Json job = {
      {"input", options.input},
      {"input_bytes", absl::StrCat(input.bytes)},
      {"input_modified", absl::StrCat(absl::ToUnixNanos(input.modified))},
      {"adapter", adapter.name()},
      {"version", adapter.has_version() ? absl::StrCat(adapter.version()) : ""},
      {"label", adapter.has_label() ? adapter.label() : ""},
      {"estimator", options.estimator},
      {"coverage", absl::StrCat(options.coverage)},
      {"currency", options.currency},
      {"csv_delimiter", std::string(options.csv_delimiter == '\0' ? 0 : 1, options.csv_delimiter)},
      {"shards", absl::StrCat(options.shard.count)}};
  for (const auto& [field, column] : options.columns) job["column of " + field] = column;
  // What is no UTF-8, such as a path, is told apart by its hash.
  std::string text = job.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (absl::StrContains(text, "\xef\xbf\xbd")) {
    job["bytes"] = Sha256Hex(absl::StrCat(options.input, "\n", adapter.name(), "\n",
                                          options.estimator, "\n", options.currency));
    text = job.dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  return text;
}

class BatchJob {
 public:
  BatchJob(const BatchJobOptions& options, const BatchPredict& predict,
           const std::function<void(const BatchProgress&)>& progress,
           const RetryEnvironment& environment)
      : options_(options),
        predict_(predict, options.retry, environment),
        progress_(progress),
        environment_(environment),
        adapter_(options.adapter) {
    // No canary: one version prices it all.
    if (!adapter_.has_version() && !adapter_.has_label()) adapter_.set_label("stable");
  }

  BatchJobOutcome Run() {
    BatchJobOutcome outcome;
    outcome.status = RunToTheEnd();
    if (!outcome.status.ok() && Stopped()) outcome.status = absl::CancelledError("interrupted");
    if (output_ != nullptr) {
      result_.rows = output_->rows();
      result_.errors = output_->errors();
      outcome.kept = !outcome.status.ok() && output_->keeps() && output_->rows() > 0;
    }
    outcome.result = result_;
    return outcome;
  }

 private:
  absl::Status RunToTheEnd() {
    ASSIGN_OR_RETURN(job_, JobOf(options_));
    const std::string marker = ShardMarkerPath(options_.output, options_.shard);
    if (marks() && options_.resume) {
      const absl::StatusOr<ShardMarker> done = ReadShardMarker(marker);
      if (done.ok() && done->job == job_) {
        result_ = {.rows = done->rows, .errors = done->errors, .resumed = done->rows};
        return CountDone();
      }
    }
    ASSIGN_OR_RETURN(reader_, ItemReader::Open(options_.input, ReaderOptions(options_)));
    ASSIGN_OR_RETURN(output_, BatchOutput::Open({.path = ShardPath(options_.output, options_.shard),
                                                 .job = job_,
                                                 .resume = options_.resume,
                                                 .keep = CanBeReadAgain(options_.input),
                                                 .rejects = options_.rejects},
                                                environment_.clock));
    result_.resumed = output_->rows();
    if (!output_->version().has_value() && shares_version()) {
      ASSIGN_OR_RETURN(const std::optional<BatchVersion> shared,
                       ReadSharedVersion(options_.output, job_));
      if (shared.has_value()) RETURN_IF_ERROR(output_->SetVersion(*shared));
    }
    if (output_->version().has_value()) UseVersion(*output_->version());
    RETURN_IF_ERROR(SkipResumed());
    for (bool more = true; more;) {
      ASSIGN_OR_RETURN(Chunk chunk, ReadChunk());
      more = !chunk.rows.empty();
      if (more) RETURN_IF_ERROR(Send(std::move(chunk)));
    }
    while (!in_flight_.empty()) RETURN_IF_ERROR(FinishOldest());
    if (marks()) unlink(marker.c_str());
    RETURN_IF_ERROR(output_->Commit());
    if (!marks()) return absl::OkStatus();
    RETURN_IF_ERROR(WriteMarker(marker));
    return CountDone();
  }

  absl::Status CountDone() {
    ASSIGN_OR_RETURN(result_.shards_done,
                     CountShardsDone(options_.output, options_.shard.count, job_));
    return absl::OkStatus();
  }

  bool marks() const { return options_.marks_whole || !options_.shard.whole(); }

  // Whether other shards must ask for the version that this one does.
  bool shares_version() const { return !options_.shard.whole() && !options_.adapter.has_version(); }

  absl::Status WriteMarker(const std::string& path) const {
    const BatchVersion version = output_->version().value_or(BatchVersion());
    return WriteShardMarker(path, {.job = job_,
                                   .input_rows = reader_->rows(),
                                   .rows = output_->rows(),
                                   .errors = output_->errors(),
                                   .adapter = version.adapter,
                                   .version = version.version,
                                   .digest = version.digest});
  }

  bool Stopped() const { return environment_.stop && environment_.stop(); }

  // Passes over rows of other shards.
  absl::Status SkipOthers() {
    while (!options_.shard.Has(reader_->rows())) {
      ASSIGN_OR_RETURN(const bool more, reader_->SkipRow());
      if (!more) break;
    }
    return absl::OkStatus();
  }

  // The next row that is the job's own.
  absl::StatusOr<bool> NextRow(Item* item, std::optional<Reject>* reject) {
    RETURN_IF_ERROR(SkipOthers());
    return reader_->NextRow(item, reject);
  }

  absl::Status SkipResumed() {
    for (int64_t row = 0; row < output_->rows(); ++row) {
      RETURN_IF_ERROR(SkipOthers());
      ASSIGN_OR_RETURN(const bool more, reader_->SkipRow());
      if (more) continue;
      return absl::FailedPreconditionError(
          absl::StrCat(options_.input, ": expected at least the ", output_->rows(),
                       " rows that an earlier run has done, got ", row, "; --restart begins anew"));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Chunk> ReadChunk() {
    Chunk chunk;
    Item item;
    std::optional<Reject> reject;
    size_t bytes = 0;
    while (static_cast<int>(chunk.rows.size()) < options_.items_per_call &&
           bytes < kMaxBytesPerCall) {
      ASSIGN_OR_RETURN(const bool more, NextRow(&item, &reject));
      if (!more) break;
      Row row{.number = reader_->row(), .id = item.id, .error = {}};
      if (reject.has_value()) {
        row.error = reject->field.empty() ? reject->reason
                                          : absl::StrCat(reject->field, ": ", reject->reason);
      } else {
        v1::Item* proto = chunk.request.add_items();
        FillItem(item, proto);
        bytes += proto->ByteSizeLong();
      }
      chunk.rows.push_back(std::move(row));
    }
    return chunk;
  }

  absl::Status Send(Chunk chunk) {
    if (static_cast<int>(in_flight_.size()) >= options_.calls_in_flight) {
      RETURN_IF_ERROR(FinishOldest());
    }
    if (Stopped()) {
      // What is on its way is not computed for nothing.
      while (!in_flight_.empty()) RETURN_IF_ERROR(FinishOldest());
      return absl::CancelledError("interrupted");
    }
    *chunk.request.mutable_adapter() = adapter_;
    chunk.request.mutable_options()->set_lane(v1::LANE_BULK);
    chunk.request.mutable_options()->set_estimator(options_.estimator);
    chunk.request.mutable_options()->add_interval_coverages(options_.coverage);
    const bool asks = chunk.request.items_size() > 0;
    in_flight_.push_back(std::make_unique<Chunk>(std::move(chunk)));
    Chunk& sent = *in_flight_.back();
    if (!asks) return absl::OkStatus();
    sent.answer =
        std::async(std::launch::async, [this, &sent] { return predict_.Predict(sent.request); });
    // The first answer decides the version for the whole job, so nothing else is sent before it.
    return output_->version().has_value() ? absl::OkStatus() : FinishOldestUntil(&sent);
  }

  absl::Status FinishOldestUntil(const Chunk* last) {
    for (bool done = false; !done;) {
      done = in_flight_.front().get() == last;
      RETURN_IF_ERROR(FinishOldest());
    }
    return absl::OkStatus();
  }

  absl::Status FinishOldest() {
    const std::unique_ptr<Chunk> chunk = std::move(in_flight_.front());
    in_flight_.pop_front();
    v1::BatchPredictPricesResponse response;
    if (chunk->answer.valid()) {
      ASSIGN_OR_RETURN(response, chunk->answer.get());
      ASSIGN_OR_RETURN(const bool is_ours, SettleVersion(response));
      if (!is_ours) {
        *chunk->request.mutable_adapter() = adapter_;
        ASSIGN_OR_RETURN(response, predict_.Predict(chunk->request));
      }
      RETURN_IF_ERROR(CheckVersion(response));
    }
    int next = 0;
    for (const Row& row : chunk->rows) {
      if (!row.error.empty()) {
        RETURN_IF_ERROR(output_->Append(
            BatchErrorLine(row.number, row.id, "INVALID_ARGUMENT", row.error), /*is_error=*/true));
        continue;
      }
      const v1::ItemResult& result = response.results(next++);
      RETURN_IF_ERROR(
          output_->Append(BatchLine(row.number, row.id, result), !result.has_prediction()));
    }
    RETURN_IF_ERROR(output_->Flush());
    if (progress_) {
      progress_(
          {.rows = output_->rows(), .resumed = result_.resumed, .fraction = reader_->fraction()});
    }
    return absl::OkStatus();
  }

  // Takes the version of the first answer for the whole job; false where another shard has settled
  // for another before.
  absl::StatusOr<bool> SettleVersion(const v1::BatchPredictPricesResponse& response) {
    if (output_->version().has_value()) return true;
    for (const v1::ItemResult& result : response.results()) {
      if (!result.has_prediction()) continue;
      const BatchVersion mine = VersionOf(result);
      BatchVersion settled = mine;
      if (shares_version()) {
        ASSIGN_OR_RETURN(settled, AgreeOnVersion(options_.output, job_, mine));
      }
      RETURN_IF_ERROR(output_->SetVersion(settled));
      UseVersion(settled);
      return settled == mine;
    }
    return true;
  }

  // That one version has priced it all.
  absl::Status CheckVersion(const v1::BatchPredictPricesResponse& response) const {
    for (const v1::ItemResult& result : response.results()) {
      if (!result.has_prediction()) continue;
      const BatchVersion got = VersionOf(result);
      const BatchVersion& expected = *output_->version();
      if (got == expected) continue;
      return absl::FailedPreconditionError(
          absl::StrCat("adapter ", expected.adapter, " version ", expected.version,
                       " has become another: ", "expected the digest ", expected.digest,
                       ", got version ", got.version, " with the digest ", got.digest));
    }
    return absl::OkStatus();
  }

  void UseVersion(const BatchVersion& version) {
    adapter_.set_name(version.adapter);
    adapter_.set_version(version.version);
  }

  const BatchJobOptions& options_;
  const PersistentPredict predict_;
  const std::function<void(const BatchProgress&)>& progress_;
  const RetryEnvironment& environment_;
  std::string job_;
  v1::AdapterSpec adapter_;
  BatchJobResult result_;
  std::unique_ptr<ItemReader> reader_;
  std::unique_ptr<BatchOutput> output_;
  // Futures of std::async wait in their destructor, so calls in flight end before what they refer
  // to.
  std::deque<std::unique_ptr<Chunk>> in_flight_;
};

}  // namespace

bool CanBeReadAgain(const std::string& input) {
  std::error_code ignored;
  return IsObject(input) || std::filesystem::is_regular_file(input, ignored);
}

absl::Status BatchJobOptions::Validate() const {
  if (input.empty()) return absl::InvalidArgumentError("--input: expected a file, got nothing");
  if (output.empty()) return absl::InvalidArgumentError("--output: expected a file, got nothing");
  if (SameFile(input, output)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--input and --output are the same file: ", output));
  }
  if (!rejects.empty() && (SameFile(rejects, input) || SameFile(rejects, output))) {
    return absl::InvalidArgumentError(
        absl::StrCat("--rejects: expected another file than --input and --output, got ", rejects));
  }
  if (!(coverage > 0 && coverage < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--coverage: expected a number in (0, 1), got ", coverage));
  }
  if (items_per_call < 1 || items_per_call > 1024) {
    return absl::InvalidArgumentError(
        absl::StrCat("--items-per-call: expected 1 to 1024, got ", items_per_call));
  }
  if (calls_in_flight < 1 || calls_in_flight > 256) {
    return absl::InvalidArgumentError(
        absl::StrCat("--calls-in-flight: expected 1 to 256, got ", calls_in_flight));
  }
  RETURN_IF_ERROR(retry.Validate());
  return ReaderOptions(*this).Validate();
}

BatchJobOutcome RunBatchJob(const BatchJobOptions& options, const BatchPredict& predict,
                            const std::function<void(const BatchProgress&)>& progress,
                            const RetryEnvironment& environment) {
  if (absl::Status status = options.Validate(); !status.ok()) {
    BatchJobOutcome outcome;
    outcome.status = std::move(status);
    return outcome;
  }
  return BatchJob(options, predict, progress, environment).Run();
}

}  // namespace pricer
