#include "client/replicas.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace pricer {
namespace {

struct HostAndPort {
  std::string host;
  std::string port;
};

// Also of [::1]:8500.
std::optional<HostAndPort> SplitTarget(absl::string_view target) {
  if (!absl::ConsumePrefix(&target, "dns:///")) absl::ConsumePrefix(&target, "dns:");
  const size_t colon = target.rfind(':');
  if (colon == absl::string_view::npos || colon == 0 || colon + 1 == target.size()) {
    return std::nullopt;
  }
  absl::string_view host = target.substr(0, colon);
  if (absl::ConsumePrefix(&host, "[") != absl::ConsumeSuffix(&host, "]")) return std::nullopt;
  const absl::string_view port = target.substr(colon + 1);
  int number = 0;
  if (absl::StrContains(host, "/") || !absl::SimpleAtoi(port, &number)) return std::nullopt;
  return HostAndPort{std::string(host), std::string(port)};
}

absl::StatusOr<std::string> TargetOf(const addrinfo& info) {
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  const int error = getnameinfo(info.ai_addr, info.ai_addrlen, host, sizeof(host), port,
                                sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV);
  if (error != 0) return absl::InternalError(gai_strerror(error));
  return info.ai_family == AF_INET6 ? absl::StrCat("ipv6:[", host, "]:", port)
                                    : absl::StrCat("ipv4:", host, ":", port);
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ResolveReplicas(const std::string& target) {
  for (const absl::string_view scheme : {"ipv4:", "ipv6:"}) {
    if (!absl::StartsWith(target, scheme)) continue;
    std::vector<std::string> replicas;
    for (const absl::string_view address :
         absl::StrSplit(absl::StripPrefix(target, scheme), ',', absl::SkipEmpty())) {
      replicas.push_back(absl::StrCat(scheme, address));
    }
    return replicas;
  }
  if (absl::StartsWith(target, "unix:")) return std::vector<std::string>{target};
  const std::optional<HostAndPort> parts = SplitTarget(target);
  if (!parts.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--server: expected HOST:PORT or dns:///HOST:PORT, got ", target));
  }
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(parts->host.c_str(), parts->port.c_str(), &hints, &found);
  if (error != 0) {
    return absl::NotFoundError(absl::StrCat(parts->host, ": ", gai_strerror(error)));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(found, freeaddrinfo);
  std::vector<std::string> replicas;
  for (const addrinfo* info = found; info != nullptr; info = info->ai_next) {
    absl::StatusOr<std::string> replica = TargetOf(*info);
    if (!replica.ok()) return replica.status();
    replicas.push_back(*std::move(replica));
  }
  std::sort(replicas.begin(), replicas.end());
  replicas.erase(std::unique(replicas.begin(), replicas.end()), replicas.end());
  return replicas;
}

std::string HostOfTarget(const std::string& target) {
  for (const absl::string_view scheme : {"ipv4:", "ipv6:", "unix:"}) {
    if (absl::StartsWith(target, scheme)) return "";
  }
  const std::optional<HostAndPort> parts = SplitTarget(target);
  return parts.has_value() ? parts->host : "";
}

}  // namespace pricer
