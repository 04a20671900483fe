#pragma once

#include <memory>
#include <string>

// Certificates for tests, made on the spot: elliptic-curve keys, valid from yesterday to tomorrow.

namespace pricer::testing {

struct CertificateAndKey {
  std::string certificate;  // PEM
  std::string key;          // PEM
};

// Signs certificates.
class CertificateAuthority {
 public:
  explicit CertificateAuthority(const std::string& name);
  ~CertificateAuthority();

  // PEM of its own certificate.
  const std::string& certificate() const;
  // Of a server at localhost and 127.0.0.1, or of a client. `name` is its common name.
  CertificateAndKey Issue(const std::string& name) const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace pricer::testing
