#include "client/batch_output.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "catalog/byte_sink.h"
#include "catalog/byte_source.h"
#include "catalog/line_reader.h"
#include "client/batch_row.h"

namespace pricer {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kBufferBytes = 1 << 16;
constexpr const char* kFormat = "1.0";

std::string Shown(const Json& object, const std::string& name) {
  const auto found = object.find(name);
  return found == object.end() ? "not given" : found->dump();
}

absl::Status AnotherJob(const std::string& record_path, const Json& then, const Json& now) {
  for (const Json* const object : {&then, &now}) {
    for (const auto& [name, value] : object->items()) {
      if (then.contains(name) && now.contains(name) && then[name] == now[name]) continue;
      return absl::FailedPreconditionError(absl::StrCat(
          record_path, ": an earlier run of another job was not ended: its ", name, " is ",
          Shown(then, name), ", that of this one ", Shown(now, name), "; --restart begins anew"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

BatchOutput::BatchOutput(const BatchOutputOptions& options, std::string path, const Clock* clock)
    : options_(options),
      path_(std::move(path)),
      partial_path_(path_ + ".partial"),
      record_path_(path_ + ".job"),
      clock_(clock),
      saved_(clock->Now()) {}

absl::StatusOr<std::unique_ptr<BatchOutput>> BatchOutput::Open(const BatchOutputOptions& options,
                                                               const Clock* clock) {
  ASSIGN_OR_RETURN(const OutputPlace place, FindOutputPlace(options.path));
  std::unique_ptr<BatchOutput> output(new BatchOutput(options, place.path, clock));
  if (place.is_stream || !options.keep) {
    ASSIGN_OR_RETURN(AtomicFileWriter unkept, AtomicFileWriter::Create(options.path));
    output->unkept_.emplace(std::move(unkept));
    return output;
  }
  RETURN_IF_ERROR(output->OpenPartial());
  bool resumed = false;
  if (options.resume) {
    ASSIGN_OR_RETURN(resumed, output->ReadRecord());
  }
  if (resumed) RETURN_IF_ERROR(output->CheckTail());
  if (ftruncate(output->file_.get(), output->bytes_) != 0) {
    return ErrnoStatus("cannot truncate", output->partial_path_);
  }
  if (lseek(output->file_.get(), 0, SEEK_END) < 0) {
    return ErrnoStatus("cannot seek", output->partial_path_);
  }
  output->opened_ = true;
  RETURN_IF_ERROR(output->Save());
  return output;
}

BatchOutput::~BatchOutput() {
  if (!opened_ || committed_) return;
  if (rows_ > 0) {
    // Without it the next run reads what is behind the latest save and takes what is whole. A write
    // that failed may seem to succeed when it is tried again.
    if (!failed_) Save().IgnoreError();
    return;
  }
  unlink(partial_path_.c_str());
  unlink(record_path_.c_str());
}

absl::Status BatchOutput::OpenPartial() {
  FileDescriptor file(open(partial_path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  if (!file.ok()) return ErrnoStatus("cannot open", partial_path_);
  if (flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return ErrnoStatus("cannot lock", partial_path_);
    return absl::FailedPreconditionError(
        absl::StrCat(partial_path_, ": another run is writing to it"));
  }
  // Whoever held it may have given it its name before.
  struct stat opened;
  struct stat named;
  if (fstat(file.get(), &opened) != 0) return ErrnoStatus("cannot look at", partial_path_);
  if (stat(partial_path_.c_str(), &named) != 0 || opened.st_ino != named.st_ino) {
    return absl::FailedPreconditionError(
        absl::StrCat(partial_path_, ": another run has just ended"));
  }
  file_ = std::move(file);
  return absl::OkStatus();
}

absl::StatusOr<bool> BatchOutput::ReadRecord() {
  struct stat partial;
  if (fstat(file_.get(), &partial) != 0) return ErrnoStatus("cannot look at", partial_path_);
  // Without lines there is nothing to go on with: a run that was killed at its end leaves a record.
  if (partial.st_size == 0) return false;
  const absl::StatusOr<std::string> text = ReadFile(record_path_);
  if (absl::IsNotFound(text.status())) return false;
  RETURN_IF_ERROR(text.status());
  const Json record = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
  const auto wrong = [this](absl::string_view what) {
    return absl::DataLossError(absl::StrCat(record_path_, ": ", what, "; --restart begins anew"));
  };
  if (!record.is_object() || !record.contains("format_version") || !record.contains("job")) {
    return wrong("not the record of a batch job");
  }
  if (record["format_version"] != kFormat) {
    return wrong(absl::StrCat("expected format_version \"", kFormat, "\", got ",
                              record["format_version"].dump()));
  }
  RETURN_IF_ERROR(AnotherJob(record_path_, record["job"], Json::parse(options_.job)));
  for (const auto& [name, value] :
       {std::pair("rows", &rows_), std::pair("errors", &errors_), std::pair("bytes", &bytes_)}) {
    const auto found = record.find(name);
    if (found == record.end() || !found->is_number_unsigned()) {
      return wrong(absl::StrCat(name, ": expected a number, got ", Shown(record, name)));
    }
    *value = found->get<int64_t>();
  }
  if (const auto version = record.find("version"); version != record.end()) {
    if (!version->is_object() || !version->contains("adapter") || !version->contains("version") ||
        !(*version)["adapter"].is_string() || !(*version)["version"].is_number_unsigned() ||
        !version->contains("digest") || !(*version)["digest"].is_string()) {
      return wrong(
          absl::StrCat("version: expected adapter, version and digest, got ", version->dump()));
    }
    version_ = {.adapter = (*version)["adapter"],
                .version = (*version)["version"],
                .digest = (*version)["digest"]};
  }
  if (partial.st_size < bytes_) {
    return absl::DataLossError(absl::StrCat(partial_path_, ": expected at least ", bytes_,
                                            " bytes, got ", partial.st_size,
                                            "; --restart begins anew"));
  }
  return true;
}

absl::Status BatchOutput::CheckTail() {
  // What came after the latest save may be there in part.
  std::string tail;
  int64_t at = bytes_;
  for (;;) {
    const size_t have = tail.size();
    tail.resize(have + kBufferBytes);
    const ssize_t n = pread(file_.get(), tail.data() + have, kBufferBytes, at);
    if (n < 0 && errno != EINTR) return ErrnoStatus("cannot read", partial_path_);
    tail.resize(have + std::max<ssize_t>(n, 0));
    if (n == 0) return absl::OkStatus();
    at += std::max<ssize_t>(n, 0);
    size_t begin = 0;
    for (size_t end; (end = tail.find('\n', begin)) != std::string::npos; begin = end + 1) {
      const absl::StatusOr<BatchRow> row =
          ParseBatchLine(absl::string_view(tail).substr(begin, end - begin));
      if (!row.ok()) return absl::OkStatus();
      ++rows_;
      errors_ += row->failed() ? 1 : 0;
      bytes_ += static_cast<int64_t>(end - begin) + 1;
    }
    tail.erase(0, begin);
  }
}

absl::Status BatchOutput::Flush() {
  if (unkept_.has_value()) return absl::OkStatus();
  const bool due = clock_->Now() - saved_ >= kSaveInterval;
  return due ? Save() : Write();
}

absl::Status BatchOutput::Write() {
  size_t written = 0;
  absl::Status status;
  while (written < buffer_.size() && status.ok()) {
    const ssize_t n = write(file_.get(), buffer_.data() + written, buffer_.size() - written);
    if (n >= 0) {
      written += n;
    } else if (errno != EINTR) {
      status = ErrnoStatus("cannot write", partial_path_);
    }
  }
  // What was written is not written again by a later try.
  buffer_.erase(0, written);
  failed_ |= !status.ok();
  return status;
}

absl::Status BatchOutput::Save() {
  RETURN_IF_ERROR(Write());
  if (fdatasync(file_.get()) != 0) {
    failed_ = true;
    return ErrnoStatus("cannot flush", partial_path_);
  }
  saved_ = clock_->Now();
  return WriteRecord();
}

absl::Status BatchOutput::WriteRecord() {
  Json record = {{"format_version", kFormat},
                 {"job", Json::parse(options_.job)},
                 {"rows", rows_},
                 {"errors", errors_},
                 {"bytes", bytes_}};
  if (version_.has_value()) {
    record["version"] = {{"adapter", version_->adapter},
                         {"version", version_->version},
                         {"digest", version_->digest}};
  }
  return WriteFileAtomically(record_path_, record.dump(2) + "\n");
}

absl::Status BatchOutput::SetVersion(const BatchVersion& version) {
  version_ = version;
  return unkept_.has_value() ? absl::OkStatus() : Save();
}

absl::Status BatchOutput::Append(absl::string_view line, bool is_error) {
  if (unkept_.has_value()) {
    RETURN_IF_ERROR(unkept_->Append(line));
  } else {
    if (buffer_.size() + line.size() > kBufferBytes) RETURN_IF_ERROR(Write());
    buffer_.append(line.data(), line.size());
    bytes_ += static_cast<int64_t>(line.size());
  }
  ++rows_;
  errors_ += is_error ? 1 : 0;
  return absl::OkStatus();
}

absl::Status BatchOutput::Commit() {
  if (unkept_.has_value()) return unkept_->Commit();
  RETURN_IF_ERROR(Write());
  if (fsync(file_.get()) != 0) return ErrnoStatus("cannot flush", partial_path_);
  if (!options_.rejects.empty()) RETURN_IF_ERROR(WriteRejects(partial_path_, options_.rejects));
  if (rename(partial_path_.c_str(), path_.c_str()) != 0) {
    return ErrnoStatus("cannot rename", partial_path_);
  }
  committed_ = true;
  unlink(record_path_.c_str());
  return SyncDirectory(std::filesystem::path(path_).parent_path().string());
}

absl::Status WriteRejects(const std::string& lines, const std::string& rejects) {
  ASSIGN_OR_RETURN(std::unique_ptr<ByteSource> bytes, OpenByteSource(lines));
  LineReader reader(std::move(bytes), kMaxBatchLineBytes);
  std::unique_ptr<ByteSink> sink;
  LineReader::Line line;
  for (;;) {
    ASSIGN_OR_RETURN(const bool more, reader.Next(&line));
    if (!more) break;
    // Quicker than to read every row.
    if (absl::EndsWith(line.text, "\"error\":null}")) continue;
    if (sink == nullptr) {
      ASSIGN_OR_RETURN(sink, ByteSink::Create(rejects));
    }
    RETURN_IF_ERROR(sink->Append(absl::StrCat(line.text, "\n")));
  }
  if (sink != nullptr) return sink->Commit();
  if (unlink(rejects.c_str()) != 0 && errno != ENOENT) return ErrnoStatus("cannot remove", rejects);
  return absl::OkStatus();
}

}  // namespace pricer
