#include "catalog/object_store.h"

#include <arrow/filesystem/filesystem.h>
#include <arrow/io/interfaces.h>
#include <arrow/result.h>
#include <arrow/status.h>
#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "catalog/arrow_objects.h"
#include "catalog/byte_sink.h"

namespace pricer {
namespace {

constexpr size_t kUploadBytes = size_t{8} << 20;

absl::Status FromArrow(const arrow::Status& status, const std::string& object) {
  if (status.ok()) return absl::OkStatus();
  const std::string& words = status.message();
  const std::string message = absl::StrCat(object, ": ", words);
  for (const absl::string_view denied :
       {"ACCESS_DENIED", "Access Denied", "InvalidAccessKeyId", "INVALID_ACCESS_KEY_ID",
        "SIGNATURE_DOES_NOT_MATCH", "SignatureDoesNotMatch", "HTTP status 403"}) {
    if (absl::StrContains(words, denied)) return absl::PermissionDeniedError(message);
  }
  for (const absl::string_view missing : {"NO_SUCH_BUCKET", "NO_SUCH_KEY"}) {
    if (absl::StrContains(words, missing)) return absl::NotFoundError(message);
  }
  if (status.IsInvalid()) return absl::InvalidArgumentError(message);
  if (status.IsOutOfMemory()) return absl::ResourceExhaustedError(message);
  return absl::UnavailableError(message);
}

// Beside Arrow itself, which loads it only for those who ask for objects.
std::string ModulePath() {
  Dl_info info = {};
  const auto function = static_cast<void (*)()>(&arrow::fs::EnsureFinalized);
  if (dladdr(reinterpret_cast<const void*>(function), &info) == 0) return "";
  std::error_code ignored;
  const std::filesystem::path arrow = std::filesystem::canonical(info.dli_fname, ignored);
  std::string name = arrow.filename().string();  // libarrow.so.2600
  name.insert(name.find('.'), "_s3");
  return (arrow.parent_path() / name).string();
}

// The wheel's TLS library looks where the system that it was built on has its authorities.
std::string AuthoritiesPath() {
  if (const char* const path = std::getenv("SSL_CERT_FILE"); path != nullptr) return path;
  std::error_code ignored;
  for (const char* const path :
       {"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"}) {
    if (std::filesystem::exists(path, ignored)) return path;
  }
  return "";
}

arrow::Status LoadModule() {
  static const arrow::Status* const loaded = [] {
    arrow::fs::FileSystemGlobalOptions options;
    options.tls_ca_file_path = AuthoritiesPath();
    arrow::Status status = arrow::fs::Initialize(options);
    if (status.ok()) status = arrow::fs::LoadFileSystemFactories(ModulePath().c_str());
    return new arrow::Status(std::move(status));
  }();
  return *loaded;
}

struct Place {
  std::shared_ptr<arrow::fs::FileSystem> store;
  std::string path;  // in it
};

absl::StatusOr<Place> FindPlace(const std::string& object) {
  RETURN_IF_ERROR(FromArrow(LoadModule(), object));
  Place place;
  arrow::Result<std::shared_ptr<arrow::fs::FileSystem>> store =
      arrow::fs::FileSystemFromUri(object, &place.path);
  // Behind what the first store has made static, so that it is called before that is destroyed.
  static const int at_exit = std::atexit(arrow::fs::EnsureFinalized);
  (void)at_exit;
  RETURN_IF_ERROR(FromArrow(store.status(), object));
  place.store = *std::move(store);
  return place;
}

absl::StatusOr<arrow::fs::FileInfo> Look(const Place& place, const std::string& object) {
  const arrow::Result<arrow::fs::FileInfo> info = place.store->GetFileInfo(place.path);
  RETURN_IF_ERROR(FromArrow(info.status(), object));
  if (info->type() == arrow::fs::FileType::NotFound) {
    return absl::NotFoundError(absl::StrCat(object, ": there is no such object"));
  }
  if (info->type() != arrow::fs::FileType::File) {
    return absl::InvalidArgumentError(absl::StrCat(object, ": expected an object, it is a folder"));
  }
  return *info;
}

class ObjectSource final : public ByteSource {
 public:
  ObjectSource(std::string object, std::shared_ptr<arrow::io::InputStream> stream, int64_t bytes)
      : object_(std::move(object)), stream_(std::move(stream)), bytes_(bytes) {}

  absl::StatusOr<size_t> Read(char* out, size_t size) override {
    const arrow::Result<int64_t> n = stream_->Read(static_cast<int64_t>(size), out);
    RETURN_IF_ERROR(FromArrow(n.status(), object_));
    read_ += *n;
    return static_cast<size_t>(*n);
  }
  double fraction() const override {
    return bytes_ == 0 ? 0 : static_cast<double>(read_) / static_cast<double>(bytes_);
  }

