#include "server/adapter_operator.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "model/adapter_name.h"

namespace pricer {
namespace {

absl::Status CheckVersion(const AdapterKey& key, int64_t least) {
  RETURN_IF_ERROR(ValidateAdapterName(key.name));
  if (key.version >= least) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("version: expected at least ", least, ", got ", key.version));
}

std::vector<LogField> FieldsOf(const AdapterKey& key, const std::string& by) {
  return {{"adapter", key.name}, {"version", absl::StrCat(key.version)}, {"by", by}};
}

std::string PlaceText(const AdapterPlace& place) {
  return absl::StrCat(MemoryTierName(place.tier), place.pinned ? ", pinned" : "");
}

void LogMove(const char* message, const AdapterKey& key, const std::string& by,
             const std::string& before, const std::string& after) {
  std::vector<LogField> fields = FieldsOf(key, by);
  fields.push_back({"before", before});
  fields.push_back({"after", after});
  LogInfo(message, fields);
}

}  // namespace

absl::StatusOr<AdapterStatus> AdapterOperator::StatusOf(const AdapterKey& key) const {
  for (AdapterStatus& status : registry_->List(key.name)) {
    if (status.key == key) return std::move(status);
  }
  return absl::NotFoundError(
      absl::StrCat("adapter \"", key.name, "\" version ", key.version, " is gone"));
}

absl::StatusOr<AdapterStatus> AdapterOperator::Load(const AdapterKey& key, const std::string& by,
                                                    absl::Time deadline) {
  RETURN_IF_ERROR(CheckVersion(key, 0));
  std::string before = "unknown";
  for (const AdapterStatus& status : registry_->List(key.name)) {  // in the order of versions
    if (key.version != 0 && status.key != key) continue;
    before = std::string(AdapterStateName(status.state));
  }
  ASSIGN_OR_RETURN(const AdapterKey loaded, watcher_->Load(key, deadline));
  ASSIGN_OR_RETURN(const AdapterHandle adapter, registry_->Find(loaded.name, loaded.version));
  RETURN_IF_ERROR(memory_->Fetch(adapter, deadline));
  ASSIGN_OR_RETURN(AdapterStatus after, StatusOf(loaded));
  LogMove("adapter loaded by an operator", loaded, by, before,
          absl::StrCat(AdapterStateName(after.state), ", ", PlaceText(after.place)));
  return after;
}

absl::StatusOr<UnloadResult> AdapterOperator::Unload(const AdapterKey& key, const std::string& by,
                                                     absl::Time deadline) {
  RETURN_IF_ERROR(CheckVersion(key, 1));
  const auto status = StatusOf(key);
  if (status.ok() && !status->labels.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("adapter \"", key.name, "\" version ", key.version, ": labels lead to it: ",
                     absl::StrJoin(status->labels, ", "), "; move or remove them first"));
  }
  return UnloadNow(key, by, deadline);
}

absl::StatusOr<UnloadResult> AdapterOperator::UnloadNow(const AdapterKey& key,
                                                        const std::string& by,
                                                        absl::Time deadline) {
  ASSIGN_OR_RETURN(const std::vector<FreedAdapter> freed,
                   watcher_->Unload(key, absl::StrCat("unloaded by ", by), deadline));
  UnloadResult result;
  result.in_use = true;
  for (const FreedAdapter& one : freed) {
    if (one.key != key) continue;
    result = {.freed = one.bytes, .in_use = false};
  }
  LogMove(
      "adapter unloaded by an operator", key, by,
      std::string(AdapterStateName(AdapterState::kAvailable)),
      std::string(AdapterStateName(result.in_use ? AdapterState::kUnloading : AdapterState::kEnd)));
  return result;
}

absl::Status AdapterOperator::UnloadAll(const std::string& name, const std::string& by,
                                        absl::Time deadline) {
  RETURN_IF_ERROR(ValidateAdapterName(name));
  int unloaded = 0;
  for (const AdapterStatus& status : registry_->List(name)) {
    if (status.state != AdapterState::kAvailable) continue;
    RETURN_IF_ERROR(UnloadNow(status.key, by, deadline).status());
    ++unloaded;
  }
  if (unloaded > 0) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat("no version of adapter \"", name, "\" is available"));
}

absl::StatusOr<AdapterStatus> AdapterOperator::SetPinned(const AdapterKey& key, bool pinned,
                                                         const std::string& by,
                                                         absl::Time deadline) {
  RETURN_IF_ERROR(CheckVersion(key, 1));
  ASSIGN_OR_RETURN(const AdapterHandle adapter, registry_->Find(key.name, key.version));
  const AdapterPlace before = memory_->PlaceOf(adapter.get());
  RETURN_IF_ERROR(memory_->SetPinned(adapter, pinned));
  if (pinned) {
    if (const absl::Status fetched = memory_->Fetch(adapter, deadline); !fetched.ok()) {
      if (!before.pinned) RETURN_IF_ERROR(memory_->SetPinned(adapter, false));
      return fetched;
    }
  }
  ASSIGN_OR_RETURN(AdapterStatus after, StatusOf(key));
  LogMove("adapter pinned or unpinned by an operator", key, by, PlaceText(before),
          PlaceText(after.place));
  return after;
}

}  // namespace pricer
