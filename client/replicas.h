#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace pricer {

// Targets of the single servers behind the target of a client, in an order that stays the same:
// HOST:PORT and dns:///HOST:PORT, by the system's resolver, and gRPC's ipv4:, ipv6: and unix: as
// they are. NotFound where the name has no address; InvalidArgument for other targets. Blocks.
absl::StatusOr<std::vector<std::string>> ResolveReplicas(const std::string& target);

// HOST of HOST:PORT and dns:///HOST:PORT, "" of other targets: the name that their certificates
// have.
std::string HostOfTarget(const std::string& target);

}  // namespace pricer
