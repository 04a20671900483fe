#include "client/batch_shards.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/file_descriptor.h"
#include "base/open_files.h"
#include "base/status_macros.h"
#include "catalog/byte_source.h"
#include "catalog/line_reader.h"
#include "client/batch_row.h"

namespace pricer {
namespace {

using Json = nlohmann::ordered_json;

// Beside the shards' in a merge, and more than there are.
constexpr int kOtherOpenFiles = 64;

absl::StatusOr<std::unique_ptr<LineReader>> OpenLines(const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<ByteSource> bytes, OpenByteSource(path));
  return std::make_unique<LineReader>(std::move(bytes), kMaxBatchLineBytes);
}

// What all shards must have alike, as a message shows it.
std::string CommonOf(const ShardMarker& marker) {
  return absl::StrCat("job ", marker.job, " of ", marker.input_rows, " rows, version ",
                      marker.adapter, "/", marker.version, " ", marker.digest);
}

// A shard without prices was priced by no version.
bool Agree(const ShardMarker& a, const ShardMarker& b) {
  if (a.job != b.job || a.input_rows != b.input_rows) return false;
  if (a.adapter.empty() || b.adapter.empty()) return true;
  return a.adapter == b.adapter && a.version == b.version && a.digest == b.digest;
}

absl::StatusOr<std::vector<ShardMarker>> ReadMarkers(const std::string& output, int count) {
  std::vector<ShardMarker> markers;
  std::vector<std::string> missing;
  int first = 0;  // with prices
  for (int index = 0; index < count; ++index) {
    const std::string path = ShardMarkerPath(output, {.index = index, .count = count});
    absl::StatusOr<ShardMarker> marker = ReadShardMarker(path);
    if (absl::IsNotFound(marker.status())) {
      missing.push_back(absl::StrCat(index));
      continue;
    }
    RETURN_IF_ERROR(marker.status());
    markers.push_back(*std::move(marker));
    if (!missing.empty()) continue;
    if (Agree(markers[0], markers.back()) && markers[first].adapter.empty()) first = index;
    if (!Agree(markers[0], markers.back()) || !Agree(markers[first], markers.back())) {
      return absl::FailedPreconditionError(
          absl::StrCat(path, ": expected a part of the same job as shard ", first, ": ",
                       CommonOf(markers[first]), ", got ", CommonOf(markers.back())));
    }
  }
  if (missing.empty()) return markers;
  const size_t named = std::min<size_t>(missing.size(), 20);
  return absl::FailedPreconditionError(absl::StrCat(
      output, ": ", missing.size(), " of ", count, " shards are not done: ",
      absl::StrJoin(missing.begin(), missing.begin() + static_cast<int64_t>(named), ", "),
      named < missing.size() ? ", ..." : ""));
}

// Nothing where the text is not what AgreeOnVersion writes, or is of another job.
std::optional<BatchVersion> ParseSharedVersion(const std::string& text, const std::string& job) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("job") || json["job"].dump() != job ||
      !json.contains("adapter") || !json["adapter"].is_string() || !json.contains("version") ||
      !json["version"].is_number_unsigned() || !json.contains("digest") ||
      !json["digest"].is_string()) {
    return std::nullopt;
  }
  return BatchVersion{
      .adapter = json["adapter"], .version = json["version"], .digest = json["digest"]};
}

// Over what is there; a run that is killed in it leaves what the next one does not take.
absl::Status OverwriteFile(int file, const std::string& path, absl::string_view text) {
  if (ftruncate(file, 0) != 0) return ErrnoStatus("cannot truncate", path);
  const ssize_t written = pwrite(file, text.data(), text.size(), 0);
  if (written < 0) return ErrnoStatus("cannot write", path);
  if (static_cast<size_t>(written) != text.size()) {
    return absl::ResourceExhaustedError(absl::StrCat(path, ": cannot write all of it"));
  }
  if (fsync(file) != 0) return ErrnoStatus("cannot flush", path);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Shard> Shard::Parse(const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, '/');
  Shard shard;
  if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &shard.index) ||
      !absl::SimpleAtoi(parts[1], &shard.count) || shard.count < 1 || shard.count > kMaxCount ||
      shard.index < 0 || shard.index >= shard.count) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected INDEX/COUNT with 0 <= INDEX < COUNT <= ", kMaxCount,
                     ", as 0/4, got \"", text, "\""));
  }
  return shard;
}

std::string ShardPath(const std::string& output, const Shard& shard) {
  if (shard.whole()) return output;
  const std::filesystem::path path(output);
  const std::string name =
      absl::StrCat(path.stem().string(), absl::StrFormat("-%05d-of-%05d", shard.index, shard.count),
                   path.extension().string());
  return (path.parent_path() / name).string();
}

std::string ShardMarkerPath(const std::string& output, const Shard& shard) {
  return ShardPath(output, shard) + ".done";
}

absl::Status WriteShardMarker(const std::string& path, const ShardMarker& marker) {
  const Json json = {{"job", Json::parse(marker.job)},
                     {"input_rows", marker.input_rows},
                     {"rows", marker.rows},
                     {"errors", marker.errors},
                     {"adapter", marker.adapter},
                     {"version", marker.version},
                     {"digest", marker.digest}};
  return WriteFileAtomically(path, json.dump(2) + "\n");
}

