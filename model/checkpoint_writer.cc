#include "model/checkpoint_writer.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

constexpr std::array<absl::string_view, 10> kCompanionFiles = {"tokenizer.json",
                                                               "tokenizer_config.json",
                                                               "special_tokens_map.json",
                                                               "added_tokens.json",
                                                               "tokenizer.model",
                                                               "vocab.json",
                                                               "merges.txt",
                                                               "chat_template.jinja",
                                                               "chat_template.json",
                                                               "generation_config.json"};
// LICENSE, LICENSE.txt, USE_POLICY.md, ...
constexpr std::array<absl::string_view, 4> kLicencePrefixes = {"LICENSE", "LICENCE", "NOTICE",
                                                               "USE_POLICY"};

bool IsCompanion(const std::string& name) {
  return std::find(kCompanionFiles.begin(), kCompanionFiles.end(), name) != kCompanionFiles.end() ||
         std::any_of(kLicencePrefixes.begin(), kLicencePrefixes.end(),
                     [&](absl::string_view prefix) { return absl::StartsWith(name, prefix); });
}

int64_t BytesOf(const StreamedTensor& tensor) {
  return TensorView{tensor.dtype, tensor.shape, {}}.element_count() * DtypeBytes(tensor.dtype);
}

int64_t BytesOf(const TensorGroup& group) {
  int64_t bytes = 0;
  for (const StreamedTensor& tensor : group) bytes += BytesOf(tensor);
  return bytes;
}

struct Shard {
  std::vector<StreamedTensor> tensors;
  int64_t bytes = 0;
};

std::vector<Shard> SplitIntoShards(std::vector<TensorGroup> groups, int64_t max_shard_bytes) {
  std::vector<Shard> shards(1);
  for (TensorGroup& group : groups) {
    const int64_t bytes = BytesOf(group);
    if (shards.back().bytes > 0 && shards.back().bytes + bytes > max_shard_bytes) {
      shards.emplace_back();
    }
    shards.back().bytes += bytes;
    for (StreamedTensor& tensor : group) shards.back().tensors.push_back(std::move(tensor));
  }
  return shards;
}

}  // namespace

absl::StatusOr<int64_t> WriteShards(const std::string& directory, std::vector<TensorGroup> groups,
                                    int64_t max_shard_bytes) {
  std::vector<Shard> shards = SplitIntoShards(std::move(groups), max_shard_bytes);
  nlohmann::json weight_map = nlohmann::json::object();
  int64_t total = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shards.size() == 1 ? "model.safetensors"
                                                : absl::StrFormat("model-%05d-of-%05d.safetensors",
                                                                  i + 1, shards.size());
    total += shards[i].bytes;
    for (const StreamedTensor& tensor : shards[i].tensors) weight_map[tensor.name] = name;
    RETURN_IF_ERROR(StreamSafetensors(absl::StrCat(directory, "/", name),
                                      std::move(shards[i].tensors), {{"format", "pt"}}));
  }
  if (shards.size() == 1) return total;
  const nlohmann::json index = {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
  RETURN_IF_ERROR(
      WriteFile(absl::StrCat(directory, "/model.safetensors.index.json"), index.dump(2) + "\n"));
  return total;
}

absl::Status CopyCompanionFiles(const std::string& from, const std::string& to) {
  std::error_code error;
  fs::directory_iterator entries(from, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    const std::string name = entries->path().filename().string();
    std::error_code ignored;  // a link that leads nowhere is no file
    if (!IsCompanion(name) || !entries->is_regular_file(ignored)) continue;
    ASSIGN_OR_RETURN(const std::string contents, ReadFile(entries->path().string()));
    RETURN_IF_ERROR(WriteFile(absl::StrCat(to, "/", name), contents));
  }
  if (!error) return absl::OkStatus();
  errno = error.value();
  return ErrnoStatus("cannot list", from);
}

}  // namespace pricer
