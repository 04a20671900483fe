// Several servers behind one name, as a headless service has it, and a client that shares its calls
// among them.

#include <gmock/gmock.h>
#include <signal.h>

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "tests/integration/serving_fixture.h"
#include "tests/server/http_get.h"
#include "tests/testing/dns_server.h"
#include "tests/testing/free_port.h"

namespace pricer {
namespace {

using testing::DnsServer;
using testing::Process;
using testing::Program;
using testing::ServingTest;
using testing::World;

constexpr absl::Duration kConnectionAge = absl::Seconds(3);

class BalancingTest : public ServingTest {
 protected:
  struct Replica {
    std::string address;
    std::unique_ptr<Process> process;
    int metrics_port = 0;
  };

  BalancingTest() { Drop(World::Get().Staged(1), "shop", 1); }

  // At 127.0.0.<number>, all at one port; not yet behind the name.
  void StartReplica(int number) {
    Replica& replica = replicas_[number];
    replica.address = absl::StrCat("127.0.0.", number);
    std::vector<std::string> flags = Flags(absl::StrCat(replica.address, ":", port_));
    flags.insert(flags.end(), {"--max-connection-age", absl::FormatDuration(kConnectionAge)});
    replica.process = std::make_unique<Process>(Program("pricer-server"), flags,
                                                directory_.File(absl::StrCat("server", number)));
    const std::string line = replica.process->WaitForErrorLine("\"message\":\"serving\"");
    ASSERT_NE(line, "") << replica.process->ErrorOutput();
    replica.metrics_port =
        std::stoi(nlohmann::json::parse(line).at("metrics_port").get<std::string>());
  }

  // Which of them the name leads to.
  void Announce(const std::vector<int>& numbers) {
    std::vector<std::string> addresses;
    for (const int number : numbers) addresses.push_back(replicas_.at(number).address);
    dns_.SetAddresses(addresses);
  }

  // Calls that a replica has answered.
  int64_t Answered(int number) {
    int64_t sum = 0;
    const std::string text = testing::HttpGetMetrics(replicas_.at(number).metrics_port);
    for (const absl::string_view line : absl::StrSplit(text, '\n')) {
      int64_t count = 0;
      if (absl::StartsWith(line, "pricer_requests_total{") && absl::StrContains(line, "\"OK\"") &&
          absl::SimpleAtoi(line.substr(line.rfind(' ') + 1), &count)) {
        sum += count;
      }
    }
    return sum;
  }

  const int port_ = testing::FreePort();
  DnsServer dns_;
  std::map<int, Replica> replicas_;
};

TEST_F(BalancingTest, ServersThatDieDrainAndJoinCostNoCall) {
  for (const int number : {1, 2, 3}) ASSERT_NO_FATAL_FAILURE(StartReplica(number));
  Announce({1, 2, 3});
  const std::unique_ptr<Client> client =
      Connect(absl::StrCat("dns://127.0.0.1:", dns_.port(), "/prices.test:", port_));
  std::atomic<bool> stop = false;
  std::atomic<int64_t> answered = 0;
  std::array<absl::Status, 4> failures;
  std::vector<std::thread> callers;
  const absl::Cleanup join = [&] {
    stop = true;
    for (std::thread& caller : callers) caller.join();
  };
  for (absl::Status& failure : failures) {
    callers.emplace_back([&] {
      v1::PredictPriceRequest request;
      request.mutable_item()->set_title("Steel pan");
      while (!stop) {
        failure.Update(client->PredictPrice(request).status());
        ++answered;
        absl::SleepFor(absl::Milliseconds(2));
      }
    });
  }
  const auto wait_for_more = [&answered](int64_t calls) {
    const int64_t before = answered;
    while (answered < before + calls) absl::SleepFor(absl::Milliseconds(1));
  };
  wait_for_more(300);
  for (const int number : {1, 2, 3}) EXPECT_GT(Answered(number), 50) << number;

  // One dies, and its name server hears of it later.
  replicas_.at(1).process->Signal(SIGKILL);
  replicas_.at(1).process->Wait();
  wait_for_more(100);
  Announce({2, 3});
  // One drains.
  replicas_.at(2).process->Signal(SIGTERM);
  EXPECT_EQ(replicas_.at(2).process->Wait(), 0);
  Announce({3});
  wait_for_more(100);

  // One joins, and has its share when the connections to the others have come of age twice.
  ASSERT_NO_FATAL_FAILURE(StartReplica(4));
  Announce({3, 4});
  absl::SleepFor(2 * kConnectionAge);
  const int64_t all = answered;
  const int64_t its_own = Answered(4);
  wait_for_more(400);
  const auto share =
      static_cast<double>(Answered(4) - its_own) / static_cast<double>(answered - all);
  EXPECT_GT(share, 0.3);
  EXPECT_LT(share, 0.7);

  stop = true;
  for (std::thread& caller : callers) caller.join();
  callers.clear();
  for (const absl::Status& failure : failures) EXPECT_OK(failure);
}

}  // namespace
}  // namespace pricer
