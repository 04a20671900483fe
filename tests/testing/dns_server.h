#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace pricer::testing {

// Answers every question for an IPv4 address (RFC 1035) with the addresses that it is told, as the
// name server of a headless service does, and every other with nothing. Over UDP on the loopback.
class DnsServer {
 public:
  DnsServer() : socket_(socket(AF_INET, SOCK_DGRAM, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(socket_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
    const timeval patience = {.tv_sec = 0, .tv_usec = 50'000};  // to see that it is to end
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    thread_ = std::thread([this] { Run(); });
  }
  ~DnsServer() {
    stopping_ = true;
    thread_.join();
    close(socket_);
  }
  DnsServer(const DnsServer&) = delete;
  DnsServer& operator=(const DnsServer&) = delete;

  int port() const { return port_; }
  void SetAddresses(std::vector<std::string> addresses) {
    const std::lock_guard<std::mutex> lock(mutex_);
    addresses_ = std::move(addresses);
  }

 private:
  static constexpr size_t kHeaderBytes = 12;

  void Run() {
    while (!stopping_) {
      char buffer[512];
      sockaddr_in from = {};
      socklen_t size = sizeof(from);
      const ssize_t n =
          recvfrom(socket_, buffer, sizeof(buffer), 0, reinterpret_cast<sockaddr*>(&from), &size);
      if (n <= 0) continue;
      const std::string answer = Answer(std::string(buffer, n));
      sendto(socket_, answer.data(), answer.size(), 0, reinterpret_cast<sockaddr*>(&from), size);
    }
  }

  std::string Answer(const std::string& query) {
    // The question ends with its name's empty label, type and class; what is behind it is dropped.
    const size_t name_end = query.find('\0', kHeaderBytes);
    if (name_end == std::string::npos || name_end + 5 > query.size()) return query;
    std::string answer = query.substr(0, name_end + 5);
    const bool asks_for_ipv4 = query[name_end + 2] == 1;
    answer[2] = static_cast<char>(0x84);  // a response, with authority
    answer[3] = 0;
    for (size_t i = 6; i < kHeaderBytes; ++i) answer[i] = 0;
    if (!asks_for_ipv4) return answer;
    const std::lock_guard<std::mutex> lock(mutex_);
    answer[7] = static_cast<char>(addresses_.size());
    for (const std::string& address : addresses_) {
      in_addr bytes = {};
      inet_pton(AF_INET, address.c_str(), &bytes);
      // The question's name, type A, class IN, no time to live, four bytes.
      answer.append("\xc0\x0c\0\1\0\1\0\0\0\0\0\4", 12);
      answer.append(reinterpret_cast<const char*>(&bytes), sizeof(bytes));
    }
    return answer;
  }

  const int socket_;
  int port_ = 0;
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::vector<std::string> addresses_;
  std::thread thread_;
};

}  // namespace pricer::testing
