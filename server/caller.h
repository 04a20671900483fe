#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace pricer {

// Who calls, of gRPC's name for the other end of a connection: "ipv4:192.0.2.7" of
// "ipv4:192.0.2.7:4711", since each connection has another port. Other names stay as they are.
std::string CallerOf(absl::string_view peer);

}  // namespace pricer
