// Runs the program itself, against a server in the test.

#include <gmock/gmock.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "tests/client/main_fixture.h"
#include "tests/testing/process.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using testing::MainTest;
using ::testing::Not;
using testing::Outcome;
using testing::RunClient;

TEST_F(MainTest, WrongOptionsExitWith2AndAreNamed) {
  const auto expect = [](const std::string& arguments, const std::string& part) {
    const Outcome outcome = RunClient(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << arguments;
    EXPECT_THAT(outcome.output, HasSubstr(part));
  };
  const std::string batch = Batch(dir_.File("out.jsonl"));
  expect("", "subcommand");
  expect("price --timeout abc", "--timeout");
  expect("price --timeout 0s", "timeout");
  expect("adapters list --timeout abc", "--timeout");
  expect(batch + "--timeout abc", "--timeout");
  expect("price --token-file secret", "--allow-insecure-token");
  expect("price --tls-cert client.crt", "certificate and its key");
  expect(batch + "--field bad", "--field");
  expect(batch + "--field prise=cost", "prise");
  expect(batch + "--items-per-call 0", "--items-per-call");
  expect(batch + "--currency usd", "currency");
  expect(batch + "--coverage 1", "--coverage");
  expect(batch + "--shard 2/2", "--shard: expected INDEX/COUNT");
  expect(batch + "--shards 2", "JOB_COMPLETION_INDEX, which is not set");
  expect(batch + "--shard 0/2 --shards 2", "one of them");
  expect(batch + "--merge --shard 0/2", "--merge: expected --shards, got --shard");
  expect("batch --merge --output out.jsonl", "--merge: expected --shards");
  expect("batch --output out.jsonl", "--input: expected a file");
  expect(batch + "--report r.json", "--report: expected --compare");
  expect(batch + "--compare old.jsonl --far 0", "--far");
  expect(batch + "--compare old.jsonl --shard 0/2", "a whole output");
  expect(Batch("/dev/stdout") + "--compare old.jsonl", "can be read again");
  expect(batch + "--compare " + dir_.File("out.jsonl"), "another file than --output");
  expect(batch + "--rejects " + input_, "--rejects");
  expect(batch + "--rejects r.jsonl --shard 0/2", "a file of its own");
  expect("batch --merge --shards 1 --output out.jsonl", "--merge: expected --shards of 2 to");
  expect(batch + "--work " + dir_.path(), "--work: expected an object, or a name with .gz or .zst");
  expect(Batch("s3://shop/out.jsonl"), "expected --work");
  expect(Batch(input_), "--input and --output are the same file");
  expect("adapters sync s3://a/b s3://c/d", "expected a folder as one of the two");
  expect("adapters sync a b --every 0.5s", "--every: expected at least 1s");
  expect("load-test --arrivals bursts", "--arrivals");
  expect("load-test --rate 0", "--rate");
  expect("load-test --deadline abc", "--deadline");
  expect("load-test --arrivals closed --concurrency 0", "--concurrency");
  expect("load-test --connections 0", "--connections");
  expect("replay", "--input");
  expect("replay --input x --tolerance 2", "--tolerance");
  EXPECT_FALSE(std::filesystem::exists(dir_.File("out.jsonl")));
}

TEST_F(MainTest, WhatTheServerOrTheDiskRefusesExitsWith1) {
  EXPECT_EQ(RunClient("price --server 127.0.0.1:1 --timeout 1ms").exit_code, 1);
  EXPECT_EQ(RunClient(Batch(dir_.path())).exit_code, 1);
}

TEST_F(MainTest, ConfigAndVersionMayStandAfterTheSubcommand) {
  const Outcome version = RunClient("price --version");
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_EQ(version.output, RunClient("--version").output);
  ASSERT_OK(WriteFile(dir_.File("config"),
                      absl::StrCat("[price]\ntitle = \"pan\"\nserver = \"", address_, "\"\n")));
  const Outcome price = RunClient(absl::StrCat("price --json --config ", dir_.File("config")));
  ASSERT_EQ(price.exit_code, 0) << price.output;
  EXPECT_EQ(nlohmann::json::parse(price.output)["price"], 3);
}

TEST_F(MainTest, ShowsTheTokenOfAFile) {
  const std::string price = absl::StrCat("price --title pan --allow-insecure-token --server ",
                                         address_, " --token-file ", dir_.File("token"));
  const Outcome missing = RunClient(price);
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_THAT(missing.output, HasSubstr(dir_.File("token")));
  ASSERT_OK(WriteFile(dir_.File("token"), " \n"));
  EXPECT_EQ(RunClient(price).exit_code, 1);
  ASSERT_OK(WriteFile(dir_.File("token"), "shop-secret-0123456789\n"));
  EXPECT_EQ(RunClient(price).exit_code, 0);
  EXPECT_EQ(pricing_.authorization, "Bearer shop-secret-0123456789");
  EXPECT_EQ(RunClient(absl::StrCat("price --title pan --server ", address_, " --tls-ca ",
                                   dir_.File("token"), " --timeout 1s"))
                .exit_code,
            1);
}

TEST_F(MainTest, ALoggedPriceIsReproducedOrItsDifferenceIsNamed) {
  const std::string replies = dir_.File("replies.jsonl");
  const std::string price =
      absl::StrCat("price --json --title pan --server ", address_, " >>", replies);
  for (int i = 0; i < 2; ++i) ASSERT_EQ(RunClient(price).exit_code, 0);
  const std::string replay =
      absl::StrCat("replay --server ", address_, " --timeout 1s --input ", replies);
  const Outcome same = RunClient(replay);
  EXPECT_EQ(same.exit_code, 0);
  EXPECT_EQ(same.output, "2 replies, 2 reproduced, 0 differ\n");
  EXPECT_TRUE(pricing_.no_cache);

  ASSERT_OK_AND_ASSIGN(const std::string lines, ReadFile(replies));
  const size_t first = lines.find("3.0");
  ASSERT_OK(WriteFile(replies, lines.substr(0, first) + "5.5" + lines.substr(first + 3)));
  const Outcome other = RunClient(replay);
  EXPECT_EQ(other.exit_code, 4);
  EXPECT_EQ(other.output,
            replies + ":1: price: was 5.5, is 3\n2 replies, 1 reproduced, 1 differ\n");

  ASSERT_OK(WriteFile(replies, "\nnot a reply\n"));
  const Outcome none = RunClient(replay);
  EXPECT_EQ(none.exit_code, 1);
  EXPECT_THAT(none.output, HasSubstr(replies + ":2: expected a JSON object"));
}

TEST_F(MainTest, ALoadTestTellsHowLongCallsTook) {
  const std::string load =
      absl::StrCat("load-test --server ", address_, " --duration 200ms --warm-up 0s --rate 100 ");
  const Outcome text = RunClient(load + "--hgrm " + dir_.File("latency.hgrm"));
  EXPECT_EQ(text.exit_code, 0) << text.output;
  EXPECT_THAT(text.output, HasSubstr("calls OK"));
  ASSERT_OK_AND_ASSIGN(const std::string hgrm, ReadFile(dir_.File("latency.hgrm")));
  EXPECT_THAT(hgrm, HasSubstr("1/(1-Percentile)"));
  const Outcome batches = RunClient(load + "--json --items-per-call 3 --arrivals closed");
  ASSERT_EQ(batches.exit_code, 0) << batches.output;
  const nlohmann::json stage = nlohmann::json::parse(batches.output).at("stages").at(0);
  EXPECT_EQ(stage.at("items"), 3 * stage.at("calls").at("OK").get<int>());
  // Items of one's own, and a page of the result.
  const std::string page = dir_.File("load.html");
  EXPECT_EQ(RunClient(load + "--html " + page + " --input " + input_).exit_code, 0);
  ASSERT_OK_AND_ASSIGN(const std::string html, ReadFile(page));
  EXPECT_THAT(html, HasSubstr("\"command\":\"pricer load-test --server " + address_));
  EXPECT_THAT(html, HasSubstr("Chart.js v"));
  EXPECT_THAT(html, Not(HasSubstr("{{")));
  EXPECT_EQ(pricing_.texts, (std::set<std::string>{"pan", "chair"}));
  const Outcome nowhere = RunClient(load + "--hgrm " + dir_.File("none/latency.hgrm"));
  EXPECT_EQ(nowhere.exit_code, 1);
  EXPECT_THAT(nowhere.output, HasSubstr("none/latency.hgrm"));
  const Outcome nobody =
      RunClient("load-test --server 127.0.0.1:1 --duration 50ms --warm-up 0s --deadline 20ms");
  EXPECT_EQ(nobody.exit_code, 1);
  EXPECT_THAT(nobody.output, HasSubstr("such as: 127.0.0.1:1: "));
}

TEST_F(MainTest, ALoadTestLeavesRetriesToGrpcWhereItIsTold) {
  const std::string load =
      absl::StrCat("load-test --json --duration 200ms --warm-up 0s --rate 100 --server ", address_);
  const auto codes = [&](const std::string& arguments) {
    pricing_.refuse = 3;
    const Outcome outcome = RunClient(load + arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
    return nlohmann::json::parse(outcome.output).at("stages").at(0).at("calls");
  };
  EXPECT_EQ(codes("").at("UNAVAILABLE"), 3);
  const std::string config = dir_.File("service_config.json");
  EXPECT_OK(WriteFile(config, R"({"methodConfig": [{"name": [{}], "retryPolicy": {
      "maxAttempts": 5, "initialBackoff": "0.01s", "maxBackoff": "0.1s", "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE"]}}]})"));
  EXPECT_FALSE(codes(" --service-config " + config).contains("UNAVAILABLE"));
  EXPECT_OK(WriteFile(config, "[]"));
  const Outcome none = RunClient(load + " --service-config " + config);
  EXPECT_EQ(none.exit_code, 1);
  EXPECT_THAT(none.output, HasSubstr(config + ": expected a JSON object"));
}

