#include "server/caller.h"

#include "absl/strings/match.h"

namespace pricer {

std::string CallerOf(absl::string_view peer) {
  const bool has_port = absl::StartsWith(peer, "ipv4:") || absl::StartsWith(peer, "ipv6:");
  if (!has_port) return std::string(peer);
  const size_t colon = peer.rfind(':');
  return std::string(peer.substr(0, colon));
}

}  // namespace pricer
