#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/loaded_adapter.h"

namespace pricer {

// What was predicted, as the caller brings it back with the price that came true.
struct PredictedPrice {
  AdapterKey adapter;
  double price = 0;
  // The interval of kDefaultIntervalCoverage; both 0 where the caller asked for others.
  double low = 0;
  double high = 0;

  bool has_interval() const { return high > 0; }
};

// A prediction as text that stands for itself, so that no server has to remember it: any server
// that has the adapter version reads it. It holds a checksum with the version's digest, against
// mistakes and not against malice.
std::string OutcomeToken(const PredictedPrice& predicted, absl::string_view adapter_digest);

// Which adapter version a token is of; the rest is not checked yet. InvalidArgument where it is no
// token.
absl::StatusOr<AdapterKey> AdapterOfToken(absl::string_view token);

// InvalidArgument where the token was not made with this digest.
absl::StatusOr<PredictedPrice> ReadOutcomeToken(absl::string_view token,
                                                absl::string_view adapter_digest);

}  // namespace pricer
