#include "server/price_request.h"

#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "catalog/item.h"
#include "server/proto_text.h"

namespace pricer {
namespace {

constexpr size_t kMaxAdapterNameBytes = 63;
constexpr size_t kMaxEstimatorBytes = 64;

absl::Status CheckLength(absl::string_view field, size_t bytes, size_t limit) {
  if (bytes <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": expected at most ", limit, " bytes, got ", bytes));
}

absl::Status CheckCount(absl::string_view field, int count, int limit) {
  if (count <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": expected at most ", limit, " entries, got ", count));
}

absl::Status CheckShare(absl::string_view field, int index, double value) {
  if (value > 0 && value < 1) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, "[", index, "]: expected a number between 0 and 1, got ", value));
}

absl::Status CheckShares(absl::string_view field,
                         const google::protobuf::RepeatedField<double>& values, int limit) {
  RETURN_IF_ERROR(CheckCount(field, values.size(), limit));
  for (int i = 0; i < values.size(); ++i) RETURN_IF_ERROR(CheckShare(field, i, values[i]));
  return absl::OkStatus();
}

std::array<std::pair<absl::string_view, const std::string*>, 5> TextFields(const v1::Item& proto) {
  return {{{"item.title", &proto.title()},
           {"item.brand", &proto.brand()},
           {"item.category", &proto.category()},
           {"item.description", &proto.description()},
           {"item.details", &proto.details()}}};
}

// The interval of the coverage that outcomes are counted for, where it was asked for.
void AddDefaultInterval(const PriceAnswer& answer, PredictedPrice* predicted) {
  for (const PriceInterval& interval : answer.intervals) {
    if (interval.coverage != kDefaultIntervalCoverage) continue;
    predicted->low = interval.low;
    predicted->high = interval.high;
  }
}

}  // namespace

absl::StatusOr<AdapterChoice> ChoiceFromProto(const v1::AdapterSpec& proto) {
  RETURN_IF_ERROR(CheckLength("adapter.name", proto.name().size(), kMaxAdapterNameBytes));
  RETURN_IF_ERROR(CheckLength("adapter.label", proto.label().size(), kMaxAdapterNameBytes));
  AdapterChoice choice{.name = proto.name(), .version = std::nullopt, .label = proto.label()};
  if (proto.has_version()) {
    const int64_t least = proto.name() == kBaseName ? BaseKey().version : 1;
    if (proto.version() < least) {
      return absl::InvalidArgumentError(
          absl::StrCat("adapter.version: expected at least ", least, ", got ", proto.version()));
    }
    choice.version = proto.version();
  }
  return choice;
}

absl::StatusOr<Lane> LaneFromProto(v1::Lane proto) {
  switch (proto) {
    case v1::LANE_UNSPECIFIED:
    case v1::LANE_ONLINE:
      return Lane::kOnline;
    case v1::LANE_BULK:
      return Lane::kBulk;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("options.lane: expected LANE_ONLINE or LANE_BULK, got ", proto));
  }
}

absl::StatusOr<PriceOptions> OptionsFromProto(const v1::PredictOptions& proto) {
  RETURN_IF_ERROR(CheckLength("options.estimator", proto.estimator().size(), kMaxEstimatorBytes));
  RETURN_IF_ERROR(CheckShares("options.quantiles", proto.quantiles(), kMaxQuantiles));
  RETURN_IF_ERROR(
      CheckShares("options.interval_coverages", proto.interval_coverages(), kMaxIntervalCoverages));
  PriceOptions options;
  absl::StatusOr<Estimator> estimator = Estimator::Parse(proto.estimator());
  if (!estimator.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("options.estimator: ", estimator.status().message()));
  }
  options.estimator = *estimator;
  options.quantiles.assign(proto.quantiles().begin(), proto.quantiles().end());
  if (proto.interval_coverages_size() > 0) {
    options.interval_coverages.assign(proto.interval_coverages().begin(),
                                      proto.interval_coverages().end());
  }
  options.want_distribution = proto.want_distribution();
  return options;
}

