#include "trainer/tuning_group.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/temporary_directory.h"

namespace pricer {
namespace {

using Identity = std::map<std::string, std::string>;

absl::Status CompareWithRank0(const Identity& identity, const std::string& text) {
  const auto leading = nlohmann::json::parse(text).get<Identity>();
  for (const auto& [name, value] : leading) {
    const auto own = identity.find(name);
    if (own != identity.end() && own->second == value) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        name, " is \"", own == identity.end() ? "" : own->second, "\" and on rank 0 \"", value,
        "\"; all ranks need the same options, base and data"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckSameOnAllRanks(const Identity& identity, ProcessGroup* group) {
  if (group->size() == 1) return absl::OkStatus();
  std::string text =
      nlohmann::json(identity).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  RETURN_IF_ERROR(group->Broadcast(&text));
  return group->Agree(CompareWithRank0(identity, text));
}

absl::StatusOr<std::optional<TrainingState>> ShareState(std::optional<TrainingState> own,
                                                        ProcessGroup* group) {
  if (group->size() == 1) return own;
  ASSIGN_OR_RETURN(const TemporaryDirectory directory,
                   TemporaryDirectory::Create(std::filesystem::temp_directory_path()));
  const std::string path = TrainingStateFile(directory.path());
  std::string bytes;
  if (group->leads() && own.has_value()) {
    RETURN_IF_ERROR(WriteTrainingState(*own, directory.path()));
    ASSIGN_OR_RETURN(bytes, ReadFile(path));
  }
  RETURN_IF_ERROR(group->Broadcast(&bytes));
  if (bytes.empty() || group->leads()) return own;
  RETURN_IF_ERROR(WriteFile(path, bytes));
  ASSIGN_OR_RETURN(TrainingState state, ReadTrainingState(directory.path()));
  return state;
}

}  // namespace pricer
