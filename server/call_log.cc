#include "server/call_log.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/logging.h"

namespace pricer {
namespace {

constexpr size_t kMaxRequestIdBytes = 128;

bool IsLowerHex(absl::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f'); });
}

bool IsAllZeros(absl::string_view text) {
  return text.find_first_not_of('0') == absl::string_view::npos;
}

// Whether the server is to blame.
LogLevel LevelOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
      return LogLevel::kDebug;
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kDataLoss:
      return LogLevel::kError;
    default:
      return LogLevel::kInfo;
  }
}

}  // namespace

bool IsTraceParent(absl::string_view text) {
  constexpr size_t kBytes = 55;
  if (text.size() < kBytes || text[2] != '-' || text[35] != '-' || text[52] != '-') return false;
  const absl::string_view version = text.substr(0, 2);
  const absl::string_view trace = text.substr(3, 32);
  const absl::string_view parent = text.substr(36, 16);
  if (!IsLowerHex(version) || !IsLowerHex(trace) || !IsLowerHex(parent) ||
      !IsLowerHex(text.substr(53, 2)) || IsAllZeros(trace) || IsAllZeros(parent) ||
      version == "ff") {
    return false;
  }
  return version == "00" ? text.size() == kBytes : text.size() == kBytes || text[kBytes] == '-';
}

bool IsRequestId(absl::string_view text) {
  return !text.empty() && text.size() <= kMaxRequestIdBytes &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

void CallLog::Ended(absl::string_view method, const absl::Status& status, const CallTags& tags) {
  const absl::Duration time = std::max(clock_->Now() - tags.started, absl::ZeroDuration());
  metrics_->CallEnded(method, status.code(), time);
  const LogLevel level = LevelOf(status.code());
  if (level < CurrentLogLevel()) return;
  const int64_t dropped =
      sampler_.TakeLine(absl::StrCat(method, " ", absl::StatusCodeToString(status.code())));
  if (dropped < 0) return;
  std::vector<LogField> fields = {{"method", std::string(method)},
                                  {"code", absl::StatusCodeToString(status.code())},
                                  {"caller", tags.caller},
                                  {"request_id", tags.request_id}};
  if (!tags.trace_parent.empty()) fields.push_back({"traceparent", tags.trace_parent});
  if (!status.ok()) fields.push_back({"error", std::string(status.message())});
  if (dropped > 0) fields.push_back({"not_logged", absl::StrCat(dropped)});
  Log(level, status.ok() ? "call answered" : "call failed", fields);
}

}  // namespace pricer
