#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/access_tokens.h"

namespace prometheus {
class Collectable;
class Exposer;
}  // namespace prometheus

namespace pricer {

// Answers GET /metrics over HTTP with what a registry holds.
class MetricsListener {
 public:
  // `address` is HOST:PORT. Where there are tokens, which must outlive the listener, a scraper
  // names one with the permission "metrics" as its HTTP Basic password. FailedPrecondition names
  // flag and address where it cannot be bound.
  static absl::StatusOr<std::unique_ptr<MetricsListener>> Open(
      const std::string& flag, const std::string& address,
      const std::shared_ptr<prometheus::Collectable>& registry,
      const TokenKeeper* tokens = nullptr);
  ~MetricsListener();

  // The one that was bound, where port 0 was asked for.
  int port() const { return port_; }

 private:
  MetricsListener(std::unique_ptr<prometheus::Exposer> exposer, std::string host);

  std::unique_ptr<prometheus::Exposer> exposer_;
  const std::string host_;
  const int port_;
};

}  // namespace pricer
