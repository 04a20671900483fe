#include "client/commands/batch.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>

#include "absl/strings/str_format.h"
#include "base/clock.h"
#include "base/exit_codes.h"
#include "base/file.h"
#include "base/file_descriptor.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "base/status_macros.h"
#include "client/batch_compare.h"
#include "client/batch_job.h"
#include "client/batch_output.h"
#include "client/batch_shards.h"
#include "client/client.h"
#include "client/commands/batch_flags.h"

namespace pricer {
namespace {

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
  // A short job needs none.
  absl::Time shown_ = Clock::System()->Now();
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

void ShowFailure(const BatchJobOutcome& outcome, const std::string& output) {
  std::cerr << "pricer: " << outcome.status.message();
  if (outcome.kept) {
    std::cerr << "; " << outcome.result.rows << " rows are kept in " << output
              << ".partial, and the same command goes on with them";
  } else {
    std::cerr << ": there is no complete output";
  }
  std::cerr << std::endl;
}

absl::StatusOr<int> Price(const BatchPlan& plan, bool* all_shards) {
  CatchInterrupts();
  const BatchJobOptions& job = *plan.price;
  RetryEnvironment environment = RetryEnvironment::System();
  environment.stop = InterruptRequested;
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client,
                   Client::Create(plan.connection, environment));
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
    ShowFailure(outcome, output);
    return ExitCodeOf(outcome);
  }
  *all_shards = result.shards_done == job.shard.count;
  // Standard output may be the output.
  std::cerr << result.rows << " rows, " << result.errors << " with errors, in " << output;
  if (result.resumed > 0) std::cerr << "; " << result.resumed << " of them by an earlier run";
  if (result.errors > 0 && !job.rejects.empty())
    std::cerr << "; the errors also in " << job.rejects;
  if (plan.merge_shards > 0) {
    std::cerr << "; " << result.shards_done << " of " << job.shard.count << " shards are done";
  }
  std::cerr << std::endl;
  return plan.ExitCode(result.rows, result.errors);
}

absl::StatusOr<int> Merge(const BatchPlan& plan) {
  const std::string& lines = plan.delivery.lines();
  MergeResult result;
  {
    RowProgress shown("merging");
    ASSIGN_OR_RETURN(result, MergeShards(lines, plan.merge_shards,
                                         [&shown](int64_t rows) { shown.Show({.rows = rows}); }));
  }
  const std::string& rejects = plan.delivery.rejects();
  if (!rejects.empty()) RETURN_IF_ERROR(WriteRejects(lines, rejects));
  std::cerr << result.rows << " rows, " << result.errors << " with errors, of " << plan.merge_shards
            << " shards in " << lines << std::endl;
  return plan.ExitCode(result.rows, result.errors);
}

// Whether the change may be published.
absl::StatusOr<bool> Compare(const CompareOptions& options, const std::string& report_path) {
  ASSIGN_OR_RETURN(const CompareReport report, CompareBatches(options));
  if (!report_path.empty()) {
    RETURN_IF_ERROR(WriteFileAtomically(report_path, report.ToJson(options)));
  }
  std::cout << report.ToText(options) << std::flush;
  const bool passes = report.passes(options);
  if (!passes) std::cerr << "pricer: the gate of --max-far-share is not passed" << std::endl;
  return passes;
}

absl::Status Deliver(const BatchDelivery& delivery) {
  std::string note;
  RETURN_IF_ERROR(delivery.Deliver(&note));
  if (!note.empty()) std::cerr << "pricer: " << note << std::endl;
  if (delivery.needed()) std::cerr << "all rows are in " << delivery.output() << std::endl;
  return absl::OkStatus();
}

// What is done with all shards, or with the whole: by one process at a time.
absl::StatusOr<int> Finish(const BatchPlan& plan, int exit_code) {
  const BatchDelivery& delivery = plan.delivery;
  FileDescriptor lock;
  if (plan.merge_shards > 0) {
    ASSIGN_OR_RETURN(lock, LockShards(delivery.lines(), plan.merge_shards));
    ASSIGN_OR_RETURN(exit_code, Merge(plan));
  }
  if (plan.ends_whole()) {
    if (const absl::Status delivered = Deliver(delivery); !delivered.ok()) {
      std::cerr << "pricer: " << delivered.message() << "; all rows are kept in "
                << delivery.lines() << ", and the same command takes them there" << std::endl;
      return absl::IsUnavailable(delivered) ? kExitResumable : kExitFailed;
    }
  }
  if (plan.compare.has_value()) {
    ASSIGN_OR_RETURN(const bool passes, Compare(*plan.compare, plan.report));
    if (!passes) exit_code = kExitGateNotPassed;
  }
  if (plan.ends_whole()) delivery.RemoveLines();
  return exit_code;
}

absl::StatusOr<int> Run(const BatchFlags& flags) {
  ASSIGN_OR_RETURN(const BatchPlan plan, flags.Plan());
  int exit_code = kExitDone;
  if (plan.price.has_value()) {
    bool all_shards = true;
    ASSIGN_OR_RETURN(exit_code, Price(plan, &all_shards));
    if (exit_code != kExitDone && exit_code != kExitDoneWithRejects) return exit_code;
    // The shard that ends last goes on for all of them, and says what has become of them together.
    if (plan.merge_shards > 0 && !all_shards) return kExitDone;
  }
  return Finish(plan, exit_code);
}

}  // namespace

Command AddBatchCommand(CLI::App& parent) {
  auto flags = std::make_shared<BatchFlags>();
  CLI::App* app = parent.add_subcommand("batch", "prices a file of items, one line per item");
  flags->AddTo(app);
  return {app, [flags] { return flags->Plan().status(); }, [flags] { return Run(*flags); }};
}

}  // namespace pricer
