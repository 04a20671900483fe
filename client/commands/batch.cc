#include "client/commands/batch.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "base/exit_codes.h"
#include "base/interrupt.h"
#include "base/status_macros.h"
#include "catalog/row_flags.h"
#include "client/batch_job.h"
#include "client/client.h"
#include "client/commands/common_flags.h"

namespace pricer {
namespace {

struct BatchFlags {
  ConnectionFlags connection;
  AdapterFlags adapter;
  BatchJobOptions job;

  absl::StatusOr<BatchJobOptions> Job() const {
    BatchJobOptions options = job;
    ASSIGN_OR_RETURN(const ClientOptions client, connection.Options());
    options.retry = client.retry;
    options.adapter = adapter.Spec();
    RETURN_IF_ERROR(options.Validate());
    return options;
  }
};

// Rewrites one line on a terminal, says nothing elsewhere.
void ShowProgress(int64_t rows) {
  if (isatty(STDERR_FILENO)) std::cerr << "\r" << rows << " rows" << std::flush;
}

absl::StatusOr<int> Run(const BatchFlags& flags) {
  CatchInterrupts();
  ASSIGN_OR_RETURN(const BatchJobOptions job, flags.Job());
  ASSIGN_OR_RETURN(const ClientOptions connection, flags.connection.Options());
  RetryEnvironment environment = RetryEnvironment::System();
  environment.stop = InterruptRequested;
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Client::Create(connection, environment));
  const auto predict = [&](const v1::BatchPredictPricesRequest& request, absl::Time deadline) {
    return client->BatchPredictPrices(request, deadline);
  };
  const absl::StatusOr<BatchJobResult> result =
      RunBatchJob(job, predict, ShowProgress, environment);
  if (isatty(STDERR_FILENO)) std::cerr << '\n';
  if (absl::IsCancelled(result.status()) && InterruptRequested()) {
    std::cerr << "pricer: interrupted: there is no complete output\n";
    return kExitInterrupted;
  }
  RETURN_IF_ERROR(result.status());
  // Standard output may be the output.
  std::cerr << result->rows << " rows, " << result->errors << " with errors, in " << job.output
            << '\n';
  return result->errors == 0 ? kExitDone : kExitDoneWithRejects;
}

}  // namespace

Command AddBatchCommand(CLI::App& parent) {
  auto flags = std::make_shared<BatchFlags>();
  CLI::App* app = parent.add_subcommand("batch", "prices a file of items, one line per item");
  flags->connection.timeout = "5m";
  flags->connection.AddTo(app, "127.0.0.1:8500");
  flags->adapter.AddTo(app);
  app->add_option("--input", flags->job.input, "Items: JSON lines, CSV or Parquet")->required();
  app->add_option("--output", flags->job.output, "JSON lines, one for each row of the input")
      ->required();
  AddFieldOption(app, &flags->job.columns);
  AddCsvDelimiterOption(app, &flags->job.csv_delimiter);
  app->add_option("--currency", flags->job.currency, "of the input's prices, where it has any")
      ->capture_default_str();
  app->add_option("--estimator", flags->job.estimator, "median, mean, geomean, mode or quantile:Q");
  app->add_option("--coverage", flags->job.coverage, "of the interval low to high")
      ->capture_default_str();
  app->add_option("--items-per-call", flags->job.items_per_call)->capture_default_str();
  app->add_option("--calls-in-flight", flags->job.calls_in_flight)->capture_default_str();
  return {app, [flags] { return flags->Job().status(); }, [flags] { return Run(*flags); }};
}

}  // namespace pricer
