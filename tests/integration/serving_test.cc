// The whole path with the real programs: tune tiny adapters, serve, swap under load, break things.

#include <gmock/gmock.h>
#include <signal.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/sha256.h"
#include "client/client.h"
#include "model/safetensors.h"
#include "tests/testing/process.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"

namespace pricer {
namespace {

using ::testing::HasSubstr;
using testing::Process;
using testing::StatusIs;
using testing::TempDir;
using testing::WriteTinyCheckpoint;

namespace fs = std::filesystem;

std::string Program(const std::string& name) { return std::string(PRICER_BIN) + "/" + name; }

// Base, catalogue and two tuned versions, made once.
class World {
 public:
  static const World& Get() {
    static const World* const world = new World;
    return *world;
  }

  std::string File(const std::string& name) const { return directory_.File(name); }
  // A published version to copy from.
  std::string Staged(int version) const { return File(absl::StrCat("staged/shop/", version)); }

 private:
  World() {
    EXPECT_OK(WriteTinyCheckpoint(File("base")));
    EXPECT_OK(WriteTinyCheckpoint(File("other-base"), {.seed = 2}));
    Run({"catalog", "--items", "400", "--seed", "3", "--output", File("catalog")});
    for (int version : {1, 2}) {
      Run({"tune",
           "--base",
           File("base"),
           "--data",
           File("catalog/train.jsonl"),
           "--validation",
           File("catalog/validation.jsonl"),
           "--output",
           File("staged"),
           "--name",
           "shop",
           "--runs",
           File("runs"),
           "--seed",
           absl::StrCat(version),
           "--max-steps",
           "8",
           "--lr",
           "2e-3",
           "--head-lr",
           "2e-2",
           "--lora-r",
           "4",
           "--validation-items",
           "24"});
    }
  }

  void Run(const std::vector<std::string>& arguments) const {
    Process trainer(Program("pricer-trainer"), arguments, File("trainer"));
    EXPECT_EQ(trainer.Wait(), 0) << arguments[0] << "\n" << trainer.ErrorOutput();
  }

  TempDir directory_;
};

// A server over a folder of adapters of its own.
class ServingTest : public ::testing::Test {
 protected:
  ServingTest() { fs::create_directories(adapters() + "/shop"); }

  std::string adapters() const { return directory_.File("adapters"); }

  void StartServer() {
    server_ = std::make_unique<Process>(Program("pricer-server"), Flags("127.0.0.1:0"),
                                        directory_.File("server"));
    const std::string line = server_->WaitForErrorLine("\"message\":\"serving\"");
    ASSERT_NE(line, "") << server_->ErrorOutput();
    const nlohmann::json ready = nlohmann::json::parse(line);
    address_ = absl::StrCat("127.0.0.1:", ready.at("port").get<std::string>());
    client_ = Connect(address_);
    admin_ = Connect(absl::StrCat("127.0.0.1:", ready.at("admin_port").get<std::string>()));
  }

  std::vector<std::string> Flags(const std::string& listen) const {
    return {"--base",           World::Get().File("base"),
            "--adapters",       adapters(),
            "--listen",         listen,
            "--admin-listen",   "127.0.0.1:0",
            "--health-listen",  "127.0.0.1:0",
            "--metrics-listen", "127.0.0.1:0",
            "--poll-interval",  "50ms",
            "--threads",        "1"};
  }

  static std::unique_ptr<Client> Connect(const std::string& address) {
    ClientOptions options;
    options.server = address;
    absl::StatusOr<std::unique_ptr<Client>> client = Client::Create(options);
    EXPECT_OK(client);
    return *std::move(client);
  }

  // Publishes as a trainer does: the folder appears under its name at once.
  void Drop(const std::string& from, const std::string& name, int version,
            const std::function<void(const std::string&)>& change = {}) {
    const std::string temporary = directory_.File("incoming");
    fs::remove_all(temporary);
    fs::copy(from, temporary, fs::copy_options::recursive);
    if (change) change(temporary);
    fs::create_directories(absl::StrCat(adapters(), "/", name));
    fs::rename(temporary, absl::StrCat(adapters(), "/", name, "/", version));
  }

  absl::StatusOr<v1::Prediction> Price(const std::string& title, int64_t version = 0) {
    v1::PredictPriceRequest request;
    request.mutable_item()->set_title(title);
    request.mutable_adapter()->set_name("shop");
    if (version > 0) request.mutable_adapter()->set_version(version);
    absl::StatusOr<v1::PredictPriceResponse> response = client_->PredictPrice(request);
    if (!response.ok()) return response.status();
    return response->prediction();
  }

