#include "client/commands/batch_flags.h"

#include <CLI/CLI.hpp>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "base/exit_codes.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "catalog/object_store.h"
#include "catalog/row_flags.h"
#include "client/batch_shards.h"

namespace pricer {
namespace {

// Kubernetes gives it to the pods of an Indexed Job.
constexpr char kIndexVariable[] = "JOB_COMPLETION_INDEX";

}  // namespace

int BatchPlan::ExitCode(int64_t rows, int64_t errors) const {
  return static_cast<double>(errors) <= max_reject_share * static_cast<double>(rows)
             ? kExitDone
             : kExitDoneWithRejects;
}

void BatchFlags::AddTo(CLI::App* app) {
  connection_.timeout = "5m";
  connection_.AddTo(app, "127.0.0.1:8500");
  adapter_.AddTo(app);
  app->add_option("--input", job_.input,
                  "items: JSON lines, CSV or Parquet; a file or s3://BUCKET/KEY");
  app->add_option(
         "--output", job_.output,
         "JSON lines, one for each row of the input; a file or s3://BUCKET/KEY, with .gz or "
         ".zst compressed")
      ->required();
  app->add_option("--work", work_,
                  "of an --output that is an object or compressed: folder for its lines until all "
                  "are there");
  app->add_option("--rejects", job_.rejects,
                  "its lines with errors once more; OUTPUT with .rejects before its suffix");
  app->add_flag("--restart", restart_, "begin anew, whatever an earlier run has left");
  app->add_option("--shard", shard_,
                  "INDEX/COUNT: price a part, 0/4 to 3/4, into a file of "
                  "its own");
  app->add_option("--shards", shards_,
                  absl::StrCat("the same, with the index in ", kIndexVariable, "; of --merge"));
  app->add_flag("--merge", merge_,
                "put the files of all --shards together as OUTPUT; with --input the shard that "
                "ends last does");
  app->add_option("--max-reject-share", max_reject_share_, "more rows with errors: exit code 3")
      ->capture_default_str();
  app->add_option("--compare", compare_.before,
                  "output of an earlier job: tell what has changed since");
  app->add_option("--far", compare_.threshold, "a price that moves by more has moved far")
      ->capture_default_str();
  app->add_option("--max-far-share", compare_.max_far_share,
                  "more prices that have moved far: exit code 4")
      ->capture_default_str();
  app->add_option("--largest-moves", compare_.largest, "so many of them are shown")
      ->capture_default_str();
  app->add_option("--report", report_, "file for the comparison as JSON");
  AddFieldOption(app, &job_.columns);
  AddCsvDelimiterOption(app, &job_.csv_delimiter);
  app->add_option("--currency", job_.currency, "of the input's prices, where it has any")
      ->capture_default_str();
  app->add_option("--estimator", job_.estimator, "median, mean, geomean, mode or quantile:Q");
  app->add_option("--coverage", job_.coverage, "of the interval low to high")
      ->capture_default_str();
  app->add_option("--items-per-call", job_.items_per_call)->capture_default_str();
  app->add_option("--calls-in-flight", job_.calls_in_flight)->capture_default_str();
}

absl::StatusOr<BatchPlan> BatchFlags::Plan() const {
  RETURN_IF_ERROR(CheckTogether());
  BatchPlan plan;
  plan.delivery = BatchDelivery::OfLines(job_.output);
  if (prices() || merge_) {
    ASSIGN_OR_RETURN(plan.delivery, BatchDelivery::Create(job_.output, job_.rejects, work_));
  }
  plan.merge_shards = merge_ ? shards_ : 0;
  plan.report = report_;
  plan.max_reject_share = max_reject_share_;
  if (prices()) {
    ASSIGN_OR_RETURN(plan.connection, connection_.Options());
    ASSIGN_OR_RETURN(plan.price, PlanPrice(plan.delivery, plan.connection));
  }
  if (compares()) {
    ASSIGN_OR_RETURN(plan.compare, PlanCompare(plan.delivery));
  }
  return plan;
}

absl::Status BatchFlags::CheckTogether() const {
  if (job_.output.empty()) return absl::InvalidArgumentError("--output: expected a file");
  if (!prices() && !merge_ && !compares()) {
    return absl::InvalidArgumentError("--input: expected a file, or --merge or --compare");
  }
  if (!work_.empty() && !prices() && !merge_) {
    return absl::InvalidArgumentError("--work: expected --input or --merge with it");
  }
  if (!(max_reject_share_ >= 0 && max_reject_share_ <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max-reject-share: expected 0 to 1, got ", max_reject_share_));
  }
  if (!shard_.empty() && shards_ > 0) {
    return absl::InvalidArgumentError("--shard and --shards: expected one of them");
  }
  if (merge_ && !shard_.empty()) {
    return absl::InvalidArgumentError("--merge: expected --shards, got --shard");
  }
  if (merge_ && (shards_ < 2 || shards_ > Shard::kMaxCount)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--merge: expected --shards of 2 to ", Shard::kMaxCount, ", got ", shards_));
  }
  if (!job_.rejects.empty() && prices() && is_shard()) {
    return absl::InvalidArgumentError("--rejects: each shard has a file of its own");
  }
  if (!report_.empty() && !compares()) {
    return absl::InvalidArgumentError("--report: expected --compare with it");
  }
  if (compares() && prices() && !merge_ && is_shard()) {
    return absl::InvalidArgumentError("--compare: expected a whole output, not a shard's");
  }
  return absl::OkStatus();
}

absl::StatusOr<Shard> BatchFlags::ShardToPrice() const {
  if (!shard_.empty()) {
    absl::StatusOr<Shard> parsed = Shard::Parse(shard_);
    if (parsed.ok()) return parsed;
    return absl::InvalidArgumentError(absl::StrCat("--shard: ", parsed.status().message()));
  }
  if (shards_ == 0) return Shard();
  const char* const index = std::getenv(kIndexVariable);
  absl::StatusOr<Shard> parsed =
      Shard::Parse(absl::StrCat(index == nullptr ? "" : index, "/", shards_));
  if (parsed.ok()) return parsed;
  return absl::InvalidArgumentError(
      absl::StrCat("--shards ", shards_, ": expected this one's index in ", kIndexVariable,
                   index == nullptr ? ", which is not set" : absl::StrCat(", got ", index)));
}

absl::StatusOr<BatchJobOptions> BatchFlags::PlanPrice(const BatchDelivery& delivery,
                                                      const ClientOptions& connection) const {
  if (SameFile(job_.input, job_.output)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--input and --output are the same file: ", job_.output));
  }
  BatchJobOptions options = job_;
  options.output = delivery.lines();
  options.marks_whole = delivery.needed();
  options.retry = connection.retry;
  options.adapter = adapter_.Spec();
  options.resume = !restart_;
  ASSIGN_OR_RETURN(options.shard, ShardToPrice());
  // A pipe is read once, and nothing is kept of it to look at again.
  if (options.rejects.empty() && CanBeReadAgain(options.input)) {
    options.rejects = options.shard.whole()
                          ? delivery.rejects()
                          : DefaultRejects(ShardPath(options.output, options.shard));
  }
  RETURN_IF_ERROR(options.Validate());
  return options;
}

absl::StatusOr<CompareOptions> BatchFlags::PlanCompare(const BatchDelivery& delivery) const {
  CompareOptions options = compare_;
  options.after = delivery.lines();
  RETURN_IF_ERROR(options.Validate());
  if (!IsObject(options.after)) {
    ASSIGN_OR_RETURN(const OutputPlace place, FindOutputPlace(options.after));
    if (place.is_stream) {
      return absl::InvalidArgumentError("--compare: expected an --output that can be read again");
    }
  }
  if (SameFile(compare_.before, job_.output)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--compare: expected another file than --output, got ", compare_.before));
  }
  return options;
}

}  // namespace pricer