absl::StatusOr<std::string> ItemTextFromProto(const v1::Item& proto) {
  RETURN_IF_ERROR(CheckLength("item.id", proto.id().size(), kMaxItemIdBytes));
  RETURN_IF_ERROR(CheckLength("item.text", proto.text().size(), kMaxItemTextBytes));
  size_t field_bytes = 0;
  for (const auto& [field, value] : TextFields(proto)) {
    RETURN_IF_ERROR(CheckLength(field, value->size(), kMaxItemTextBytes));
    field_bytes += value->size();
  }
  RETURN_IF_ERROR(
      CheckLength("item.title to item.details together", field_bytes, kMaxItemTextBytes));
  if (field_bytes > 0 && !proto.text().empty()) {
    return absl::InvalidArgumentError(
        "item.text: given together with fields of item.title to item.details; expected one or the "
        "other");
  }
  if (!proto.text().empty()) return proto.text();
  if (field_bytes == 0) {
    return absl::InvalidArgumentError(
        "item: has no text; expected item.text or one of title, brand, category, description, "
        "details");
  }
  Item item;
  item.title = proto.title();
  item.brand = proto.brand();
  item.category = proto.category();
  item.description = proto.description();
  item.details = proto.details();
  return ItemText(item);
}

absl::Status CheckItemCount(int count) {
  if (count == 0) return absl::InvalidArgumentError("items: expected at least 1 entry, got none");
  return CheckCount("items", count, kMaxItemsPerCall);
}

absl::Status CheckOutcomeCount(int count) {
  if (count == 0) {
    return absl::InvalidArgumentError("outcomes: expected at least 1 entry, got none");
  }
  return CheckCount("outcomes", count, kMaxItemsPerCall);
}

absl::StatusOr<TrueOutcome> OutcomeFromProto(const v1::Outcome& proto,
                                             const AdapterRegistry& registry) {
  RETURN_IF_ERROR(CheckLength("id", proto.id().size(), kMaxItemIdBytes));
  if (!(proto.price() > 0 && std::isfinite(proto.price()))) {
    return absl::InvalidArgumentError(
        absl::StrCat("price: expected a number above 0, got ", proto.price()));
  }
  TrueOutcome outcome;
  outcome.price = proto.price();
  ASSIGN_OR_RETURN(const AdapterKey key, AdapterOfToken(proto.outcome_token()));
  ASSIGN_OR_RETURN(outcome.adapter, registry.Find(key.name, key.version));
  ASSIGN_OR_RETURN(outcome.predicted,
                   ReadOutcomeToken(proto.outcome_token(), outcome.adapter->digest));
  return outcome;
}

void FillPrediction(const PriceDistribution& distribution, const PriceOptions& options,
                    const PredictionContext& context, v1::Prediction* proto) {
  const PriceAnswer answer = AnswerFrom(distribution, context.adapter.manifest, options);
  proto->set_price(answer.price);
  proto->set_currency_code(context.adapter.manifest.currency);
  proto->set_confidence(answer.confidence);
  for (const PriceInterval& interval : answer.intervals) {
    v1::Interval* out = proto->add_intervals();
    out->set_coverage(interval.coverage);
    out->set_low(interval.low);
    out->set_high(interval.high);
  }
  for (const PriceQuantile& quantile : answer.quantiles) {
    v1::Quantile* out = proto->add_quantiles();
    out->set_level(quantile.level);
    out->set_price(quantile.price);
  }
  if (options.want_distribution) {
    const std::vector<double> edges = distribution.Edges();
    const std::vector<double>& probabilities = distribution.probabilities();
    proto->mutable_distribution()->mutable_edges()->Add(edges.begin(), edges.end());
    proto->mutable_distribution()->mutable_probabilities()->Add(probabilities.begin(),
                                                                probabilities.end());
  }
  PredictedPrice predicted{.adapter = context.adapter.key, .price = answer.price};
  AddDefaultInterval(answer, &predicted);
  proto->set_outcome_token(OutcomeToken(predicted, context.adapter.digest));
  v1::ServedBy* served_by = proto->mutable_served_by();
  served_by->set_model(context.model_fingerprint);
  served_by->set_adapter(context.adapter.key.name);
  served_by->set_version(context.adapter.key.version);
  served_by->set_digest(context.adapter.digest);
  served_by->set_label(std::string(context.label));
  proto->set_prompt_tokens(context.prompt_tokens);
  proto->set_truncated(context.truncated);
  SetDuration(context.queue_time, proto->mutable_queue_time());
  SetDuration(context.compute_time, proto->mutable_compute_time());
}

}  // namespace pricer
