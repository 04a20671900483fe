#include "client/commands/labels.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "base/exit_codes.h"
#include "base/status_macros.h"
#include "client/client.h"
#include "client/commands/common_flags.h"
#include "client/folder_labels.h"
#include "model/adapter_labels.h"
#include "model/adapter_name.h"

namespace pricer {
namespace {

using Json = nlohmann::ordered_json;

// Which label of which adapter, and where.
struct LabelFlags {
  ConnectionFlags connection;
  std::string folder;  // empty = the server's
  std::string adapter;
  std::string label;
  bool json = false;

  void AddTo(CLI::App* app, bool of_one_label) {
    app->add_option("name", adapter, "adapter's name")->required();
    if (of_one_label) {
      app->add_option("label", label, "stable, canary, shadow or a name of your own")->required();
    }
    connection.AddTo(app, "127.0.0.1:8501");
    app->add_option("--adapters", folder,
                    "adapter folder: works on its labels.json, without a server")
        ->excludes(app->get_option("--server"));
    app->add_flag("--json", json, "one JSON object instead of a table");
  }
  absl::Status Validate() const {
    RETURN_IF_ERROR(ValidateAdapterName(adapter));
    return connection.Validate();
  }
};

v1::LabelTarget TargetToProto(const LabelTarget& target) {
  v1::LabelTarget proto;
  proto.set_version(target.version);
  proto.set_percent(target.percent);
  return proto;
}

// A folder's labels as a server would send them, which knows what is live beside.
v1::AdapterLabels LabelsToProto(const std::string& adapter, const AdapterLabels& labels) {
  v1::AdapterLabels proto;
  proto.set_name(adapter);
  proto.set_generation(labels.generation);
  for (const auto& [label, target] : labels.labels) {
    v1::Label* const out = proto.add_labels();
    out->set_label(label);
    *out->mutable_target() = TargetToProto(target);
  }
  for (const LabelMove& move : labels.history) {
    v1::LabelMove* const out = proto.add_history();
    out->set_label(move.label);
    if (move.from.has_value()) *out->mutable_from() = TargetToProto(*move.from);
    if (move.to.has_value()) *out->mutable_to() = TargetToProto(*move.to);
    out->mutable_moved_at()->set_seconds(absl::ToUnixSeconds(move.author.at));
    out->set_moved_by(move.author.by);
    out->set_rollback(move.rollback);
  }
  return proto;
}

std::string TargetText(const v1::LabelTarget& target) {
  if (target.percent() == LabelTarget().percent) return absl::StrCat(target.version());
  return absl::StrCat(target.version(), " (", target.percent(), " %)");
}

std::string MoveText(const v1::LabelMove& move) {
  const std::string from = move.has_from() ? TargetText(move.from()) : "none";
  const std::string to = move.has_to() ? TargetText(move.to()) : "none";
  return absl::StrCat(move.label(), ": ", from, " -> ", to, move.rollback() ? ", rolled back" : "");
}

std::string TimeText(const v1::LabelMove& move) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::FromUnixSeconds(move.moved_at().seconds()),
                          absl::UTCTimeZone());
}

Json TargetJson(const v1::LabelTarget& target) {
  return {{"version", target.version()}, {"percent", target.percent()}};
}

Json LabelsJson(const v1::AdapterLabels& labels, bool knows_live) {
  Json json = {{"name", labels.name()},
               {"generation", labels.generation()},
               {"labels", Json::object()},
               {"history", Json::array()},
               {"error", labels.error()}};
  for (const v1::Label& label : labels.labels()) {
    Json target = TargetJson(label.target());
    if (knows_live) target["live_version"] = label.live_version();
    json["labels"][label.label()] = std::move(target);
  }
  for (const v1::LabelMove& move : labels.history()) {
    json["history"].push_back({{"label", move.label()},
                               {"from", move.has_from() ? TargetJson(move.from()) : Json(nullptr)},
                               {"to", move.has_to() ? TargetJson(move.to()) : Json(nullptr)},
                               {"at", TimeText(move)},
                               {"by", move.moved_by()},
                               {"rollback", move.rollback()}});
  }
  return json;
}