TEST_F(MainTest, TheExampleOfTheLibraryPricesItems) {
  pricing_.refuse = 1;
  const Outcome outcome =
      testing::RunShell(absl::StrCat(PRICER_CLIENT_EXAMPLE, " ", address_, " 2>&1"));
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.output, "24 , by version 3\n24\n9\n");
}

TEST_F(MainTest, LostOutputIsAFailure) {
  const Outcome outcome =
      RunClient(absl::StrCat("price --json --server ", address_, " >/dev/full"));
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.output, HasSubstr("standard output"));
}

TEST_F(MainTest, AdaptersListKeepsDefaultAndReasonApart) {
  const Outcome outcome = RunClient("adapters list --server " + address_);
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.output,
              HasSubstr("  serves by default; labels: stable; tuned on nf4 weights\n"));
}

TEST_F(MainTest, OperatorsLoadUnloadAndPinVersions) {
  const std::string server = " --server " + address_;
  Outcome done = RunClient("adapters load shop" + server);
  EXPECT_EQ(done.exit_code, 0);
  EXPECT_THAT(done.output, ContainsRegex("shop +9 +AVAILABLE +2.0 MiB +host"));
  done = RunClient("adapters load shop 4 --json" + server);
  EXPECT_EQ(nlohmann::json::parse(done.output)["version"], 4);
  EXPECT_THAT(RunClient("adapters unload shop 4" + server).output,
              HasSubstr("gave back 4096 bytes of host and 0 of device memory"));
  EXPECT_THAT(RunClient("adapters unload shop 2" + server).output, HasSubstr("have finished"));
  EXPECT_THAT(RunClient("adapters unload shop 2 --json" + server).output,
              HasSubstr("\"in_use\":true"));
  EXPECT_THAT(RunClient("adapters pin shop 4" + server).output, HasSubstr("pinned"));
  EXPECT_THAT(RunClient("adapters unpin shop 4" + server).output, Not(HasSubstr("pinned")));
  for (const char* const wrong :
       {"unload shop", "load ../shop", "load shop 0", "pin shop one", "load shop --timeout soon"}) {
    EXPECT_EQ(RunClient(absl::StrCat("adapters ", wrong, server)).exit_code, 2) << wrong;
  }
}

