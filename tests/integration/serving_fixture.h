#pragma once

#include <gmock/gmock.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/client.h"
#include "tests/testing/process.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"

namespace pricer::testing {

inline std::string Program(const std::string& name) { return std::string(PRICER_BIN) + "/" + name; }

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
  ServingTest() { std::filesystem::create_directories(adapters() + "/shop"); }

  std::string adapters() const { return directory_.File("adapters"); }

  // Again at the same address with address_.
  void StartServer(const std::string& listen = "127.0.0.1:0") {
    server_ = std::make_unique<Process>(Program("pricer-server"), Flags(listen),
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
    std::filesystem::remove_all(temporary);
    std::filesystem::copy(from, temporary, std::filesystem::copy_options::recursive);
    if (change) change(temporary);
    std::filesystem::create_directories(absl::StrCat(adapters(), "/", name));
    std::filesystem::rename(temporary, absl::StrCat(adapters(), "/", name, "/", version));
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

}  // namespace pricer::testing
