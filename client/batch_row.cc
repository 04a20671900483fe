#include "client/batch_row.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "catalog/quote.h"

namespace pricer {
namespace {

using Json = nlohmann::ordered_json;

// As JSON has it. Most need no escapes, and a JSON library would take most of a job's time.
void AppendString(absl::string_view text, std::string* out) {
  const auto is_plain = [](char c) { return c >= ' ' && c < 0x7f && c != '"' && c != '\\'; };
  if (!std::all_of(text.begin(), text.end(), is_plain)) {
    out->append(Json(std::string(text)).dump(-1, ' ', false, Json::error_handler_t::replace));
    return;
  }
  absl::StrAppend(out, "\"", text, "\"");
}

// Six significant digits.
void AppendNumber(double value, std::string* out) {
  char digits[32];
  const std::to_chars_result end =
      std::to_chars(digits, digits + sizeof(digits), value, std::chars_format::general, 6);
  out->append(digits, end.ptr);
  // Where a reader tells the two apart, it is no integer.
  if (std::find_if(digits, end.ptr, [](char c) { return c == '.' || c == 'e'; }) == end.ptr) {
    out->append(".0");
  }
}

std::string PriceLine(int64_t row, const std::string& id, const v1::Prediction& prediction) {
  std::string line;
  line.reserve(256);
  absl::StrAppend(&line, "{\"row\":", row, ",\"id\":");
  AppendString(id, &line);
  line.append(",\"price\":");
  AppendNumber(prediction.price(), &line);
  line.append(",\"currency\":");
  AppendString(prediction.currency_code(), &line);
  if (prediction.intervals_size() > 0) {
    line.append(",\"low\":");
    AppendNumber(prediction.intervals(0).low(), &line);
    line.append(",\"high\":");
    AppendNumber(prediction.intervals(0).high(), &line);
  } else {
    line.append(",\"low\":null,\"high\":null");
  }
  line.append(",\"adapter\":");
  AppendString(prediction.served_by().adapter(), &line);
  absl::StrAppend(&line, ",\"version\":", prediction.served_by().version(), ",\"error\":null}\n");
  return line;
}

// The member as a Value, where it is one.
template <typename Value>
bool Take(const Json& json, const char* name, Value* value) {
  const auto found = json.find(name);
  if (found == json.end()) return false;
  if constexpr (std::is_same_v<Value, std::string>) {
    if (!found->is_string()) return false;
  } else if constexpr (std::is_same_v<Value, int64_t>) {
    if (!found->is_number_integer()) return false;
  } else {
    if (!found->is_number()) return false;
  }
  *value = found->template get<Value>();
  return true;
}

}  // namespace

std::string BatchLine(int64_t row, const std::string& id, const v1::ItemResult& result) {
  if (result.has_prediction()) return PriceLine(row, id, result.prediction());
  const auto code = static_cast<absl::StatusCode>(result.error().code());
  return BatchErrorLine(row, id, absl::StatusCodeToString(code), result.error().message());
}

std::string BatchErrorLine(int64_t row, const std::string& id, absl::string_view code,
                           absl::string_view message) {
  std::string line = absl::StrCat("{\"row\":", row, ",\"id\":");
  if (id.empty()) {
    line.append("null");
  } else {
    AppendString(id, &line);
  }
  line.append(
      ",\"price\":null,\"currency\":null,\"low\":null,\"high\":null,\"adapter\":null,"
      "\"version\":null,\"error\":{\"code\":");
  AppendString(code, &line);
  line.append(",\"message\":");
  AppendString(message, &line);
  line.append("}}\n");
  return line;
}

absl::StatusOr<BatchRow> ParseBatchLine(absl::string_view line) {
  const auto wrong = [line](absl::string_view what) {
    return absl::DataLossError(absl::StrCat("expected a row of a batch job's output with ", what,
                                            ", got ", Quote(line.substr(0, 100))));
  };
  const Json json = Json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return wrong("all its members");
  BatchRow row;
  if (!Take(json, "row", &row.row) || row.row < 1) return wrong("its number");
  if (json.contains("id") && !json["id"].is_null() && !Take(json, "id", &row.id)) {
    return wrong("its id");
  }
  const auto error = json.find("error");
  if (error == json.end()) return wrong("an error or null");
  if (!error->is_null()) {
    if (!Take(*error, "code", &row.error_code) || row.error_code.empty() ||
        !Take(*error, "message", &row.error_message)) {
      return wrong("its error's code and message");
    }
    return row;
  }
  if (!Take(json, "price", &row.price) || !(row.price > 0)) return wrong("a price");
  if (!Take(json, "adapter", &row.adapter) || !Take(json, "version", &row.version)) {
    return wrong("its adapter and version");
  }
  return row;
}

}  // namespace pricer
