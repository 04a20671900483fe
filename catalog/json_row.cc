#include "catalog/json_row.h"

#include <rapidjson/error/en.h>
#include <rapidjson/reader.h>

#include <algorithm>
#include <cstddef>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"
#include "base/utf8.h"
#include "catalog/quote.h"

namespace pricer {
namespace {

using Kind = FieldValue::Kind;

// Takes from RapidJSON's reader what the outermost object has in the given columns.
class ColumnHandler : public rapidjson::BaseReaderHandler<rapidjson::UTF8<>, ColumnHandler> {
 public:
  // `check_strings`: a decoded string may not be UTF-8, although the line is.
  ColumnHandler(absl::Span<const std::string> columns, bool check_strings,
                absl::Span<FieldValue> values)
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
  const absl::Span<FieldValue> values_;
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

}  // namespace

std::optional<Reject> JsonRowScanner::Scan(absl::string_view line, FieldValues* values) {
  values->fill({});
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
  ColumnHandler handler(columns_.names(), absl::StrContains(line, "\\u"), absl::MakeSpan(*values));
  rapidjson::Reader reader;
  const rapidjson::ParseResult result = reader.Parse<kFlags>(stream, handler);
  if (result.Code() == rapidjson::kParseErrorNumberTooBig && handler.column() == kPriceField) {
    const absl::string_view number = line.substr(result.Offset());
    return Reject{
        columns_.names()[kPriceField],
        "not finite: " + Quote(number.substr(0, number.find_first_not_of("+-.0123456789eE")))};
  }
  if (result.IsError()) return NotJson(result);
  // A zero byte ends the text for RapidJSON.
  if (stream.Tell() != line.size()) return NotJson("Zero byte", stream.Tell());
  if (!handler.is_object()) return Reject{"", "not a JSON object"};
  return std::nullopt;
}

}  // namespace pricer
