#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "catalog/item_reader.h"
#include "model/prompt.h"
#include "model/tokenizer.h"
#include "trainer/near_duplicates.h"

// What a data set is like, before it is trained on. Files are read row by row; signatures, lengths
// and prices are kept of every row, texts of none.

namespace pricer {

// 0 of nothing.
inline double Share(int64_t part, int64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

struct DataInspectionOptions {
  std::string data;
  std::string validation = "";  // empty = none
  std::map<std::string, std::string> columns = {};
  char csv_delimiter = '\0';
  std::string currency = "USD";
};

// Five numbers of a sorted list; all 0 where that is empty.
struct Spread {
  double min = 0;
  double median = 0;
  double p90 = 0;
  double p99 = 0;
  double max = 0;
};

struct PriceBar {
  double low = 0;   // including
  double high = 0;  // excluding
  int64_t items = 0;
};

struct FileInspection {
  std::string path;
  int64_t rows = 0;
  int64_t items = 0;
  struct RejectedRow {
    int64_t row = 0;
    Reject reject;
  };
  int64_t rejects = 0;
  std::vector<RejectedRow> first_rejects;
  Spread tokens;  // of the prompts as they are cut
  int64_t total_tokens = 0;
  int64_t truncated = 0;
  Spread prices;
  std::vector<PriceBar> price_bars;  // even in ln(price), more or less: 1, 2, 5, 10, ...
  // Of each text field, in how many items it is absent.
  std::vector<std::pair<std::string, int64_t>> missing;
};

struct DataInspection {
  FileInspection data;
  std::optional<FileInspection> validation;
  DuplicateFinder::Result duplicates;

  // Of the rows of the validation; 0 without one.
  double leak_share() const;
};

// By nearest rank.
Spread SpreadOf(std::vector<double> values);

// At most 30 bars that hold all prices, those at both ends not empty. REQUIRES: prices > 0.
std::vector<PriceBar> PriceBars(const std::vector<double>& prices);

// Uses ATen's intra-op threads. A row whose text makes no prompt counts as rejected. Cancelled
// after an interrupt; FailedPrecondition where a file has no good row; InvalidArgument where
// question and prefix alone are too long; else what reading gave.
absl::StatusOr<DataInspection> InspectData(const DataInspectionOptions& options,
                                           const PromptTemplate& prompt,
                                           const Tokenizer& tokenizer);

}  // namespace pricer
