#include "client/commands/batch.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/clock.h"
#include "base/exit_codes.h"
#include "base/file.h"
#include "base/file_descriptor.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "base/status_macros.h"
#include "catalog/object_store.h"
#include "catalog/row_flags.h"
#include "client/batch_compare.h"
#include "client/batch_job.h"
#include "client/batch_output.h"
#include "client/batch_shards.h"
#include "client/client.h"
#include "client/commands/common_flags.h"

namespace pricer {
namespace {

// Kubernetes gives it to the pods of an Indexed Job.
constexpr char kIndexVariable[] = "JOB_COMPLETION_INDEX";

// out.jsonl -> out.rejects.jsonl; "" where there is no such place.
std::string DefaultRejects(const std::string& output) {
  const absl::StatusOr<OutputPlace> place = FindOutputPlace(output);
  if (!place.ok() || place->is_stream) return "";
  const std::filesystem::path path(output);
  const std::string name =
      absl::StrCat(path.stem().string(), ".rejects", path.extension().string());
  return (path.parent_path() / name).string();
}

std::string NameOfPath(const std::string& path) {
  return std::filesystem::path(path).filename().string();
}

// "prices.jsonl" of s3://shop/nightly/prices.jsonl?region=eu-west-1.
std::string NameOfObject(const std::string& object) {
  return NameOfPath(object.substr(0, object.find('?')));
}

// Asked for in the same way.
std::string SiblingOfObject(const std::string& object, const std::string& name) {
  const size_t end = std::min(object.find('?'), object.size());
  return absl::StrCat(object.substr(0, object.rfind('/', end) + 1), name, object.substr(end));
}

struct BatchFlags {
  ConnectionFlags connection;
  AdapterFlags adapter;
  BatchJobOptions job;
  std::string shard;
  int shards = 0;
  bool restart = false;
  bool merge = false;
  double max_reject_share = 0;
  CompareOptions compare;
  std::string report;
  // Of an output that is an object: where its lines are until it is whole.
  std::string work;
  std::string object;  // that job.output, then a file in `work`, goes to

  // What is done, in this order.
  bool prices() const { return !job.input.empty(); }
  bool compares() const { return !compare.before.empty(); }

  // With an output that is a file.
  BatchFlags OnDisk() const {
    BatchFlags flags = *this;
    if (!IsObject(job.output) || !(prices() || merge)) return flags;
    flags.object = job.output;
    flags.job.output = absl::StrCat(work, "/", NameOfObject(job.output));
    flags.job.marks_whole = true;
    return flags;
  }

  absl::StatusOr<Shard> ShardToPrice() const {
    if (!shard.empty()) {
      absl::StatusOr<Shard> parsed = Shard::Parse(shard);
      if (parsed.ok()) return parsed;
      return absl::InvalidArgumentError(absl::StrCat("--shard: ", parsed.status().message()));
    }
    if (shards == 0) return Shard();
    const char* const index = std::getenv(kIndexVariable);
    absl::StatusOr<Shard> parsed =
        Shard::Parse(absl::StrCat(index == nullptr ? "" : index, "/", shards));
    if (parsed.ok()) return parsed;
    return absl::InvalidArgumentError(
        absl::StrCat("--shards ", shards, ": expected this one's index in ", kIndexVariable,
                     index == nullptr ? ", which is not set" : absl::StrCat(", got ", index)));
  }

  absl::StatusOr<BatchJobOptions> Job() const {
    BatchJobOptions options = job;
    ASSIGN_OR_RETURN(const ClientOptions client, connection.Options());
    options.retry = client.retry;
    options.adapter = adapter.Spec();
    options.resume = !restart;
    ASSIGN_OR_RETURN(options.shard, ShardToPrice());
    // A pipe is read once, and nothing is kept of it to look at again.
    if (options.rejects.empty() && CanBeReadAgain(options.input)) {
      options.rejects = DefaultRejects(ShardPath(options.output, options.shard));
    }
    RETURN_IF_ERROR(options.Validate());
    return options;
  }

  int ExitCode(int64_t rows, int64_t errors) const {
    return static_cast<double>(errors) <= max_reject_share * static_cast<double>(rows)
               ? kExitDone
               : kExitDoneWithRejects;
  }

  CompareOptions Compare() const {
    CompareOptions options = compare;
    options.after = job.output;
    return options;
  }

  absl::Status Validate() const {
    RETURN_IF_ERROR(ValidateWork());
    return OnDisk().ValidateOnDisk();
  }

