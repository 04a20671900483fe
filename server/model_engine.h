#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/engine.h"
#include "server/server_options.h"

namespace pricer {

// The engine that computes with libtorch: opens the checkpoint of options.base, its tokenizer and
// its network. Takes as long as reading and quantizing the weights does. Errors name file, field or
// tensor.
absl::StatusOr<std::unique_ptr<Engine>> LoadModelEngine(const ServerOptions& options);

// Reads config, tokenizer and the weights' headers, without the weights: what --check-config
// checks. Errors as above.
absl::Status CheckModelFiles(const ServerOptions& options);

}  // namespace pricer
