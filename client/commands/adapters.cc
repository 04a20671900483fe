#include "client/commands/adapters.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/exit_codes.h"
#include "base/status_macros.h"
#include "client/client.h"
#include "client/commands/common_flags.h"
#include "model/adapter_name.h"

namespace pricer {
namespace {

using Json = nlohmann::ordered_json;

struct ListFlags {
  ConnectionFlags connection;
  std::string name;
  bool json = false;
};

std::string StateName(v1::AdapterState state) {
  const std::string name = v1::AdapterState_Name(state);
  return std::string(absl::StripPrefix(name, "ADAPTER_STATE_"));
}

// "disk", "host", "device"; empty where there is nothing to say.
std::string TierName(v1::MemoryTier tier) {
  if (tier == v1::MEMORY_TIER_UNSPECIFIED) return "";
  return absl::AsciiStrToLower(absl::StripPrefix(v1::MemoryTier_Name(tier), "MEMORY_TIER_"));
}

Json AdapterJson(const v1::AdapterVersion& version) {
  return {{"name", version.name()},
          {"version", version.version()},
          {"state", StateName(version.state())},
          {"reason", version.reason()},
          {"digest", version.digest()},
          {"memory_bytes", version.memory_bytes()},
          {"tier", TierName(version.tier())},
          {"pinned", version.pinned()},
          {"fetch_error", version.fetch_error()},
          {"serves_by_default", version.serves_by_default()},
          {"labels", std::vector<std::string>(version.labels().begin(), version.labels().end())}};
}

// Why the version answers, and what there is to say of it.
std::string Remarks(const v1::AdapterVersion& version) {
  std::vector<std::string> remarks;
  if (version.serves_by_default()) remarks.emplace_back("serves by default");
  if (version.labels_size() > 0) {
    remarks.push_back(absl::StrCat("labels: ", absl::StrJoin(version.labels(), ", ")));
  }
  if (version.pinned()) remarks.emplace_back("pinned");
  if (!version.fetch_error().empty()) {
    remarks.push_back(absl::StrCat("cannot be fetched: ", version.fetch_error()));
  }
  if (!version.reason().empty()) remarks.push_back(version.reason());
  return absl::StrJoin(remarks, "; ");
}

absl::StatusOr<std::unique_ptr<Client>> Connect(const ConnectionFlags& connection) {
  ASSIGN_OR_RETURN(const ClientOptions options, connection.Options());
  return Client::Create(options);
}

void PrintTitles() {
  std::cout << absl::StrFormat("%-24s %8s  %-10s %10s  %-6s  %s\n", "NAME", "VERSION", "STATE",
                               "MEMORY", "WHERE", "REMARKS");
}

void Print(const v1::AdapterVersion& version, bool json) {
  if (json) {
    std::cout << AdapterJson(version).dump() << '\n';
    return;
  }
  std::cout << absl::StrFormat("%-24s %8d  %-10s %6.1f MiB  %-6s  %s\n", version.name(),
                               version.version(), StateName(version.state()),
                               static_cast<double>(version.memory_bytes()) / (1 << 20),
                               TierName(version.tier()), Remarks(version));
}

absl::StatusOr<int> RunList(const ListFlags& flags) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Connect(flags.connection));
  v1::ListAdaptersRequest request;
  request.set_name(flags.name);
  ASSIGN_OR_RETURN(const v1::ListAdaptersResponse response, client->ListAdapters(request));
  if (!flags.json) PrintTitles();
  for (const v1::AdapterVersion& version : response.versions()) Print(version, flags.json);
  return kExitDone;
}

absl::StatusOr<int> RunWatch(const ListFlags& flags) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Connect(flags.connection));
  v1::WatchAdaptersRequest request;
  request.set_name(flags.name);
  if (!flags.json) PrintTitles();
  RETURN_IF_ERROR(client->WatchAdapters(request, [&flags](const v1::WatchAdaptersResponse& change) {
    for (const v1::AdapterVersion& version : change.versions()) Print(version, flags.json);
    for (v1::AdapterVersion gone : change.gone()) {
      gone.set_state(v1::ADAPTER_STATE_END);
      gone.set_reason("gone");
      Print(gone, flags.json);
    }
    // Until nobody reads it any more.
    return static_cast<bool>(std::cout.flush());
  }));
  return kExitDone;
}

// Which version an operator means.
struct VersionFlags {
  ConnectionFlags connection;
  std::string name;
  std::string version;  // empty = the newest, where that is allowed
  bool json = false;