  absl::Status ValidateWork() const {
    const bool needed = IsObject(job.output) && (prices() || merge);
    if (needed && work.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--output ", job.output, ": expected --work, a folder for lines until all are there"));
    }
    if (needed && NameOfObject(job.output).empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--output ", job.output, ": expected an object, as s3://BUCKET/KEY"));
    }
    if (!needed && !work.empty()) {
      return absl::InvalidArgumentError("--work: expected an object as --output with it");
    }
    return absl::OkStatus();
  }

  absl::Status ValidateOnDisk() const {
    if (job.output.empty()) return absl::InvalidArgumentError("--output: expected a file");
    if (!(max_reject_share >= 0 && max_reject_share <= 1)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--max-reject-share: expected 0 to 1, got ", max_reject_share));
    }
    if (merge && !shard.empty()) {
      return absl::InvalidArgumentError("--merge: expected --shards, got --shard");
    }
    if (!prices() && !merge && !compares()) {
      return absl::InvalidArgumentError("--input: expected a file, or --merge or --compare");
    }
    if (!shard.empty() && shards > 0) {
      return absl::InvalidArgumentError("--shard and --shards: expected one of them");
    }
    if (merge && (shards < 1 || shards > Shard::kMaxCount)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--merge: expected --shards of 1 to ", Shard::kMaxCount));
    }
    if (merge && shards == 1) {
      return absl::InvalidArgumentError("--merge: expected more than one of --shards");
    }
    if (!job.rejects.empty() && prices() && (!shard.empty() || shards > 0)) {
      return absl::InvalidArgumentError("--rejects: each shard has a file of its own");
    }
    if (merge && !job.rejects.empty() && SameFile(job.rejects, job.output)) {
      return absl::InvalidArgumentError("--rejects: expected another file than --output");
    }
    for (const absl::string_view suffix : {".gz", ".zst"}) {
      if (absl::EndsWithIgnoreCase(job.output, suffix)) {
        return absl::InvalidArgumentError(
            absl::StrCat("--output: lines are not compressed, got a name with ", suffix));
      }
    }
    if (prices()) RETURN_IF_ERROR(Job().status());
    if (!compares()) {
      if (!report.empty())
        return absl::InvalidArgumentError("--report: expected --compare with it");
      return absl::OkStatus();
    }
    if (prices() && !merge && (!shard.empty() || shards > 0)) {
      return absl::InvalidArgumentError("--compare: expected a whole output, not a shard's");
    }
    RETURN_IF_ERROR(Compare().Validate());
    ASSIGN_OR_RETURN(const OutputPlace place, FindOutputPlace(job.output));
    if (place.is_stream) {
      return absl::InvalidArgumentError("--compare: expected an --output that can be read again");
    }
    return absl::OkStatus();
  }
};

// Shows how far a job is, as a share of the input that has been read: how many rows it has is known
// at its end.
class RowProgress {
 public:
  explicit RowProgress(const std::string& label) : progress_(stderr, Options(label)) {}

  void Show(const BatchProgress& done) {
    const absl::Time now = Clock::System()->Now();
    if (now - shown_ < kInterval) return;
    shown_ = now;
    // A file that has been read to its end says nothing of the rows that are on their way.
    const bool known = done.fraction > 0 && done.fraction < 1;
    progress_.set_total(known ? std::llround(static_cast<double>(done.rows) / done.fraction) : 0);
    progress_.set_done_before(done.resumed);
    const double seconds = std::max(absl::ToDoubleSeconds(progress_.elapsed()), 1e-3);
    const double rate = static_cast<double>(done.rows - done.resumed) / seconds;
    progress_.Update(done.rows, absl::StrFormat("%.0f rows/s", rate));
  }

 private:
  static constexpr absl::Duration kInterval = absl::Milliseconds(200);

  static Progress::Options Options(const std::string& label) {
    Progress::Options options = StderrProgress(label, "rows", 0);
    options.plain_interval = absl::Seconds(30);
    return options;
  }

