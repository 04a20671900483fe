#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "catalog/item.h"
#include "catalog/item_fields.h"

namespace pricer {

// Turns the values of a row into an Item. Thread-compatible.
class ItemParser {
 public:
  // Which column holds which field: ItemColumns::Create. InvalidArgument also for wrong rules.
  static absl::StatusOr<ItemParser> Create(const std::map<std::string, std::string>& columns,
                                           const ItemRules& rules);

  // The columns of Create from entries FIELD=COLUMN. InvalidArgument names an entry of another form
  // and a field that is given twice.
  static absl::StatusOr<std::map<std::string, std::string>> ParseColumns(
      absl::Span<const std::string> entries);

  const ItemColumns& columns() const { return columns_; }

  // Fills `item`, reusing its memory, or says why not; `item` is then unspecified but for
  // its id, which is empty where none could be read. The rules, where null is the same as absent:
  // - id: a string, or a number, taken as it is written. Absent or empty: `row` is the id.
  // - title, brand, category, description, details, text: strings; one of white space alone is the
  //   same as absent. Not all absent, and text not together with another of them.
  // - price: a number or a wholly numeric string, finite and > 0. Absent (or ""): rejected where
  //   the price is required. A price that is there must be right even where it is not required.
  // - currency: the run's, letter case apart, and set to it; absent or empty: the run's.
  // - prompt and completion (read with ItemRules::pairs): strings, both or none; one of white space
  //   alone is the same as absent, else both are taken as they are written. A row that has them
  //   needs neither a text nor a price; what else it has must be right.
  std::optional<Reject> Parse(const FieldValues& values, int64_t row, Item* item) const;

 private:
  ItemParser(ItemColumns columns, const ItemRules& rules);
  const std::string& ColumnOf(ItemField field) const { return columns_.names()[field]; }
  std::optional<Reject> TakeString(ItemField field, const FieldValues& values,
                                   std::string* out) const;
  std::optional<Reject> TakeId(const FieldValues& values, int64_t row, std::string* out) const;
  std::optional<Reject> TakePair(const FieldValues& values, Item* item) const;
  std::optional<Reject> TakeTexts(const FieldValues& values, bool required, Item* item) const;
  std::optional<Reject> TakePrice(const FieldValues& values, bool required,
                                  std::optional<double>* out) const;
  std::optional<Reject> TakeCurrency(const FieldValues& values, std::string* out) const;

  ItemColumns columns_;
  ItemRules rules_;
};

}  // namespace pricer