void PrintLabels(const v1::AdapterLabels& labels, bool knows_live) {
  if (labels.labels().empty()) std::cout << "no label is set: the newest version answers\n";
  for (const v1::Label& label : labels.labels()) {
    std::cout << absl::StrFormat("%-24s %s", label.label(), TargetText(label.target()));
    if (knows_live && label.live_version() != label.target().version()) {
      std::cout << (label.live_version() == 0
                        ? ", not available here"
                        : absl::StrCat(", not available here; ", label.live_version(), " answers"));
    }
    std::cout << '\n';
  }
  for (const v1::LabelMove& move : labels.history()) {
    std::cout << absl::StrFormat("%s  %s, by %s\n", TimeText(move), MoveText(move),
                                 move.moved_by());
  }
  if (!labels.error().empty())
    std::cout << "labels.json cannot be read: " << labels.error() << '\n';
}

int Show(const LabelFlags& flags, const v1::AdapterLabels& labels) {
  const bool knows_live = flags.folder.empty();
  if (flags.json) {
    std::cout << LabelsJson(labels, knows_live).dump() << '\n';
  } else {
    PrintLabels(labels, knows_live);
  }
  return kExitDone;
}

absl::StatusOr<int> ShowFolder(const LabelFlags& flags,
                               const absl::StatusOr<AdapterLabels>& labels) {
  RETURN_IF_ERROR(labels.status());
  return Show(flags, LabelsToProto(flags.adapter, *labels));
}

absl::StatusOr<std::unique_ptr<Client>> Connect(const LabelFlags& flags) {
  ASSIGN_OR_RETURN(const ClientOptions options, flags.connection.Options());
  return Client::Create(options);
}

absl::StatusOr<int> RunShow(const LabelFlags& flags) {
  if (!flags.folder.empty()) {
    return ShowFolder(flags, GetFolderLabels(flags.folder, flags.adapter));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Connect(flags));
  v1::GetLabelsRequest request;
  request.set_name(flags.adapter);
  ASSIGN_OR_RETURN(const v1::GetLabelsResponse response, client->GetLabels(request));
  return Show(flags, response.labels());
}

struct MoveFlags : LabelFlags {
  std::string version;
  double percent = LabelTarget().percent;
  bool golden = false;
  double max_shift = 0;

  LabelTarget Target() const {
    return {.version = ParseAdapterVersion(version).value_or(0), .percent = percent};
  }
  absl::Status ValidateMove() const {
    RETURN_IF_ERROR(Validate());
    if (!ParseAdapterVersion(version).has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("version: expected a number of at least 1, got \"", version, "\""));
    }
    if (max_shift < 0) return absl::InvalidArgumentError("--max-shift: expected at least 0");
    return ValidateLabelTarget(label, Target());
  }
};

absl::StatusOr<int> RunMove(const MoveFlags& flags) {
  if (!flags.folder.empty()) {
    return ShowFolder(flags,
                      SetFolderLabel(flags.folder, flags.adapter, flags.label, flags.Target()));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Connect(flags));
  v1::SetLabelRequest request;
  request.set_name(flags.adapter);
  request.set_label(flags.label);
  request.set_version(flags.Target().version);
  request.set_percent(flags.percent);
  request.mutable_gate()->set_golden_items(flags.golden);
  request.mutable_gate()->set_max_shift(flags.max_shift);
  const absl::StatusOr<v1::SetLabelResponse> response = client->SetLabel(request);
  if (absl::IsAborted(response.status())) {
    std::cerr << "pricer: " << response.status().message() << '\n';
    return kExitGateNotPassed;
  }
  RETURN_IF_ERROR(response.status());
  if (response->has_shift() && !flags.json) {
    std::cout << absl::StrFormat("golden items' prices differ by %.4g on average\n",
                                 response->shift());
  }
  return Show(flags, response->labels());
}

