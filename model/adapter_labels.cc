#include "model/adapter_labels.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/file_descriptor.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "model/adapter_directory.h"
#include "model/adapter_name.h"
#include "model/json_fields.h"

namespace pricer {
namespace {

using Json = nlohmann::json;

constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr int64_t kMaxFileBytes = 1 << 20;
constexpr absl::string_view kLockFile = ".labels.lock";
// An update takes milliseconds; a network file system may take longer.
constexpr absl::Duration kLockTimeout = absl::Seconds(5);
constexpr absl::Duration kLockPause = absl::Milliseconds(20);

absl::Status CheckFormat(const JsonFields& fields) {
  std::string version;
  RETURN_IF_ERROR(fields.Require("format_version", &version));
  if (version == "1" || absl::StartsWith(version, "1.")) return absl::OkStatus();
  return fields.Error(absl::StatusCode::kUnimplemented, "format_version",
                      absl::StrCat("version ", Quoted(version), " is not supported; expected 1.0"));
}

// 7, or {"version": 8, "percent": 5}; nothing for null.
absl::StatusOr<std::optional<LabelTarget>> ParseTarget(const JsonFields& fields,
                                                       absl::string_view name) {
  std::optional<LabelTarget> target;
  const Json* const value = fields.Find(name);
  if (value == nullptr) return target;
  target.emplace();
  if (value->is_object()) {
    ASSIGN_OR_RETURN(const JsonFields inside, fields.Object(name));
    RETURN_IF_ERROR(inside.Require("version", &target->version));
    RETURN_IF_ERROR(inside.Get("percent", &target->percent));
  } else {
    RETURN_IF_ERROR(fields.Get(name, &target->version));
  }
  if (target->version < 1) {
    return fields.Error(name,
                        absl::StrCat("expected a version of at least 1, got ", target->version));
  }
  if (!(target->percent > 0 && target->percent <= 100)) {
    return fields.Error(
        name, absl::StrCat("expected a percent above 0 and at most 100, got ", target->percent));
  }
  return target;
}

absl::Status ParseLabels(const JsonFields& root, absl::string_view source, AdapterLabels* labels) {
  const Json* const object = root.Find("labels");
  if (object == nullptr) return root.Missing("labels");
  ASSIGN_OR_RETURN(const JsonFields fields,
                   JsonFields::Create(*object, source, "labels.", kDataLoss));
  if (object->size() > kMaxLabels) {
    return root.Error("labels",
                      absl::StrCat("expected at most ", kMaxLabels, ", got ", object->size()));
  }
  for (const auto& [label, value] : object->items()) {
    if (const absl::Status status = ValidateLabel(label); !status.ok()) {
      return root.Error("labels", status.message());
    }
    ASSIGN_OR_RETURN(const std::optional<LabelTarget> target, ParseTarget(fields, label));
    if (target.has_value()) labels->labels[label] = *target;
  }
  return absl::OkStatus();
}

absl::StatusOr<LabelMove> ParseMove(const Json& value, absl::string_view source, size_t index) {
  const std::string prefix = absl::StrCat("history[", index, "].");
  ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Create(value, source, prefix, kDataLoss));
  LabelMove move;
  RETURN_IF_ERROR(fields.Require("label", &move.label));
  ASSIGN_OR_RETURN(move.from, ParseTarget(fields, "from"));
  ASSIGN_OR_RETURN(move.to, ParseTarget(fields, "to"));
  RETURN_IF_ERROR(fields.Get("by", &move.author.by));
  RETURN_IF_ERROR(fields.Get("rollback", &move.rollback));
  std::string at;
  RETURN_IF_ERROR(fields.Get("at", &at));
  std::string problem;
  if (!at.empty() && !absl::ParseTime(absl::RFC3339_full, at, &move.author.at, &problem)) {
    return fields.Error("at", absl::StrCat("expected a time of RFC 3339, got ", Quoted(at)));
  }
  return move;
}

Json TargetJson(const std::optional<LabelTarget>& target) {
  if (!target.has_value()) return nullptr;
  if (target->percent == LabelTarget().percent) return target->version;
  // With a point, being a double: what prunes versions takes whole numbers for some.
  return {{"version", target->version}, {"percent", target->percent}};
}

// Writing where one may not, or on a file system that is read-only, is what an operator has to see
// as a matter of where, not of what.
absl::Status NotWritable(const absl::Status& status) {
  if (!absl::IsPermissionDenied(status)) return status;
  return absl::FailedPreconditionError(status.message());
}

absl::StatusOr<FileDescriptor> LockUpdates(const std::string& adapter_directory) {
  const std::string path = absl::StrCat(adapter_directory, "/", kLockFile);
  FileDescriptor file(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!file.ok()) return NotWritable(ErrnoStatus("cannot open for writing", path));
  const absl::Time deadline = absl::Now() + kLockTimeout;
  while (flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return ErrnoStatus("cannot lock", path);
    if (absl::Now() >= deadline) {
      return absl::UnavailableError(absl::StrCat(path, ": another process has held the lock for ",
                                                 absl::FormatDuration(kLockTimeout)));
    }
    absl::SleepFor(kLockPause);
  }
  return file;
}

// What updates left that were killed. REQUIRES: the lock is held, so that none runs.
void RemoveLeftOvers(const std::string& adapter_directory) {
  const std::string prefix = absl::StrCat(kLabelsFile, ".tmp.");
  std::error_code error;
  std::filesystem::directory_iterator entries(adapter_directory, error);
  for (; !error && entries != std::filesystem::directory_iterator(); entries.increment(error)) {
    std::error_code ignored;
    if (absl::StartsWith(entries->path().filename().string(), prefix)) {
      std::filesystem::remove(entries->path(), ignored);
    }
  }
}

}  // namespace

