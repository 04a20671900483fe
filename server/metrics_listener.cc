#include "server/metrics_listener.h"

#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <prometheus/collectable.h>
#include <prometheus/text_serializer.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/file_descriptor.h"

namespace pricer {
namespace {

constexpr char kPath[] = "/metrics";
// Of the Prometheus text format.
constexpr char kContentType[] = "text/plain; version=0.0.4; charset=utf-8";
constexpr unsigned int kMaxConnections = 64;
constexpr unsigned int kMaxIdleSeconds = 60;

// HOST of HOST:PORT, without the brackets of an IPv6 address, and PORT.
std::pair<std::string, std::string> Split(const std::string& address) {
  const size_t colon = address.rfind(':');
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  return {host, colon == std::string::npos ? "" : address.substr(colon + 1)};
}

// A socket that listens at the first of the address's that can. The errors say why in words.
absl::StatusOr<FileDescriptor> ListenAt(const std::string& address) {
  const auto [host, port] = Split(address);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), port.c_str(), &hints, &found); error != 0) {
    return absl::FailedPreconditionError(gai_strerror(error));
  }
  const absl::Cleanup free_found = [found] { freeaddrinfo(found); };
  int error = 0;
  for (const addrinfo* address_info = found; address_info != nullptr;
       address_info = address_info->ai_next) {
    FileDescriptor listener(socket(address_info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int on = 1;
    const int off = 0;
    // [::] takes IPv4 too, whatever the system's default.
    if (address_info->ai_family == AF_INET6) {
      (void)setsockopt(listener.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    }
    if (listener.ok() &&
        setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
        bind(listener.get(), address_info->ai_addr, address_info->ai_addrlen) == 0 &&
        listen(listener.get(), SOMAXCONN) == 0) {
      return listener;
    }
    error = errno;
  }
  return absl::FailedPreconditionError(std::strerror(error));
}

int PortOf(int listener) {
  sockaddr_storage bound{};
  socklen_t size = sizeof(bound);
  char port[NI_MAXSERV] = "0";
  if (getsockname(listener, reinterpret_cast<sockaddr*>(&bound), &size) == 0) {
    getnameinfo(reinterpret_cast<sockaddr*>(&bound), size, nullptr, 0, port, sizeof(port),
                NI_NUMERICSERV);
  }
  return std::atoi(port);
}

// The secret that a scraper shows; empty where there is none.
std::string SecretOf(MHD_Connection* connection) {
  const char* const header =
      MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);
  if (header == nullptr) return "";
  const absl::string_view token = header;
  // The scheme's case does not matter (RFC 9110, 11.1).
  constexpr absl::string_view kBearer = "Bearer ";
  if (absl::StartsWithIgnoreCase(token, kBearer)) {
    return std::string(token.substr(kBearer.size()));
  }
  char* password = nullptr;
  char* const user = MHD_basic_auth_get_username_password(connection, &password);
  std::string secret = password == nullptr ? "" : password;
  MHD_free(user);
  MHD_free(password);
  return secret;
}

}  // namespace

// What calls are answered with.
struct MetricsListener::Scrapes {
  std::shared_ptr<prometheus::Collectable> registry;
  const TokenKeeper* tokens = nullptr;

  // Called when the head of a request is there, with each piece of its body, and at its end. What
  // is answered before the end is the last of its connection.
  static MHD_Result Handle(void* scrapes, MHD_Connection* connection, const char* url,
                           const char* method, const char* /*version*/, const char* /*body*/,
                           size_t* body_size, void** request) {
    if (absl::string_view(method) != MHD_HTTP_METHOD_GET) {
      return Send(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "expected GET\n",
                  {{MHD_HTTP_HEADER_ALLOW, MHD_HTTP_METHOD_GET}});
    }
    if (*request == nullptr) {
      *request = scrapes;
      return MHD_YES;
    }
    if (*body_size > 0) return MHD_NO;  // hangs up
    try {
      return static_cast<const Scrapes*>(scrapes)->Answer(connection, url);
    } catch (const std::exception&) {  // such as std::bad_alloc, which must not pass through C
      return MHD_NO;
    }
  }

  MHD_Result Answer(MHD_Connection* connection, absl::string_view url) const {
    if (url != kPath) {
      return Send(connection, MHD_HTTP_NOT_FOUND, absl::StrCat("expected ", kPath, "\n"));
    }
    if (tokens != nullptr && !tokens->Check(SecretOf(connection), Permission::kMetrics).ok()) {
      return Send(connection, MHD_HTTP_UNAUTHORIZED, "expected a token that may read metrics\n",
                  {{MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer realm=\"pricer\""},
                   {MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Basic realm=\"pricer\""}});
    }
    return Send(connection, MHD_HTTP_OK,
                prometheus::TextSerializer().Serialize(registry->Collect()),
                {{MHD_HTTP_HEADER_CONTENT_TYPE, kContentType}});
  }

  static MHD_Result Send(MHD_Connection* connection, unsigned int status, const std::string& text,
                         const std::vector<std::pair<const char*, const char*>>& headers = {}) {
    // libmicrohttpd copies the text.
    MHD_Response* const response = MHD_create_response_from_buffer(
        text.size(), const_cast<char*>(text.data()), MHD_RESPMEM_MUST_COPY);
    for (const auto& [name, value] : headers) MHD_add_response_header(response, name, value);
    const MHD_Result sent = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return sent;
  }
};

void MetricsListener::Stop::operator()(MHD_Daemon* daemon) const { MHD_stop_daemon(daemon); }

absl::StatusOr<std::unique_ptr<MetricsListener>> MetricsListener::Open(
    const std::string& flag, const std::string& address,
    const std::shared_ptr<prometheus::Collectable>& registry, const TokenKeeper* tokens) {
  const auto cannot = [&](absl::string_view why) {
    return absl::FailedPreconditionError(
        absl::StrCat(flag, " ", address, ": cannot listen there: ", why));
  };
  absl::StatusOr<FileDescriptor> listener = ListenAt(address);
  if (!listener.ok()) return cannot(listener.status().message());
  const int port = PortOf(listener->get());
  auto scrapes = std::make_unique<Scrapes>(Scrapes{.registry = registry, .tokens = tokens});
  // The daemon closes the listener, or leaks it where it cannot start.
  Daemon daemon(MHD_start_daemon(
      MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC, /*port=*/0, /*apc=*/nullptr,
      /*apc_cls=*/nullptr, &Scrapes::Handle, scrapes.get(), MHD_OPTION_LISTEN_SOCKET,
      listener->Release(), MHD_OPTION_CONNECTION_LIMIT, kMaxConnections,
      MHD_OPTION_CONNECTION_TIMEOUT, kMaxIdleSeconds, MHD_OPTION_END));
  if (daemon == nullptr) return cannot("the HTTP server does not start");
  return std::unique_ptr<MetricsListener>(
      new MetricsListener(std::move(scrapes), std::move(daemon), port));
}

MetricsListener::MetricsListener(std::unique_ptr<Scrapes> scrapes, Daemon daemon, int port)
    : scrapes_(std::move(scrapes)), daemon_(std::move(daemon)), port_(port) {}

MetricsListener::~MetricsListener() = default;

}  // namespace pricer
