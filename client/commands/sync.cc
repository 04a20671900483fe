#include "client/commands/sync.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <iostream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/exit_codes.h"
#include "base/interrupt.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "client/adapter_sync.h"
#include "client/commands/common_flags.h"
#include "client/retry.h"

namespace pricer {
namespace {

struct SyncFlags {
  AdapterSyncOptions sync;
  std::string every;  // "" = once
  std::string timeout = "1m";

  absl::StatusOr<absl::Duration> Interval() const {
    if (every.empty()) return absl::ZeroDuration();
    ASSIGN_OR_RETURN(const absl::Duration interval, ParseDuration(every));
    if (interval >= absl::Seconds(1)) return interval;
    return absl::InvalidArgumentError(absl::StrCat("--every: expected at least 1s, got ", every));
  }

  absl::Status Validate() const {
    RETURN_IF_ERROR(Interval().status());
    RETURN_IF_ERROR(ParseDuration(timeout).status());
    return sync.Validate();
  }
};

// What went wrong, a line each; "" = nothing.
std::string ProblemsOf(const absl::StatusOr<AdapterSyncReport>& report) {
  const auto line = [](const absl::Status& status) {
    return absl::StrCat("pricer: ", absl::StatusCodeToString(status.code()), ": ", status.message(),
                        "\n");
  };
  if (!report.ok()) return line(report.status());
  std::string problems;
  for (const absl::Status& failure : report->failures) absl::StrAppend(&problems, line(failure));
  return problems;
}

absl::StatusOr<AdapterSyncReport> SyncOnce(const SyncFlags& flags,
                                           const std::function<bool()>& stop) {
  return SyncAdapters(flags.sync, stop,
                      [](const std::string& line) { std::cout << line << std::endl; });
}

void SleepUnlessInterrupted(absl::Duration interval) {
  constexpr absl::Duration kBetweenLooks = absl::Milliseconds(100);
  for (const absl::Time end = absl::Now() + interval; !InterruptRequested();) {
    const absl::Duration left = end - absl::Now();
    if (left <= absl::ZeroDuration()) return;
    absl::SleepFor(std::min(left, kBetweenLooks));
  }
}

bool IsUnavailable(const absl::StatusOr<AdapterSyncReport>& report) {
  if (!report.ok()) return absl::IsUnavailable(report.status());
  return std::any_of(report->failures.begin(), report->failures.end(),
                     [](const absl::Status& failure) { return absl::IsUnavailable(failure); });
}

absl::StatusOr<int> RunOnce(const SyncFlags& flags) {
  RetryOptions retry;
  ASSIGN_OR_RETURN(retry.timeout, ParseDuration(flags.timeout));
  RetryEnvironment environment = RetryEnvironment::System();
  environment.stop = InterruptRequested;
  absl::StatusOr<AdapterSyncReport> report = AdapterSyncReport();
  CallWithRetry(retry, environment, [&](absl::Time /*deadline*/) {
    report = SyncOnce(flags, InterruptRequested);
    return IsUnavailable(report) ? absl::UnavailableError("") : absl::OkStatus();
  }).IgnoreError();
  if (absl::IsCancelled(report.status())) {
    std::cerr << "pricer: interrupted; the same command goes on" << std::endl;
    return kExitResumable;
  }
  RETURN_IF_ERROR(report.status());
  std::cerr << ProblemsOf(report) << std::flush;
  std::cout << absl::StrCat(report->versions, " versions in ", flags.sync.from, ", ",
                            report->copied, " copied, ", report->removed, " removed; labels of ",
                            report->labels, " adapters copied; ", report->failures.size(),
                            " failures")
            << std::endl;
  return report->failures.empty() ? kExitDone : kExitFailed;
}

// Until it is interrupted; a problem is told when it comes and when it is gone.
int RunForEver(const SyncFlags& flags, absl::Duration interval) {
  std::string told;
  const auto tell = [&told](const absl::StatusOr<AdapterSyncReport>& report) {
    if (absl::IsCancelled(report.status())) return;
    const std::string problems = ProblemsOf(report);
    if (problems == told) return;
    std::cerr << (problems.empty() ? "pricer: all is copied again\n" : problems) << std::flush;
    told = problems;
  };
  while (!InterruptRequested()) {
    tell(SyncOnce(flags, InterruptRequested));
    SleepUnlessInterrupted(interval);
  }
  return kExitDone;
}

absl::StatusOr<int> Run(const SyncFlags& flags) {
  CatchInterrupts();
  ASSIGN_OR_RETURN(const absl::Duration interval, flags.Interval());
  if (interval == absl::ZeroDuration()) return RunOnce(flags);
  return RunForEver(flags, interval);
}

}  // namespace

Command AddAdaptersSyncCommand(CLI::App& parent) {
  auto flags = std::make_shared<SyncFlags>();
  CLI::App* app = parent.add_subcommand(
      "sync", "brings a folder of adapters up to a store of objects, or that up to a folder");
  app->add_option("from", flags->sync.from, "folder of adapters, or s3://BUCKET/PREFIX")
      ->required();
  app->add_option("to", flags->sync.to, "the same; one of the two is a folder")->required();
  app->add_option("--name", flags->sync.name, "of one adapter; none = all");
  app->add_option("--every", flags->every, "again and again, with such a pause; none = once")
      ->check(DurationError);
  app->add_option("--timeout", flags->timeout,
                  "without --every: for how long a store that does not answer is asked again")
      ->capture_default_str()
      ->check(DurationError);
  app->add_flag(
      "--delete", flags->sync.remove,
      "remove versions from TO that are not in FROM, unless a label there is one of them");
  return {app, [flags] { return flags->Validate(); }, [flags] { return Run(*flags); }};
}

}  // namespace pricer
