#include "client/batch_delivery.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/temporary_directory.h"
#include "catalog/byte_sink.h"
#include "catalog/byte_source.h"
#include "catalog/object_store.h"
#include "client/batch_shards.h"

namespace pricer {
namespace {

std::string NameOfPath(const std::string& path) {
  return std::filesystem::path(path).filename().string();
}

// "prices.jsonl" of s3://shop/nightly/prices.jsonl?region=eu-west-1.
std::string NameOfObject(const std::string& object) {
  return NameOfPath(object.substr(0, object.find('?')));
}

// Asked for in the same way.
std::string SiblingOfObject(const std::string& object, const std::string& name) {
  const size_t end = std::min(object.find('?'), object.size());
  return absl::StrCat(object.substr(0, object.rfind('/', end) + 1), name, object.substr(end));
}

// Lines of prices.jsonl.gz are in prices.jsonl.gz.lines: prices.jsonl may be another file.
std::string NameOfLines(const std::string& name) {
  return IsCompressedName(name) ? name + ".lines" : name;
}

absl::Status CopyLines(const std::string& from, const std::string& to) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ByteSource> source, OpenFileAsItIs(from));
  ASSIGN_OR_RETURN(const std::unique_ptr<ByteSink> sink, ByteSink::Create(to));
  return CopyBytes(source.get(), sink.get());
}

absl::Status UploadLines(const std::string& lines, const std::string& object) {
  const std::string name = NameOfObject(object);
  if (!IsCompressedName(name)) return UploadFile(lines, object);
  const std::string folder = std::filesystem::path(lines).parent_path().string();
  ASSIGN_OR_RETURN(const TemporaryDirectory directory,
                   TemporaryDirectory::Create(folder.empty() ? "." : folder));
  const std::string compressed = absl::StrCat(directory.path(), "/", name);
  RETURN_IF_ERROR(CopyLines(lines, compressed));
  return UploadFile(compressed, object);
}

}  // namespace

std::string DefaultRejects(const std::string& output) {
  const absl::StatusOr<OutputPlace> place = FindOutputPlace(output);
  if (!place.ok() || place->is_stream) return "";
  const std::filesystem::path path(output);
  std::filesystem::path name = path.filename();
  std::string suffix;
  if (IsCompressedName(output)) {
    suffix = name.extension().string();
    name = name.stem();
  }
  suffix = name.extension().string() + suffix;
  return (path.parent_path() / absl::StrCat(name.stem().string(), ".rejects", suffix)).string();
}

absl::StatusOr<BatchDelivery> BatchDelivery::Create(const std::string& output,
                                                    const std::string& rejects,
                                                    const std::string& work) {
  BatchDelivery delivery;
  delivery.output_ = output;
  delivery.rejects_are_given_ = !rejects.empty();
  const bool is_object = IsObject(output);
  const std::string name = is_object ? NameOfObject(output) : NameOfPath(output);
  if (is_object && work.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--output ", output, ": expected --work, a folder for lines until all are there"));
  }
  if (is_object && name.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--output ", output, ": expected an object, as s3://BUCKET/KEY"));
  }
  if (!is_object && !IsCompressedName(output)) {
    if (!work.empty()) {
      return absl::InvalidArgumentError(
          "--work: expected an object, or a name with .gz or .zst, as --output with it");
    }
    delivery.lines_ = output;
  } else {
    const std::filesystem::path folder =
        work.empty() ? std::filesystem::path(output).parent_path() : std::filesystem::path(work);
    delivery.lines_ = (folder / NameOfLines(name)).string();
  }
  delivery.rejects_ = rejects;
  if (rejects.empty()) {
    delivery.rejects_ =
        DefaultRejects(is_object ? (std::filesystem::path(work) / name).string() : output);
  }
  if (SameFile(delivery.rejects_, output) || SameFile(delivery.rejects_, delivery.lines_) ||
      (is_object && NameOfPath(delivery.rejects_) == name)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--rejects: expected another file than --output and its lines, got ", delivery.rejects_));
  }
  return delivery;
}

BatchDelivery BatchDelivery::OfLines(const std::string& output) {
  BatchDelivery delivery;
  delivery.output_ = delivery.lines_ = output;
  return delivery;
}

absl::Status BatchDelivery::Deliver(std::string* note) const {
  if (!needed()) return absl::OkStatus();
  if (!IsObject(output_)) return CopyLines(lines_, output_);
  RETURN_IF_ERROR(DeliverRejects(note));
  return UploadLines(lines_, output_);
}

absl::Status BatchDelivery::DeliverRejects(std::string* note) const {
  const std::string object = SiblingOfObject(output_, NameOfPath(rejects_));
  std::error_code ignored;
  if (std::filesystem::exists(rejects_, ignored)) return UploadFile(rejects_, object);
  const absl::Status gone = DeleteObject(object);
  if (gone.ok() || absl::IsNotFound(gone)) return absl::OkStatus();
  // They would be of an earlier job. Who may only write may go on.
  if (!absl::IsPermissionDenied(gone)) return gone;
  *note = std::string(gone.message());
  return absl::OkStatus();
}

void BatchDelivery::RemoveLines() const {
  if (!needed()) return;
  std::error_code ignored;
  // The marker first: without the rest it would say that the job is done.
  std::filesystem::remove(ShardMarkerPath(lines_, Shard()), ignored);
  std::filesystem::remove(lines_, ignored);
  if (IsObject(output_) && !rejects_are_given_) std::filesystem::remove(rejects_, ignored);
}

}  // namespace pricer
