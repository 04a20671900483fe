#include "trainer/run_log.h"

#include <sys/stat.h>

#include <cerrno>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

using Json = nlohmann::ordered_json;

// Whole numbers are written as such.
Json Number(double value) {
  const bool whole = std::floor(value) == value && std::abs(value) < 1e15;
  return whole ? Json(static_cast<int64_t>(value)) : Json(value);
}

}  // namespace

absl::StatusOr<RunLog> RunLog::Create(const std::string& runs, const std::string& name) {
  RETURN_IF_ERROR(MakeDirectories(runs));
  for (int64_t n = 1;; ++n) {
    const std::string directory = absl::StrCat(runs, "/", name, "-", n);
    if (mkdir(directory.c_str(), 0777) == 0) {
      const std::string path = directory + "/metrics.jsonl";
      std::FILE* metrics = std::fopen(path.c_str(), "we");
      if (metrics == nullptr) return ErrnoStatus("open", path);
      return RunLog(directory, metrics);
    }
    if (errno != EEXIST) return ErrnoStatus("make directory", directory);
  }
}

absl::Status RunLog::WriteOptions(const std::vector<std::pair<std::string, std::string>>& options) {
  Json json = Json::object();
  for (const auto& [name, value] : options) json[name] = value;
  return WriteFile(directory_ + "/options.json",
                   json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

absl::Status RunLog::AppendLine(const std::string& json) {
  const std::string line = json + "\n";
  const bool written = std::fwrite(line.data(), 1, line.size(), metrics_.get()) == line.size() &&
                       std::fflush(metrics_.get()) == 0;
  return written ? absl::OkStatus() : ErrnoStatus("write", directory_ + "/metrics.jsonl");
}

absl::Status RunLog::Append(const std::vector<std::pair<std::string, double>>& fields) {
  Json json = Json::object();
  for (const auto& [name, value] : fields) json[name] = Number(value);
  return AppendLine(json.dump());
}

absl::Status RunLog::AppendValidation(int64_t step, const Metrics& metrics) {
  Json json;
  json["step"] = step;
  json["validation"] = {{"items", metrics.items},
                        {"mae", metrics.mae},
                        {"median_absolute_error", metrics.median_absolute_error},
                        {"rmsle", metrics.rmsle},
                        {"within_20_percent", metrics.within_20_percent},
                        {"pinball", metrics.pinball},
                        {"crps", metrics.crps}};
  return AppendLine(json.dump());
}

}  // namespace pricer
