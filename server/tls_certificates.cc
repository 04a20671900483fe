#include "server/tls_certificates.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <algorithm>
#include <ctime>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
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

// At least one.
absl::StatusOr<std::vector<X509Ptr>> ParseCertificates(const std::string& path,
                                                       const std::string& pem) {
  const BioPtr bio = BioOf(pem);
  std::vector<X509Ptr> certificates;
  while (true) {
    X509Ptr next(PEM_read_bio_X509(bio.get(), nullptr, NoPassword, nullptr));
    if (next == nullptr) break;
    certificates.push_back(std::move(next));
  }
  if (certificates.empty()) return Bad(path, "certificates in PEM");
  const bool ended = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  ERR_clear_error();
  if (!ended) return Bad(path, "nothing but certificates in PEM");
  return certificates;
}

absl::Status CheckKey(const TlsFiles& files, const std::string& pem, X509* certificate) {
  const BioPtr bio = BioOf(pem);
  const KeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassword, nullptr));
  if (key == nullptr) return Bad(files.key, "a private key in PEM without a password");
  if (X509_check_private_key(certificate, key.get()) == 1) return absl::OkStatus();
  return Bad(files.key, absl::StrCat("the key of the first certificate in ", files.certificate));
}

std::string TimeText(absl::Time time) {
  return absl::FormatTime(absl::RFC3339_sec, time, absl::UTCTimeZone());
}

absl::StatusOr<absl::Time> FirstEnd(const std::string& path,
                                    const std::vector<X509Ptr>& certificates) {
  absl::Time first = absl::InfiniteFuture();
  for (const X509Ptr& certificate : certificates) {
    std::tm end{};
    if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate.get()), &end) != 1) {
      return Bad(path, "certificates with a time at which they end");
    }
    first = std::min(first, absl::FromTM(end, absl::UTCTimeZone()));
  }
  return first;
}

void WarnOfExpired(const TlsFiles& files, const TlsMaterial& material) {
  if (material.expires > absl::Now()) return;
  LogWarning("a certificate has expired, the server's or one behind it",
             {{"path", files.certificate}, {"expires", TimeText(material.expires)}});
}

}  // namespace

absl::StatusOr<TlsMaterial> ReadTlsFiles(const TlsFiles& files) {
  TlsMaterial material;
  ASSIGN_OR_RETURN(material.certificate, ReadFile(files.certificate));
  ASSIGN_OR_RETURN(material.key, ReadFile(files.key));
  ASSIGN_OR_RETURN(const std::vector<X509Ptr> chain,
                   ParseCertificates(files.certificate, material.certificate));
  RETURN_IF_ERROR(CheckKey(files, material.key, chain.front().get()));
  ASSIGN_OR_RETURN(material.expires, FirstEnd(files.certificate, chain));
  if (files.client_ca.empty()) return material;
  ASSIGN_OR_RETURN(material.client_ca, ReadFile(files.client_ca));
  RETURN_IF_ERROR(ParseCertificates(files.client_ca, material.client_ca).status());
  return material;
}

absl::StatusOr<std::unique_ptr<CertificateKeeper>> CertificateKeeper::Open(const TlsFiles& files) {
  ASSIGN_OR_RETURN(TlsMaterial material, ReadTlsFiles(files));
  WarnOfExpired(files, material);
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
  LogInfo("certificates read anew",
          {{"path", files_.certificate}, {"expires", TimeText(current_->expires)}});
  WarnOfExpired(files_, *current_);
}

}  // namespace pricer
