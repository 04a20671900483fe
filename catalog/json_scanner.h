#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace pricer {

// A value as it stands in the text that was scanned.
struct JsonValue {
  enum class Kind { kAbsent, kNull, kBoolean, kNumber, kString, kArray, kObject };
  Kind kind = Kind::kAbsent;
  // The bytes of the value; of a string those between the quotes, escapes not decoded.
  absl::string_view text;
  bool has_escapes = false;
};

// "null", "a number", ...: for messages.
absl::string_view KindName(JsonValue::Kind kind);

// Puts the decoded string at `out`. `value` is a string that JsonObjectScanner gave.
void DecodeJsonString(const JsonValue& value, std::string* out);

// Walks the members of one JSON object (RFC 8259, strict) without building a tree, several times
// faster than a general parser: a reader of large tables spends its time here. Nested values are
// checked and passed over. The text must be valid UTF-8 and outlive the scanner's values.
class JsonObjectScanner {
 public:
  explicit JsonObjectScanner(absl::string_view text)
      : begin_(text.data()), cursor_(text.data()), end_(text.data() + text.size()) {}

  // Moves to the next member. False after the last one, when nothing but white space follows the
  // object, and on an error. Keys may repeat.
  bool Next();
  const JsonValue& key() const { return key_; }
  const JsonValue& value() const { return value_; }

  // nullptr, or what was expected at error_offset().
  const char* error() const { return error_; }
  size_t error_offset() const { return cursor_ - begin_; }

  // True if the text is one valid JSON value that is no object.
  static bool IsOtherJson(absl::string_view text);

 private:
  bool Fail(const char* expected);
  bool Finish();
  void SkipSpace();
  bool Consume(char wanted);
  bool ScanValue(int depth);
  bool ScanString(JsonValue* value);
  bool ScanEscape();
  bool ScanUnicodeEscape();
  bool ScanHex4(unsigned* unit);
  bool ScanNumber();
  bool ScanDigits();
  bool ScanLiteral(absl::string_view literal, JsonValue::Kind kind);
  bool ScanContainer(int depth);

  const char* const begin_;
  const char* cursor_;
  const char* const end_;
  bool started_ = false;
  const char* error_ = nullptr;
  JsonValue key_;
  JsonValue value_;
};

}  // namespace pricer
