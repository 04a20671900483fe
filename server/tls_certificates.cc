#include "server/tls_certificates.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/logging.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

struct Free {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
using BioPtr = std::unique_ptr<BIO, Free>;
using X509Ptr = std::unique_ptr<X509, Free>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Free>;

// A server asks nobody for the password of a key.
int NoPassword(char* /*buffer*/, int /*size*/, int /*writing*/, void* /*data*/) { return -1; }

BioPtr BioOf(const std::string& pem) {
  return BioPtr(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

absl::Status Bad(const std::string& path, absl::string_view expected) {
  ERR_clear_error();
  return absl::InvalidArgumentError(absl::StrCat(path, ": expected ", expected));
}

// The first certificate; every later one must be readable too.
absl::StatusOr<X509Ptr> FirstCertificate(const std::string& path, const std::string& pem) {
  const BioPtr bio = BioOf(pem);
  X509Ptr first(PEM_read_bio_X509(bio.get(), nullptr, NoPassword, nullptr));
  if (first == nullptr) return Bad(path, "certificates in PEM");
  while (true) {
    const X509Ptr next(PEM_read_bio_X509(bio.get(), nullptr, NoPassword, nullptr));
    if (next != nullptr) continue;
    const bool ended = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    if (ended) return first;
    return Bad(path, "nothing but certificates in PEM");
  }
}

absl::Status CheckPair(const TlsFiles& files, const TlsMaterial& material) {
  ASSIGN_OR_RETURN(const X509Ptr certificate,
                   FirstCertificate(files.certificate, material.certificate));
  const BioPtr bio = BioOf(material.key);
  const KeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassword, nullptr));
  if (key == nullptr) return Bad(files.key, "a private key in PEM without a password");
  if (X509_check_private_key(certificate.get(), key.get()) == 1) return absl::OkStatus();
  return Bad(files.key, absl::StrCat("the key of the first certificate in ", files.certificate));
}

}  // namespace

absl::StatusOr<TlsMaterial> ReadTlsFiles(const TlsFiles& files) {
  TlsMaterial material;
  ASSIGN_OR_RETURN(material.certificate, ReadFile(files.certificate));
  ASSIGN_OR_RETURN(material.key, ReadFile(files.key));
  RETURN_IF_ERROR(CheckPair(files, material));
  if (files.client_ca.empty()) return material;
  ASSIGN_OR_RETURN(material.client_ca, ReadFile(files.client_ca));
  RETURN_IF_ERROR(FirstCertificate(files.client_ca, material.client_ca).status());
  return material;
}

absl::StatusOr<std::unique_ptr<CertificateKeeper>> CertificateKeeper::Open(const TlsFiles& files) {
  ASSIGN_OR_RETURN(TlsMaterial material, ReadTlsFiles(files));
  return std::unique_ptr<CertificateKeeper>(new CertificateKeeper(files, std::move(material)));
}

CertificateKeeper::CertificateKeeper(TlsFiles files, TlsMaterial material)
    : files_(std::move(files)),
      current_(std::make_shared<const TlsMaterial>(std::move(material))) {}

std::shared_ptr<const TlsMaterial> CertificateKeeper::current() const {
  MutexLock lock(&mutex_);
  return current_;
}

void CertificateKeeper::Poll() {
  absl::StatusOr<TlsMaterial> material = ReadTlsFiles(files_);
  MutexLock lock(&mutex_);
  const std::string problem(material.ok() ? "" : material.status().message());
  if (problem != problem_ && !problem.empty()) {
    LogError("certificates not usable; those read before stay", {{"error", problem}});
  }
  problem_ = problem;
  if (!material.ok()) return;
  if (material->certificate == current_->certificate && material->key == current_->key &&
      material->client_ca == current_->client_ca) {
    return;
  }
  current_ = std::make_shared<const TlsMaterial>(*std::move(material));
  LogInfo("certificates read anew", {{"path", files_.certificate}});
}

}  // namespace pricer
