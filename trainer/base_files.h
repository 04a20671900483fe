#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/checkpoint.h"

// What a checkpoint directory holds, told from its files alone. No torch.

namespace pricer {

// A text and the file that says so.
struct FoundText {
  std::string text;
  std::string file;
};

struct BaseFiles {
  struct File {
    std::string name;
    int64_t bytes = 0;
  };
  std::vector<File> files;  // those of the directory itself, by name

  struct Stored {
    int64_t tensors = 0;
    int64_t bytes = 0;
  };
  // By the dtype's name. What belongs to weights in NF4 is "NF4", one tensor for each weight.
  std::map<std::string, Stored> stored;

  // `license` of config.json or of the front matter of README.md, or the first line of a LICENSE.
  std::optional<FoundText> license;
  // The first line of the chat template, of tokenizer_config.json or chat_template.jinja.
  std::optional<FoundText> chat_template;
};

// InvalidArgument: config.json or tokenizer_config.json is no JSON.
absl::StatusOr<BaseFiles> DescribeFiles(const Checkpoint& checkpoint);

// Parameters by kind; a head that is the embedding counts as that.
struct ParameterCounts {
  int64_t total = 0;
  int64_t linears = 0;
  int64_t embedding = 0;
  int64_t head = 0;
  int64_t norms = 0;
};
ParameterCounts CountParameters(const ModelConfig& config);

}  // namespace pricer
