#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "catalog/item.h"

namespace pricer {

// Why a row is no item.
struct Reject {
  // The column as the file calls it; empty where the whole row is meant.
  std::string field;
  std::string reason;
};

// A value of a row: a string decoded, a number as it is written, else no text.
struct JsonValue {
  enum class Kind { kAbsent, kNull, kBoolean, kNumber, kString, kArray, kObject };
  Kind kind = Kind::kAbsent;
  absl::string_view text;
};

// Turns one line of JSON into an Item. One thread.
class ItemParser {
 public:
  // `columns`: from our field names (id, title, brand, category, description, details, text, price,
  // currency) to the columns of the file. A field that is not mentioned has its own name as column,
  // unless that column is given to another field; an empty column means that the field is not read.
  // InvalidArgument for an unknown field, a column given to two fields or a currency that is not
  // three letters.
  static absl::StatusOr<ItemParser> Create(const std::map<std::string, std::string>& columns,
                                           absl::string_view currency, bool price_required);

  // The columns of Create from entries FIELD=COLUMN. InvalidArgument names an entry of another form
  // and a field that is given twice.
  static absl::StatusOr<std::map<std::string, std::string>> ParseColumns(
      absl::Span<const std::string> entries);

  // Fills `item`, reusing its memory, or says why not; `item` is then unspecified but for
  // its id, which is empty where none could be read. The rules:
  // - The line is UTF-8 and one JSON object (RFC 8259, strict), its numbers within the range of a
  //   double. Other columns are ignored; of a repeated key the last counts; null is the same as
  //   absent.
  // - id: a string, or a number, taken as it is written. Absent or empty: `row` is the id.
  // - title, brand, category, description, details, text: strings; one of white space alone is the
  //   same as absent. Not all absent, and text not together with another of them.
  // - price: a number or a wholly numeric string, finite and > 0. Absent (or ""): rejected where
  //   the price is required. A price that is there must be right even where it is not required.
  // - currency: the run's, letter case apart, and set to it; absent or empty: the run's.
  std::optional<Reject> Parse(absl::string_view line, int64_t row, Item* item);

 private:
  enum Field { kId, kTitle, kBrand, kCategory, kDescription, kDetails, kText, kPrice, kCurrency };
  static constexpr int kNumFields = 9;
  static constexpr std::array<const char*, kNumFields> kFieldNames = {
      "id", "title", "brand", "category", "description", "details", "text", "price", "currency"};
  using Values = std::array<JsonValue, kNumFields>;

  ItemParser() = default;
  static int FieldByName(absl::string_view name);
  std::optional<Reject> Scan(absl::string_view line, Values* values);
  std::optional<Reject> TakeString(Field field, const Values& values, std::string* out) const;
  std::optional<Reject> TakeId(const Values& values, int64_t row, std::string* out) const;
  std::optional<Reject> TakeTexts(const Values& values, Item* item) const;
  std::optional<Reject> TakePrice(const Values& values, std::optional<double>* out) const;
  std::optional<Reject> TakeCurrency(const Values& values, std::string* out) const;

  std::array<std::string, kNumFields> columns_;
  std::string currency_;
  bool price_required_ = true;
  std::string buffer_;  // of the row, decoded in place
};

}  // namespace pricer
