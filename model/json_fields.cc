#include "model/json_fields.h"

#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/utf8.h"

namespace pricer {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxShownBytes = 120;

// Checks before a document is built what nlohmann's parser lets pass: a key that comes twice (it
// keeps the last), and depth.
class StructureChecker : public nlohmann::json_sax<Json> {
 public:
  const std::string& problem() const { return problem_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(size_t) override { return Open(); }
  bool start_array(size_t) override { return Open(); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool key(string_t& name) override {
    if (keys_.back().insert(name).second) return true;
    problem_ = absl::StrCat("key ", Quoted(name), " comes twice in one object");
    return false;
  }
  bool parse_error(size_t position, const std::string&, const Json::exception& error) override {
    problem_ = absl::StrCat("byte ", position, ": ", Quoted(error.what()));
    return false;
  }

 private:
  bool Open() {
    keys_.emplace_back();
    if (keys_.size() <= kMaxDepth) return true;
    problem_ = absl::StrCat("nested more than ", kMaxDepth, " levels deep");
    return false;
  }
  bool Close() {
    keys_.pop_back();
    return true;
  }

  std::vector<std::set<std::string>> keys_;
  std::string problem_;
};

// Whether the value has the type, and what to call the type.
bool Convert(const Json& value, bool* out) {
  if (!value.is_boolean()) return false;
  *out = value.get<bool>();
  return true;
}

bool Convert(const Json& value, int64_t* out) {
  if (!value.is_number_integer()) return false;
  constexpr uint64_t kMax = std::numeric_limits<int64_t>::max();
  if (value.is_number_unsigned() && value.get<uint64_t>() > kMax) return false;
  *out = value.get<int64_t>();
  return true;
}

bool Convert(const Json& value, double* out) {
  if (!value.is_number() || !std::isfinite(value.get<double>())) return false;
  *out = value.get<double>();
  return true;
}

bool Convert(const Json& value, std::string* out) {
  if (!value.is_string()) return false;
  *out = value.get<std::string>();
  return true;
}

template <typename T>
bool Convert(const Json& value, std::vector<T>* out) {
  if (!value.is_array()) return false;
  std::vector<T> result;
  for (const Json& element : value) {
    if (!Convert(element, &result.emplace_back())) return false;
  }
  *out = std::move(result);
  return true;
}

template <typename T>
bool Convert(const Json& value, std::map<std::string, T>* out) {
  if (!value.is_object()) return false;
  std::map<std::string, T> result;
  for (const auto& [name, element] : value.items()) {
    if (!Convert(element, &result[name])) return false;
  }
  *out = std::move(result);
  return true;
}

constexpr absl::string_view NameOf(const bool*) { return "true or false"; }
constexpr absl::string_view NameOf(const int64_t*) { return "an integer"; }
constexpr absl::string_view NameOf(const double*) { return "a finite number"; }
constexpr absl::string_view NameOf(const std::string*) { return "a string"; }
constexpr absl::string_view NameOf(const std::vector<int64_t>*) { return "a list of integers"; }
constexpr absl::string_view NameOf(const std::vector<std::string>*) { return "a list of strings"; }
constexpr absl::string_view NameOf(const std::map<std::string, int64_t>*) {
  return "an object of integers";
}
constexpr absl::string_view NameOf(const std::map<std::string, double>*) {
  return "an object of finite numbers";
}
constexpr absl::string_view NameOf(const std::map<std::string, std::string>*) {
  return "an object of strings";
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text, absl::string_view source,
                                         absl::StatusCode code) {
  if (text.size() > static_cast<size_t>(kMaxJsonBytes)) {
    return absl::Status(code, absl::StrCat(source, ": expected JSON of at most ", kMaxJsonBytes,
                                           " bytes, got ", text.size()));
  }
  StructureChecker checker;
  if (!Json::sax_parse(text.begin(), text.end(), &checker)) {
    return absl::Status(code, absl::StrCat(source, ": not valid JSON: ", checker.problem()));
  }
  return Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
}

absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path, absl::StatusCode code) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return ErrnoStatus("cannot open", path);
  if (!S_ISREG(info.st_mode)) {
    return absl::Status(code, absl::StrCat(path, ": expected a regular file"));
  }
  if (info.st_size > kMaxJsonBytes) {
    return absl::Status(code, absl::StrCat(path, ": expected JSON of at most ", kMaxJsonBytes,
                                           " bytes, got ", info.st_size));
  }
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  return ParseJson(text, path, code);
}

std::string Quoted(absl::string_view text) {
  const bool whole = text.size() <= kMaxShownBytes;
  if (!IsValidUtf8(text)) {
    return absl::StrCat("'", absl::CHexEscape(text.substr(0, kMaxShownBytes)),
                        whole ? "'" : "...'");
  }
  return absl::StrCat("'", absl::Utf8SafeCHexEscape(Utf8Prefix(text, kMaxShownBytes)),
                      whole ? "'" : "...'");
}

std::string Shown(const nlohmann::json& value) {
  const std::string text = value.dump();
  if (text.size() <= kMaxShownBytes) return text;
  return absl::StrCat(Utf8Prefix(text, kMaxShownBytes), "...");
}

bool IsPlainFileName(absl::string_view text) {
  return !text.empty() && text != "." && text != ".." && !absl::StrContains(text, '/') &&
         !absl::StrContains(text, '\0');
}

bool IsSha256Hex(absl::string_view text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return absl::ascii_isdigit(c) || ('a' <= c && c <= 'f');
         });
}

