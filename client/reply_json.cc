#include "client/reply_json.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

using Json = nlohmann::ordered_json;

struct ItemField {
  const char* name;
  const std::string& (v1::Item::*get)() const;
  void (*set)(v1::Item* item, std::string value);
};

constexpr std::array<ItemField, 7> kItemFields = {{
    {"id", &v1::Item::id,
     [](v1::Item* item, std::string value) { item->set_id(std::move(value)); }},
    {"title", &v1::Item::title,
     [](v1::Item* item, std::string value) { item->set_title(std::move(value)); }},
    {"brand", &v1::Item::brand,
     [](v1::Item* item, std::string value) { item->set_brand(std::move(value)); }},
    {"category", &v1::Item::category,
     [](v1::Item* item, std::string value) { item->set_category(std::move(value)); }},
    {"description", &v1::Item::description,
     [](v1::Item* item, std::string value) { item->set_description(std::move(value)); }},
    {"details", &v1::Item::details,
     [](v1::Item* item, std::string value) { item->set_details(std::move(value)); }},
    {"text", &v1::Item::text,
     [](v1::Item* item, std::string value) { item->set_text(std::move(value)); }},
}};

absl::Status Wrong(absl::string_view field, absl::string_view expected, const Json& came) {
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": expected ", expected, ", got ",
                   came.is_discarded() ? "nothing" : came.dump().substr(0, 100)));
}

// Null where there is none.
Json At(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() ? Json() : *found;
}

absl::StatusOr<std::string> ReadText(const Json& object, const char* name) {
  const Json value = At(object, name);
  if (value.is_null()) return std::string();
  if (!value.is_string()) return Wrong(name, "a string", value);
  return value.get<std::string>();
}

absl::StatusOr<double> ReadNumber(const Json& object, const char* name) {
  const Json value = At(object, name);
  if (!value.is_number()) return Wrong(name, "a number", value);
  return value.get<double>();
}

absl::StatusOr<Json> ReadObject(const Json& object, const char* name) {
  Json value = At(object, name);
  if (!value.is_object()) return Wrong(name, "an object", value);
  return value;
}

absl::StatusOr<std::vector<Json>> ReadObjects(const Json& object, const char* name) {
  const Json value = At(object, name);
  std::vector<Json> entries;
  if (value.is_null()) return entries;
  if (!value.is_array()) return Wrong(name, "a list of objects", value);
  for (const Json& entry : value) {
    if (!entry.is_object()) return Wrong(name, "a list of objects", value);
    entries.push_back(entry);
  }
  return entries;
}

absl::Status ReadServedBy(const Json& json, Reply* reply) {
  ASSIGN_OR_RETURN(const Json served_by, ReadObject(json, "served_by"));
  v1::ServedBy* const by = reply->prediction.mutable_served_by();
  ASSIGN_OR_RETURN(*by->mutable_model(), ReadText(served_by, "model"));
  ASSIGN_OR_RETURN(*by->mutable_adapter(), ReadText(served_by, "adapter"));
  ASSIGN_OR_RETURN(*by->mutable_digest(), ReadText(served_by, "digest"));
  ASSIGN_OR_RETURN(*by->mutable_label(), ReadText(served_by, "label"));
  const Json version = At(served_by, "version");
  if (!version.is_number_integer()) return Wrong("version", "a whole number", version);
  by->set_version(version.get<int64_t>());
  v1::AdapterSpec* const adapter = reply->request.mutable_adapter();
  adapter->set_name(by->adapter());
  adapter->set_version(by->version());
  return absl::OkStatus();
}

absl::Status ReadPrices(const Json& json, Reply* reply) {
  v1::Prediction& prediction = reply->prediction;
  v1::PredictOptions* const options = reply->request.mutable_options();
  ASSIGN_OR_RETURN(const double price, ReadNumber(json, "price"));
  prediction.set_price(price);
  ASSIGN_OR_RETURN(*prediction.mutable_currency_code(), ReadText(json, "currency"));
  ASSIGN_OR_RETURN(*options->mutable_estimator(), ReadText(json, "estimator"));
  ASSIGN_OR_RETURN(const std::vector<Json> intervals, ReadObjects(json, "intervals"));
  for (const Json& entry : intervals) {
    v1::Interval* const interval = prediction.add_intervals();
    ASSIGN_OR_RETURN(const double coverage, ReadNumber(entry, "coverage"));
    ASSIGN_OR_RETURN(const double low, ReadNumber(entry, "low"));
    ASSIGN_OR_RETURN(const double high, ReadNumber(entry, "high"));
    interval->set_coverage(coverage);
    interval->set_low(low);
    interval->set_high(high);
    options->add_interval_coverages(coverage);
  }
  ASSIGN_OR_RETURN(const std::vector<Json> quantiles, ReadObjects(json, "quantiles"));
  for (const Json& entry : quantiles) {
    v1::Quantile* const quantile = prediction.add_quantiles();
    ASSIGN_OR_RETURN(const double level, ReadNumber(entry, "level"));
    ASSIGN_OR_RETURN(const double at, ReadNumber(entry, "price"));
    quantile->set_level(level);
    quantile->set_price(at);
    options->add_quantiles(level);
  }
  return absl::OkStatus();
}