  std::optional<v1::AdapterVersion> Listed(const std::string& name, int64_t version) {
    absl::StatusOr<v1::ListAdaptersResponse> list = admin_->ListAdapters({});
    EXPECT_OK(list);
    if (!list.ok()) return std::nullopt;
    for (const v1::AdapterVersion& listed : list->versions()) {
      if (listed.name() == name && listed.version() == version) return listed;
    }
    return std::nullopt;
  }

  bool WaitForState(const std::string& name, int64_t version, v1::AdapterState state) {
    const absl::Time limit = absl::Now() + absl::Seconds(60);
    while (absl::Now() < limit) {
      const std::optional<v1::AdapterVersion> listed = Listed(name, version);
      if (listed.has_value() && listed->state() == state) return true;
      absl::SleepFor(absl::Milliseconds(20));
    }
    return false;
  }

  TempDir directory_;
  std::unique_ptr<Process> server_;
  std::string address_;
  std::unique_ptr<Client> client_;
  std::unique_ptr<Client> admin_;
};

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

// Changes files of a version and makes hashes and marker right again.
void Reseal(const std::string& directory, const std::function<void(nlohmann::json&)>& change = {}) {
  const std::string path = directory + "/pricer.json";
  nlohmann::json manifest = nlohmann::json::parse(*ReadFile(path));
  if (change) change(manifest);
  for (auto& [name, digest] : manifest["files"].items()) {
    digest = *Sha256HexOfFile(absl::StrCat(directory, "/", name));
  }
  const std::string text = manifest.dump(2) + "\n";
  ASSERT_OK(WriteFile(path, text));
  ASSERT_OK(WriteFile(directory + "/_READY", Sha256Hex(text)));
}

// Rewrites adapter_model.safetensors after `change`; tensors whose bytes it replaces are kept in
// `storage`.
void ChangeTensors(const std::string& directory,
                   const std::function<void(std::vector<NamedTensor>&,
                                            std::vector<std::string>& storage)>& change) {
  const std::string path = directory + "/adapter_model.safetensors";
  std::vector<NamedTensor> tensors;
  std::vector<std::string> storage;
  storage.reserve(64);
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(path));
  for (const auto& [name, view] : file->tensors()) tensors.push_back({name, view});
  change(tensors, storage);
  ASSERT_OK(WriteSafetensors(path + ".new", tensors, {{"format", "pt"}}));
  fs::rename(path + ".new", path);
  Reseal(directory);
}

void ChangeConfig(const std::string& directory, const std::string& key,
                  const nlohmann::json& value) {
  const std::string path = directory + "/adapter_config.json";
  nlohmann::json config = nlohmann::json::parse(*ReadFile(path));
  config[key] = value;
  ASSERT_OK(WriteFile(path, config.dump(2)));
  Reseal(directory);
}

struct Corruption {
  std::string kind;
  std::function<void(const std::string& directory)> change;
  std::string reason;  // what the reported reason must hold
};

std::vector<Corruption> Corruptions() {
  return {
      {"missing tensor",
       [](const std::string& d) {
         ChangeTensors(d, [](auto& tensors, auto&) { tensors.pop_back(); });
       },
       "missing"},
      {"extra tensor",
       [](const std::string& d) {
         ChangeTensors(d, [](auto& tensors, auto&) {
           NamedTensor copy = tensors[0];
           copy.name = "base_model.model.model.layers.9.mlp.up_proj.lora_A.weight";
           tensors.push_back(copy);
         });
       },
       "layers.9.mlp.up_proj"},
      {"wrong shape",
       [](const std::string& d) {
         ChangeTensors(d, [](auto& tensors, auto&) {
           std::swap(tensors[0].view.shape[0], tensors[0].view.shape[1]);
         });
       },
       "shape"},
      {"value that is not finite",
       [](const std::string& d) {
         ChangeTensors(d, [](auto& tensors, auto& storage) {
           storage.emplace_back(tensors[0].view.data);
           storage.back().replace(0, 4, std::string("\x00\x00\xc0\x7f", 4));
           tensors[0].view.data = storage.back();
         });
       },
       "finite"},
      {"unsupported PEFT option", [](const std::string& d) { ChangeConfig(d, "use_dora", true); },
       "use_dora"},
      {"another base",
       [](const std::string& d) {
         Reseal(d, [](nlohmann::json& m) { m["base"]["fingerprint"] = std::string(64, 'a'); });
       },
       std::string(64, 'a')},
      {"file that does not match its hash",
       [](const std::string& d) {
         std::string bytes = *ReadFile(d + "/adapter_model.safetensors");
         bytes.back() ^= 1;
         ASSERT_OK(WriteFile(d + "/adapter_model.safetensors", bytes));
       },
       "adapter_model.safetensors"},
      {"truncated file",
       [](const std::string& d) {
         fs::resize_file(d + "/adapter_model.safetensors", 1000);
         Reseal(d);
       },
       "adapter_model.safetensors"},
      {"golden prices that do not come out",
       [](const std::string& d) {
         Reseal(d, [](nlohmann::json& m) {
           for (auto& golden : m["golden"]) {
             for (const char* key : {"price", "low", "high"})
               golden[key] = golden[key].get<double>() * 1.2;
           }
         });
       },
       "golden"},
      {"unknown format version",
       [](const std::string& d) {
         Reseal(d, [](nlohmann::json& m) { m["format_version"] = "9.0"; });
       },
       "9.0"},
      {"manifest that is not JSON",
       [](const std::string& d) {
         ASSERT_OK(WriteFile(d + "/pricer.json", "{"));
         ASSERT_OK(WriteFile(d + "/_READY", Sha256Hex("{")));
       },
       "pricer.json"},
      {"marker of another manifest",
       [](const std::string& d) { ASSERT_OK(WriteFile(d + "/_READY", std::string(64, '0'))); },
       "_READY"},
  };
}

TEST_F(ServingTest, BadVersionsAreReportedWithAReasonAndTheOldOneStays) {
  Drop(World::Get().Staged(1), "shop", 1);
  StartServer();
  ASSERT_OK_AND_ASSIGN(const v1::Prediction before, Price("Steel pan"));
  int version = 10;
  for (const Corruption& corruption : Corruptions()) {
    SCOPED_TRACE(corruption.kind);
    Drop(World::Get().Staged(2), "shop", ++version, corruption.change);
    EXPECT_TRUE(WaitForState("shop", version, v1::ADAPTER_STATE_END));
    const std::optional<v1::AdapterVersion> listed = Listed("shop", version);
    ASSERT_TRUE(listed.has_value());
    EXPECT_THAT(listed->reason(), HasSubstr(corruption.reason));
    ASSERT_OK_AND_ASSIGN(const v1::Prediction after, Price("Steel pan"));
    EXPECT_EQ(after.served_by().version(), 1);
    EXPECT_EQ(after.price(), before.price());
  }
  // A good one still gets in after all of them.
  Drop(World::Get().Staged(2), "shop", 99);
  EXPECT_TRUE(WaitForState("shop", 99, v1::ADAPTER_STATE_AVAILABLE));
  ASSERT_OK_AND_ASSIGN(const v1::Prediction last, Price("Steel pan"));
  EXPECT_EQ(last.served_by().version(), 99);
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

TEST_F(ServingTest, PricesAreTheSameAfterAKillAndARestart) {
  Drop(World::Get().Staged(1), "shop", 1);
  StartServer();
  ASSERT_OK_AND_ASSIGN(const v1::Prediction before, Price("Steel pan"));
  server_->Signal(SIGKILL);
  EXPECT_EQ(server_->Wait(), 128 + SIGKILL);
  StartServer();
  ASSERT_OK_AND_ASSIGN(const v1::Prediction after, Price("Steel pan"));
  EXPECT_EQ(after.price(), before.price());
  EXPECT_EQ(after.served_by().digest(), before.served_by().digest());
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

TEST_F(ServingTest, AnAdapterForAnotherBaseIsRefusedWithBothFingerprints) {
  Drop(World::Get().Staged(1), "shop", 1);
  StartServer();
  ASSERT_OK_AND_ASSIGN(const v1::Prediction before, Price("Steel pan"));
  Drop(World::Get().Staged(2), "shop", 2, [](const std::string& d) {
    Reseal(d, [](nlohmann::json& m) { m["base"]["fingerprint"] = std::string(64, 'b'); });
  });
  ASSERT_TRUE(WaitForState("shop", 2, v1::ADAPTER_STATE_END));
  EXPECT_THAT(Listed("shop", 2)->reason(), HasSubstr(before.served_by().model()));
  EXPECT_THAT(Price("Steel pan", 2), StatusIs(absl::StatusCode::kFailedPrecondition));
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