TEST_F(MainTest, AWatchShowsChangesUntilTheServerEndsIt) {
  const Outcome done = RunClient("adapters watch --name shop --server " + address_);
  EXPECT_EQ(done.exit_code, 1);
  EXPECT_THAT(done.output, ContainsRegex("shop +3 +AVAILABLE"));
  EXPECT_THAT(done.output, ContainsRegex("shop +0 +END .*gone"));
  EXPECT_THAT(done.output, HasSubstr("UNAVAILABLE"));
}

TEST_F(MainTest, HealthIsTheExitCode) {
  const std::string health = "health --server " + address_;
  const Outcome ready = RunClient(health);
  EXPECT_EQ(ready.exit_code, 0);
  EXPECT_EQ(ready.output, "SERVING\n");
  server_->GetHealthCheckService()->SetServingStatus("startup", false);
  const Outcome startup = RunClient(health + " --service startup");
  EXPECT_EQ(startup.exit_code, 1);
  EXPECT_EQ(startup.output, "NOT_SERVING\n");
  EXPECT_EQ(RunClient(health + " --service nobody").exit_code, 1);
  const Outcome nobody = RunClient("health --server 127.0.0.1:1 --timeout 2s");
  EXPECT_EQ(nobody.exit_code, 1);
  EXPECT_THAT(nobody.output, HasSubstr("UNAVAILABLE"));
}

TEST_F(MainTest, TheLogLevelIsSetByName) {
  const Outcome set = RunClient("log-level debug --server " + address_);
  EXPECT_EQ(set.exit_code, 0) << set.output;
  EXPECT_EQ(set.output, "was warning\n");
  EXPECT_EQ(operations_.level, v1::LOG_LEVEL_DEBUG);
  EXPECT_EQ(RunClient("log-level loud --server " + address_).exit_code, 2);
}