  Progress progress_;
  absl::Time shown_ = absl::InfinitePast();
};

// Of a failed job: what may be done about it.
int ExitCodeOf(const BatchJobOutcome& outcome) {
  switch (outcome.status.code()) {
    case absl::StatusCode::kCancelled:
      return outcome.kept ? kExitResumable : kExitInterrupted;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kResourceExhausted:
      return outcome.kept ? kExitResumable : kExitFailed;
    default:
      return kExitFailed;
  }
}

absl::StatusOr<int> Price(const BatchFlags& flags, bool* all_shards) {
  CatchInterrupts();
  ASSIGN_OR_RETURN(const BatchJobOptions job, flags.Job());
  ASSIGN_OR_RETURN(const ClientOptions connection, flags.connection.Options());
  RetryEnvironment environment = RetryEnvironment::System();
  environment.stop = InterruptRequested;
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Client::Create(connection, environment));
  const auto predict = [&](const v1::BatchPredictPricesRequest& request, absl::Time deadline) {
    return client->BatchPredictPrices(request, deadline);
  };
  BatchJobOutcome outcome;
  {
    RowProgress shown("pricing");
    outcome = RunBatchJob(
        job, predict, [&shown](const BatchProgress& done) { shown.Show(done); }, environment);
  }
  const std::string output = ShardPath(job.output, job.shard);
  const BatchJobResult& result = outcome.result;
  if (!outcome.status.ok()) {
    if (!outcome.kept && !absl::IsCancelled(outcome.status)) return outcome.status;
    std::cerr << "pricer: " << outcome.status.message();
    if (outcome.kept) {
      std::cerr << "; " << result.rows << " rows are kept in " << output
                << ".partial, and the same command goes on with them";
    } else {
      std::cerr << ": there is no complete output";
    }
    std::cerr << std::endl;
    return ExitCodeOf(outcome);
  }
  *all_shards = result.shards_done == job.shard.count;
  // Standard output may be the output.
  std::cerr << result.rows << " rows, " << result.errors << " with errors, in " << output;
  if (result.resumed > 0) std::cerr << "; " << result.resumed << " of them by an earlier run";
  if (result.errors > 0 && !job.rejects.empty())
    std::cerr << "; the errors also in " << job.rejects;
  if (flags.merge) {
    std::cerr << "; " << result.shards_done << " of " << job.shard.count << " shards are done";
  }
  std::cerr << std::endl;
  return flags.ExitCode(result.rows, result.errors);
}

absl::StatusOr<int> Merge(const BatchFlags& flags) {
  const std::string& output = flags.job.output;
  MergeResult result;
  {
    RowProgress shown("merging");
    ASSIGN_OR_RETURN(result, MergeShards(output, flags.shards,
                                         [&shown](int64_t rows) { shown.Show({.rows = rows}); }));
  }
  const std::string rejects =
      flags.job.rejects.empty() ? DefaultRejects(output) : flags.job.rejects;
  if (!rejects.empty()) RETURN_IF_ERROR(WriteRejects(output, rejects));
  std::cerr << result.rows << " rows, " << result.errors << " with errors, of " << flags.shards
            << " shards in " << output << std::endl;
  return flags.ExitCode(result.rows, result.errors);
}

// Whether the change may be published.
absl::StatusOr<bool> Compare(const BatchFlags& flags) {
  const CompareOptions options = flags.Compare();
  ASSIGN_OR_RETURN(const CompareReport report, CompareBatches(options));
  if (!flags.report.empty()) {
    RETURN_IF_ERROR(WriteFileAtomically(flags.report, report.ToJson(options)));
  }
  std::cout << report.ToText(options) << std::flush;
  const bool passes = report.passes(options);
  if (!passes) std::cerr << "pricer: the gate of --max-far-share is not passed" << std::endl;
  return passes;
}

// Takes what is whole to where it was asked for.
absl::Status Upload(const BatchFlags& flags) {
  const std::string& output = flags.job.output;
  const std::string rejects =
      flags.job.rejects.empty() ? DefaultRejects(output) : flags.job.rejects;
  const std::string rejects_object = SiblingOfObject(flags.object, NameOfPath(rejects));
  std::error_code ignored;
  if (std::filesystem::exists(rejects, ignored)) {
    RETURN_IF_ERROR(UploadFile(rejects, rejects_object));
  } else if (const absl::Status gone = DeleteObject(rejects_object);
             !gone.ok() && !absl::IsNotFound(gone)) {
    // They would be of an earlier job. Who may only write may go on.
    if (!absl::IsPermissionDenied(gone)) return gone;
    std::cerr << "pricer: " << gone.message() << std::endl;
  }
  RETURN_IF_ERROR(UploadFile(output, flags.object));
  std::cerr << "uploaded as " << flags.object << std::endl;
  return absl::OkStatus();
}

// The marker first: without the rest it would say that the job is done.
void RemoveUploaded(const BatchFlags& flags) {
  std::error_code ignored;
  for (const std::string& path : {ShardMarkerPath(flags.job.output, Shard()), flags.job.output,
                                  DefaultRejects(flags.job.output)}) {
    std::filesystem::remove(path, ignored);
  }
}

// What is done with all shards, or with the whole: by one process at a time.
absl::StatusOr<int> Finish(const BatchFlags& flags, int exit_code) {
  FileDescriptor lock;
  if (flags.merge) {
    ASSIGN_OR_RETURN(lock, LockShards(flags.job.output, flags.shards));
    ASSIGN_OR_RETURN(exit_code, Merge(flags));
  }
  const bool is_whole = flags.merge || (flags.shard.empty() && flags.shards == 0);
  if (!flags.object.empty() && is_whole) {
    const absl::Status uploaded = Upload(flags);
    if (!uploaded.ok()) {
      std::cerr << "pricer: " << uploaded.message() << "; all rows are kept in " << flags.job.output
                << ", and the same command uploads them" << std::endl;
      return absl::IsUnavailable(uploaded) ? kExitResumable : kExitFailed;
    }
  }
  if (flags.compares()) {
    ASSIGN_OR_RETURN(const bool passes, Compare(flags));
    if (!passes) exit_code = kExitGateNotPassed;
  }
  if (!flags.object.empty() && is_whole) RemoveUploaded(flags);
  return exit_code;
}

absl::StatusOr<int> Run(const BatchFlags& given) {
  const BatchFlags flags = given.OnDisk();
  int exit_code = kExitDone;
  if (flags.prices()) {
    bool all_shards = true;
    ASSIGN_OR_RETURN(exit_code, Price(flags, &all_shards));
    if (exit_code != kExitDone && exit_code != kExitDoneWithRejects) return exit_code;
    // The shard that ends last goes on for all of them, and says what has become of them together.
    if (flags.merge && !all_shards) return kExitDone;
  }
  return Finish(flags, exit_code);
}

}  // namespace

