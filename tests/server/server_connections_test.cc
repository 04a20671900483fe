#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <filesystem>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "base/file_descriptor.h"
#include "tests/server/adapter_files.h"
#include "tests/server/server_fixture.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using testing::MakeVersion;

// Connections that come and go without a call.
class ServerConnectionsTest : public testing::ServerTest {
 protected:
  static FileDescriptor Connect(int port) {
    FileDescriptor connection(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(connection.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    return connection;
  }
  static void Send(const FileDescriptor& connection, const std::string& bytes) {
    // The server may have hung up.
    send(connection.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  // Of this process.
  static int64_t OpenDescriptors() {
    const std::filesystem::directory_iterator files("/proc/self/fd");
    return std::distance(begin(files), end(files));
  }
};

TEST_F(ServerConnectionsTest, TenThousandThatAreOpenedAndDroppedLeaveNothingBehind) {
  MakeVersion(adapters_.path(), "toys", "1");
  ASSERT_OK(Start());
  ASSERT_TRUE(Price().ok());
  const int64_t before = OpenDescriptors();
  // Nothing, half of what HTTP/2 begins with, all of it with empty settings, and no HTTP/2 at all.
  const std::string preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  const std::array<std::string, 4> heads = {"", preface.substr(0, 9),
                                            preface + std::string("\0\0\0\4\0\0\0\0\0", 9),
                                            "GET / HTTP/1.1\r\n\r\n"};
  constexpr int kWave = 100;
  constexpr int kWaves = 100;
  for (int wave = 0; wave < kWaves; ++wave) {
    std::vector<FileDescriptor> connections;
    for (int i = 0; i < kWave; ++i) {
      connections.push_back(Connect(server_->ports().pricing));
      Send(connections.back(), heads[i % heads.size()]);
    }
    // Those that are being dropped keep nobody else out.
    if (wave % 10 == 0) {
      EXPECT_TRUE(Price().ok());
    }
  }
  EXPECT_TRUE(Price().ok());
  // A test that hangs here has found a connection that the server keeps.
  while (OpenDescriptors() > before + kWave / 10) std::this_thread::yield();
}

}  // namespace
}  // namespace pricer
