#include "client/commands/adapters.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/exit_codes.h"
#include "base/status_macros.h"
#include "client/client.h"
#include "client/commands/common_flags.h"

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

Json AdapterJson(const v1::AdapterVersion& version) {
  return {{"name", version.name()},
          {"version", version.version()},
          {"state", StateName(version.state())},
          {"reason", version.reason()},
          {"digest", version.digest()},
          {"memory_bytes", version.memory_bytes()},
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
  if (!version.reason().empty()) remarks.push_back(version.reason());
  return absl::StrJoin(remarks, "; ");
}

absl::StatusOr<int> Run(const ListFlags& flags) {
  ASSIGN_OR_RETURN(const ClientOptions connection, flags.connection.Options());
  v1::ListAdaptersRequest request;
  request.set_name(flags.name);
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Client::Create(connection));
  ASSIGN_OR_RETURN(const v1::ListAdaptersResponse response, client->ListAdapters(request));
  if (!flags.json) {
    std::cout << absl::StrFormat("%-24s %8s  %-10s %10s  %s\n", "NAME", "VERSION", "STATE",
                                 "MEMORY", "REMARKS");
  }
  for (const v1::AdapterVersion& version : response.versions()) {
    if (flags.json) {
      std::cout << AdapterJson(version).dump() << '\n';
      continue;
    }
    std::cout << absl::StrFormat("%-24s %8d  %-10s %6.1f MiB  %s\n", version.name(),
                                 version.version(), StateName(version.state()),
                                 static_cast<double>(version.memory_bytes()) / (1 << 20),
                                 Remarks(version));
  }
  return kExitDone;
}

}  // namespace

Command AddAdaptersListCommand(CLI::App& parent) {
  auto flags = std::make_shared<ListFlags>();
  CLI::App* app = parent.add_subcommand("list", "shows every version and its state");
  flags->connection.AddTo(app, "127.0.0.1:8501");
  app->add_option("--name", flags->name, "of one adapter; none = all");
  app->add_flag("--json", flags->json, "one JSON object a line instead of a table");
  return {app, [flags] { return flags->connection.Validate(); }, [flags] { return Run(*flags); }};
}

}  // namespace pricer