Command AddBatchCommand(CLI::App& parent) {
  auto flags = std::make_shared<BatchFlags>();
  CLI::App* app = parent.add_subcommand("batch", "prices a file of items, one line per item");
  flags->connection.timeout = "5m";
  flags->connection.AddTo(app, "127.0.0.1:8500");
  flags->adapter.AddTo(app);
  app->add_option("--input", flags->job.input,
                  "items: JSON lines, CSV or Parquet; a file or s3://BUCKET/KEY");
  app->add_option("--output", flags->job.output, "JSON lines, one for each row of the input")
      ->required();
  app->add_option("--work", flags->work,
                  "of an --output s3://BUCKET/KEY: folder for its lines until all are there");
  app->add_option("--rejects", flags->job.rejects,
                  "its lines with errors once more; OUTPUT with .rejects before its suffix");
  app->add_flag("--restart", flags->restart, "begin anew, whatever an earlier run has left");
  app->add_option("--shard", flags->shard,
                  "INDEX/COUNT: price a part, 0/4 to 3/4, into a file of "
                  "its own");
  app->add_option("--shards", flags->shards,
                  absl::StrCat("the same, with the index in ", kIndexVariable, "; of --merge"));
  app->add_flag("--merge", flags->merge,
                "put the files of all --shards together as OUTPUT; with --input the shard that "
                "ends last does");
  app->add_option("--max-reject-share", flags->max_reject_share,
                  "more rows with errors: exit code 3")
      ->capture_default_str();
  app->add_option("--compare", flags->compare.before,
                  "output of an earlier job: tell what has changed since");
  app->add_option("--far", flags->compare.threshold, "a price that moves by more has moved far")
      ->capture_default_str();
  app->add_option("--max-far-share", flags->compare.max_far_share,
                  "more prices that have moved far: exit code 4")
      ->capture_default_str();
  app->add_option("--largest-moves", flags->compare.largest, "so many of them are shown")
      ->capture_default_str();
  app->add_option("--report", flags->report, "file for the comparison as JSON");
  AddFieldOption(app, &flags->job.columns);
  AddCsvDelimiterOption(app, &flags->job.csv_delimiter);
  app->add_option("--currency", flags->job.currency, "of the input's prices, where it has any")
      ->capture_default_str();
  app->add_option("--estimator", flags->job.estimator, "median, mean, geomean, mode or quantile:Q");
  app->add_option("--coverage", flags->job.coverage, "of the interval low to high")
      ->capture_default_str();
  app->add_option("--items-per-call", flags->job.items_per_call)->capture_default_str();
  app->add_option("--calls-in-flight", flags->job.calls_in_flight)->capture_default_str();
  return {app, [flags] { return flags->Validate(); }, [flags] { return Run(*flags); }};
}

}  // namespace pricer