absl::Status SameText(absl::string_view what, const std::string& logged, const std::string& now) {
  if (logged == now) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(what, ": was ", logged, ", is ", now));
}

absl::Status SamePrice(absl::string_view what, double logged, double now, double tolerance) {
  if (std::abs(now - logged) <= tolerance * std::abs(logged)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrFormat("%s: was %.17g, is %.17g", what, logged, now));
}

}  // namespace

std::string ReplyToJson(const v1::PredictPriceRequest& request, const v1::Prediction& prediction) {
  Json item = Json::object();
  for (const ItemField& field : kItemFields) {
    const std::string& value = (request.item().*field.get)();
    if (!value.empty()) item[field.name] = value;
  }
  Json json = {{"price", prediction.price()},
               {"currency", prediction.currency_code()},
               {"confidence", prediction.confidence()},
               {"intervals", Json::array()},
               {"quantiles", Json::array()}};
  for (const v1::Interval& interval : prediction.intervals()) {
    json["intervals"].push_back(
        {{"coverage", interval.coverage()}, {"low", interval.low()}, {"high", interval.high()}});
  }
  for (const v1::Quantile& quantile : prediction.quantiles()) {
    json["quantiles"].push_back({{"level", quantile.level()}, {"price", quantile.price()}});
  }
  const v1::ServedBy& by = prediction.served_by();
  json["served_by"] = {{"model", by.model()},
                       {"adapter", by.adapter()},
                       {"version", by.version()},
                       {"digest", by.digest()},
                       {"label", by.label()}};
  json["prompt_tokens"] = prediction.prompt_tokens();
  json["truncated"] = prediction.truncated();
  json["item"] = std::move(item);
  json["estimator"] = request.options().estimator();
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::StatusOr<Reply> ReplyFromJson(absl::string_view line) {
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError("expected a JSON object as `pricer price --json` prints it");
  }
  Reply reply;
  ASSIGN_OR_RETURN(const Json item, ReadObject(json, "item"));
  for (const ItemField& field : kItemFields) {
    ASSIGN_OR_RETURN(std::string value, ReadText(item, field.name));
    field.set(reply.request.mutable_item(), std::move(value));
  }
  RETURN_IF_ERROR(ReadServedBy(json, &reply));
  RETURN_IF_ERROR(ReadPrices(json, &reply));
  return reply;
}

absl::Status CompareReplies(const v1::Prediction& logged, const v1::Prediction& now,
                            double tolerance) {
  RETURN_IF_ERROR(SameText("model", logged.served_by().model(), now.served_by().model()));
  RETURN_IF_ERROR(SameText("digest", logged.served_by().digest(), now.served_by().digest()));
  RETURN_IF_ERROR(SameText("currency", logged.currency_code(), now.currency_code()));
  RETURN_IF_ERROR(SamePrice("price", logged.price(), now.price(), tolerance));
  for (int i = 0; i < std::min(logged.intervals_size(), now.intervals_size()); ++i) {
    const v1::Interval& was = logged.intervals(i);
    const v1::Interval& is = now.intervals(i);
    const std::string name = absl::StrCat("interval ", was.coverage());
    RETURN_IF_ERROR(SamePrice(absl::StrCat(name, " low"), was.low(), is.low(), tolerance));
    RETURN_IF_ERROR(SamePrice(absl::StrCat(name, " high"), was.high(), is.high(), tolerance));
  }
  for (int i = 0; i < std::min(logged.quantiles_size(), now.quantiles_size()); ++i) {
    RETURN_IF_ERROR(SamePrice(absl::StrCat("quantile ", logged.quantiles(i).level()),
                              logged.quantiles(i).price(), now.quantiles(i).price(), tolerance));
  }
  return absl::OkStatus();
}

}  // namespace pricer