  void AddTo(CLI::App* app, bool version_required) {
    connection.AddTo(app, "127.0.0.1:8501");
    app->add_option("name", name, "adapter's name")->required();
    app->add_option("version", version,
                    version_required ? "its version" : "its version; none = the newest")
        ->required(version_required);
    app->add_flag("--json", json, "one JSON object instead of a table");
  }
  absl::Status Validate() const {
    RETURN_IF_ERROR(ValidateAdapterName(name));
    if (!version.empty() && !ParseAdapterVersion(version).has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("version: expected a number of at least 1, got \"", version, "\""));
    }
    return connection.Validate();
  }
  template <typename Request>
  Request MakeRequest() const {
    Request request;
    request.set_name(name);
    request.set_version(ParseAdapterVersion(version).value_or(0));
    return request;
  }
};

void PrintOne(const v1::AdapterVersion& version, bool json) {
  if (!json) PrintTitles();
  Print(version, json);
}

absl::StatusOr<int> RunLoad(const VersionFlags& flags) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Connect(flags.connection));
  ASSIGN_OR_RETURN(const v1::LoadAdapterResponse response,
                   client->LoadAdapter(flags.MakeRequest<v1::LoadAdapterRequest>()));
  PrintOne(response.version(), flags.json);
  return kExitDone;
}

absl::StatusOr<int> RunUnload(const VersionFlags& flags) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Connect(flags.connection));
  ASSIGN_OR_RETURN(const v1::UnloadAdapterResponse response,
                   client->UnloadAdapter(flags.MakeRequest<v1::UnloadAdapterRequest>()));
  if (flags.json) {
    std::cout << Json{{"freed_host_bytes", response.freed_host_bytes()},
                      {"freed_device_bytes", response.freed_device_bytes()},
                      {"in_use", response.in_use()}}
                     .dump()
              << '\n';
  } else if (response.in_use()) {
    std::cout << "unloaded; its memory is given back when the calls that use it have finished\n";
  } else {
    std::cout << absl::StrFormat("unloaded; gave back %d bytes of host and %d of device memory\n",
                                 response.freed_host_bytes(), response.freed_device_bytes());
  }
  return kExitDone;
}

absl::StatusOr<int> RunPin(const VersionFlags& flags, bool pinned) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Connect(flags.connection));
  auto request = flags.MakeRequest<v1::PinAdapterRequest>();
  request.set_pinned(pinned);
  ASSIGN_OR_RETURN(const v1::PinAdapterResponse response, client->PinAdapter(request));
  PrintOne(response.version(), flags.json);
  return kExitDone;
}

Command AddVersionCommand(CLI::App& parent, const std::string& name, const std::string& help,
                          bool version_required,
                          absl::StatusOr<int> (*run)(const VersionFlags& flags)) {
  auto flags = std::make_shared<VersionFlags>();
  CLI::App* app = parent.add_subcommand(name, help);
  flags->AddTo(app, version_required);
  return {app, [flags] { return flags->Validate(); }, [flags, run] { return run(*flags); }};
}

Command AddListingCommand(CLI::App& parent, const std::string& name, const std::string& help,
                          absl::StatusOr<int> (*run)(const ListFlags& flags)) {
  auto flags = std::make_shared<ListFlags>();
  CLI::App* app = parent.add_subcommand(name, help);
  flags->connection.AddTo(app, "127.0.0.1:8501");
  app->add_option("--name", flags->name, "of one adapter; none = all");
  app->add_flag("--json", flags->json, "one JSON object a line instead of a table");
  return {app, [flags] { return flags->connection.Validate(); },
          [flags, run] { return run(*flags); }};
}

}  // namespace

Command AddAdaptersListCommand(CLI::App& parent) {
  return AddListingCommand(parent, "list", "shows every version and its state", RunList);
}

Command AddAdaptersWatchCommand(CLI::App& parent) {
  return AddListingCommand(parent, "watch",
                           "shows them and then each change, until it is interrupted", RunWatch);
}

Command AddAdaptersLoadCommand(CLI::App& parent) {
  return AddVersionCommand(parent, "load", "loads a version now, and brings it into memory",
                           /*version_required=*/false, RunLoad);
}

Command AddAdaptersUnloadCommand(CLI::App& parent) {
  return AddVersionCommand(parent, "unload", "takes a version out of service on this server",
                           /*version_required=*/true, RunUnload);
}

Command AddAdaptersPinCommand(CLI::App& parent) {
  return AddVersionCommand(parent, "pin", "keeps a version in memory", /*version_required=*/true,
                           [](const VersionFlags& flags) { return RunPin(flags, true); });
}

Command AddAdaptersUnpinCommand(CLI::App& parent) {
  return AddVersionCommand(parent, "unpin", "keeps it there no longer", /*version_required=*/true,
                           [](const VersionFlags& flags) { return RunPin(flags, false); });
}

}  // namespace pricer
