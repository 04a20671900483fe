#pragma once

#include "pricer/v1/adapters.pb.h"
#include "server/adapter_registry.h"

namespace pricer {

// What the registry knows of a version, as operators are told.
void AdapterStatusToProto(const AdapterStatus& status, v1::AdapterVersion* proto);

}  // namespace pricer