absl::StatusOr<ShardMarker> ReadShardMarker(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto is_number = [&json](const char* name) {
    return json.contains(name) && json[name].is_number_unsigned();
  };
  const auto is_string = [&json](const char* name) {
    return json.contains(name) && json[name].is_string();
  };
  if (!json.is_object() || !json.contains("job") || !json["job"].is_object() ||
      !is_number("input_rows") || !is_number("rows") || !is_number("errors") ||
      !is_string("adapter") || !is_number("version") || !is_string("digest")) {
    return absl::DataLossError(
        absl::StrCat(path, ": expected what `pricer batch --shard` leaves when it is done"));
  }
  return ShardMarker{.job = json["job"].dump(),
                     .input_rows = json["input_rows"],
                     .rows = json["rows"],
                     .errors = json["errors"],
                     .adapter = json["adapter"],
                     .version = json["version"],
                     .digest = json["digest"]};
}

std::string SharedVersionPath(const std::string& output) { return output + ".version"; }

absl::StatusOr<std::optional<BatchVersion>> ReadSharedVersion(const std::string& output,
                                                              const std::string& job) {
  const absl::StatusOr<std::string> text = ReadFile(SharedVersionPath(output));
  if (absl::IsNotFound(text.status())) return std::optional<BatchVersion>();
  RETURN_IF_ERROR(text.status());
  return ParseSharedVersion(*text, job);
}

absl::StatusOr<BatchVersion> AgreeOnVersion(const std::string& output, const std::string& job,
                                            const BatchVersion& mine) {
  const std::string path = SharedVersionPath(output);
  const FileDescriptor file(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  if (!file.ok()) return ErrnoStatus("cannot open", path);
  while (flock(file.get(), LOCK_EX) != 0) {
    if (errno != EINTR) return ErrnoStatus("cannot lock", path);
  }
  ASSIGN_OR_RETURN(const std::optional<BatchVersion> shared, ReadSharedVersion(output, job));
  if (shared.has_value()) return *shared;
  const Json json = {{"job", Json::parse(job)},
                     {"adapter", mine.adapter},
                     {"version", mine.version},
                     {"digest", mine.digest}};
  RETURN_IF_ERROR(OverwriteFile(file.get(), path, json.dump(2) + "\n"));
  return mine;
}

absl::StatusOr<int> CountShardsDone(const std::string& output, int count, const std::string& job) {
  int done = 0;
  for (int index = 0; index < count; ++index) {
    const absl::StatusOr<ShardMarker> marker =
        ReadShardMarker(ShardMarkerPath(output, {.index = index, .count = count}));
    if (absl::IsNotFound(marker.status())) continue;
    RETURN_IF_ERROR(marker.status());
    done += marker->job == job ? 1 : 0;
  }
  return done;
}

absl::StatusOr<FileDescriptor> LockShards(const std::string& output, int count) {
  const std::string path = ShardMarkerPath(output, {.index = 0, .count = count});
  // For writing, which network file systems want of whoever locks.
  FileDescriptor file(open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!file.ok() && errno == ENOENT) return file;
  if (!file.ok()) return ErrnoStatus("cannot open", path);
  while (flock(file.get(), LOCK_EX) != 0) {
    if (errno != EINTR) return ErrnoStatus("cannot lock", path);
  }
  return file;
}

absl::StatusOr<MergeResult> MergeShards(const std::string& output, int count,
                                        const std::function<void(int64_t rows)>& progress) {
  ASSIGN_OR_RETURN(const std::vector<ShardMarker> markers, ReadMarkers(output, count));
  // All shards are read at once.
  if (const int64_t limit = RaiseOpenFileLimit(); count + kOtherOpenFiles > limit) {
    return absl::FailedPreconditionError(
        absl::StrCat(output, ": to merge ", count, " shards takes ", count + kOtherOpenFiles,
                     " open files, and the system allows ", limit, " (ulimit -Hn)"));
  }
  std::vector<std::unique_ptr<LineReader>> shards;
  MergeResult result;
  for (int index = 0; index < count; ++index) {
    const Shard shard = {.index = index, .count = count};
    ASSIGN_OR_RETURN(std::unique_ptr<LineReader> lines, OpenLines(ShardPath(output, shard)));
    shards.push_back(std::move(lines));
    result.errors += markers[index].errors;
  }
  ASSIGN_OR_RETURN(AtomicFileWriter writer, AtomicFileWriter::Create(output));
  const int64_t rows = markers[0].input_rows;
  LineReader::Line line;
  for (; result.rows < rows; ++result.rows) {
    const auto index = static_cast<int>(result.rows / Shard::kRowsPerBlock % count);
    ASSIGN_OR_RETURN(const bool more, shards[index]->Next(&line));
    if (!more || line.too_long) {
      return absl::DataLossError(absl::StrCat(
          ShardPath(output, {.index = index, .count = count}), ": expected ", markers[index].rows,
          " lines as its marker says, got ", line.number, more ? ", the latest too long" : ""));
    }
    RETURN_IF_ERROR(writer.Append(absl::StrCat(line.text, "\n")));
    if (progress && result.rows % Shard::kRowsPerBlock == 0) progress(result.rows);
  }
  for (int index = 0; index < count; ++index) {
    ASSIGN_OR_RETURN(const bool more, shards[index]->Next(&line));
    if (!more) continue;
    return absl::DataLossError(absl::StrCat(ShardPath(output, {.index = index, .count = count}),
                                            ": expected ", markers[index].rows,
                                            " lines as its marker says, got more"));
  }
  RETURN_IF_ERROR(writer.Commit());
  return result;
}

}  // namespace pricer