 private:
  const std::string object_;
  const std::shared_ptr<arrow::io::InputStream> stream_;
  const int64_t bytes_;
  int64_t read_ = 0;
};

absl::Status Copy(ByteSource* from, arrow::io::OutputStream* to, const std::string& object) {
  std::vector<char> buffer(kUploadBytes);
  for (;;) {
    ASSIGN_OR_RETURN(const size_t n, from->Read(buffer.data(), buffer.size()));
    if (n == 0) return absl::OkStatus();
    RETURN_IF_ERROR(FromArrow(to->Write(buffer.data(), static_cast<int64_t>(n)), object));
  }
}

}  // namespace

absl::StatusOr<ObjectInfo> GetObjectInfo(const std::string& object) {
  ASSIGN_OR_RETURN(const Place place, FindPlace(object));
  ASSIGN_OR_RETURN(const arrow::fs::FileInfo info, Look(place, object));
  return ObjectInfo{.bytes = info.size(), .modified = absl::FromChrono(info.mtime())};
}

absl::StatusOr<std::unique_ptr<ByteSource>> OpenObject(const std::string& object) {
  ASSIGN_OR_RETURN(const Place place, FindPlace(object));
  ASSIGN_OR_RETURN(const arrow::fs::FileInfo info, Look(place, object));
  arrow::Result<std::shared_ptr<arrow::io::InputStream>> stream =
      place.store->OpenInputStream(info);
  RETURN_IF_ERROR(FromArrow(stream.status(), object));
  return std::make_unique<ObjectSource>(object, *std::move(stream), info.size());
}

absl::StatusOr<std::shared_ptr<arrow::io::RandomAccessFile>> OpenObjectAtRandom(
    const std::string& object) {
  ASSIGN_OR_RETURN(const Place place, FindPlace(object));
  ASSIGN_OR_RETURN(const arrow::fs::FileInfo info, Look(place, object));
  arrow::Result<std::shared_ptr<arrow::io::RandomAccessFile>> file =
      place.store->OpenInputFile(info);
  RETURN_IF_ERROR(FromArrow(file.status(), object));
  return *std::move(file);
}

absl::Status UploadFile(const std::string& path, const std::string& object) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ByteSource> source, OpenFileAsItIs(path));
  ASSIGN_OR_RETURN(const Place place, FindPlace(object));
  const arrow::Result<std::shared_ptr<arrow::io::OutputStream>> stream =
      place.store->OpenOutputStream(place.path);
  RETURN_IF_ERROR(FromArrow(stream.status(), object));
  const absl::Status copied = Copy(source.get(), stream->get(), object);
  if (!copied.ok()) {
    // What was sent of it is dropped, and the error above says why.
    (void)(*stream)->Abort();
    return copied;
  }
  return FromArrow((*stream)->Close(), object);
}

absl::Status DownloadFile(const std::string& object, const std::string& path) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ByteSource> source, OpenObject(object));
  ASSIGN_OR_RETURN(const std::unique_ptr<ByteSink> file, ByteSink::CreateAsItIs(path));
  return CopyBytes(source.get(), file.get());
}

absl::StatusOr<std::vector<ListedObject>> ListObjects(const std::string& folder) {
  ASSIGN_OR_RETURN(const Place place, FindPlace(folder));
  arrow::fs::FileSelector selector;
  selector.base_dir = place.path;
  selector.recursive = true;
  selector.allow_not_found = true;
  const arrow::Result<std::vector<arrow::fs::FileInfo>> infos = place.store->GetFileInfo(selector);
  RETURN_IF_ERROR(FromArrow(infos.status(), folder));
  const absl::string_view base = absl::StripSuffix(place.path, "/");
  std::vector<ListedObject> objects;
  for (const arrow::fs::FileInfo& info : *infos) {
    if (info.type() != arrow::fs::FileType::File) continue;
    absl::string_view path = info.path();
    if (!absl::ConsumePrefix(&path, base) || !absl::ConsumePrefix(&path, "/")) continue;
    objects.push_back({.path = std::string(path), .bytes = info.size()});
  }
  return objects;
}

absl::Status DeleteObject(const std::string& object) {
  ASSIGN_OR_RETURN(const Place place, FindPlace(object));
  RETURN_IF_ERROR(Look(place, object).status());
  return FromArrow(place.store->DeleteFile(place.path), object);
}

}  // namespace pricer
