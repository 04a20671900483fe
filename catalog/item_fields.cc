#include "catalog/item_fields.h"

#include <algorithm>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "catalog/quote.h"

namespace pricer {
namespace {

// By ItemField.
constexpr std::array<const char*, kNumItemFields> kFieldNames = {
    "id",   "title",  "brand",      "category", "description", "details",
    "text", "prompt", "completion", "price",    "currency"};

constexpr ItemField kTextFields[] = {kTitleField,       kBrandField,   kCategoryField,
                                     kDescriptionField, kDetailsField, kTextField};

bool IsRead(int field, bool pairs) {
  return pairs || (field != kPromptField && field != kCompletionField);
}

std::vector<std::string> ReadFieldNames(bool pairs) {
  std::vector<std::string> names;
  for (int field = 0; field < kNumItemFields; ++field) {
    if (IsRead(field, pairs)) names.emplace_back(kFieldNames[field]);
  }
  return names;
}

absl::Status MissingColumn(absl::string_view what, absl::Span<const std::string> header) {
  constexpr size_t kMaxNames = 50;
  const absl::Span<const std::string> shown = header.subspan(0, kMaxNames);
  return absl::InvalidArgumentError(absl::StrCat(
      "no column ", what, "; the columns are ",
      absl::StrJoin(shown, ", ",
                    [](std::string* out, const std::string& name) { *out += Quote(name); }),
      shown.size() < header.size() ? ", ..." : ""));
}

}  // namespace

absl::Status ItemRules::Validate() const {
  if (currency.size() != 3 || !std::all_of(currency.begin(), currency.end(), absl::ascii_isupper)) {
    return absl::InvalidArgumentError(
        absl::StrCat("currency: expected an ISO 4217 code such as USD, got \"", currency, "\""));
  }
  return absl::OkStatus();
}

absl::StatusOr<ItemColumns> ItemColumns::Create(const std::map<std::string, std::string>& columns,
                                                const ItemRules& rules) {
  ItemColumns result;
  result.price_required_ = rules.price_required;
  for (int field = 0; field < kNumItemFields; ++field) {
    if (IsRead(field, rules.pairs)) result.names_[field] = kFieldNames[field];
  }
  std::map<std::string, std::string> owner;
  for (const auto& [name, column] : columns) {
    const int field = std::find(kFieldNames.begin(), kFieldNames.end(), name) - kFieldNames.begin();
    if (field == kNumItemFields || !IsRead(field, rules.pairs)) {
      return absl::InvalidArgumentError(
          absl::StrCat("no field \"", name, "\"; the fields are ",
                       absl::StrJoin(ReadFieldNames(rules.pairs), ", ")));
    }
    result.names_[field] = column;
    if (column.empty()) continue;
    result.mapped_[field] = true;
    const auto [other, is_new] = owner.emplace(column, name);
    if (!is_new) {
      return absl::InvalidArgumentError(
          absl::StrCat("column \"", column, "\" is given to both ", other->second, " and ", name));
    }
  }
  for (int field = 0; field < kNumItemFields; ++field) {
    const auto taken = owner.find(result.names_[field]);
    if (taken != owner.end() && taken->second != kFieldNames[field]) result.names_[field].clear();
  }
  if (rules.price_required && !rules.pairs && result.names_[kPriceField].empty()) {
    return absl::InvalidArgumentError("a price is required but no column is read for it");
  }
  return result;
}

absl::StatusOr<std::array<int, kNumItemFields>> ItemColumns::FindIn(
    absl::Span<const std::string> header) const {
  std::array<int, kNumItemFields> places;
  for (int field = 0; field < kNumItemFields; ++field) {
    const std::string& name = names_[field];
    const auto found = std::find(header.begin(), header.end(), name);
    places[field] = name.empty() || found == header.end() ? -1 : found - header.begin();
    if (places[field] >= 0 && std::find(found + 1, header.end(), name) != header.end()) {
      return absl::InvalidArgumentError(absl::StrCat("column ", Quote(name), " is there twice"));
    }
    if (places[field] < 0 && mapped_[field]) {
      return MissingColumn(absl::StrCat(Quote(name), " for the field ", kFieldNames[field]),
                           header);
    }
  }
  if (places[kPromptField] >= 0 && places[kCompletionField] >= 0) return places;
  if (std::none_of(std::begin(kTextFields), std::end(kTextFields),
                   [&](ItemField field) { return places[field] >= 0; })) {
    std::vector<std::string> names;
    for (const ItemField field : kTextFields) {
      if (!names_[field].empty()) names.push_back(Quote(names_[field]));
    }
    return MissingColumn(absl::StrCat("for the text (", absl::StrJoin(names, ", "), ")"), header);
  }
  if (price_required_ && places[kPriceField] < 0) {
    return MissingColumn(absl::StrCat(Quote(names_[kPriceField]), " for the price"), header);
  }
  return places;
}

}  // namespace pricer
