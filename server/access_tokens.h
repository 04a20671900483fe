#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/mutex.h"

namespace pricer {

// What a token may be used for.
enum class Permission { kPredict, kAdmin, kMetrics };
// "predict", "admin", "metrics".
absl::string_view PermissionName(Permission permission);

// Of secrets alone, their SHA-256 is kept.
struct AccessToken {
  std::string name;
  std::string digest;
  std::set<Permission> permissions;
};

// {"tokens": [{"name": "shop", "secret": "...", "permissions": ["predict"]}]}
//
// Names are [a-z0-9][a-z0-9._-]{0,62} and differ, as secrets do, which have at least 16 bytes of
// printable ASCII. InvalidArgument names `source` and the field, never a secret.
absl::StatusOr<std::vector<AccessToken>> ParseAccessTokens(absl::string_view json,
                                                           absl::string_view source);

// The tokens of a file as it last was in order. Thread-safe.
class TokenKeeper {
 public:
  // Errors as ParseAccessTokens, and of the file.
  static absl::StatusOr<std::unique_ptr<TokenKeeper>> Open(const std::string& path);

  // Name of the token with this secret; Unauthenticated where there is none, PermissionDenied names
  // it where it has not this permission. Takes equally long for all secrets of a length.
  absl::StatusOr<std::string> Check(absl::string_view secret, Permission permission) const;

  // Reads the file again. One that is not in order is logged and changes nothing.
  void Poll();

 private:
  using Tokens = std::vector<AccessToken>;
  TokenKeeper(std::string path, std::string digest, Tokens tokens);

  const std::string path_;

  mutable Mutex mutex_;
  // SHA-256 of the file that was read last.
  std::string digest_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const Tokens> tokens_ ABSL_GUARDED_BY(mutex_);
  std::string problem_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace pricer
