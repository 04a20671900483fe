#include "trainer/report.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace pricer {
namespace {

using Json = nlohmann::ordered_json;

Json MetricsJson(const Metrics& metrics) {
  Json json;
  json["items"] = metrics.items;
  json["mae"] = metrics.mae;
  json["median_absolute_error"] = metrics.median_absolute_error;
  json["rmsle"] = metrics.rmsle;
  json["mape"] = metrics.mape;
  json["within_20_percent"] = metrics.within_20_percent;
  json["coverage_80"] = metrics.coverage_80.has_value() ? Json(*metrics.coverage_80) : Json();
  json["pinball"] = metrics.pinball;
  json["crps"] = metrics.crps;
  json["unparsable"] = metrics.unparsable;
  return json;
}

std::string Percent(double share) { return absl::StrFormat("%.1f %%", 100.0 * share); }

std::string Coverage(const Metrics& metrics) {
  return metrics.coverage_80.has_value() ? Percent(*metrics.coverage_80) : "-";
}

}  // namespace

std::string EvaluationJson(const Metrics& metrics, const Baseline& baseline) {
  Json json = MetricsJson(metrics);
  json["baseline"] = MetricsJson(baseline.metrics);
  json["baseline_median"] = baseline.median;
  json["baseline_median_of"] = baseline.median_of;
  return json.dump(2) + "\n";
}

std::string EvaluationTable(absl::string_view name, const Metrics& metrics,
                            const Baseline& baseline) {
  const Metrics& constant = baseline.metrics;
  std::string table = absl::StrFormat("%-22s %14s  %s\n", "", name,
                                      absl::StrFormat("median of %s", baseline.median_of));
  const auto row = [&table](absl::string_view label, absl::string_view left,
                            absl::string_view right) {
    absl::StrAppendFormat(&table, "%-22s %14s  %14s\n", label, left, right);
  };
  const auto number = [](double value) { return absl::StrFormat("%.4g", value); };
  row("items", absl::StrCat(metrics.items), absl::StrCat(constant.items));
  row("MAE", number(metrics.mae), number(constant.mae));
  row("median error", number(metrics.median_absolute_error),
      number(constant.median_absolute_error));
  row("RMSLE", number(metrics.rmsle), number(constant.rmsle));
  row("MAPE", Percent(metrics.mape), Percent(constant.mape));
  row("within 20 %", Percent(metrics.within_20_percent), Percent(constant.within_20_percent));
  row("in the 80 % interval", Coverage(metrics), Coverage(constant));
  row("pinball", number(metrics.pinball), number(constant.pinball));
  row("CRPS", number(metrics.crps), number(constant.crps));
  if (metrics.unparsable > 0) row("unparsable", absl::StrCat(metrics.unparsable), "-");
  return table;
}

std::string PredictionLine(absl::string_view id, const ScoredPrice& score) {
  Json json;
  json["id"] = std::string(id);
  json["price"] = score.price;
  json["truth"] = score.truth;
  json["low"] = score.interval.has_value() ? Json(score.interval->low) : Json();
  json["high"] = score.interval.has_value() ? Json(score.interval->high) : Json();
  json["quantiles"] = Json();
  if (score.quantiles.has_value()) {
    for (size_t i = 0; i < kQuantileKeys.size(); ++i) {
      json["quantiles"][std::string(kQuantileKeys[i])] = (*score.quantiles)[i];
    }
  }
  return json.dump() + "\n";
}

std::string MetricsLine(const Metrics& metrics) {
  std::string line = absl::StrFormat("MAE %.4g  median error %.4g  RMSLE %.3f  within 20 %%: %s",
                                     metrics.mae, metrics.median_absolute_error, metrics.rmsle,
                                     Percent(metrics.within_20_percent));
  if (metrics.coverage_80.has_value()) {
    absl::StrAppend(&line, "  in the 80 % interval: ", Percent(*metrics.coverage_80));
  }
  return line;
}

}  // namespace pricer
