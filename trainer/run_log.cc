#include "trainer/run_log.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
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

// Held as long as the descriptor is open, by a process that dies no longer.
absl::StatusOr<FileDescriptor> Lock(const std::string& directory) {
  const std::string path = directory + "/lock";
  FileDescriptor file(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  if (!file.ok()) return ErrnoStatus("open", path);
  if (flock(file.get(), LOCK_EX | LOCK_NB) == 0) return file;
  if (errno != EWOULDBLOCK) return ErrnoStatus("lock", path);
  return absl::FailedPreconditionError(
      absl::StrCat(directory, ": another process is working on this run"));
}

// Without what came later, and without a last line that was cut off.
std::string LinesUpTo(absl::string_view all, int64_t last_step) {
  std::string kept;
  for (const absl::string_view line : absl::StrSplit(all, '\n', absl::SkipEmpty())) {
    const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || json.value("step", last_step + 1) > last_step) continue;
    absl::StrAppend(&kept, line, "\n");
  }
  return kept;
}

}  // namespace

absl::StatusOr<RunLog> RunLog::Create(const std::string& runs, const std::string& name) {
  RETURN_IF_ERROR(MakeDirectories(runs));
  for (int64_t n = 1;; ++n) {
    const std::string directory = absl::StrCat(runs, "/", name, "-", n);
    if (mkdir(directory.c_str(), 0777) == 0) {
      ASSIGN_OR_RETURN(FileDescriptor lock, Lock(directory));
      return Open(directory, std::move(lock));
    }
    if (errno != EEXIST) return ErrnoStatus("make directory", directory);
  }
}

absl::StatusOr<RunLog> RunLog::Reopen(const std::string& directory, int64_t last_step) {
  ASSIGN_OR_RETURN(FileDescriptor lock, Lock(directory));
  const std::string path = directory + "/metrics.jsonl";
  ASSIGN_OR_RETURN(const std::string all, ReadFile(path));
  RETURN_IF_ERROR(WriteFileAtomically(path, LinesUpTo(all, last_step)));
  return Open(directory, std::move(lock));
}

absl::StatusOr<RunLog> RunLog::Open(const std::string& directory, FileDescriptor lock) {
  const std::string path = directory + "/metrics.jsonl";
  std::FILE* metrics = std::fopen(path.c_str(), "ae");
  if (metrics == nullptr) return ErrnoStatus("open", path);
  return RunLog(directory, std::move(lock), metrics);
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
  if (metrics.coverage_80.has_value()) json["validation"]["coverage_80"] = *metrics.coverage_80;
  return AppendLine(json.dump());
}

absl::Status RunLog::AppendWarning(int64_t step, const std::string& text) {
  Json json;
  json["step"] = step;
  json["warning"] = text;
  return AppendLine(json.dump(-1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace pricer
