#include "catalog/item_parser.h"

#include <rapidjson/error/en.h>
#include <rapidjson/reader.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/charconv.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "base/utf8.h"

namespace pricer {
namespace {

using Kind = JsonValue::Kind;

// Takes from RapidJSON's reader what the outermost object has in the given columns.
class ColumnHandler : public rapidjson::BaseReaderHandler<rapidjson::UTF8<>, ColumnHandler> {
 public:
  // `check_strings`: a decoded string may not be UTF-8, although the line is.
  ColumnHandler(absl::Span<const std::string> columns, bool check_strings,
                absl::Span<JsonValue> values)
      : columns_(columns),
        check_strings_(check_strings),
        values_(values),
        column_(columns.size()) {}

  bool Null() { return Take(Kind::kNull); }
  bool Bool(bool) { return Take(Kind::kBoolean); }
  bool RawNumber(const char* text, size_t size, bool) { return Take(Kind::kNumber, {text, size}); }
  bool String(const char* text, size_t size, bool) {
    return IsUtf8({text, size}) && Take(Kind::kString, {text, size});
  }
  bool Key(const char* text, size_t size, bool) {
    const absl::string_view key(text, size);
    if (depth_ == 1) {
      column_ = key.empty() ? columns_.size()
                            : std::find(columns_.begin(), columns_.end(), key) - columns_.begin();
    }
    return IsUtf8(key);
  }
  bool StartObject() {
    if (depth_ == 0) is_object_ = true;
    return Start(Kind::kObject);
  }
  bool EndObject(size_t) { return End(); }
  bool StartArray() { return Start(Kind::kArray); }
  bool EndArray(size_t) { return End(); }

  bool is_object() const { return is_object_; }
  // That of the value that comes next; the number of columns for none of them.
  size_t column() const { return depth_ == 1 ? column_ : columns_.size(); }

 private:
  bool IsUtf8(absl::string_view text) const { return !check_strings_ || IsValidUtf8(text); }
  bool Take(Kind kind, absl::string_view text = "") {
    if (column() < columns_.size()) values_[column_] = {kind, text};
    return true;
  }
  bool Start(Kind kind) {
    Take(kind);
    ++depth_;
    return true;
  }
  bool End() {
    --depth_;
    return true;
  }

  const absl::Span<const std::string> columns_;
  const bool check_strings_;
  const absl::Span<JsonValue> values_;
  int depth_ = 0;
  bool is_object_ = false;
  size_t column_;
};

Reject NotJson(absl::string_view what, size_t offset) {
  return {"", absl::StrCat("not JSON: ", absl::StripSuffix(what, "."), " at byte ", offset + 1)};
}

Reject NotJson(const rapidjson::ParseResult& result) {
  switch (result.Code()) {
    // RapidJSON's own texts for the first two name only one of the causes.
    case rapidjson::kParseErrorDocumentEmpty:
      return NotJson("Expected an object", result.Offset());
    case rapidjson::kParseErrorStringEscapeInvalid:
      return NotJson("Invalid escape or control character in string", result.Offset());
    case rapidjson::kParseErrorTermination:  // ColumnHandler refused the string that ends here
      return NotJson("Half of a surrogate pair in string", result.Offset());
    default:
      return NotJson(rapidjson::GetParseError_En(result.Code()), result.Offset());
  }
}

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

bool IsAbsent(const JsonValue& value) {
  return value.kind == Kind::kAbsent || value.kind == Kind::kNull;
}

bool IsBlank(absl::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](unsigned char c) { return absl::ascii_isspace(c); });
}

// A value of the file, short and printable enough for a message.
std::string Quote(absl::string_view text) {
  constexpr size_t kMaxBytes = 40;
  const absl::string_view head = Utf8Prefix(text, kMaxBytes);
  return absl::StrCat("\"", absl::Utf8SafeCEscape(head), head.size() < text.size() ? "..." : "",
                      "\"");
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
  item->id.clear();  // what names a rejected row
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
  // Numbers stay text, so that ids and prices are what was written. RAPIDJSON_SSE2 stays undefined:
  // that code lets control characters pass (1.1) and reads beyond the end.
  constexpr unsigned kFlags = rapidjson::kParseInsituFlag | rapidjson::kParseIterativeFlag |
                              rapidjson::kParseNumbersAsStringsFlag;
  buffer_.assign(line.data(), line.size());
  rapidjson::InsituStringStream stream(buffer_.data());
  // RapidJSON decodes a lone "\udc00" to bytes that are not UTF-8.
  ColumnHandler handler(columns_, absl::StrContains(line, "\\u"), absl::MakeSpan(*values));
  rapidjson::Reader reader;
  const rapidjson::ParseResult result = reader.Parse<kFlags>(stream, handler);
  if (result.Code() == rapidjson::kParseErrorNumberTooBig && handler.column() == kPrice) {
    const absl::string_view number = line.substr(result.Offset());
    return Reject{
        columns_[kPrice],
        "not finite: " + Quote(number.substr(0, number.find_first_not_of("+-.0123456789eE")))};
  }
  if (result.IsError()) return NotJson(result);
  // A zero byte ends the text for RapidJSON.
  if (stream.Tell() != line.size()) return NotJson("Zero byte", stream.Tell());
  if (!handler.is_object()) return Reject{"", "not a JSON object"};
  return std::nullopt;
}

std::optional<Reject> ItemParser::TakeString(Field field, const Values& values,
                                             std::string* out) const {
  const JsonValue& value = values[field];
  out->clear();
  if (IsAbsent(value)) return std::nullopt;
  if (value.kind != Kind::kString) return Reject{columns_[field], WrongKind(value)};
  out->assign(value.text.data(), value.text.size());
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
