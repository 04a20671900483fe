#include "server/server_options.h"

#include <arpa/inet.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/adapter_name.h"

namespace pricer {
namespace {

constexpr int kMaxThreads = 1024;
// gRPC counts milliseconds in an int.
constexpr absl::Duration kMaxConnectionAge = absl::Hours(7 * 24);

absl::Status RequireValue(absl::string_view flag, absl::string_view value) {
  if (!value.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(flag, ": expected a directory, got nothing"));
}

absl::Status RequireDirectory(absl::string_view flag, const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    return ErrnoStatus("cannot be opened", absl::StrCat(flag, " ", path));
  }
  if (!S_ISDIR(info.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(flag, " ", path, ": not a directory"));
  }
  return absl::OkStatus();
}

absl::Status RequireAddress(absl::string_view flag, absl::string_view value) {
  const size_t colon = value.rfind(':');
  int port = -1;
  if (colon != absl::string_view::npos && colon > 0 &&
      absl::SimpleAtoi(value.substr(colon + 1), &port) && port >= 0 && port <= 65535) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(flag, ": expected HOST:PORT such as 127.0.0.1:8500, got \"", value, "\""));
}

bool IsLoopback(absl::string_view host) {
  if (host == "localhost" || host == "[::1]") return true;
  in_addr address{};
  constexpr uint32_t kLoopbackNet = 127;
  return inet_pton(AF_INET, std::string(host).c_str(), &address) == 1 &&
         ntohl(address.s_addr) >> 24 == kLoopbackNet;
}

// Who reaches the admin service may do all that it offers, unless operators show certificates.
absl::Status RequireAdminAddress(absl::string_view flag, absl::string_view value,
                                 bool knows_operators) {
  if (absl::StartsWith(value, "unix:")) return absl::OkStatus();
  RETURN_IF_ERROR(RequireAddress(flag, value));
  if (knows_operators || IsLoopback(value.substr(0, value.rfind(':')))) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flag,
                   ": expected an address of this machine alone (127.0.0.1, [::1], localhost or "
                   "unix:PATH) without --admin-tls-client-ca, got \"",
                   value, "\""));
}

// Half of a secure server is none.
absl::Status CheckTls(const ServerOptions& options) {
  if (options.tls_cert.empty() != options.tls_key.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.tls_cert.empty() ? "--tls-cert" : "--tls-key", ": expected a file beside ",
        options.tls_cert.empty() ? "--tls-key" : "--tls-cert", ", got nothing"));
  }
  if (!options.has_tls() && !options.admin_client_ca().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.tls_client_ca.empty() ? "--admin-tls-client-ca" : "--tls-client-ca",
                     ": callers show certificates over TLS alone; expected --tls-cert too"));
  }
  if (options.tokens.empty() || options.has_tls() || options.allow_insecure_tokens) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      "--tokens: without --tls-cert they can be read on the way; --allow-insecure-tokens takes "
      "them all the same");
}

absl::Status RequireOneOf(absl::string_view flag, absl::string_view value,
                          std::initializer_list<absl::string_view> choices) {
  if (std::find(choices.begin(), choices.end(), value) != choices.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flag, ": expected ", absl::StrJoin(choices, ", "), ", got \"", value, "\""));
}

absl::Status RequireCurrency(absl::string_view flag, absl::string_view value,
                             absl::string_view preset) {
  if (value.size() != 3 || !std::all_of(value.begin(), value.end(), absl::ascii_isupper)) {
    return absl::InvalidArgumentError(
        absl::StrCat(flag, ": expected an ISO code such as USD, got \"", value, "\""));
  }
  if (preset != "reference" || value == "USD") return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      flag, ": expected USD, which --base-preset reference is worded in, got \"", value, "\""));
}

absl::Status RequireDuration(absl::string_view flag, absl::Duration value, absl::Duration least) {
  if (value >= least) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(flag, ": expected at least ",
                                                 absl::FormatDuration(least), ", got ",
                                                 absl::FormatDuration(value)));
}

}  // namespace

absl::Status ServerOptions::Validate() const {
  RETURN_IF_ERROR(RequireValue("--base", base));
  RETURN_IF_ERROR(RequireValue("--adapters", adapters));
  if (!default_adapter.empty()) {
    if (absl::Status status = ValidateAdapterName(default_adapter); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("--default-adapter: ", status.message()));
    }
  }
  RETURN_IF_ERROR(RequireOneOf("--base-preset", base_preset, {"default", "reference"}));
  RETURN_IF_ERROR(RequireCurrency("--base-currency", base_currency, base_preset));
  RETURN_IF_ERROR(RequireAddress("--listen", listen));
  RETURN_IF_ERROR(CheckTls(*this));
  RETURN_IF_ERROR(RequireAdminAddress("--admin-listen", admin_listen, !admin_client_ca().empty()));
  RETURN_IF_ERROR(RequireAddress("--health-listen", health_listen));
  RETURN_IF_ERROR(RequireAddress("--metrics-listen", metrics_listen));
  RETURN_IF_ERROR(RequireOneOf("--weights", weights, {"nf4", "bf16", "fp32"}));
  RETURN_IF_ERROR(RequireOneOf("--dtype", dtype, {"auto", "fp32", "bf16"}));
  RETURN_IF_ERROR(RequireOneOf("--device", device, {"auto", "cpu", "cuda"}));
  if (threads < 0 || threads > kMaxThreads) {
    return absl::InvalidArgumentError(
        absl::StrCat("--threads: expected 0 to ", kMaxThreads, ", got ", threads));
  }
  RETURN_IF_ERROR(adapter_memory.Validate());
  if (metrics_adapters < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--metrics-adapters: expected at least 0, got ", metrics_adapters));
  }
  RETURN_IF_ERROR(scheduler.Validate());
  RETURN_IF_ERROR(RequireDuration("--poll-interval", poll_interval, absl::Milliseconds(1)));
  RETURN_IF_ERROR(
      RequireDuration("--self-check-interval", self_check_interval, absl::ZeroDuration()));
  RETURN_IF_ERROR(
      RequireDuration("--self-check-timeout", self_check_timeout, absl::Milliseconds(1)));
  RETURN_IF_ERROR(
      RequireDuration("--max-connection-age", max_connection_age, absl::ZeroDuration()));
  if (max_connection_age > kMaxConnectionAge) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--max-connection-age: expected at most ", absl::FormatDuration(kMaxConnectionAge),
        ", got ", absl::FormatDuration(max_connection_age)));
  }
  return RequireDuration("--grace-period", grace_period, absl::ZeroDuration());
}

absl::Status ServerOptions::CheckDirectories() const {
  RETURN_IF_ERROR(RequireDirectory("--base", base));
  return RequireDirectory("--adapters", adapters);
}

}  // namespace pricer
