#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

// One JSON object per line on standard error: {"time","level","message", fields...}. Thread-safe.
// The implementation is spdlog; its headers stay in logging.cc because spdlog and torch carry
// different versions of fmt.

namespace pricer {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

struct LogField {
  std::string name;
  std::string value;
};

void Log(LogLevel level, absl::string_view message, const std::vector<LogField>& fields = {});

inline void LogInfo(absl::string_view message, const std::vector<LogField>& fields = {}) {
  Log(LogLevel::kInfo, message, fields);
}
inline void LogWarning(absl::string_view message, const std::vector<LogField>& fields = {}) {
  Log(LogLevel::kWarning, message, fields);
}
inline void LogError(absl::string_view message, const std::vector<LogField>& fields = {}) {
  Log(LogLevel::kError, message, fields);
}

// Lines below `level` are dropped. Default: kInfo.
void SetLogLevel(LogLevel level);
LogLevel CurrentLogLevel();

}  // namespace pricer