TEST_F(MainTest, LabelsOfAServer) {
  const std::string at = " --server " + address_;
  const Outcome moved = RunClient("adapters label shop canary 4 --percent 5" + at);
  EXPECT_EQ(moved.exit_code, 0);
  EXPECT_THAT(moved.output, HasSubstr("canary"));
  EXPECT_THAT(moved.output, HasSubstr("4 (5 %), not available here; 3 answers\n"));
  const Outcome back = RunClient("adapters rollback shop stable" + at);
  EXPECT_EQ(back.exit_code, 0);
  EXPECT_THAT(back.output, HasSubstr("stable: none -> 3, rolled back, by somebody\n"));
  const Outcome gated = RunClient("adapters label shop stable 4 --max-shift 0.1" + at);
  EXPECT_EQ(gated.exit_code, 4);
  EXPECT_EQ(gated.output, "pricer: gate: prices differ by 0.5\n");
  // A move is made once.
  adapters_.label_calls = 0;
  EXPECT_EQ(RunClient("adapters label shop stable 9" + at).exit_code, 1);
  EXPECT_EQ(adapters_.label_calls, 1);
  // So is a step back, but for one from a version.
  adapters_.rollback_calls = 0;
  adapters_.rollback_failures = 1;
  EXPECT_EQ(RunClient("adapters rollback shop stable" + at).exit_code, 1);
  EXPECT_EQ(adapters_.rollback_calls, 1);
  adapters_.rollback_failures = 1;
  const Outcome from = RunClient("adapters rollback shop stable --from 4" + at);
  EXPECT_THAT(from.output, HasSubstr("stable: 4 -> 3, rolled back"));
  EXPECT_EQ(adapters_.rollback_calls, 3);
}

TEST_F(MainTest, LabelsOfAFolderWithoutAServer) {
  const std::string root = dir_.File("adapters");
  for (const char* const version : {"1", "2", "3"}) {
    std::filesystem::create_directories(absl::StrCat(root, "/shop/", version));
    if (*version == '3') continue;
    ASSERT_OK(WriteFile(absl::StrCat(root, "/shop/", version, "/_READY"), ""));
  }
  const std::string at = " --adapters " + root;
  const auto json = [&](const std::string& arguments) {
    const Outcome outcome = RunClient(absl::StrCat("adapters ", arguments, at, " --json"));
    EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
    return nlohmann::json::parse(outcome.output);
  };
  EXPECT_EQ(RunClient("adapters labels shop" + at).output,
            "no label is set: the newest version answers\n");
  EXPECT_EQ(json("labels shop")["generation"], 0);
  const nlohmann::json canary = json("label shop canary 1 --percent 12.5");
  EXPECT_EQ(canary["labels"]["canary"], (nlohmann::json{{"version", 1}, {"percent", 12.5}}));
  EXPECT_EQ(canary["labels"]["stable"]["version"], 2);
  EXPECT_EQ(canary["generation"], 2);
  EXPECT_EQ(json("label shop stable 1")["labels"]["stable"]["version"], 1);
  const nlohmann::json back = json("rollback shop stable --from 1");
  EXPECT_EQ(back["labels"]["stable"]["version"], 2);
  EXPECT_EQ(back["history"].back()["rollback"], true);
  EXPECT_EQ(json("rollback shop stable --from 1"), back);
  EXPECT_EQ(json("unlabel shop canary")["labels"].size(), 1u);
  EXPECT_EQ(json("labels shop")["generation"], 5);
  const auto fails = [&](const std::string& arguments, int code, const std::string& words) {
    const Outcome outcome = RunClient(absl::StrCat("adapters ", arguments));
    EXPECT_EQ(outcome.exit_code, code) << outcome.output;
    EXPECT_THAT(outcome.output, HasSubstr(words));
  };
  fails("label shop stable 3" + at, 1, "shop/3/_READY");
  fails("label wine stable 1" + at, 1, "/wine");
  fails("unlabel shop mine" + at, 1, "mine");
  fails("label shop stable one" + at, 2, "version");
  fails("rollback shop stable --from one" + at, 2, "--from");
  fails("rollback shop stable --from 7" + at, 1, "expected it to lead to version 7");
  fails("label shop 7 1" + at, 2, "label");
  fails("label ../shop stable 1" + at, 2, "adapter name");
  fails("label shop stable 1 --percent 5" + at, 2, "percent");
  fails("label shop stable 1 --golden" + at, 2, "--adapters");
  fails("label shop stable 1 --server x:1" + at, 2, "--server");
  std::filesystem::remove(root + "/shop/2/_READY");
  EXPECT_EQ(json("label shop stable 1")["generation"], 6);
  fails("rollback shop stable" + at, 1, "shop/2/_READY");
}

}  // namespace
}  // namespace pricer
