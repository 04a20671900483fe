#include "client/commands/price.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/exit_codes.h"
#include "base/status_macros.h"
#include "client/client.h"
#include "client/commands/common_flags.h"
#include "client/reply_json.h"

namespace pricer {
namespace {

struct PriceFlags {
  ConnectionFlags connection;
  AdapterFlags adapter;
  std::string title, brand, category, description, details, text;
  std::string estimator;
  std::vector<double> quantiles;
  std::vector<double> coverages;
  bool json = false;

  v1::PredictPriceRequest Request() const {
    v1::PredictPriceRequest request;
    v1::Item* item = request.mutable_item();
    item->set_title(title);
    item->set_brand(brand);
    item->set_category(category);
    item->set_description(description);
    item->set_details(details);
    item->set_text(text);
    *request.mutable_adapter() = adapter.Spec();
    v1::PredictOptions* options = request.mutable_options();
    options->set_estimator(estimator);
    for (double level : quantiles) options->add_quantiles(level);
    for (double coverage : coverages) options->add_interval_coverages(coverage);
    return request;
  }
};

std::string Money(double value) { return absl::StrFormat("%.2f", value); }

void PrintPrediction(const v1::Prediction& prediction) {
  const v1::ServedBy& by = prediction.served_by();
  std::cout << absl::StrFormat("%-12s %s %s\n", "price", Money(prediction.price()),
                               prediction.currency_code());
  for (const v1::Interval& interval : prediction.intervals()) {
    std::cout << absl::StrFormat("%-12s %s to %s\n",
                                 absl::StrFormat("%.3g %% range", 100 * interval.coverage()),
                                 Money(interval.low()), Money(interval.high()));
  }
  for (const v1::Quantile& quantile : prediction.quantiles()) {
    std::cout << absl::StrFormat("%-12s %s\n", absl::StrFormat("quantile %.4g", quantile.level()),
                                 Money(quantile.price()));
  }
  std::cout << absl::StrFormat("%-12s %.2f within 20 %% of the price\n", "confidence",
                               prediction.confidence())
            << absl::StrFormat("%-12s %s version %d%s%s, %d tokens%s\n", "served by", by.adapter(),
                               by.version(), by.label().empty() ? "" : ", label ", by.label(),
                               prediction.prompt_tokens(),
                               prediction.truncated() ? ", text cut to fit" : "");
}

absl::StatusOr<int> Run(const PriceFlags& flags) {
  ASSIGN_OR_RETURN(const ClientOptions connection, flags.connection.Options());
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Client::Create(connection));
  const v1::PredictPriceRequest request = flags.Request();
  ASSIGN_OR_RETURN(const v1::PredictPriceResponse response, client->PredictPrice(request));
  if (flags.json) {
    std::cout << ReplyToJson(request, response.prediction()) << '\n';
  } else {
    PrintPrediction(response.prediction());
  }
  return kExitDone;
}

}  // namespace

Command AddPriceCommand(CLI::App& parent) {
  auto flags = std::make_shared<PriceFlags>();
  CLI::App* app = parent.add_subcommand("price", "prices one item");
  flags->connection.AddTo(app, "127.0.0.1:8500");
  flags->adapter.AddTo(app);
  app->add_option("--title", flags->title);
  app->add_option("--brand", flags->brand);
  app->add_option("--category", flags->category);
  app->add_option("--description", flags->description);
  app->add_option("--details", flags->details);
  app->add_option("--text", flags->text, "free text instead of the fields");
  app->add_option("--estimator", flags->estimator, "median, mean, geomean, mode or quantile:Q");
  app->add_option("--quantiles", flags->quantiles, "levels in (0, 1)")->delimiter(',');
  app->add_option("--coverages", flags->coverages, "of intervals, in (0, 1); none = 0.8")
      ->delimiter(',');
  app->add_flag("--json", flags->json,
                "one JSON object instead of a table, which pricer replay reads");
  return {app, [flags] { return flags->connection.Validate(); }, [flags] { return Run(*flags); }};
}

}  // namespace pricer
