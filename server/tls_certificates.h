#pragma once

#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"

namespace pricer {

// Paths of PEM files.
struct TlsFiles {
  std::string certificate;  // the server's, then those between it and its authority's
  std::string key;          // of the server's
  std::string client_ca;    // authorities of clients' certificates; empty = none is asked for
};

// Their contents.
struct TlsMaterial {
  std::string certificate;
  std::string key;
  std::string client_ca;
  // The first end of the server's certificate and of those behind it.
  absl::Time expires;
};

// Reads the files and checks that they can be used together: InvalidArgument names the file and
// what is wrong with it, such as a key that is not the certificate's. Never shows a key.
absl::StatusOr<TlsMaterial> ReadTlsFiles(const TlsFiles& files);

// The files as they last were in order. Thread-safe.
class CertificateKeeper {
 public:
  // Errors as ReadTlsFiles.
  static absl::StatusOr<std::unique_ptr<CertificateKeeper>> Open(const TlsFiles& files);

  // Another object after a change.
  std::shared_ptr<const TlsMaterial> current() const;

  // Reads the files again. What is not in order, such as one half of a new pair, is logged and
  // changes nothing.
  void Poll();

  const TlsFiles& files() const { return files_; }

 private:
  CertificateKeeper(TlsFiles files, TlsMaterial material);

  const TlsFiles files_;

  mutable Mutex mutex_;
  std::shared_ptr<const TlsMaterial> current_ ABSL_GUARDED_BY(mutex_);
  std::string problem_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace pricer
