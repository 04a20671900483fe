#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace pricer {

// Incremental SHA-256 over OpenSSL. One thread.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(absl::string_view bytes);

  // 64 lower-case hexadecimal digits. The object must not be used afterwards.
  std::string HexDigest();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

using Sha256Bytes = std::array<unsigned char, 32>;
Sha256Bytes Sha256Of(absl::string_view bytes);

// As HexDigest.
std::string Sha256Hex(absl::string_view bytes);

// Streams the file. NotFound, PermissionDenied or DataLoss name the path.
absl::StatusOr<std::string> Sha256HexOfFile(const std::string& path);

}  // namespace pricer
