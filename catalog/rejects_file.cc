#include "catalog/rejects_file.h"

#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "catalog/item_json.h"

namespace pricer {

absl::StatusOr<RejectsFile> RejectsFile::Create(const std::string& path,
                                                const std::string& source) {
  RejectsFile rejects(path, source);
  if (path.empty()) return rejects;
  if (SameFile(path, source)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": the rejects file must not be the file that is read"));
  }
  if (unlink(path.c_str()) != 0 && errno != ENOENT) {
    return ErrnoStatus("cannot remove the rejects of an earlier run", path);
  }
  return rejects;
}

absl::Status RejectsFile::Add(int64_t row, const Reject& reject) {
  if (path_.empty()) return absl::OkStatus();
  if (file_ == nullptr) {
    file_.reset(std::fopen(path_.c_str(), "we"));
    if (file_ == nullptr) return ErrnoStatus("cannot create", path_);
  }
  std::string line = "{\"file\": ";
  AppendJsonString(source_, &line);
  absl::StrAppend(&line, ", \"row\": ", row, ", \"field\": ");
  AppendJsonString(reject.field, &line);
  line += ", \"reason\": ";
  AppendJsonString(reject.reason, &line);
  line += "}\n";
  if (std::fwrite(line.data(), 1, line.size(), file_.get()) != line.size()) {
    return ErrnoStatus("cannot write", path_);
  }
  return absl::OkStatus();
}

absl::Status RejectsFile::Flush() {
  if (file_ != nullptr && std::fflush(file_.get()) != 0) return ErrnoStatus("cannot write", path_);
  return absl::OkStatus();
}

}  // namespace pricer
