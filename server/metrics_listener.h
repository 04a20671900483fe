#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/access_tokens.h"

struct MHD_Daemon;

namespace prometheus {
class Collectable;
}  // namespace prometheus

namespace pricer {

// Answers GET /metrics over HTTP with what a registry holds, on a thread of its own.
class MetricsListener {
 public:
  // `address` is HOST:PORT. Where there are tokens, which must outlive the listener, a scraper
  // shows one with the permission "metrics": as a Bearer token or as its HTTP Basic password.
  // FailedPrecondition names flag and address where it cannot listen there, and why.
  static absl::StatusOr<std::unique_ptr<MetricsListener>> Open(
      const std::string& flag, const std::string& address,
      const std::shared_ptr<prometheus::Collectable>& registry,
      const TokenKeeper* tokens = nullptr);
  // Ends the connections that are there.
  ~MetricsListener();

  // The one that was bound, where port 0 was asked for.
  int port() const { return port_; }

 private:
  struct Scrapes;
  struct Stop {
    void operator()(MHD_Daemon* daemon) const;
  };
  using Daemon = std::unique_ptr<MHD_Daemon, Stop>;
  MetricsListener(std::unique_ptr<Scrapes> scrapes, Daemon daemon, int port);

  const std::unique_ptr<Scrapes> scrapes_;
  const Daemon daemon_;  // calls scrapes_
  const int port_;
};

}  // namespace pricer
