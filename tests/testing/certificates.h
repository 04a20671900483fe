#pragma once

#include <memory>
#include <string>

// Certificates for tests, made on the spot: elliptic-curve keys, valid from yesterday on.

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

  // PEM of its own certificate, which ends tomorrow.
  const std::string& certificate() const;
  // Of a server at localhost and 127.0.0.1, or of a client. `name` is its common name; it ends in
  // so many days.
  CertificateAndKey Issue(const std::string& name, int days = 1) const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace pricer::testing
