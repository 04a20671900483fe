#include "trainer/labelled_versions.h"

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "model/json_fields.h"

namespace pricer {
namespace {

using Json = nlohmann::json;
using Reasons = std::map<int64_t, std::string>;

constexpr auto kDataLoss = absl::StatusCode::kDataLoss;

absl::Status CheckFormat(const JsonFields& fields) {
  const Json* version = fields.Find("format_version");
  if (version == nullptr) return fields.Missing("format_version");
  const std::string text = version->is_string() ? version->get<std::string>() : version->dump();
  if (text == "1" || absl::StartsWith(text, "1.")) return absl::OkStatus();
  return fields.Error(absl::StatusCode::kUnimplemented, "format_version",
                      absl::StrCat("version ", Quoted(text), " is not supported; expected 1"));
}

// 7, or {"version": 8, "percent": 5}; null for a label that was taken away.
absl::Status AddLabels(const Json& labels, const std::string& path, Reasons* reasons) {
  ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Create(labels, path, "labels.", kDataLoss));
  for (const auto& [label, place] : labels.items()) {
    if (place.is_null()) continue;
    int64_t version = 0;
    if (place.is_object()) {
      ASSIGN_OR_RETURN(const JsonFields inside, fields.Object(label));
      RETURN_IF_ERROR(inside.Require("version", &version));
    } else {
      RETURN_IF_ERROR(fields.Require(label, &version));
    }
    reasons->emplace(version, absl::StrCat("label ", label));
  }
  return absl::OkStatus();
}

void AddAllNumbers(const Json& value, Reasons* reasons) {
  if (value.is_number_integer()) reasons->emplace(value.get<int64_t>(), "labels.json");
  if (!value.is_structured()) return;
  for (const Json& inside : value) AddAllNumbers(inside, reasons);
}

}  // namespace

absl::StatusOr<Reasons> LabelledVersions(const std::string& adapter_directory) {
  const std::string path = adapter_directory + "/labels.json";
  const absl::StatusOr<Json> value = ReadJsonFile(path, kDataLoss);
  Reasons reasons;
  if (absl::IsNotFound(value.status())) return reasons;
  RETURN_IF_ERROR(value.status());
  ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Create(*value, path, "", kDataLoss));
  RETURN_IF_ERROR(CheckFormat(fields));
  if (!fields.Has("labels")) return fields.Missing("labels");
  RETURN_IF_ERROR(AddLabels(*fields.Find("labels"), path, &reasons));
  if (fields.Has("history") && !fields.Find("history")->is_array()) {
    return fields.Error("history",
                        absl::StrCat("expected a list, got ", Shown(*fields.Find("history"))));
  }
  for (const auto& [name, field] : value->items()) {
    if (name != "format_version" && name != "generation" && name != "labels") {
      AddAllNumbers(field, &reasons);
    }
  }
  return reasons;
}

}  // namespace pricer
