#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "pricer/v1/pricing.pb.h"

namespace pricer {

// A line of a batch job's output: {row, id, price, currency, low, high, adapter, version, error}.
// Prices have six significant digits, so that the last bits of a processor's arithmetic do not
// show. id is null where the input's row has none that can be read; all but row, id and error are
// null where `error` is {code, message}, else it is null.

// Longer ones are not read.
inline constexpr size_t kMaxBatchLineBytes = size_t{4} << 20;

// Of a row that was sent, with its line end. REQUIRES: the result is a prediction or an error.
std::string BatchLine(int64_t row, const std::string& id, const v1::ItemResult& result);
// Of one that was not.
std::string BatchErrorLine(int64_t row, const std::string& id, absl::string_view code,
                           absl::string_view message);

// What is read of such a line.
struct BatchRow {
  int64_t row = 0;
  std::string id;  // empty = null
  double price = 0;
  std::string adapter;
  int64_t version = 0;
  // Of an error; then there is no price.
  std::string error_code;
  std::string error_message;

  bool failed() const { return !error_code.empty(); }
};

// A line without its end. DataLoss says what is wrong with it.
absl::StatusOr<BatchRow> ParseBatchLine(absl::string_view line);

}  // namespace pricer
