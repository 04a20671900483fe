#include "catalog/item_parser.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/charconv.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "base/utf8.h"

namespace pricer {
namespace {

using Kind = JsonValue::Kind;

bool IsAbsent(const JsonValue& value) {
  return value.kind == Kind::kAbsent || value.kind == Kind::kNull;
}

bool IsBlank(absl::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](unsigned char c) { return absl::ascii_isspace(c); });
}

// A value of the file, short enough for a message.
std::string Quote(absl::string_view text) {
  constexpr size_t kMaxBytes = 40;
  const absl::string_view head = Utf8Prefix(text, kMaxBytes);
  return absl::StrCat("\"", head, head.size() < text.size() ? "..." : "", "\"");
}

std::string WrongKind(const JsonValue& value) {
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

int ItemParser::FieldByName(absl::string_view name) {
  return std::find(kFieldNames.begin(), kFieldNames.end(), name) - kFieldNames.begin();
}

absl::StatusOr<ItemParser> ItemParser::Create(const std::map<std::string, std::string>& columns,
                                              absl::string_view currency, bool price_required) {
  if (currency.size() != 3 || !std::all_of(currency.begin(), currency.end(), absl::ascii_isupper)) {
    return absl::InvalidArgumentError(
        absl::StrCat("currency: expected an ISO 4217 code such as USD, got \"", currency, "\""));
  }
  ItemParser parser;
  parser.currency_ = std::string(currency);
  parser.price_required_ = price_required;
  for (int field = 0; field < kNumFields; ++field) parser.columns_[field] = kFieldNames[field];
  std::map<std::string, std::string> owner;
  for (const auto& [name, column] : columns) {
    const int field = FieldByName(name);
    if (field == kNumFields) {
      return absl::InvalidArgumentError(absl::StrCat("no field \"", name, "\"; the fields are ",
                                                     absl::StrJoin(kFieldNames, ", ")));
    }
    parser.columns_[field] = column;
    if (column.empty()) continue;
    const auto [other, is_new] = owner.emplace(column, name);
    if (!is_new) {
      return absl::InvalidArgumentError(
          absl::StrCat("column \"", column, "\" is given to both ", other->second, " and ", name));
    }
  }
  for (int field = 0; field < kNumFields; ++field) {
    const auto taken = owner.find(parser.columns_[field]);
    if (taken != owner.end() && taken->second != kFieldNames[field]) parser.columns_[field].clear();
  }
  if (price_required && parser.columns_[kPrice].empty()) {
    return absl::InvalidArgumentError("a price is required but no column is read for it");
  }
  return parser;
}

std::optional<Reject> ItemParser::Parse(absl::string_view line, int64_t row, Item* item) {
  Values values;
  if (auto reject = Scan(line, &values)) return reject;
  if (auto reject = TakeId(values, row, &item->id)) return reject;
  if (auto reject = TakeTexts(values, item)) return reject;
  if (auto reject = TakePrice(values, &item->price)) return reject;
  return TakeCurrency(values, &item->currency);
}

std::optional<Reject> ItemParser::Scan(absl::string_view line, Values* values) {
  const size_t invalid = FindInvalidUtf8(line);
  if (invalid != absl::string_view::npos) {
    return Reject{"", absl::StrCat("not UTF-8 at byte ", invalid + 1)};
  }
  JsonObjectScanner scanner(line);
  while (scanner.Next()) {
    const int field = FieldOfColumn(scanner.key());
    if (field < kNumFields) (*values)[field] = scanner.value();
  }
  if (scanner.error() == nullptr) return std::nullopt;
  if (JsonObjectScanner::IsOtherJson(line)) return Reject{"", "not a JSON object"};
  return Reject{"", absl::StrCat("not JSON: expected ", scanner.error(), " at byte ",
                                 scanner.error_offset() + 1)};
}

int ItemParser::FieldOfColumn(const JsonValue& key) {
  absl::string_view column = key.text;
  if (key.has_escapes) {
    DecodeJsonString(key, &scratch_);
    column = scratch_;
  }
  if (column.empty()) return kNumFields;
  return std::find(columns_.begin(), columns_.end(), column) - columns_.begin();
}

std::optional<Reject> ItemParser::TakeString(Field field, const Values& values,
                                             std::string* out) const {
  const JsonValue& value = values[field];
  out->clear();
  if (IsAbsent(value)) return std::nullopt;
  if (value.kind != Kind::kString) return Reject{columns_[field], WrongKind(value)};
  DecodeJsonString(value, out);
  return std::nullopt;
}

std::optional<Reject> ItemParser::TakeId(const Values& values, int64_t row,
                                         std::string* out) const {
  const JsonValue& value = values[kId];
  if (value.kind == Kind::kNumber) {
    out->assign(value.text.data(), value.text.size());
    return std::nullopt;
  }
  if (auto reject = TakeString(kId, values, out)) return reject;
  if (out->empty()) *out = absl::StrCat(row);
  return std::nullopt;
}

std::optional<Reject> ItemParser::TakeTexts(const Values& values, Item* item) const {
  const std::pair<Field, std::string*> fields[] = {{kText, &item->text},
                                                   {kTitle, &item->title},
                                                   {kBrand, &item->brand},
                                                   {kCategory, &item->category},
                                                   {kDescription, &item->description},
                                                   {kDetails, &item->details}};
  bool is_empty = true;
  for (const auto& [field, out] : fields) {
    if (auto reject = TakeString(field, values, out)) return reject;
    if (IsBlank(*out)) out->clear();
    if (out->empty()) continue;
    if (field != kText && !item->text.empty()) {
      return Reject{columns_[kText], absl::StrCat("given together with ", columns_[field])};
    }
    is_empty = false;
  }
  if (is_empty) return Reject{"", "empty text"};
  return std::nullopt;
}

std::optional<Reject> ItemParser::TakePrice(const Values& values,
                                            std::optional<double>* out) const {
  const JsonValue& value = values[kPrice];
  out->reset();
  if (IsAbsent(value) || (value.kind == Kind::kString && value.text.empty())) {
    if (price_required_) return Reject{columns_[kPrice], "missing"};
    return std::nullopt;
  }
  if (value.kind != Kind::kNumber && value.kind != Kind::kString) {
    return Reject{columns_[kPrice], absl::StrCat("not a number: ", KindName(value.kind))};
  }
  double price = 0;
  if (std::string reason = ParsePrice(value.text, &price); !reason.empty()) {
    return Reject{columns_[kPrice], std::move(reason)};
  }
  *out = price;
  return std::nullopt;
}

std::optional<Reject> ItemParser::TakeCurrency(const Values& values, std::string* out) const {
  if (auto reject = TakeString(kCurrency, values, out)) return reject;
  if (!out->empty() && !absl::EqualsIgnoreCase(*out, currency_)) {
    return Reject{columns_[kCurrency], absl::StrCat("expected ", currency_, ", got ", Quote(*out))};
  }
  *out = currency_;
  return std::nullopt;
}

}  // namespace pricer
