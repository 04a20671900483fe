#include "server/metrics_listener.h"

#include <netdb.h>
#include <prometheus/collectable.h>
#include <prometheus/exposer.h>
#include <sys/socket.h>
#include <unistd.h>

#include <exception>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"

namespace pricer {
namespace {

constexpr absl::Duration kBetweenWakeUps = absl::Milliseconds(10);

// HOST of HOST:PORT, without the brackets of an IPv6 address.
std::string HostOf(const std::string& address) {
  std::string host = address.substr(0, address.rfind(':'));
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  return host;
}

void ConnectAndClose(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &found) != 0) return;
  const int connection = socket(found->ai_family, found->ai_socktype | SOCK_CLOEXEC, 0);
  if (connection >= 0) {
    // Whether it succeeds does not matter: it fails once the listener is gone.
    (void)connect(connection, found->ai_addr, found->ai_addrlen);
    close(connection);
  }
  freeaddrinfo(found);
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsListener>> MetricsListener::Open(
    const std::string& flag, const std::string& address,
    const std::shared_ptr<prometheus::Collectable>& registry, const TokenKeeper* tokens) {
  std::unique_ptr<prometheus::Exposer> exposer;
  try {
    exposer = std::make_unique<prometheus::Exposer>(address);
  } catch (const std::exception&) {
    return absl::FailedPreconditionError(absl::StrCat(
        flag, " ", address, ": cannot listen there; is the port taken by another process?"));
  }
  if (tokens != nullptr) {
    exposer->RegisterAuth(
        [tokens](const std::string& /*user*/, const std::string& password) {
          return tokens->Check(password, Permission::kMetrics).ok();
        },
        "pricer");
  }
  exposer->RegisterCollectable(registry);
  return std::unique_ptr<MetricsListener>(new MetricsListener(std::move(exposer), HostOf(address)));
}

MetricsListener::MetricsListener(std::unique_ptr<prometheus::Exposer> exposer, std::string host)
    : exposer_(std::move(exposer)),
      host_(std::move(host)),
      port_(exposer_->GetListeningPorts().at(0)) {}

// The HTTP server notices that it should end when somebody connects, or else after two seconds.
MetricsListener::~MetricsListener() {
  Mutex mutex;
  CondVar changed;
  bool ended = false;
  std::thread stopper([&] {
    exposer_.reset();
    MutexLock lock(&mutex);
    ended = true;
    changed.Signal();
  });
  while (true) {
    {
      MutexLock lock(&mutex);
      if (!ended) changed.WaitWithTimeout(&mutex, kBetweenWakeUps);
      if (ended) break;
    }
    ConnectAndClose(host_, port_);
  }
  stopper.join();
}

}  // namespace pricer
