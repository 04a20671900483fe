// Linked instead of the sources that need Arrow where the build has none.

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "catalog/csv_source.h"
#include "catalog/object_store.h"
#include "catalog/parquet_source.h"

namespace pricer {
namespace {

absl::Status NoArrow(const std::string& path, absl::string_view format) {
  return absl::UnimplementedError(absl::StrCat(
      path, ": ", format,
      " is read only by builds with the CMake option PRICER_ARROW, which this one lacks"));
}

absl::Status NoObjects(const std::string& object) {
  return absl::UnimplementedError(absl::StrCat(
      object, ": objects are read and written only by builds with the CMake option PRICER_ARROW"));
}

}  // namespace

absl::StatusOr<ObjectInfo> GetObjectInfo(const std::string& object) { return NoObjects(object); }

absl::StatusOr<std::unique_ptr<ByteSource>> OpenObject(const std::string& object) {
  return NoObjects(object);
}

absl::Status UploadFile(const std::string& /*path*/, const std::string& object) {
  return NoObjects(object);
}

absl::Status DownloadFile(const std::string& object, const std::string& /*path*/) {
  return NoObjects(object);
}

absl::StatusOr<std::vector<ListedObject>> ListObjects(const std::string& folder) {
  return NoObjects(folder);
}

absl::Status DeleteObject(const std::string& object) { return NoObjects(object); }

absl::StatusOr<std::unique_ptr<RowSource>> OpenCsvSource(const std::string& path,
                                                         std::unique_ptr<ByteSource> /*bytes*/,
                                                         const ItemColumns& /*columns*/,
                                                         const RowSourceOptions& /*options*/) {
  return NoArrow(path, "CSV");
}

absl::StatusOr<std::unique_ptr<RowSource>> OpenParquetSource(const std::string& path,
                                                             const ItemColumns& /*columns*/,
                                                             const RowSourceOptions& /*options*/) {
  return NoArrow(path, "Parquet");
}

}  // namespace pricer
