#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "catalog/byte_source.h"

// Objects of a store, by names such as s3://BUCKET/KEY, through Arrow's file systems. Who asks, of
// which region and server, is taken from the environment as other clients of S3 take it
// (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE, AWS_DEFAULT_REGION, AWS_ENDPOINT_URL, the
// role of the machine or pod). Authorities of its certificate are those of the system, or of the
// file in SSL_CERT_FILE. Unimplemented in a build without PRICER_ARROW.
//
// NotFound where there is no such object, PermissionDenied where the store says so, Unavailable for
// whatever else it or the network says; all name the object. Thread-safe.

namespace pricer {

// Whether a path is such a name.
inline bool IsObject(absl::string_view path) { return absl::StartsWith(path, "s3://"); }

struct ObjectInfo {
  int64_t bytes = 0;
  absl::Time modified;
};
absl::StatusOr<ObjectInfo> GetObjectInfo(const std::string& object);

// As it is, not decompressed.
absl::StatusOr<std::unique_ptr<ByteSource>> OpenObject(const std::string& object);

// Writes a file's contents to an object: under its name it is whole, or what it was before.
absl::Status UploadFile(const std::string& path, const std::string& object);

// Writes an object's contents to a file, as AtomicFileWriter does.
absl::Status DownloadFile(const std::string& object, const std::string& path);

struct ListedObject {
  std::string path;  // below the folder: "shop/3/pricer.json"
  int64_t bytes = 0;
};
// All objects below a folder, s3://BUCKET/PREFIX; none where there are none.
absl::StatusOr<std::vector<ListedObject>> ListObjects(const std::string& folder);

// s3://shop/adapters?region=eu-west-1 and "a/1/x" give s3://shop/adapters/a/1/x?region=eu-west-1.
inline std::string ObjectBelow(absl::string_view folder, absl::string_view path) {
  const size_t end = std::min(folder.find('?'), folder.size());
  return absl::StrCat(absl::StripSuffix(folder.substr(0, end), "/"), "/", path, folder.substr(end));
}

// NotFound where it was not there.
absl::Status DeleteObject(const std::string& object);

}  // namespace pricer
