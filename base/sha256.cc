#include "base/sha256.h"

#include <openssl/evp.h>
#include <openssl/sha.h>

#include <array>
#include <fstream>

#include "absl/strings/escaping.h"
#include "base/check.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace pricer {

struct Sha256::Context {
  EVP_MD_CTX* evp = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(evp); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  PRICER_CHECK(EVP_DigestInit_ex(context_->evp, EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() = default;

void Sha256::Update(absl::string_view bytes) {
  PRICER_CHECK(EVP_DigestUpdate(context_->evp, bytes.data(), bytes.size()) == 1);
}

std::string Sha256::HexDigest() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned int size = 0;
  PRICER_CHECK(EVP_DigestFinal_ex(context_->evp, digest.data(), &size) == 1);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest.data()), size));
}

Sha256Bytes Sha256Of(absl::string_view bytes) {
  Sha256Bytes digest;
  // Allocates nothing, unlike EVP's.
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest.data());
  return digest;
}

std::string Sha256Hex(absl::string_view bytes) {
  const Sha256Bytes digest = Sha256Of(bytes);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest.data()), digest.size()));
}

absl::StatusOr<std::string> Sha256HexOfFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return ErrnoStatus("cannot open", path);
  Sha256 sha;
  std::string buffer(1 << 20, '\0');
  while (in.read(buffer.data(), buffer.size()) || in.gcount() > 0) {
    sha.Update(absl::string_view(buffer.data(), in.gcount()));
  }
  if (in.bad()) return absl::DataLossError(path + ": read failed");
  return sha.HexDigest();
}

}  // namespace pricer