absl::Status ValidateLabel(absl::string_view label) {
  // The same alphabet; "base" is no label either.
  const bool is_number =
      std::all_of(label.begin(), label.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!is_number && ValidateAdapterName(label).ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("label ", Quoted(label),
                   ": expected [a-z0-9][a-z0-9._-]{0,62}, no number alone and not \"base\""));
}

std::optional<LabelTarget> AdapterLabels::Target(absl::string_view label) const {
  const auto found = labels.find(std::string(label));
  if (found == labels.end()) return std::nullopt;
  return found->second;
}

absl::Status ValidateLabelTarget(absl::string_view label, const LabelTarget& target) {
  RETURN_IF_ERROR(ValidateLabel(label));
  if (target.version < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("version: expected at least 1, got ", target.version));
  }
  if (!(target.percent > 0 && target.percent <= 100)) {
    return absl::InvalidArgumentError(
        absl::StrCat("percent: expected above 0 and at most 100, got ", target.percent));
  }
  if (label != kCanaryLabel && target.percent != LabelTarget().percent) {
    return absl::InvalidArgumentError(
        absl::StrCat("percent: only the label canary takes a share of the items, not ", label));
  }
  return absl::OkStatus();
}

absl::Status AdapterLabels::Set(const std::string& label, const LabelTarget& target,
                                std::optional<int64_t> newest, const LabelAuthor& author) {
  RETURN_IF_ERROR(ValidateLabelTarget(label, target));
  if (Target(label) == target) return absl::OkStatus();
  const std::string stable(kStableLabel);
  const bool pins = label != stable && labels.count(stable) == 0 && newest.has_value();
  if (labels.count(label) == 0 && labels.size() + (pins ? 2 : 1) > kMaxLabels) {
    return absl::ResourceExhaustedError(absl::StrCat("label ", label, ": there are ", labels.size(),
                                                     " labels; expected at most ", kMaxLabels));
  }
  if (pins) {
    Apply({.label = stable, .from = {}, .to = LabelTarget{.version = *newest}, .author = author});
  }
  Apply({.label = label, .from = {}, .to = target, .author = author});
  return absl::OkStatus();
}

absl::Status AdapterLabels::Remove(const std::string& label, const LabelAuthor& author) {
  if (labels.count(label) == 0) {
    return absl::NotFoundError(absl::StrCat("there is no label ", Quoted(label)));
  }
  Apply({.label = label, .from = {}, .to = {}, .author = author});
  return absl::OkStatus();
}

absl::Status AdapterLabels::RollBack(const std::string& label, std::optional<int64_t> from,
                                     const std::function<absl::Status(int64_t version)>& check,
                                     const LabelAuthor& author) {
  if (from.has_value()) {
    const std::optional<LabelTarget> now = Target(label);
    if (!now.has_value() || now->version != *from) {
      if (IsRolledBackFrom(label, *from)) return absl::OkStatus();
      return absl::FailedPreconditionError(absl::StrCat(
          "label ", Quoted(label), ": expected it to lead to version ", *from, ", it leads to ",
          now.has_value() ? absl::StrCat("version ", now->version) : "none"));
    }
  }
  ASSIGN_OR_RETURN(const std::optional<LabelTarget> before, BeforeLatestMove(label));
  if (before.has_value()) {
    if (before->version == from) {
      return absl::FailedPreconditionError(absl::StrCat(
          "label ", Quoted(label), ": before its latest move it led to version ", *from, " too"));
    }
    const absl::Status found = check(before->version);
    if (!found.ok()) return absl::FailedPreconditionError(found.message());
  }
  Apply({.label = label, .from = {}, .to = before, .author = author, .rollback = true});
  return absl::OkStatus();
}

bool AdapterLabels::IsRolledBackFrom(absl::string_view label, int64_t version) const {
  const auto latest = std::find_if(history.rbegin(), history.rend(),
                                   [&](const LabelMove& move) { return move.label == label; });
  return latest != history.rend() && latest->rollback && latest->from.has_value() &&
         latest->from->version == version;
}

