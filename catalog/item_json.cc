#include "catalog/item_json.h"

#include <charconv>
#include <cmath>

#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/utf8.h"

namespace pricer {
namespace {

void AppendEscaped(absl::string_view text, std::string* out) {
  for (const char c : text) {
    switch (c) {
      case '"':
        out->append("\\\"");
        break;
      case '\\':
        out->append("\\\\");
        break;
      case '\n':
        out->append("\\n");
        break;
      case '\r':
        out->append("\\r");
        break;
      case '\t':
        out->append("\\t");
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          absl::StrAppendFormat(out, "\\u%04x", static_cast<unsigned char>(c));
        } else {
          out->push_back(c);
        }
    }
  }
}

void AppendField(absl::string_view name, absl::string_view value, std::string* out) {
  out->append(out->size() == 1 ? "\"" : ", \"");
  out->append(name.data(), name.size());
  out->append("\": ");
  AppendJsonString(value, out);
}

}  // namespace

void AppendJsonString(absl::string_view text, std::string* out) {
  out->push_back('"');
  for (;;) {
    const size_t invalid = FindInvalidUtf8(text);
    AppendEscaped(text.substr(0, invalid), out);
    if (invalid == absl::string_view::npos) break;
    out->append("\xEF\xBF\xBD");
    text.remove_prefix(invalid + 1);
  }
  out->push_back('"');
}

std::string ItemToJson(const Item& item) {
  std::string line = "{";
  AppendField("id", item.id, &line);
  if (!item.prompt.empty()) {
    AppendField("prompt", item.prompt, &line);
    AppendField("completion", item.completion, &line);
  }
  if (!item.text.empty()) {
    AppendField("text", item.text, &line);
  } else {
    AppendField("title", item.title, &line);
    AppendField("brand", item.brand, &line);
    AppendField("category", item.category, &line);
    AppendField("description", item.description, &line);
    AppendField("details", item.details, &line);
  }
  if (item.price.has_value()) {
    PRICER_CHECK(std::isfinite(*item.price));
    char digits[32];
    const auto result = std::to_chars(digits, digits + sizeof(digits), *item.price);
    line.append(", \"price\": ");
    line.append(digits, result.ptr);
  }
  AppendField("currency", item.currency, &line);
  line.push_back('}');
  return line;
}

}  // namespace pricer
