#include "server/metrics_listener.h"

#include <microhttpd.h>
#include <netdb.h>
#include <prometheus/collectable.h>
#include <prometheus/text_serializer.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/file_descriptor.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

constexpr char kPath[] = "/metrics";
constexpr char kRealm[] = "pricer";
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

// A socket that listens. The errors say why in words.
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
  FileDescriptor listener(socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  if (!listener.ok() ||
      setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
      bind(listener.get(), found->ai_addr, found->ai_addrlen) != 0 ||
      listen(listener.get(), SOMAXCONN) != 0) {
    return absl::FailedPreconditionError(std::strerror(errno));
  }
  return listener;
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
  absl::string_view token = header;
  if (absl::ConsumePrefix(&token, "Bearer ")) return std::string(token);
  char* password = nullptr;
  char* const user = MHD_basic_auth_get_username_password(connection, &password);
  std::string secret = password == nullptr ? "" : password;
  MHD_free(user);
  MHD_free(password);
  return secret;
}

MHD_Response* ResponseOf(const std::string& text) {
  // libmicrohttpd copies the text.
  return MHD_create_response_from_buffer(text.size(), const_cast<char*>(text.data()),
                                         MHD_RESPMEM_MUST_COPY);
}

}  // namespace

// What calls are answered with.
struct MetricsListener::Scrapes {
  std::shared_ptr<prometheus::Collectable> registry;
  const TokenKeeper* tokens = nullptr;

  static MHD_Result Handle(void* scrapes, MHD_Connection* connection, const char* url,
                           const char* method, const char* /*version*/, const char* /*upload*/,
                           size_t* /*upload_size*/, void** /*request*/) {
    return static_cast<const Scrapes*>(scrapes)->Answer(connection, url, method);
  }

  MHD_Result Answer(MHD_Connection* connection, absl::string_view url,
                    absl::string_view method) const {
    if (method != MHD_HTTP_METHOD_GET) {
      return Send(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "expected GET\n");
    }
    if (url != kPath) {
      return Send(connection, MHD_HTTP_NOT_FOUND, absl::StrCat("expected ", kPath, "\n"));
    }
    if (tokens != nullptr && !tokens->Check(SecretOf(connection), Permission::kMetrics).ok()) {
      MHD_Response* const response = ResponseOf("expected a token that may read metrics\n");
      const MHD_Result sent = MHD_queue_basic_auth_fail_response(connection, kRealm, response);
      MHD_destroy_response(response);
      return sent;
    }
    return Send(connection, MHD_HTTP_OK,
                prometheus::TextSerializer().Serialize(registry->Collect()));
  }

  static MHD_Result Send(MHD_Connection* connection, unsigned int status, const std::string& text) {
    MHD_Response* const response = ResponseOf(text);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, kContentType);
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
  Daemon daemon(MHD_start_daemon(
      MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC, /*port=*/0, /*apc=*/nullptr,
      /*apc_cls=*/nullptr, &Scrapes::Handle, scrapes.get(), MHD_OPTION_LISTEN_SOCKET,
      listener->get(), MHD_OPTION_CONNECTION_LIMIT, kMaxConnections, MHD_OPTION_CONNECTION_TIMEOUT,
      kMaxIdleSeconds, MHD_OPTION_END));
  if (daemon == nullptr) return cannot("its thread does not start");
  listener->Release();  // the daemon closes it
  return std::unique_ptr<MetricsListener>(
      new MetricsListener(std::move(scrapes), std::move(daemon), port));
}

MetricsListener::MetricsListener(std::unique_ptr<Scrapes> scrapes, Daemon daemon, int port)
    : scrapes_(std::move(scrapes)), daemon_(std::move(daemon)), port_(port) {}

MetricsListener::~MetricsListener() = default;

}  // namespace pricer
