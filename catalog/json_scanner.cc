#include "catalog/json_scanner.h"

#include <cstdint>
#include <cstring>

#include "absl/strings/ascii.h"

namespace pricer {
namespace {

constexpr int kMaxDepth = 64;

// First byte in [p, end) that is a quote, a backslash or a control character. Eight bytes at a
// time: each term sets the high bit of the lowest byte that matches (higher ones may be false
// alarms).
const char* FindStringSpecial(const char* p, const char* end) {
  constexpr uint64_t kOnes = 0x0101010101010101;
  constexpr uint64_t kHighBits = 0x8080808080808080;
  const auto zero_bytes = [](uint64_t x) { return (x - kOnes) & ~x & kHighBits; };
  while (end - p >= 8) {
    uint64_t word;
    std::memcpy(&word, p, sizeof(word));
    const uint64_t control = (word - kOnes * 0x20) & ~word & kHighBits;
    const uint64_t hits =
        control | zero_bytes(word ^ (kOnes * '"')) | zero_bytes(word ^ (kOnes * '\\'));
    if (hits != 0) break;
    p += 8;
  }
  while (p < end && *p != '"' && *p != '\\' && static_cast<unsigned char>(*p) >= 0x20) ++p;
  return p;
}

void AppendUtf8(uint32_t point, std::string* out) {
  if (point < 0x80) {
    out->push_back(static_cast<char>(point));
    return;
  }
  const int tail = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
  constexpr unsigned char kLead[] = {0, 0xC0, 0xE0, 0xF0};
  out->push_back(static_cast<char>(kLead[tail] | (point >> (6 * tail))));
  for (int i = tail - 1; i >= 0; --i) {
    out->push_back(static_cast<char>(0x80 | ((point >> (6 * i)) & 0x3F)));
  }
}

uint32_t HexUnit(const char* p) {
  uint32_t unit = 0;
  for (int i = 0; i < 4; ++i) {
    const char c = p[i];
    unit = unit * 16 + (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  return unit;
}

bool IsHighSurrogate(uint32_t unit) { return unit >= 0xD800 && unit < 0xDC00; }
bool IsLowSurrogate(uint32_t unit) { return unit >= 0xDC00 && unit < 0xE000; }

// Decodes the escape whose character after the backslash is at `p`; returns where it ends.
const char* DecodeEscape(const char* p, std::string* out) {
  switch (*p) {
    case 'b':
      out->push_back('\b');
      return p + 1;
    case 'f':
      out->push_back('\f');
      return p + 1;
    case 'n':
      out->push_back('\n');
      return p + 1;
    case 'r':
      out->push_back('\r');
      return p + 1;
    case 't':
      out->push_back('\t');
      return p + 1;
    case 'u':
      break;
    default:
      out->push_back(*p);
      return p + 1;
  }
  uint32_t point = HexUnit(p + 1);
  p += 5;
  if (IsHighSurrogate(point)) {
    point = 0x10000 + ((point - 0xD800) << 10) + (HexUnit(p + 2) - 0xDC00);
    p += 6;
  }
  AppendUtf8(point, out);
  return p;
}

}  // namespace

absl::string_view KindName(JsonValue::Kind kind) {
  switch (kind) {
    case JsonValue::Kind::kAbsent:
      return "nothing";
    case JsonValue::Kind::kNull:
      return "null";
    case JsonValue::Kind::kBoolean:
      return "a boolean";
    case JsonValue::Kind::kNumber:
      return "a number";
    case JsonValue::Kind::kString:
      return "a string";
    case JsonValue::Kind::kArray:
      return "an array";
    case JsonValue::Kind::kObject:
      return "an object";
  }
  return "unknown";
}

void DecodeJsonString(const JsonValue& value, std::string* out) {
  const char* p = value.text.data();
  const char* const end = p + value.text.size();
  if (!value.has_escapes) {
    out->assign(p, end);
    return;
  }
  out->clear();
  while (p < end) {
    const void* found = std::memchr(p, '\\', end - p);
    const char* const run_end = found != nullptr ? static_cast<const char*>(found) : end;
    out->append(p, run_end);
    p = run_end == end ? end : DecodeEscape(run_end + 1, out);
  }
}

bool JsonObjectScanner::Next() {
  if (error_ != nullptr) return false;
  SkipSpace();
  if (!started_) {
    started_ = true;
    if (!Consume('{')) return Fail("'{'");
    SkipSpace();
    if (Consume('}')) return Finish();
  } else {
    if (Consume('}')) return Finish();
    if (!Consume(',')) return Fail("',' or '}'");
    SkipSpace();
  }
  if (!Consume('"')) return Fail("a key in quotes");
  if (!ScanString(&key_)) return false;
  SkipSpace();
  if (!Consume(':')) return Fail("':'");
  SkipSpace();
  return ScanValue(0);
}

bool JsonObjectScanner::IsOtherJson(absl::string_view text) {
  JsonObjectScanner scanner(text);
  scanner.SkipSpace();
  if (!scanner.ScanValue(0) || scanner.value_.kind == JsonValue::Kind::kObject) return false;
  scanner.SkipSpace();
  return scanner.cursor_ == scanner.end_;
}

bool JsonObjectScanner::Fail(const char* expected) {
  if (error_ == nullptr) error_ = expected;
  return false;
}

bool JsonObjectScanner::Finish() {
  SkipSpace();
  if (cursor_ != end_) Fail("the end of the line");
  return false;
}

void JsonObjectScanner::SkipSpace() {
  while (cursor_ < end_ &&
         (*cursor_ == ' ' || *cursor_ == '\t' || *cursor_ == '\r' || *cursor_ == '\n')) {
    ++cursor_;
  }
}

bool JsonObjectScanner::Consume(char wanted) {
  if (cursor_ == end_ || *cursor_ != wanted) return false;
  ++cursor_;
  return true;
}

bool JsonObjectScanner::ScanValue(int depth) {
  if (cursor_ == end_) return Fail("a value");
  switch (*cursor_) {
    case '"':
      ++cursor_;
      return ScanString(&value_);
    case '{':
    case '[':
      return ScanContainer(depth + 1);
    case 't':
      return ScanLiteral("true", JsonValue::Kind::kBoolean);
    case 'f':
      return ScanLiteral("false", JsonValue::Kind::kBoolean);
    case 'n':
      return ScanLiteral("null", JsonValue::Kind::kNull);
    default:
      return ScanNumber();
  }
}

bool JsonObjectScanner::ScanString(JsonValue* value) {
  value->kind = JsonValue::Kind::kString;
  value->has_escapes = false;
  const char* const start = cursor_;
  for (;;) {
    cursor_ = FindStringSpecial(cursor_, end_);
    if (cursor_ == end_) return Fail("a closing quote");
    if (*cursor_ == '"') {
      value->text = absl::string_view(start, cursor_ - start);
      ++cursor_;
      return true;
    }
    if (*cursor_ != '\\') return Fail("no control character in a string");
    value->has_escapes = true;
    ++cursor_;
    if (!ScanEscape()) return false;
  }
}

bool JsonObjectScanner::ScanEscape() {
  if (cursor_ < end_ && *cursor_ == 'u') {
    ++cursor_;
    return ScanUnicodeEscape();
  }
  if (cursor_ == end_ || *cursor_ == '\0' || std::strchr("\"\\/bfnrt", *cursor_) == nullptr) {
    return Fail("one of \"\\/bfnrtu after a backslash");
  }
  ++cursor_;
  return true;
}

bool JsonObjectScanner::ScanUnicodeEscape() {
  unsigned unit = 0;
  if (!ScanHex4(&unit)) return false;
  if (IsLowSurrogate(unit)) return Fail("a high surrogate before a low one");
  if (!IsHighSurrogate(unit)) return true;
  if (!Consume('\\') || !Consume('u')) return Fail("a low surrogate after a high one");
  if (!ScanHex4(&unit)) return false;
  return IsLowSurrogate(unit) || Fail("a low surrogate after a high one");
}

bool JsonObjectScanner::ScanHex4(unsigned* unit) {
  for (int i = 0; i < 4; ++i) {
    if (end_ - cursor_ <= i || !absl::ascii_isxdigit(cursor_[i])) {
      return Fail("four hexadecimal digits");
    }
  }
  *unit = HexUnit(cursor_);
  cursor_ += 4;
  return true;
}

bool JsonObjectScanner::ScanNumber() {
  const char* const start = cursor_;
  Consume('-');
  if (!Consume('0') && !ScanDigits()) return Fail("a value");
  if (Consume('.') && !ScanDigits()) return Fail("a digit");
  if (Consume('e') || Consume('E')) {
    if (!Consume('-')) Consume('+');
    if (!ScanDigits()) return Fail("a digit");
  }
  value_.kind = JsonValue::Kind::kNumber;
  value_.has_escapes = false;
  value_.text = absl::string_view(start, cursor_ - start);
  return true;
}

bool JsonObjectScanner::ScanDigits() {
  const char* const start = cursor_;
  while (cursor_ < end_ && absl::ascii_isdigit(*cursor_)) ++cursor_;
  return cursor_ > start;
}

bool JsonObjectScanner::ScanLiteral(absl::string_view literal, JsonValue::Kind kind) {
  const size_t size = literal.size();
  if (absl::string_view(cursor_, end_ - cursor_).substr(0, size) != literal) return Fail("a value");
  value_.kind = kind;
  value_.has_escapes = false;
  value_.text = absl::string_view(cursor_, size);
  cursor_ += size;
  return true;
}

bool JsonObjectScanner::ScanContainer(int depth) {
  if (depth > kMaxDepth) return Fail("at most 64 levels of nesting");
  const char* const start = cursor_;
  const bool is_object = *cursor_++ == '{';
  const char close = is_object ? '}' : ']';
  SkipSpace();
  bool closed = Consume(close);
  while (!closed) {
    if (is_object) {
      JsonValue key;
      if (!Consume('"')) return Fail("a key in quotes");
      if (!ScanString(&key)) return false;
      SkipSpace();
      if (!Consume(':')) return Fail("':'");
      SkipSpace();
    }
    if (!ScanValue(depth)) return false;
    SkipSpace();
    closed = Consume(close);
    if (closed) break;
    if (!Consume(',')) return Fail(is_object ? "',' or '}'" : "',' or ']'");
    SkipSpace();
  }
  value_.kind = is_object ? JsonValue::Kind::kObject : JsonValue::Kind::kArray;
  value_.has_escapes = false;
  value_.text = absl::string_view(start, cursor_ - start);
  return true;
}

}  // namespace pricer
