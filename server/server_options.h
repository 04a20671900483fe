#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/adapter_memory.h"
#include "server/batch_scheduler.h"

namespace pricer {

// Everything that can be chosen at start. Strings are as on the command line.
struct ServerOptions {
  // Checkpoint directory of the base model.
  std::string base;
  // Adapter folder; must be there at start.
  std::string adapters;
  // Answers requests that name no adapter; empty = the only one there is.
  std::string default_adapter;

  // How items are put to the base where it prices without an adapter: the prompt's preset, default
  // or reference, and the ISO code of the currency; reference is worded in USD.
  std::string base_preset = "default";
  std::string base_currency = "USD";

  // HOST:PORT each; port 0 = any free one.
  std::string listen = "0.0.0.0:8500";  // pricing
  // Adapters: for operators on this machine alone, unless their certificates are asked for. Also
  // unix:PATH.
  std::string admin_listen = "127.0.0.1:8501";
  std::string health_listen = "0.0.0.0:8502";   // probes
  std::string metrics_listen = "0.0.0.0:9090";  // Prometheus

  // TLS of the pricing and the admin listener: PEM files, read again when they change. Empty =
  // none.
  std::string tls_cert;
  std::string tls_key;
  // Authorities of the certificates that callers must show: of both listeners, and of the admin
  // listener instead. Empty = none is asked for.
  std::string tls_client_ca;
  std::string admin_tls_client_ca;
  // File of bearer tokens (access_tokens.h), read again when it changes; empty = none are asked
  // for.
  std::string tokens;
  // Takes tokens without TLS: what goes over the network can then be read and used by others.
  bool allow_insecure_tokens = false;

  // nf4, bf16 or fp32: what the linear layers' weights are rounded to. nf4 is what adapters are
  // usually tuned on.
  std::string weights = "nf4";
  // Folder that keeps the base in NF4, so that only the first start quantizes it; empty = every
  // start does.
  std::string nf4_cache;
  // fp32, bf16, or auto = what the processor is fastest in.
  std::string dtype = "auto";
  // cpu; cuda = the first GPU; auto = that one where this build and machine have one.
  std::string device = "auto";
  // Threads of one forward pass; 0 = one per core.
  int threads = 0;

  AdapterMemoryOptions adapter_memory;
  BatchSchedulerOptions scheduler;
  // Of distributions that are kept to answer the same items again; 0 = none.
  int64_t price_cache_bytes = int64_t{64} << 20;

  // Adapter versions that have metrics of their own, the busiest; the others share "other".
  int metrics_adapters = 100;

  // Between two looks at the adapter folder.
  absl::Duration poll_interval = absl::Seconds(1);
  // Between two golden items that are priced again to see that the server still prices right, and
  // how long one may take before readiness says no. Zero interval = none is.
  absl::Duration self_check_interval = absl::Seconds(10);
  absl::Duration self_check_timeout = absl::Minutes(1);
  // After which a caller's connection is ended, without its calls, so that it looks again where
  // servers are; zero = never. At most a week.
  absl::Duration max_connection_age = absl::Minutes(5);
  // How long calls may take to finish after the signal to stop. The batch that is being computed
  // then is finished even so.
  absl::Duration grace_period = absl::Seconds(30);
  // How much of it, at most a tenth, new calls are still answered while readiness says no: callers
  // have to hear of it before they are refused.
  absl::Duration notice_period = absl::Seconds(1);
  // What waits for the notice period; a test's own takes no time.
  std::function<void(absl::Duration)> sleep = [](absl::Duration time) { absl::SleepFor(time); };

  // InvalidArgument names the flag, what was expected and what came. Looks at no file.
  absl::Status Validate() const;
  bool has_tls() const { return !tls_cert.empty(); }
  // Of the admin listener.
  const std::string& admin_client_ca() const {
    return admin_tls_client_ca.empty() ? tls_client_ca : admin_tls_client_ca;
  }
  // Whether base and adapters are directories; the error names the flag and the path.
  absl::Status CheckDirectories() const;
};

}  // namespace pricer
