#pragma once

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/engine.h"
#include "server/server_options.h"

namespace pricer {

struct ServerPorts {
  int pricing = 0;
  int admin = 0;
  int health = 0;
  int metrics = 0;
};

// The whole server in one object.
//
// Start order: listeners (calls are refused with UNAVAILABLE, liveness answers) -> engine ->
// scheduler -> base, where it prices without an adapter -> first look at the adapter folder, with
// all loads -> readiness and startup serving, calls answered -> watcher's thread, self-check.
//
// Stop order: self-check ended, readiness not serving, watcher and loads told to end -> for the
// notice period, calls as before -> new calls refused with UNAVAILABLE, watches ended -> calls in
// flight finished, or cancelled when the grace period is over -> nothing is fetched any more, and
// operators' calls finished -> tokenizer pool and scheduler ended -> health and metrics listeners
// closed -> watcher's and adapter memory's threads ended, as far as the grace period allows -> all
// destroyed in the reverse order of construction.
class Server {
 public:
  using EngineFactory =
      std::function<absl::StatusOr<std::unique_ptr<Engine>>(const ServerOptions& options)>;

  // Returns when calls are answered; calls `before_serving` right before the first of them may be.
  // Errors name the flag, file or address; nothing is left running then. REQUIRES:
  // options.Validate() is OK.
  static absl::StatusOr<std::unique_ptr<Server>> Start(
      const ServerOptions& options, const EngineFactory& make_engine,
      const std::function<void()>& before_serving = [] {});
  // Whether certificates, keys and tokens can be read and used; Start asks the same. Errors name
  // the file.
  static absl::Status CheckSecrets(const ServerOptions& options);

  // Stop(), and waits for a load that still runs.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  const ServerPorts& ports() const;

  // Stops as described above, within the grace period and the batch that is being computed then.
  // Blocks. False = a load, on a file system that does not answer, still runs: all else has ended,
  // and the process should, without destroying the server. One caller.
  bool Stop();

 private:
  struct Parts;
  explicit Server(std::unique_ptr<Parts> parts);

  std::unique_ptr<Parts> parts_;
};

}  // namespace pricer
