#pragma once

#include <array>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace pricer {

// What a row can say of an item.
enum ItemField {
  kIdField,
  kTitleField,
  kBrandField,
  kCategoryField,
  kDescriptionField,
  kDetailsField,
  kTextField,
  kPromptField,
  kCompletionField,
  kPriceField,
  kCurrencyField,
  kNumItemFields,
};

// A value of a row: a string decoded, a number as it is written, else no text.
struct FieldValue {
  enum class Kind { kAbsent, kNull, kBoolean, kNumber, kString, kArray, kObject };
  Kind kind = Kind::kAbsent;
  absl::string_view text;
};

// Of a row, by ItemField.
using FieldValues = std::array<FieldValue, kNumItemFields>;

// Why a row is no item.
struct Reject {
  // The column as the file calls it; empty where the whole row is meant.
  std::string field;
  std::string reason;
};

// What rows of a run have to hold.
struct ItemRules {
  // ISO 4217; rows in another currency are rejected.
  std::string currency = "USD";
  bool price_required = true;
  // Also read the fields prompt and completion. A row that has both needs no other field, not even
  // the price: only for callers that look whether there is one.
  bool pairs = false;

  absl::Status Validate() const;
};

// Which column of a file holds which field.
class ItemColumns {
 public:
  // `columns`: from our field names (id, title, brand, category, description, details, text, price,
  // currency; with pairs prompt and completion too) to the columns of the file. A field that is not
  // mentioned has its own name as column, unless that column is given to another field; an empty
  // column means that the field is not read. InvalidArgument for an unknown field, a column given
  // to two fields or a price that is required but not read.
  static absl::StatusOr<ItemColumns> Create(const std::map<std::string, std::string>& columns,
                                            const ItemRules& rules);

  // By ItemField; empty = not read.
  const std::array<std::string, kNumItemFields>& names() const { return names_; }

  // The place of each field's column in a table's header, -1 where there is none. InvalidArgument,
  // naming the columns that there are, if one is missing that was mapped or is needed (the price
  // where it is required; any of the texts), or if one that is read is there twice.
  absl::StatusOr<std::array<int, kNumItemFields>> FindIn(
      absl::Span<const std::string> header) const;

 private:
  ItemColumns() = default;

  std::array<std::string, kNumItemFields> names_;
  std::array<bool, kNumItemFields> mapped_ = {};
  bool price_required_ = true;
};

}  // namespace pricer
