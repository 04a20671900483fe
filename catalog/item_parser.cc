#include "catalog/item_parser.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/charconv.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "catalog/quote.h"

namespace pricer {
namespace {

using Kind = FieldValue::Kind;

absl::string_view KindName(Kind kind) {
  switch (kind) {
    case Kind::kAbsent:
      return "nothing";
    case Kind::kNull:
      return "null";
    case Kind::kBoolean:
      return "a boolean";
    case Kind::kNumber:
      return "a number";
    case Kind::kString:
      return "a string";
    case Kind::kArray:
      return "an array";
    case Kind::kObject:
      return "an object";
  }
  return "unknown";
}

bool IsAbsent(const FieldValue& value) {
  return value.kind == Kind::kAbsent || value.kind == Kind::kNull;
}

bool IsBlank(absl::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](unsigned char c) { return absl::ascii_isspace(c); });
}

std::string WrongKind(const FieldValue& value) {
  return absl::StrCat("expected a string, got ", KindName(value.kind));
}

// The reason why `text` is no price; empty if it is one.
std::string ParsePrice(absl::string_view text, double* price) {
  const char* const end = text.data() + text.size();
  const absl::from_chars_result result = absl::from_chars(text.data(), end, *price);
  const bool out_of_range = result.ec == std::errc::result_out_of_range;
  // Contrary to its documentation this version of Abseil reads "0x10" as 16.
  const bool is_hex = text.find_first_of("xX") != absl::string_view::npos;
  if (is_hex || result.ptr != end || (result.ec != std::errc() && !out_of_range)) {
    return "not a number: " + Quote(text);
  }
  if (!std::isfinite(*price) || (out_of_range && std::abs(*price) > 1)) {
    return "not finite: " + Quote(text);
  }
  if (*price <= 0 || out_of_range) return "not above zero: " + Quote(text);
  return "";
}

}  // namespace

absl::StatusOr<std::map<std::string, std::string>> ItemParser::ParseColumns(
    absl::Span<const std::string> entries) {
  std::map<std::string, std::string> columns;
  for (const std::string& entry : entries) {
    const size_t equals = entry.find('=');
    if (equals == std::string::npos || equals == 0) {
      return absl::InvalidArgumentError(absl::StrCat("expected FIELD=COLUMN, got \"", entry, "\""));
    }
    const auto [it, is_new] = columns.emplace(entry.substr(0, equals), entry.substr(equals + 1));
    if (!is_new) {
      return absl::InvalidArgumentError(absl::StrCat("field \"", it->first, "\" is given twice"));
    }
  }
  return columns;
}

absl::StatusOr<ItemParser> ItemParser::Create(const std::map<std::string, std::string>& columns,
                                              const ItemRules& rules) {
  RETURN_IF_ERROR(rules.Validate());
  ASSIGN_OR_RETURN(ItemColumns item_columns, ItemColumns::Create(columns, rules));
  return ItemParser(std::move(item_columns), rules);
}

ItemParser::ItemParser(ItemColumns columns, const ItemRules& rules)
    : columns_(std::move(columns)), rules_(rules) {}

std::optional<Reject> ItemParser::Parse(const FieldValues& values, int64_t row, Item* item) const {
  item->id.clear();  // what names a rejected row
  if (auto reject = TakeId(values, row, &item->id)) return reject;
  if (auto reject = TakePair(values, item)) return reject;
  const bool is_pair = !item->prompt.empty();
  if (auto reject = TakeTexts(values, /*required=*/!is_pair, item)) return reject;
  if (auto reject = TakePrice(values, rules_.price_required && !is_pair, &item->price)) {
    return reject;
  }
  return TakeCurrency(values, &item->currency);
}

std::optional<Reject> ItemParser::TakeString(ItemField field, const FieldValues& values,
                                             std::string* out) const {
  const FieldValue& value = values[field];
  out->clear();
  if (IsAbsent(value)) return std::nullopt;
  if (value.kind != Kind::kString) return Reject{ColumnOf(field), WrongKind(value)};
  out->assign(value.text.data(), value.text.size());
  return std::nullopt;
}

std::optional<Reject> ItemParser::TakeId(const FieldValues& values, int64_t row,
                                         std::string* out) const {
  const FieldValue& value = values[kIdField];
  if (value.kind == Kind::kNumber) {
    out->assign(value.text.data(), value.text.size());
    return std::nullopt;
  }
  if (auto reject = TakeString(kIdField, values, out)) return reject;
  if (out->empty()) *out = absl::StrCat(row);
  return std::nullopt;
}

std::optional<Reject> ItemParser::TakePair(const FieldValues& values, Item* item) const {
  for (const auto& [field, out] :
       {std::pair(kPromptField, &item->prompt), std::pair(kCompletionField, &item->completion)}) {
    if (auto reject = TakeString(field, values, out)) return reject;
    if (IsBlank(*out)) out->clear();
  }
  if (item->prompt.empty() == item->completion.empty()) return std::nullopt;
  const auto [there, missing] = item->prompt.empty() ? std::pair(kCompletionField, kPromptField)
                                                     : std::pair(kPromptField, kCompletionField);
  return Reject{ColumnOf(missing), absl::StrCat("missing beside ", ColumnOf(there))};
}

std::optional<Reject> ItemParser::TakeTexts(const FieldValues& values, bool required,
                                            Item* item) const {
  const std::pair<ItemField, std::string*> fields[] = {{kTextField, &item->text},
                                                       {kTitleField, &item->title},
                                                       {kBrandField, &item->brand},
                                                       {kCategoryField, &item->category},
                                                       {kDescriptionField, &item->description},
                                                       {kDetailsField, &item->details}};
  bool is_empty = true;
  for (const auto& [field, out] : fields) {
    if (auto reject = TakeString(field, values, out)) return reject;
    if (IsBlank(*out)) out->clear();
    if (out->empty()) continue;
    if (field != kTextField && !item->text.empty()) {
      return Reject{ColumnOf(kTextField), absl::StrCat("given together with ", ColumnOf(field))};
    }
    is_empty = false;
  }
  if (is_empty && required) return Reject{"", "empty text"};
  return std::nullopt;
}

std::optional<Reject> ItemParser::TakePrice(const FieldValues& values, bool required,
                                            std::optional<double>* out) const {
  const FieldValue& value = values[kPriceField];
  out->reset();
  if (IsAbsent(value) || (value.kind == Kind::kString && value.text.empty())) {
    if (required) return Reject{ColumnOf(kPriceField), "missing"};
    return std::nullopt;
  }
  if (value.kind != Kind::kNumber && value.kind != Kind::kString) {
    return Reject{ColumnOf(kPriceField), absl::StrCat("not a number: ", KindName(value.kind))};
  }
  double price = 0;
  if (std::string reason = ParsePrice(value.text, &price); !reason.empty()) {
    return Reject{ColumnOf(kPriceField), std::move(reason)};
  }
  *out = price;
  return std::nullopt;
}

std::optional<Reject> ItemParser::TakeCurrency(const FieldValues& values, std::string* out) const {
  if (auto reject = TakeString(kCurrencyField, values, out)) return reject;
  if (!out->empty() && !absl::EqualsIgnoreCase(*out, rules_.currency)) {
    return Reject{ColumnOf(kCurrencyField),
                  absl::StrCat("expected ", rules_.currency, ", got ", Quote(*out))};
  }
  *out = rules_.currency;
  return std::nullopt;
}

}  // namespace pricer
