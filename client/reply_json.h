#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "pricer/v1/pricing.pb.h"

namespace pricer {

// A prediction and what was asked, so that it can be asked again.
struct Reply {
  // Names the version that answered by its number.
  v1::PredictPriceRequest request;
  // Price, currency, confidence, intervals, quantiles, served_by, prompt_tokens, truncated.
  v1::Prediction prediction;
};

// As one line of JSON, without the line's end; numbers to the last bit.
std::string ReplyToJson(const v1::PredictPriceRequest& request, const v1::Prediction& prediction);

// Of such a line; fields that are not known are passed over. InvalidArgument names the field.
absl::StatusOr<Reply> ReplyFromJson(absl::string_view line);

// How a prediction differs from the one that was logged: OK, or FailedPrecondition, which names
// what differs and both values. Prices may differ by `tolerance` times the logged one.
absl::Status CompareReplies(const v1::Prediction& logged, const v1::Prediction& now,
                            double tolerance);

}  // namespace pricer
