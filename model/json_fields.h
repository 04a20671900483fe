#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

// Strict reading of small JSON files that others wrote: the format errors say where, and nothing is
// guessed.

namespace pricer {

inline constexpr int64_t kMaxJsonBytes = 16 << 20;

// Parses UTF-8 text of at most kMaxJsonBytes, 64 levels and no key twice in one object. An error
// has the code `code` and names `source` and the place.
absl::StatusOr<nlohmann::json> ParseJson(
    absl::string_view text, absl::string_view source,
    absl::StatusCode code = absl::StatusCode::kInvalidArgument);

// ParseJson on a file; other codes where it cannot be read (ReadFile of base/file.h).
absl::StatusOr<nlohmann::json> ReadJsonFile(
    const std::string& path, absl::StatusCode code = absl::StatusCode::kInvalidArgument);

// Foreign text as it may stand in a message: in quotes, control characters escaped, shortened.
std::string Quoted(absl::string_view text);
// A value for a message, shortened.
std::string Shown(const nlohmann::json& value);

// What the strings of such files are often checked for. A plain file name names no other directory.
bool IsPlainFileName(absl::string_view text);
bool IsSha256Hex(absl::string_view text);

// Typed access to the fields of one JSON object. Every error has the given code and names source,
// full field name, what was expected and what came. Copies are cheap; the JSON value must outlive
// them.
class JsonFields {
 public:
  // Error where `value` is not an object. `prefix` stands before field names in messages:
  // "rope_scaling.".
  static absl::StatusOr<JsonFields> Create(
      const nlohmann::json& value, absl::string_view source, absl::string_view prefix = "",
      absl::StatusCode code = absl::StatusCode::kInvalidArgument);

  // The field is there and not null.
  bool Has(absl::string_view name) const { return Find(name) != nullptr; }
  // Null where the field is absent or null.
  const nlohmann::json* Find(absl::string_view name) const;

  // Sets *out from the field; leaves it alone where the field is absent or null.
  // T: bool, int64_t, double (finite), std::string, a vector of int64_t or std::string, a map from
  // std::string to int64_t, double or std::string.
  template <typename T>
  absl::Status Get(absl::string_view name, T* out) const;

  // As Get; an absent or null field is an error.
  template <typename T>
  absl::Status Require(absl::string_view name, T* out) const {
    if (!Has(name)) return Missing(name);
    return Get(name, out);
  }

  // The fields of a nested object. An absent or null one is an error.
  absl::StatusOr<JsonFields> Object(absl::string_view name) const;

  // An error about a field, for checks of the caller's own: "<source>: field '<name>': <problem>".
  absl::Status Error(absl::string_view name, absl::string_view problem) const;
  absl::Status Error(absl::StatusCode code, absl::string_view name,
                     absl::string_view problem) const;
  absl::Status Missing(absl::string_view name) const;

 private:
  JsonFields(const nlohmann::json* object, absl::string_view source, absl::string_view prefix,
             absl::StatusCode code);

  const nlohmann::json* object_;
  std::string source_;
  std::string prefix_;
  absl::StatusCode code_;
};

}  // namespace pricer
