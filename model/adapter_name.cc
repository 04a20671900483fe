#include "model/adapter_name.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace pricer {
namespace {

constexpr size_t kMaxNameBytes = 63;
constexpr absl::string_view kReservedName = "base";

bool IsFirstNameByte(char c) { return absl::ascii_islower(c) || absl::ascii_isdigit(c); }
bool IsNameByte(char c) { return IsFirstNameByte(c) || c == '.' || c == '_' || c == '-'; }

}  // namespace

absl::Status ValidateAdapterName(absl::string_view name) {
  if (name == kReservedName) {
    return absl::InvalidArgumentError(
        "adapter name \"base\" is reserved: it stands for the base model without an adapter");
  }
  if (name.empty() || name.size() > kMaxNameBytes || !IsFirstNameByte(name.front()) ||
      !std::all_of(name.begin(), name.end(), IsNameByte)) {
    return absl::InvalidArgumentError(
        absl::StrCat("adapter name \"", name, "\": expected [a-z0-9][a-z0-9._-]{0,62}"));
  }
  return absl::OkStatus();
}

std::optional<int64_t> ParseAdapterVersion(absl::string_view text) {
  int64_t version = 0;
  if (text.empty() || text.front() < '1' || text.front() > '9' ||
      !std::all_of(text.begin(), text.end(), absl::ascii_isdigit) ||
      !absl::SimpleAtoi(text, &version)) {
    return std::nullopt;
  }
  return version;
}

}  // namespace pricer
