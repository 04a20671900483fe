#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

namespace pricer::testing {

// Head and body of the answer to an HTTP request on this machine; empty where there is none.
inline std::string HttpAsk(int port, const std::string& request) {
  const int connection = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string answer;
  if (connect(connection, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) {
    const ssize_t sent = send(connection, request.data(), request.size(), MSG_NOSIGNAL);
    char buffer[4096];
    ssize_t count = 0;
    while (sent > 0 && (count = read(connection, buffer, sizeof(buffer))) > 0) {
      answer.append(buffer, count);
    }
  }
  close(connection);
  return answer;
}

// The answer to GET /metrics. `headers` are lines that end with \r\n.
inline std::string HttpGetMetrics(int port, const std::string& headers = "") {
  return HttpAsk(port, "GET /metrics HTTP/1.0\r\nHost: localhost\r\n" + headers + "\r\n");
}

}  // namespace pricer::testing
