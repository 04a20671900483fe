// What goes wrong around a server: broken adapters, kills, restarts.

#include <gmock/gmock.h>
#include <signal.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/sha256.h"
#include "model/safetensors.h"
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

TEST_F(ServingTest, ALoggedPriceIsReproducedByARestartedServer) {
  Drop(World::Get().Staged(1), "shop", 1);
  Drop(World::Get().Staged(2), "shop", 2);
  StartServer();
  const std::string replies = directory_.File("replies.jsonl");
  for (const char* const version : {"1", "2"}) {
    Process price(Program("pricer"),
                  {"price", "--server", address_, "--adapter", "shop", "--version-or-label",
                   version, "--title", "Steel pan", "--quantiles", "0.1,0.9", "--json"},
                  directory_.File("price"));
    ASSERT_EQ(price.Wait(), 0) << price.ErrorOutput();
    const std::string before = fs::exists(replies) ? *ReadFile(replies) : "";
    ASSERT_OK(WriteFile(replies, before + price.Output()));
  }
  server_->Signal(SIGKILL);
  server_->Wait();
  StartServer();
  Process replay(Program("pricer"),
                 {"replay", "--server", address_, "--input", replies, "--tolerance", "0"},
                 directory_.File("replay"));
  EXPECT_EQ(replay.Wait(), 0) << replay.Output() << replay.ErrorOutput();
  EXPECT_EQ(replay.Output(), "2 replies, 2 reproduced, 0 differ\n");
}

TEST_F(ServingTest, AKillAndARestartUnderLoadCostTimeButNoCall) {
  Drop(World::Get().Staged(1), "shop", 1);
  StartServer();
  ASSERT_OK_AND_ASSIGN(const v1::Prediction expected, Price("Steel pan"));
  std::atomic<bool> stop = false;
  std::atomic<int> answered = 0;
  std::vector<absl::Status> failures(4);
  std::atomic<int> wrong = 0;
  std::vector<std::thread> callers;
  const std::unique_ptr<Client> client = Connect(address_);
  for (absl::Status& failure : failures) {
    callers.emplace_back([&] {
      v1::PredictPriceRequest request;
      request.mutable_item()->set_title("Steel pan");
      request.mutable_options()->set_no_cache(true);
      while (!stop) {
        const absl::StatusOr<v1::PredictPriceResponse> response = client->PredictPrice(request);
        failure.Update(response.status());
        if (response.ok() && response->prediction().price() != expected.price()) ++wrong;
        ++answered;
      }
    });
  }
  const auto wait_for_more = [&answered](int calls) {
    const int before = answered;
    while (answered < before + calls) absl::SleepFor(absl::Milliseconds(1));
  };
  const std::string address = address_;
  for (int kill = 0; kill < 3; ++kill) {
    wait_for_more(50);
    server_->Signal(SIGKILL);
    EXPECT_EQ(server_->Wait(), 128 + SIGKILL);
    StartServer(address);
    EXPECT_EQ(address_, address);
  }
  wait_for_more(50);
  stop = true;
  for (std::thread& caller : callers) caller.join();
  for (const absl::Status& failure : failures) EXPECT_OK(failure);
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace pricer
