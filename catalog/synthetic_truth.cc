#include "catalog/synthetic_truth.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <numbers>

#include "absl/strings/str_format.h"
#include "base/check.h"
#include "catalog/median.h"
#include "catalog/synthetic_tables.h"

namespace pricer {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kHit = 0.2;

constexpr char kFormula[] =
    "ln(price) = ln(base_usd of the type) + brand + model + material + condition + size_exponent * "
    "ln(size / size_reference) + pack_exponent * ln(pack) + noise; price rounded to cents";

double Rounded(double value) {
  return std::strtod(absl::StrFormat("%.6g", value).c_str(), nullptr);
}

Json ErrorsJson(const PriceErrors& errors) {
  return {{"median_absolute_percentage_error", Rounded(errors.median_absolute_percentage_error)},
          {"median_absolute_error", Rounded(errors.median_absolute_error)},
          {"mae", Rounded(errors.mae)},
          {"mape", Rounded(errors.mape)},
          {"rmsle", Rounded(errors.rmsle)},
          {"within_20_percent", Rounded(errors.within_20_percent)}};
}

Json EffectsJson(const std::vector<PricedWord>& words) {
  Json effects = Json::object();
  for (const PricedWord& word : words) effects[word.name] = word.effect;
  return effects;
}

Json TypeJson(const ProductType& type) {
  Json json = {{"base_usd", type.base}};
  if (!type.size.values.empty()) {
    json["size"] = type.size.format;
    json["size_reference"] = type.size.reference;
    json["size_exponent"] = type.size.exponent;
  }
  if (type.packs.size() > 1) json["pack_exponent"] = type.pack_exponent;
  if (!type.materials.empty()) json["materials"] = EffectsJson(type.materials);
  return json;
}

Json CategoriesJson() {
  Json categories = Json::object();
  for (const Category& category : SyntheticCategories()) {
    Json types = Json::object();
    for (const ProductType& type : category.types) types[type.name] = TypeJson(type);
    categories[category.name] = {{"brands", EffectsJson(category.brands)},
                                 {"models", EffectsJson(category.models)},
                                 {"types", types}};
  }
  return categories;
}

double NormalCdf(double z) { return 0.5 * std::erfc(-z / std::numbers::sqrt2); }

// P(|exp(-e) - 1| <= x) for e ~ N(0, sigma), 0 <= x < 1.
double ShareWithin(double x, double sigma) {
  return NormalCdf(-std::log1p(-x) / sigma) - NormalCdf(-std::log1p(x) / sigma);
}

}  // namespace

PriceErrors ComputePriceErrors(const std::vector<double>& prices,
                               const std::vector<double>& predictions) {
  PRICER_CHECK(!prices.empty() && prices.size() == predictions.size());
  PriceErrors errors;
  std::vector<double> absolute;
  std::vector<double> relative;
  double squares = 0;
  for (size_t i = 0; i < prices.size(); ++i) {
    absolute.push_back(std::abs(predictions[i] - prices[i]));
    relative.push_back(absolute.back() / prices[i]);
    const double log_error = std::log1p(predictions[i]) - std::log1p(prices[i]);
    squares += log_error * log_error;
    errors.mae += absolute.back();
    errors.mape += relative.back();
    errors.within_20_percent += relative.back() <= kHit ? 1 : 0;
  }
  const auto count = static_cast<double>(prices.size());
  errors.mae /= count;
  errors.mape /= count;
  errors.within_20_percent /= count;
  errors.rmsle = std::sqrt(squares / count);
  errors.median_absolute_error = Median(std::move(absolute));
  errors.median_absolute_percentage_error = Median(std::move(relative));
  return errors;
}

NoiseLimits LimitsOfNoise(double sigma) {
  double low = 0;
  double high = 1;
  while (high - low > 1e-12) {
    const double middle = (low + high) / 2;
    (ShareWithin(middle, sigma) < 0.5 ? low : high) = middle;
  }
  return {high, ShareWithin(kHit, sigma)};
}

std::string SyntheticTruthJson(const SyntheticTruth& truth) {
  const NoiseLimits limits = LimitsOfNoise(truth.noise_sigma);
  Json conditions = Json::object();
  for (const Condition& condition : SyntheticConditions()) {
    conditions[condition.name] = condition.effect;
  }
  Json constant = ErrorsJson(truth.constant_median);
  constant["price"] = Rounded(truth.train_median);
  const Json json = {
      {"format_version", "1.0"},
      {"seed", truth.seed},
      {"items", {{"train", truth.train}, {"validation", truth.validation}, {"test", truth.test}}},
      {"currency", "USD"},
      {"formula", kFormula},
      {"noise",
       {{"distribution", "normal, added to ln(price)"},
        {"sigma", truth.noise_sigma},
        {"expected_median_absolute_percentage_error",
         Rounded(limits.median_absolute_percentage_error)},
        {"expected_within_20_percent", Rounded(limits.within_20_percent)}}},
      {"best_reachable", ErrorsJson(truth.best_reachable)},
      {"constant_median", constant},
      {"effects", {{"conditions", conditions}, {"categories", CategoriesJson()}}}};
  return json.dump(2) + "\n";
}

}  // namespace pricer