absl::StatusOr<int> RunRemove(const LabelFlags& flags) {
  if (!flags.folder.empty()) {
    return ShowFolder(flags, RemoveFolderLabel(flags.folder, flags.adapter, flags.label));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Connect(flags));
  v1::RemoveLabelRequest request;
  request.set_name(flags.adapter);
  request.set_label(flags.label);
  ASSIGN_OR_RETURN(const v1::RemoveLabelResponse response, client->RemoveLabel(request));
  return Show(flags, response.labels());
}

struct RollBackFlags : LabelFlags {
  std::string from;  // empty = any

  std::optional<int64_t> From() const { return ParseAdapterVersion(from); }
  absl::Status ValidateRollBack() const {
    RETURN_IF_ERROR(Validate());
    if (from.empty() || From().has_value()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("--from: expected a version's number of at least 1, got \"", from, "\""));
  }
};

absl::StatusOr<int> RunRollBack(const RollBackFlags& flags) {
  if (!flags.folder.empty()) {
    return ShowFolder(flags,
                      RollBackFolderLabel(flags.folder, flags.adapter, flags.label, flags.From()));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Connect(flags));
  v1::RollbackLabelRequest request;
  request.set_name(flags.adapter);
  request.set_label(flags.label);
  request.set_from_version(flags.From().value_or(0));
  ASSIGN_OR_RETURN(const v1::RollbackLabelResponse response, client->RollbackLabel(request));
  return Show(flags, response.labels());
}

}  // namespace

Command AddAdaptersLabelsCommand(CLI::App& parent) {
  auto flags = std::make_shared<LabelFlags>();
  CLI::App* app = parent.add_subcommand("labels", "shows an adapter's labels and their moves");
  flags->AddTo(app, /*of_one_label=*/false);
  return {app, [flags] { return flags->Validate(); }, [flags] { return RunShow(*flags); }};
}

Command AddAdaptersLabelCommand(CLI::App& parent) {
  auto flags = std::make_shared<MoveFlags>();
  CLI::App* app = parent.add_subcommand("label", "points a label to a version");
  flags->AddTo(app, /*of_one_label=*/true);
  app->add_option("version", flags->version, "a version that is available")->required();
  app->add_option("--percent", flags->percent, "of items, of the label canary alone")
      ->capture_default_str();
  CLI::Option* const folder = app->get_option("--adapters");
  app->add_flag("--golden", flags->golden, "only if it still prices its golden items right")
      ->excludes(folder);
  app->add_option("--max-shift", flags->max_shift,
                  "only if its golden items' prices differ from the current version's by at most "
                  "this on average, as |ln(price / price)|")
      ->excludes(folder);
  return {app, [flags] { return flags->ValidateMove(); }, [flags] { return RunMove(*flags); }};
}

Command AddAdaptersUnlabelCommand(CLI::App& parent) {
  auto flags = std::make_shared<LabelFlags>();
  CLI::App* app = parent.add_subcommand("unlabel", "takes a label away");
  flags->AddTo(app, /*of_one_label=*/true);
  return {app, [flags] { return flags->Validate(); }, [flags] { return RunRemove(*flags); }};
}

Command AddAdaptersRollbackCommand(CLI::App& parent) {
  auto flags = std::make_shared<RollBackFlags>();
  CLI::App* app = parent.add_subcommand("rollback", "puts a label back to where it was");
  flags->AddTo(app, /*of_one_label=*/true);
  app->add_option("--from", flags->from,
                  "only from this version, so that the command may be run again");
  return {app, [flags] { return flags->ValidateRollBack(); },
          [flags] { return RunRollBack(*flags); }};
}

}  // namespace pricer
