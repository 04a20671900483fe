#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "model/price_distribution.h"
#include "pricer/v1/pricing.pb.h"
#include "server/adapter_registry.h"
#include "server/lane.h"
#include "server/loaded_adapter.h"
#include "server/outcome.h"
#include "server/price_answer.h"

// Messages of pricing.proto to native types and back. Every error is InvalidArgument, unless said
// otherwise, and names the field and, where there is one, the limit.

namespace pricer {

inline constexpr int kMaxItemsPerCall = 1024;
// Of all text fields of an item together.
inline constexpr size_t kMaxItemTextBytes = 64 * 1024;
inline constexpr size_t kMaxItemIdBytes = 1024;
inline constexpr int kMaxQuantiles = 64;
inline constexpr int kMaxIntervalCoverages = 16;
// The largest message that the pricing service reads.
inline constexpr int kMaxRequestBytes = 16 * 1024 * 1024;

// Which adapter version is asked for.
struct AdapterChoice {
  std::string name;  // empty = the default adapter
  std::optional<int64_t> version;
  std::string label;  // empty where there is a version or none is asked for
};

absl::StatusOr<AdapterChoice> ChoiceFromProto(const v1::AdapterSpec& proto);

// Online where nothing is said; InvalidArgument for a number that is no lane.
absl::StatusOr<Lane> LaneFromProto(v1::Lane proto);

absl::StatusOr<PriceOptions> OptionsFromProto(const v1::PredictOptions& proto);

// The text that the model reads of an item.
absl::StatusOr<std::string> ItemTextFromProto(const v1::Item& proto);

absl::Status CheckItemCount(int count);
absl::Status CheckOutcomeCount(int count);

// What is said of a prediction beside its prices.
struct PredictionContext {
  const LoadedAdapter& adapter;
  // That led to the adapter; empty = it was asked for by number.
  absl::string_view label = {};
  const std::string& model_fingerprint;
  int prompt_tokens = 0;
  bool truncated = false;
  absl::Duration queue_time = absl::ZeroDuration();
  absl::Duration compute_time = absl::ZeroDuration();
};

// What an outcome says, with its error: InvalidArgument for a token or a price that is none,
// NotFound where the version is not served any more.
struct TrueOutcome {
  PredictedPrice predicted;
  double price = 0;
  // Of what counts it: keeps the version's metrics.
  AdapterHandle adapter;
};
absl::StatusOr<TrueOutcome> OutcomeFromProto(const v1::Outcome& proto,
                                             const AdapterRegistry& registry);

void FillPrediction(const PriceDistribution& distribution, const PriceOptions& options,
                    const PredictionContext& context, v1::Prediction* proto);

}  // namespace pricer
