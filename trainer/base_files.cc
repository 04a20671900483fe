#include "trainer/base_files.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/json_fields.h"

namespace pricer {
namespace {

using Json = nlohmann::json;

// The first line with something on it.
std::string FirstLine(absl::string_view text) {
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const absl::string_view stripped = absl::StripAsciiWhitespace(line);
    if (!stripped.empty()) return std::string(stripped);
  }
  return "";
}

absl::StatusOr<std::vector<BaseFiles::File>> ListFiles(const std::string& directory) {
  std::error_code error;
  std::vector<BaseFiles::File> files;
  for (std::filesystem::directory_iterator it(directory, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code no_file;
    const auto bytes = std::filesystem::file_size(it->path(), no_file);
    if (!no_file) files.push_back({it->path().filename().string(), static_cast<int64_t>(bytes)});
  }
  if (error) return absl::InternalError(absl::StrCat(directory, ": ", error.message()));
  std::sort(files.begin(), files.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return files;
}

std::map<std::string, BaseFiles::Stored> CountStored(const Checkpoint& checkpoint) {
  std::map<std::string, BaseFiles::Stored> stored;
  for (const auto& [name, view] : checkpoint.tensors()) {
    const size_t weight = name.rfind(".weight");
    const bool nf4 = weight != std::string::npos && checkpoint.IsNf4(name.substr(0, weight));
    BaseFiles::Stored& kind = stored[nf4 ? "NF4" : std::string(DtypeName(view.dtype))];
    if (!nf4 || absl::EndsWith(name, ".weight")) ++kind.tensors;
    kind.bytes += static_cast<int64_t>(view.data.size());
  }
  return stored;
}

// Absent where there is no such file.
absl::StatusOr<std::optional<Json>> ReadJsonIfThere(const std::string& path) {
  if (!std::filesystem::exists(path)) return std::optional<Json>();
  ASSIGN_OR_RETURN(Json json, ReadJsonFile(path));
  return std::optional<Json>(std::move(json));
}

// The value of a key at the left margin of the YAML between two lines of three dashes.
std::string FrontMatterValue(absl::string_view text, absl::string_view key) {
  const std::vector<absl::string_view> lines = absl::StrSplit(text, '\n');
  if (lines.empty() || absl::StripAsciiWhitespace(lines[0]) != "---") return "";
  for (size_t i = 1; i < lines.size(); ++i) {
    absl::string_view line = lines[i];
    if (absl::StripAsciiWhitespace(line) == "---") break;
    if (!absl::ConsumePrefix(&line, key) || !absl::ConsumePrefix(&line, ":")) continue;
    return std::string(absl::StripAsciiWhitespace(line));
  }
  return "";
}

// `license`, and the name of one that has no common abbreviation.
std::string FrontMatterLicense(absl::string_view text) {
  const std::string license = FrontMatterValue(text, "license");
  const std::string name = FrontMatterValue(text, "license_name");
  return license == "other" && !name.empty() ? name : license;
}

absl::StatusOr<std::optional<FoundText>> FindLicense(const std::string& directory,
                                                     const std::vector<BaseFiles::File>& files) {
  using Found = std::optional<FoundText>;
  ASSIGN_OR_RETURN(const Json config, ReadJsonFile(directory + "/config.json"));
  if (config.contains("license") && config.at("license").is_string()) {
    return Found({config.at("license"), "config.json"});
  }
  if (const auto readme = ReadFile(directory + "/README.md"); readme.ok()) {
    std::string license = FrontMatterLicense(*readme);
    if (!license.empty()) return Found({std::move(license), "README.md"});
  }
  for (const BaseFiles::File& file : files) {
    const std::string name = absl::AsciiStrToUpper(file.name);
    if (!absl::StartsWith(name, "LICENSE") && !absl::StartsWith(name, "LICENCE")) continue;
    const auto text = ReadFile(absl::StrCat(directory, "/", file.name));
    if (!text.ok()) continue;
    std::string line = FirstLine(*text);
    if (!line.empty()) return Found({std::move(line), file.name});
  }
  return Found();
}

// One template, or a list of named ones, the first of which is meant where none is "default".
std::string TemplateText(const Json& value) {
  if (value.is_string()) return value;
  if (!value.is_array()) return "";
  std::string first;
  for (const Json& entry : value) {
    if (!entry.is_object() || !entry.contains("template") || !entry.at("template").is_string()) {
      continue;
    }
    const std::string text = entry.at("template");
    if (entry.value("name", Json()) == "default") return text;
    if (first.empty()) first = text;
  }
  return first;
}

absl::StatusOr<std::optional<FoundText>> FindChatTemplate(const std::string& directory) {
  using Found = std::optional<FoundText>;
  if (const auto jinja = ReadFile(directory + "/chat_template.jinja"); jinja.ok()) {
    return Found({FirstLine(*jinja), "chat_template.jinja"});
  }
  ASSIGN_OR_RETURN(const auto config, ReadJsonIfThere(directory + "/tokenizer_config.json"));
  if (!config.has_value() || !config->is_object() || !config->contains("chat_template")) {
    return Found();
  }
  const std::string text = TemplateText(config->at("chat_template"));
  if (text.empty()) return Found();
  return Found({FirstLine(text), "tokenizer_config.json"});
}

}  // namespace

absl::StatusOr<BaseFiles> DescribeFiles(const Checkpoint& checkpoint) {
  BaseFiles described;
  ASSIGN_OR_RETURN(described.files, ListFiles(checkpoint.directory()));
  described.stored = CountStored(checkpoint);
  ASSIGN_OR_RETURN(described.license, FindLicense(checkpoint.directory(), described.files));
  ASSIGN_OR_RETURN(described.chat_template, FindChatTemplate(checkpoint.directory()));
  return described;
}

ParameterCounts CountParameters(const ModelConfig& config) {
  const int64_t embedding = config.vocabulary_size * config.hidden_size;
  ParameterCounts counts;
  counts.total = config.ParameterCount();
  counts.linears = config.LinearParameterCount();
  counts.embedding = embedding;
  counts.head = config.tied_embeddings ? 0 : embedding;
  counts.norms = counts.total - counts.linears - counts.embedding - counts.head;
  return counts;
}

}  // namespace pricer
