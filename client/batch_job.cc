#include "client/batch_job.h"

#include <cstdlib>
#include <deque>
#include <future>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "catalog/item_reader.h"

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

// Six significant digits, so that the last bits of a processor's arithmetic do not show.
double SixDigits(double value) {
  return std::strtod(absl::StrFormat("%.6g", value).c_str(), nullptr);
}

Json ErrorRow(const Row& row, absl::string_view code, absl::string_view message) {
  return {{"row", row.number},
          {"id", row.id.empty() ? Json() : Json(row.id)},
          {"price", nullptr},
          {"currency", nullptr},
          {"low", nullptr},
          {"high", nullptr},
          {"adapter", nullptr},
          {"version", nullptr},
          {"error", {{"code", std::string(code)}, {"message", std::string(message)}}}};
}

Json PriceRow(const Row& row, const v1::Prediction& prediction) {
  Json json = {{"row", row.number},
               {"id", row.id},
               {"price", SixDigits(prediction.price())},
               {"currency", prediction.currency_code()},
               {"low", nullptr},
               {"high", nullptr},
               {"adapter", prediction.served_by().adapter()},
               {"version", prediction.served_by().version()},
               {"error", nullptr}};
  if (prediction.intervals_size() > 0) {
    json["low"] = SixDigits(prediction.intervals(0).low());
    json["high"] = SixDigits(prediction.intervals(0).high());
  }
  return json;
}

Json ResultRow(const Row& row, const v1::ItemResult& result) {
  if (result.has_prediction()) return PriceRow(row, result.prediction());
  const auto code = static_cast<absl::StatusCode>(result.error().code());
  return ErrorRow(row, absl::StatusCodeToString(code), result.error().message());
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
  return code == absl::StatusCode::kResourceExhausted || code == absl::StatusCode::kUnavailable;
}

void UseVersionOf(const v1::Prediction& prediction, v1::AdapterSpec* adapter) {
  adapter->set_name(prediction.served_by().adapter());
  adapter->set_version(prediction.served_by().version());
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
      const bool again = failure.ok() ? !places.empty() : absl::IsResourceExhausted(failure);
      return again ? absl::UnavailableError("") : absl::OkStatus();
    }).IgnoreError();
    // Once answered, items that were refused to the last have their errors in place.
    if (!failure.ok() && !(answered && absl::IsResourceExhausted(failure))) return failure;
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

class BatchJob {
 public:
  BatchJob(const BatchJobOptions& options, const BatchPredict& predict,
           const std::function<void(int64_t)>& progress, const RetryEnvironment& environment)
      : options_(options),
        predict_(predict, options.retry, environment),
        progress_(progress),
        stop_(environment.stop),
        adapter_(options.adapter) {}

  absl::StatusOr<BatchJobResult> Run() {
    absl::StatusOr<BatchJobResult> result = RunToTheEnd();
    if (!result.ok() && Stopped()) return Interrupted();
    return result;
  }

 private:
  absl::StatusOr<BatchJobResult> RunToTheEnd() {
    ASSIGN_OR_RETURN(reader_, ItemReader::Open(options_.input, ReaderOptions(options_)));
    ASSIGN_OR_RETURN(AtomicFileWriter output, AtomicFileWriter::Create(options_.output));
    output_.emplace(std::move(output));
    for (bool more = true; more;) {
      ASSIGN_OR_RETURN(Chunk chunk, ReadChunk());
      more = !chunk.rows.empty();
      if (more) RETURN_IF_ERROR(Send(std::move(chunk)));
    }
    while (!in_flight_.empty()) RETURN_IF_ERROR(FinishOldest());
    RETURN_IF_ERROR(output_->Commit());
    return result_;
  }

  bool Stopped() const { return stop_ && stop_(); }

  static absl::Status Interrupted() { return absl::CancelledError("interrupted"); }

  absl::StatusOr<Chunk> ReadChunk() {
    Chunk chunk;
    Item item;
    std::optional<Reject> reject;
    size_t bytes = 0;
    while (static_cast<int>(chunk.rows.size()) < options_.items_per_call &&
           bytes < kMaxBytesPerCall) {
      ASSIGN_OR_RETURN(const bool more, reader_->NextRow(&item, &reject));
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
    if (Stopped()) return Interrupted();
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
    return version_known_ ? absl::OkStatus() : FinishOldestUntil(&sent);
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
      FixVersion(response);
    }
    int next = 0;
    for (const Row& row : chunk->rows) {
      const Json json = row.error.empty() ? ResultRow(row, response.results(next++))
                                          : ErrorRow(row, "INVALID_ARGUMENT", row.error);
      ++result_.rows;
      if (!json["error"].is_null()) ++result_.errors;
      RETURN_IF_ERROR(output_->Append(
          absl::StrCat(json.dump(-1, ' ', false, Json::error_handler_t::replace), "\n")));
    }
    if (progress_) progress_(result_.rows);
    return absl::OkStatus();
  }

  void FixVersion(const v1::BatchPredictPricesResponse& response) {
    for (const v1::ItemResult& result : response.results()) {
      if (version_known_ || !result.has_prediction()) continue;
      UseVersionOf(result.prediction(), &adapter_);
      version_known_ = true;
    }
  }

  const BatchJobOptions& options_;
  const PersistentPredict predict_;
  const std::function<void(int64_t)>& progress_;
  const std::function<bool()>& stop_;
  v1::AdapterSpec adapter_;
  bool version_known_ = false;
  BatchJobResult result_;
  std::unique_ptr<ItemReader> reader_;
  std::optional<AtomicFileWriter> output_;
  // Futures of std::async wait in their destructor, so calls in flight end before what they refer
  // to.
  std::deque<std::unique_ptr<Chunk>> in_flight_;
};

}  // namespace

absl::Status BatchJobOptions::Validate() const {
  if (input.empty()) return absl::InvalidArgumentError("--input: expected a file, got nothing");
  if (output.empty()) return absl::InvalidArgumentError("--output: expected a file, got nothing");
  if (SameFile(input, output)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--input and --output are the same file: ", output));
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

absl::StatusOr<BatchJobResult> RunBatchJob(const BatchJobOptions& options,
                                           const BatchPredict& predict,
                                           const std::function<void(int64_t)>& progress,
                                           const RetryEnvironment& environment) {
  RETURN_IF_ERROR(options.Validate());
  return BatchJob(options, predict, progress, environment).Run();
}

}  // namespace pricer