JsonFields::JsonFields(const nlohmann::json* object, absl::string_view source,
                       absl::string_view prefix, absl::StatusCode code)
    : object_(object), source_(source), prefix_(prefix), code_(code) {}

absl::StatusOr<JsonFields> JsonFields::Create(const nlohmann::json& value, absl::string_view source,
                                              absl::string_view prefix, absl::StatusCode code) {
  if (value.is_object()) return JsonFields(&value, source, prefix, code);
  const std::string field =
      prefix.empty() ? "" : absl::StrCat(": field '", absl::StripSuffix(prefix, "."), "'");
  return absl::Status(code,
                      absl::StrCat(source, field, ": expected a JSON object, got ", Shown(value)));
}

const nlohmann::json* JsonFields::Find(absl::string_view name) const {
  const auto found = object_->find(std::string(name));
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

template <typename T>
absl::Status JsonFields::Get(absl::string_view name, T* out) const {
  const Json* value = Find(name);
  if (value == nullptr || Convert(*value, out)) return absl::OkStatus();
  return Error(name, absl::StrCat("expected ", NameOf(out), ", got ", Shown(*value)));
}

template absl::Status JsonFields::Get(absl::string_view, bool*) const;
template absl::Status JsonFields::Get(absl::string_view, int64_t*) const;
template absl::Status JsonFields::Get(absl::string_view, double*) const;
template absl::Status JsonFields::Get(absl::string_view, std::string*) const;
template absl::Status JsonFields::Get(absl::string_view, std::vector<int64_t>*) const;
template absl::Status JsonFields::Get(absl::string_view, std::vector<std::string>*) const;
template absl::Status JsonFields::Get(absl::string_view, std::map<std::string, int64_t>*) const;
template absl::Status JsonFields::Get(absl::string_view, std::map<std::string, double>*) const;
template absl::Status JsonFields::Get(absl::string_view, std::map<std::string, std::string>*) const;

absl::StatusOr<JsonFields> JsonFields::Object(absl::string_view name) const {
  const Json* value = Find(name);
  if (value == nullptr) return Missing(name);
  if (!value->is_object()) {
    return Error(name, absl::StrCat("expected an object, got ", Shown(*value)));
  }
  return JsonFields(value, source_, absl::StrCat(prefix_, name, "."), code_);
}

absl::Status JsonFields::Error(absl::string_view name, absl::string_view problem) const {
  return Error(code_, name, problem);
}

absl::Status JsonFields::Error(absl::StatusCode code, absl::string_view name,
                               absl::string_view problem) const {
  return absl::Status(code, absl::StrCat(source_, ": field '", prefix_, name, "': ", problem));
}

absl::Status JsonFields::Missing(absl::string_view name) const {
  return Error(name, "expected a value, got none");
}

}  // namespace pricer
