#include "client/load_report.h"

#include <array>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace pricer {

// Embedded files: load_page.html, and Chart.js.
absl::string_view LoadPage();
absl::string_view ChartJs();

namespace {

using Json = nlohmann::ordered_json;

struct Percentile {
  const char* name;
  double share;
};
constexpr std::array<Percentile, 5> kPercentiles = {
    {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999}}};

constexpr double kCurveStep = 1.2;

double PerSecond(int64_t count, absl::Duration time) {
  return time > absl::ZeroDuration() ? static_cast<double>(count) / absl::ToDoubleSeconds(time) : 0;
}

void AppendLatencies(absl::string_view name, const LatencyHistogram& latency, std::string* text) {
  if (latency.count() == 0) return;
  absl::StrAppendFormat(text, "  %-16s", name);
  for (const Percentile& percentile : kPercentiles) {
    absl::StrAppendFormat(text, "%10.3f",
                          absl::ToDoubleMilliseconds(latency.Quantile(percentile.share)));
  }
  absl::StrAppendFormat(text, "%10.3f\n", absl::ToDoubleMilliseconds(latency.max()));
}

void AppendStage(const LoadTestStage& stage, const LoadTestResult& result, std::string* text) {
  if (stage.rate > 0) absl::StrAppendFormat(text, "%.1f calls/s due: ", stage.rate);
  absl::StrAppendFormat(text, "%.1f calls/s and %.1f items/s well, in %.1f s\n",
                        PerSecond(stage.ok_calls(), stage.time), PerSecond(stage.items, stage.time),
                        absl::ToDoubleSeconds(stage.time));
  absl::StrAppendFormat(text, "  %-16s", "milliseconds");
  for (const Percentile& percentile : kPercentiles) {
    absl::StrAppendFormat(text, "%10s", percentile.name);
  }
  absl::StrAppendFormat(text, "%10s\n", "max");
  AppendLatencies("call", stage.latency, text);
  AppendLatencies("call that failed", stage.failure_latency, text);
  AppendLatencies("server's queue", stage.queue, text);
  AppendLatencies("server's batch", stage.compute, text);
  for (const auto& [code, count] : stage.calls) {
    absl::StrAppendFormat(text, "  %8d calls %s", count, absl::StatusCodeToString(code));
    const auto message = result.messages.find(code);
    absl::StrAppend(text, message == result.messages.end() ? "" : ", such as: ",
                    message == result.messages.end() ? "" : message->second, "\n");
  }
  for (const auto& [code, count] : stage.item_errors) {
    absl::StrAppendFormat(text, "  %8d items %s\n", count, absl::StatusCodeToString(code));
  }
  if (stage.not_sent > 0) {
    absl::StrAppendFormat(text, "  %8d calls not sent: too many in flight\n", stage.not_sent);
  }
}

Json LatencyJson(const LatencyHistogram& latency) {
  Json json = {{"count", latency.count()}, {"mean", absl::ToDoubleMilliseconds(latency.Mean())}};
  for (const Percentile& percentile : kPercentiles) {
    json[percentile.name] = absl::ToDoubleMilliseconds(latency.Quantile(percentile.share));
  }
  json["max"] = absl::ToDoubleMilliseconds(latency.max());
  return json;
}

// For the chart: half of what is left at each step, as HdrHistogram's percentiles go, and some
// between.
Json PercentileCurve(const LatencyHistogram& latency) {
  Json points = Json::array();
  for (double left = 1; left * static_cast<double>(latency.count()) >= 1; left /= kCurveStep) {
    points.push_back({1 - left, absl::ToDoubleMilliseconds(latency.Quantile(1 - left))});
  }
  return points;
}

Json CountsJson(const std::map<absl::StatusCode, int64_t>& counts) {
  Json json = Json::object();
  for (const auto& [code, count] : counts) json[absl::StatusCodeToString(code)] = count;
  return json;
}

Json StageJson(const LoadTestStage& stage) {
  return {{"due_per_second", stage.rate},
          {"seconds", absl::ToDoubleSeconds(stage.time)},
          {"due", stage.due},
          {"not_sent", stage.not_sent},
          {"calls", CountsJson(stage.calls)},
          {"ok_calls_per_second", PerSecond(stage.ok_calls(), stage.time)},
          {"items", stage.items},
          {"items_per_second", PerSecond(stage.items, stage.time)},
          {"item_errors", CountsJson(stage.item_errors)},
          {"latency_ms", LatencyJson(stage.latency)},
          {"failure_latency_ms", LatencyJson(stage.failure_latency)},
          {"queue_ms", LatencyJson(stage.queue)},
          {"compute_ms", LatencyJson(stage.compute)}};
}

}  // namespace

std::string LoadReportText(const LoadTestResult& result) {
  std::string text;
  for (const LoadTestStage& stage : result.stages) AppendStage(stage, result, &text);
  return text;
}

std::string LoadReportJson(const LoadTestResult& result) {
  Json json = {{"stages", Json::array()}, {"messages", Json::object()}};
  for (const LoadTestStage& stage : result.stages) json["stages"].push_back(StageJson(stage));
  for (const auto& [code, message] : result.messages) {
    json["messages"][absl::StatusCodeToString(code)] = message;
  }
  return json.dump(2);
}

std::string LoadReportHtml(const LoadTestResult& result, const std::string& command) {
  Json json = Json::parse(LoadReportJson(result));
  json["command"] = command;
  json["total"] = StageJson(result.Total());
  for (size_t i = 0; i < result.stages.size(); ++i) {
    json["stages"][i]["percentiles"] = PercentileCurve(result.stages[i].latency);
  }
  // Nothing in it ends the element that it stands in.
  const std::string data = absl::StrReplaceAll(
      json.dump(-1, ' ', false, Json::error_handler_t::replace), {{"<", "\\u003c"}});
  return absl::StrReplaceAll(LoadPage(), {{"{{DATA}}", data}, {"{{CHART_JS}}", ChartJs()}});
}

}  // namespace pricer
