#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "model/checkpoint.h"

namespace pricer {

// The NF4 form of `base` from a folder of such forms, each a checkpoint directory that
// QuantizeCheckpoint made, named by the base's fingerprint. Where it is not there yet it is made,
// which takes minutes for a large base; then loading reads a quarter of the bytes and quantizes
// nothing. Several processes may do so at once: they share the first that is complete.
//
// Errors of QuantizeCheckpoint; DataLoss where what lies there is of another base. Cancelled once
// `cancelled` (may be empty) returns true. REQUIRES: !base.declares_nf4().
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenNf4Form(
    const Checkpoint& base, const std::string& folder,
    const std::function<bool()>& cancelled = nullptr);

}  // namespace pricer