void AdapterLabels::Apply(LabelMove move) {
  move.from = Target(move.label);
  if (move.to.has_value()) {
    labels[move.label] = *move.to;
  } else {
    labels.erase(move.label);
  }
  ++generation;
  history.push_back(std::move(move));
  if (history.size() > kMaxLabelHistory) {
    history.erase(history.begin(), history.end() - kMaxLabelHistory);
  }
}

absl::StatusOr<std::optional<LabelTarget>> AdapterLabels::BeforeLatestMove(
    absl::string_view label) const {
  std::vector<std::optional<LabelTarget>> befores;
  for (const LabelMove& move : history) {
    if (move.label != label) continue;
    if (!move.rollback) {
      befores.push_back(move.from);
    } else if (!befores.empty()) {
      befores.pop_back();
    }
  }
  if (!befores.empty()) return befores.back();
  return absl::FailedPreconditionError(
      absl::StrCat("label ", Quoted(label), ": none of the last ", history.size(),
                   " moves of this adapter's labels is left to be rolled back"));
}

std::string AdapterLabels::ToJson() const {
  Json root = {{"format_version", "1.0"}, {"generation", generation}};
  root["labels"] = Json::object();
  for (const auto& [label, target] : labels) root["labels"][label] = TargetJson(target);
  root["history"] = Json::array();
  for (const LabelMove& move : history) {
    Json entry = {{"label", move.label},
                  {"from", TargetJson(move.from)},
                  {"to", TargetJson(move.to)},
                  {"at", absl::FormatTime(absl::RFC3339_sec, move.author.at, absl::UTCTimeZone())},
                  {"by", move.author.by}};
    if (move.rollback) entry["rollback"] = true;
    root["history"].push_back(std::move(entry));
  }
  return root.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

absl::StatusOr<AdapterLabels> AdapterLabels::Parse(absl::string_view json,
                                                   absl::string_view source) {
  ASSIGN_OR_RETURN(const Json value, ParseJson(json, source, kDataLoss));
  ASSIGN_OR_RETURN(const JsonFields root, JsonFields::Create(value, source, "", kDataLoss));
  RETURN_IF_ERROR(CheckFormat(root));
  AdapterLabels labels;
  // Of a file written by hand, which need not count.
  labels.generation = 1;
  RETURN_IF_ERROR(root.Get("generation", &labels.generation));
  if (labels.generation < 1) {
    return root.Error("generation", absl::StrCat("expected at least 1, got ", labels.generation));
  }
  RETURN_IF_ERROR(ParseLabels(root, source, &labels));
  const Json* const history = root.Find("history");
  if (history == nullptr) return labels;
  if (!history->is_array()) {
    return root.Error("history", absl::StrCat("expected a list, got ", Shown(*history)));
  }
  const size_t first = history->size() - std::min(history->size(), kMaxLabelHistory);
  for (size_t i = first; i < history->size(); ++i) {
    ASSIGN_OR_RETURN(LabelMove move, ParseMove((*history)[i], source, i));
    labels.history.push_back(std::move(move));
  }
  return labels;
}

absl::StatusOr<AdapterLabels> ReadAdapterLabels(const std::string& adapter_directory) {
  const std::string path = absl::StrCat(adapter_directory, "/", kLabelsFile);
  // Asked first: no file is the usual case.
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return AdapterLabels();
    return ErrnoStatus("cannot open", path);
  }
  ASSIGN_OR_RETURN(const std::string json,
                   ReadAdapterFile(adapter_directory, kLabelsFile, kMaxFileBytes));
  return AdapterLabels::Parse(json, path);
}

absl::StatusOr<AdapterLabels> UpdateAdapterLabels(
    const std::string& adapter_directory,
    const std::function<absl::Status(AdapterLabels* labels)>& change) {
  ASSIGN_OR_RETURN(const FileDescriptor lock, LockUpdates(adapter_directory));
  ASSIGN_OR_RETURN(AdapterLabels labels, ReadAdapterLabels(adapter_directory));
  const int64_t generation = labels.generation;
  RETURN_IF_ERROR(change(&labels));
  if (labels.generation == generation) return labels;
  RemoveLeftOvers(adapter_directory);
  const std::string path = absl::StrCat(adapter_directory, "/", kLabelsFile);
  const absl::Status written = WriteFileAtomically(path, labels.ToJson());
  if (!written.ok()) return NotWritable(written);
  return labels;
}

int CanaryBucket(absl::string_view adapter, absl::string_view item) {
  const std::string digest = Sha256Hex(absl::StrCat(adapter, absl::string_view("\0", 1), item));
  const uint64_t head = std::stoull(digest.substr(0, 16), nullptr, 16);
  return static_cast<int>(head % kCanaryBuckets);
}

}  // namespace pricer
