// The whole path with the real programs: tune tiny adapters, serve, swap under load.

#include <gmock/gmock.h>
#include <signal.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "tests/integration/serving_fixture.h"

namespace pricer {
namespace {

using ::testing::HasSubstr;
using testing::Process;
using testing::Program;
using testing::ServingTest;
using testing::StatusIs;
using testing::World;

namespace fs = std::filesystem;

std::vector<std::string> Titles() {
  std::vector<std::string> titles;
  for (int i = 0; i < 8; ++i)
    titles.push_back(absl::StrCat("Steel pan number ", i, ", ", 10 + i, " cm"));
  return titles;
}

struct Answer {
  std::string title;
  int64_t version = 0;
  double price = 0;
};

TEST_F(ServingTest, SwapsVersionsUnderEightCallersWithoutAFailureOrAWrongPrice) {
  Drop(World::Get().Staged(1), "shop", 1);
  StartServer();
  const std::vector<std::string> titles = Titles();
  std::atomic<bool> stop = false;
  std::vector<std::vector<Answer>> answers(8);
  std::vector<std::vector<absl::Status>> failures(8);
  std::vector<std::thread> callers;
  for (int c = 0; c < 8; ++c) {
    callers.emplace_back([&, c] {
      for (int i = c; !stop; ++i) {
        const std::string& title = titles[i % titles.size()];
        const absl::StatusOr<v1::Prediction> prediction = Price(title);
        if (!prediction.ok()) {
          failures[c].push_back(prediction.status());
          continue;
        }
        answers[c].push_back({title, prediction->served_by().version(), prediction->price()});
      }
    });
  }
  // The load is what is tested, so it lasts: half before the swap, half after it.
  constexpr absl::Duration kHalf = absl::Seconds(10);
  absl::SleepFor(kHalf);
  Drop(World::Get().Staged(2), "shop", 2);
  EXPECT_TRUE(WaitForState("shop", 2, v1::ADAPTER_STATE_AVAILABLE));
  absl::SleepFor(kHalf);
  stop = true;
  for (std::thread& caller : callers) caller.join();

  std::map<std::pair<std::string, int64_t>, double> expected;
  for (const std::string& title : titles) {
    for (int64_t version : {1, 2}) {
      ASSERT_OK_AND_ASSIGN(const v1::Prediction prediction, Price(title, version));
      expected[{title, version}] = prediction.price();
    }
    EXPECT_NE((expected[{title, 1}]), (expected[{title, 2}]));
  }
  for (int c = 0; c < 8; ++c) {
    for (const absl::Status& failure : failures[c]) ADD_FAILURE() << failure;
    int64_t newest = 0;
    for (const Answer& answer : answers[c]) {
      EXPECT_EQ(answer.price, (expected[{answer.title, answer.version}])) << answer.title;
      EXPECT_GE(answer.version, newest) << "an older version answered after a newer one";
      newest = answer.version;
    }
    EXPECT_EQ(newest, 2);
    ASSERT_FALSE(answers[c].empty());
    EXPECT_EQ(answers[c].front().version, 1);
  }
}

TEST_F(ServingTest, ADirectoryWithoutItsMarkerDoesNotExist) {
  Drop(World::Get().Staged(1), "shop", 1);
  Drop(World::Get().Staged(2), "shop", 2, [](const std::string& d) { fs::remove(d + "/_READY"); });
  StartServer();
  EXPECT_FALSE(Listed("shop", 2).has_value());
  fs::copy(World::Get().Staged(2) + "/_READY", adapters() + "/shop/2/_READY");
  EXPECT_TRUE(WaitForState("shop", 2, v1::ADAPTER_STATE_AVAILABLE));
}

TEST_F(ServingTest, ARemovedVersionIsUnloadedAndTheOneBeforeAnswers) {
  Drop(World::Get().Staged(1), "shop", 1);
  Drop(World::Get().Staged(2), "shop", 2);
  StartServer();
  ASSERT_TRUE(WaitForState("shop", 2, v1::ADAPTER_STATE_AVAILABLE));
  fs::remove_all(adapters() + "/shop/2");
  const absl::Time limit = absl::Now() + absl::Seconds(30);
  int64_t version = 2;
  while (version == 2 && absl::Now() < limit) {
    ASSERT_OK_AND_ASSIGN(const v1::Prediction prediction, Price("Steel pan"));
    version = prediction.served_by().version();
  }
  EXPECT_EQ(version, 1);
  EXPECT_THAT(Price("Steel pan", 2), StatusIs(absl::StatusCode::kNotFound, HasSubstr("2")));
}

TEST_F(ServingTest, StopsWithExitCodeZeroOnSigterm) {
  Drop(World::Get().Staged(1), "shop", 1);
  StartServer();
  server_->Signal(SIGTERM);
  EXPECT_EQ(server_->Wait(absl::Seconds(30)), 0) << server_->ErrorOutput();
}

TEST_F(ServingTest, ATakenPortIsNamed) {
  Drop(World::Get().Staged(1), "shop", 1);
  StartServer();
  Process second(Program("pricer-server"), Flags(address_), directory_.File("second"));
  EXPECT_EQ(second.Wait(), 1);
  EXPECT_THAT(second.ErrorOutput(), HasSubstr(address_));
}

TEST_F(ServingTest, AMissingBaseIsNamed) {
  std::vector<std::string> flags = Flags("127.0.0.1:0");
  flags[1] = directory_.File("no-such-base");
  Process server(Program("pricer-server"), flags, directory_.File("server"));
  EXPECT_EQ(server.Wait(), 1);
  EXPECT_THAT(server.ErrorOutput(), HasSubstr("no-such-base"));
}

TEST_F(ServingTest, TheClientCommandPricesAFileInOrder) {
  Drop(World::Get().Staged(1), "shop", 1);
  StartServer();
  const std::string input = directory_.File("in.jsonl");
  const std::string output = directory_.File("out.jsonl");
  ASSERT_OK(WriteFile(input,
                      "{\"id\":\"a\",\"title\":\"Steel pan\"}\nnot json\n"
                      "{\"id\":\"b\",\"title\":\"Wooden chair\"}\n"));
  Process batch(Program("pricer"),
                {"batch", "--server", address_, "--input", input, "--output", output},
                directory_.File("batch"));
  EXPECT_EQ(batch.Wait(), 3) << batch.ErrorOutput();
  std::vector<nlohmann::json> rows;
  for (absl::string_view line : absl::StrSplit(*ReadFile(output), '\n', absl::SkipEmpty())) {
    rows.push_back(nlohmann::json::parse(line));
  }
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0]["id"], "a");
  EXPECT_GT(rows[0]["price"], 0);
  EXPECT_EQ(rows[0]["adapter"], "shop");
  EXPECT_EQ(rows[1]["row"], 2);
  EXPECT_EQ(rows[1]["error"]["code"], "INVALID_ARGUMENT");
  EXPECT_EQ(rows[2]["id"], "b");
}

}  // namespace
}  // namespace pricer
